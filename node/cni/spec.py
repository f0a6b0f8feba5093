"""What the CNI specification 1.1 says of requests, results and errors. Pure. 0.4.0 and 1.0.0 are spoken too.

Source: https://www.cni.dev/docs/spec/
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

import msgspec

from topology.naming import Address, Network, format_mac

VERSIONS = ("0.4.0", "1.0.0", "1.1.0")
#: Commands, and the variables that each must have.
_REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "GC": (),
    "STATUS": (),
}
_SINCE_1_1 = ("GC", "STATUS")
_CONTAINER_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_IFNAME = re.compile(r"[^\s/:]{1,15}")


class Code(IntEnum):
    """Error codes of the specification, and our own from 100 up."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO = 5
    DECODE = 6
    INVALID_CONFIG = 7
    TRY_LATER = 11
    NOT_AVAILABLE = 50
    LIMITED = 51
    NO_ADDRESS = 100


class CniError(Exception):
    """A request that can't be carried out, as the runtime is told."""

    def __init__(self, code: Code, text: str, details: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.details = details


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request that is as it should be. `attachments`: for GC, (container, interface) of what is to stay."""

    command: str
    version: str
    network: str
    container: str = ""
    netns: Path | None = None
    ifname: str = ""
    namespace: str = ""
    pod: str = ""
    previous: Mapping[str, Any] | None = None
    attachments: frozenset[tuple[str, str]] | None = None


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A pod's connection, as a result tells it."""

    host_name: str
    host_mac: int
    ifname: str
    mac: int
    mtu: int
    netns: Path
    addresses: tuple[Address, ...]
    pod_cidrs: tuple[Network, ...]
    gateways: tuple[Address, ...]


def parse(env: Mapping[str, str], config: Any) -> Request:
    """A request from the plugin's variables and configuration. Raises CniError."""
    if not isinstance(config, dict):
        raise CniError(Code.DECODE, "the network configuration is not a JSON object")
    version = config.get("cniVersion")
    if version not in VERSIONS:
        raise CniError(Code.INCOMPATIBLE_VERSION, f"cniVersion {version!r}: supported are {', '.join(VERSIONS)}")
    command = env.get("CNI_COMMAND", "")
    if command not in _REQUIRED or (command in _SINCE_1_1 and version != "1.1.0"):
        raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_COMMAND {command!r} is unknown in version {version}")
    missing = [name for name in _REQUIRED[command] if not env.get(name)]
    if missing:
        raise CniError(Code.INVALID_ENVIRONMENT, f"{', '.join(missing)}: required for {command}")
    network = config.get("name")
    if not isinstance(network, str) or not network:
        raise CniError(Code.INVALID_CONFIG, "name: the network configuration must have one")
    container, ifname = env.get("CNI_CONTAINERID", ""), env.get("CNI_IFNAME", "")
    if container and not _CONTAINER_ID.fullmatch(container):
        raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_CONTAINERID {container!r}: not a container's id")
    if ifname and (not _IFNAME.fullmatch(ifname) or ifname in (".", "..", "lo")):
        raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_IFNAME {ifname!r}: not an interface's name")
    arguments = _arguments(env.get("CNI_ARGS", ""))
    namespace, pod = arguments.get("K8S_POD_NAMESPACE", ""), arguments.get("K8S_POD_NAME", "")
    if command == "ADD" and not (namespace and pod):
        raise CniError(Code.INVALID_ENVIRONMENT, "CNI_ARGS: K8S_POD_NAMESPACE and K8S_POD_NAME are needed")
    previous = config.get("prevResult")
    if previous is not None and not isinstance(previous, dict):
        raise CniError(Code.INVALID_CONFIG, "prevResult: expected an object")
    if command == "CHECK" and previous is None:
        raise CniError(Code.INVALID_CONFIG, "prevResult: required for CHECK")
    return Request(
        command=command,
        version=version,
        network=network,
        container=container,
        netns=Path(env["CNI_NETNS"]) if env.get("CNI_NETNS") else None,
        ifname=ifname,
        namespace=namespace,
        pod=pod,
        previous=previous,
        attachments=_attachments(config) if command == "GC" else None,
    )


def _arguments(text: str) -> dict[str, str]:
    arguments = {}
    for part in filter(None, text.split(";")):
        name, equals, value = part.partition("=")
        if not equals:
            raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_ARGS: {part!r} is not NAME=VALUE")
        arguments[name] = value
    return arguments


def _attachments(config: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    # Without the key nothing would be valid, and GC would take every pod off the network.
    listed = config.get("cni.dev/valid-attachments")
    if not isinstance(listed, list):
        raise CniError(Code.INVALID_CONFIG, "cni.dev/valid-attachments: required for GC")
    try:
        return frozenset((str(each["containerID"]), str(each["ifname"])) for each in listed)
    except (TypeError, KeyError) as error:
        raise CniError(Code.INVALID_CONFIG, "cni.dev/valid-attachments: containerID and ifname are needed") from error


def result(attachment: Attachment, version: str) -> dict[str, Any]:
    """A successful ADD's result in the shape of a version."""
    pod: dict[str, Any] = {
        "name": attachment.ifname,
        "mac": format_mac(attachment.mac),
        "sandbox": str(attachment.netns),
    }
    if version == "1.1.0":
        pod["mtu"] = attachment.mtu
    ips: list[dict[str, Any]] = []
    for address, cidr, gateway in zip(attachment.addresses, attachment.pod_cidrs, attachment.gateways, strict=True):
        ip: dict[str, Any] = {"interface": 1, "address": f"{address}/{cidr.prefixlen}", "gateway": str(gateway)}
        if version == "0.4.0":
            ip["version"] = str(address.version)
        ips.append(ip)
    return {
        "cniVersion": version,
        "interfaces": [{"name": attachment.host_name, "mac": format_mac(attachment.host_mac)}, pod],
        "ips": ips,
        "routes": _routes(attachment.gateways),
        "dns": {},
    }


def _routes(gateways: Sequence[Address]) -> list[dict[str, str]]:
    return [{"dst": "0.0.0.0/0" if each.version == 4 else "::/0", "gw": str(each)} for each in gateways]


def error(problem: CniError, version: str) -> dict[str, Any]:
    """An error as the runtime reads it."""
    answer: dict[str, Any] = {"cniVersion": version, "code": int(problem.code), "msg": problem.text}
    if problem.details:
        answer["details"] = problem.details
    return answer
