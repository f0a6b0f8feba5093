"""What the CNI specification 1.1 says of requests, results and errors. Pure. 0.4.0 and 1.0.0 are spoken too.

Source: https://www.cni.dev/docs/spec/
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import IntEnum
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import msgspec

from node.limits import LEAST_BURST, LEAST_RATE, Bandwidth, Limit
from topology.naming import Address, Network, format_mac, parse_mac

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
#: Bits a second, or at once, that can be told.
_MOST_BITS = 2**63 - 1
#: Bytes of a Unix socket's path (unix(7)).
_LONGEST_SOCKET = 107
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
    DEVICE = 101


class CniError(Exception):
    """A request that can't be carried out, as the runtime is told."""

    def __init__(self, code: Code, text: str, details: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.details = details


class PortMapping(msgspec.Struct, frozen=True, order=True):
    """One of the capability `portMappings`; `address` is empty where it is that of every address of the node."""

    protocol: str
    host_port: int
    port: int
    address: str = ""


class Besides(msgspec.Struct, frozen=True, kw_only=True):
    """A pod's place on another network: an Ethernet bridge that somebody else has made. 0 and nothing: not given."""

    bridge: str
    vlan: int = 0
    mac: int = 0
    mtu: int = 0
    #: With their networks; destinations with their gateways.
    addresses: tuple[tuple[Address, Network], ...] = ()
    routes: tuple[tuple[Network, Address | None], ...] = ()


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
    bandwidth: Bandwidth = Bandwidth()
    port_mappings: tuple[PortMapping, ...] = ()
    #: The PCI address of the virtual function that the pod gets; where its device is written down for others.
    device: str = ""
    device_info: Path | None = None
    #: The socket that the pod listens on, and has instead of an interface.
    vhost_socket: str = ""
    #: For a network besides: what it is.
    besides: Besides | None = None


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
    device: str = ""
    vhost_socket: str = ""
    routes: tuple[tuple[Network, Address | None], ...] = ()


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
    # Not for DEL, which must take away also what could never have been added.
    lasting = config if command in ("ADD", "CHECK") else {}
    told = _object(lasting, "runtimeConfig")
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
        bandwidth=_bandwidth(_object(told, "bandwidth")),
        port_mappings=_port_mappings(told.get("portMappings")),
        # Multus puts it beside the rest, and as a capability if the plugin says that it has that.
        device=_text(told, "deviceID") or _text(lasting, "deviceID"),
        device_info=Path(_text(told, "CNIDeviceInfoFile")) if told.get("CNIDeviceInfoFile") else None,
        vhost_socket=_path(lasting, "vhostSocket"),
        besides=_besides(lasting, told) if lasting.get("bridge") else None,
    )


def _arguments(text: str) -> dict[str, str]:
    arguments = {}
    for part in filter(None, text.split(";")):
        name, equals, value = part.partition("=")
        if not equals:
            raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_ARGS: {part!r} is not NAME=VALUE")
        arguments[name] = value
    return arguments


def _object(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = tree.get(key)
    if found is not None and not isinstance(found, dict):
        raise CniError(Code.INVALID_CONFIG, f"{key}: expected an object")
    return found or {}


def _besides(config: Mapping[str, Any], told: Mapping[str, Any]) -> Besides:
    """Of a network attachment. `ipam` may be as the plugin `static` has it; the runtime's `ips` come before it."""
    ipam = _object(config, "ipam")
    if ipam and ipam.get("type") != "static":
        raise CniError(Code.INVALID_CONFIG, f"ipam.type: static, or no ipam; not {ipam.get('type')!r}")
    listed = told.get("ips") or [each.get("address") for each in _list(ipam, "addresses")]
    try:
        found = [ip_interface(each) for each in listed]
        routes = [
            (ip_network(each["dst"]), ip_address(each["gw"]) if each.get("gw") else None)
            for each in _list(ipam, "routes")
        ]
        mac = parse_mac(_text(told, "mac")) if told.get("mac") else 0
    except (ValueError, TypeError, KeyError) as error:
        raise CniError(Code.INVALID_CONFIG, f"ipam, ips or mac: {error!r}") from error
    return Besides(
        bridge=_text(config, "bridge"),
        vlan=_number(config, "vlan", "network", 4094),
        mac=mac,
        mtu=_number(config, "mtu", "network", 65535),
        addresses=tuple((each.ip, each.network) for each in found),
        routes=tuple(routes),
    )


def _list(tree: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = tree.get(key) or []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise CniError(Code.INVALID_CONFIG, f"{key}: expected a list of objects")
    return found


def _text(tree: Mapping[str, Any], key: str) -> str:
    found = tree.get(key)
    if found is not None and not isinstance(found, str):
        raise CniError(Code.INVALID_CONFIG, f"{key}: expected a string, not {found!r}")
    return found or ""


def _path(tree: Mapping[str, Any], key: str) -> str:
    found = _text(tree, key)
    if found and (not found.startswith("/") or len(found.encode()) > _LONGEST_SOCKET):
        raise CniError(Code.INVALID_CONFIG, f"{key}: expected an absolute path of at most {_LONGEST_SOCKET} bytes")
    return found


def _number(tree: Mapping[str, Any], key: str, what: str, most: int) -> int:
    found = tree.get(key)
    if found is None:
        return 0
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= most:
        raise CniError(Code.INVALID_CONFIG, f"{what}.{key}: expected a number from 0 to {most}, not {found!r}")
    return found


def _bandwidth(tree: Mapping[str, Any]) -> Bandwidth:
    return Bandwidth(_limit(tree, "ingress"), _limit(tree, "egress"))


def _limit(tree: Mapping[str, Any], way: str) -> Limit | None:
    """Where a burst isn't given, runtimes say 2**31 - 1 bits: at 1 Mbit/s that would be half an hour of no limit."""
    rate = _number(tree, f"{way}Rate", "bandwidth", _MOST_BITS)
    burst = _number(tree, f"{way}Burst", "bandwidth", _MOST_BITS)
    if not rate:
        if burst:
            raise CniError(Code.INVALID_CONFIG, f"bandwidth.{way}Burst: there is no {way}Rate")
        return None
    if rate < LEAST_RATE:
        raise CniError(Code.INVALID_CONFIG, f"bandwidth.{way}Rate: at least {LEAST_RATE} bits a second, not {rate}")
    return Limit(rate, max(min(burst or rate, rate), LEAST_BURST))


def _port_mappings(tree: Any) -> tuple[PortMapping, ...]:
    if tree is None:
        return ()
    if not isinstance(tree, list) or not all(isinstance(each, dict) for each in tree):
        raise CniError(Code.INVALID_CONFIG, "portMappings: expected a list of objects")
    found = []
    for each in tree:
        host_port = _number(each, "hostPort", "portMappings", 65535)
        protocol = str(each.get("protocol") or "tcp").upper()
        address = str(each.get("hostIP") or "")
        if protocol not in ("TCP", "UDP", "SCTP"):
            raise CniError(Code.INVALID_CONFIG, f"portMappings.protocol: {protocol!r} is none of tcp, udp, sctp")
        try:
            everywhere = not address or ip_address(address).is_unspecified
        except ValueError as error:
            raise CniError(Code.INVALID_CONFIG, f"portMappings.hostIP: {error}") from error
        # Runtimes list container ports without a host port too.
        if host_port:
            port = _number(each, "containerPort", "portMappings", 65535)
            found.append(PortMapping(protocol, host_port, port, "" if everywhere else str(ip_address(address))))
    return tuple(found)


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
    host: dict[str, Any] = {"name": attachment.host_name}
    if attachment.host_mac:
        host["mac"] = format_mac(attachment.host_mac)
    if version == "1.1.0":
        pod["mtu"] = attachment.mtu
        more = {"pciID": attachment.device, "socketPath": attachment.vhost_socket}
        pod |= {key: value for key, value in more.items() if value}
    ips: list[dict[str, Any]] = []
    gateways = {each.version: str(each) for each in attachment.gateways}
    for address, cidr in zip(attachment.addresses, attachment.pod_cidrs, strict=True):
        ip: dict[str, Any] = {"interface": 1, "address": f"{address}/{cidr.prefixlen}"}
        if address.version in gateways:
            ip["gateway"] = gateways[address.version]
        if version == "0.4.0":
            ip["version"] = str(address.version)
        ips.append(ip)
    return {
        "cniVersion": version,
        "interfaces": [host, pod],
        "ips": ips,
        "routes": _routes(attachment.gateways)
        + [{"dst": str(dst)} | ({"gw": str(gw)} if gw else {}) for dst, gw in attachment.routes],
        "dns": {},
    }


def device_info(attachment: Attachment, representor: str) -> dict[str, Any]:
    """What Multus' annotation says of a pod's device (k8snetworkplumbingwg's device information, version 1.1.0)."""
    if attachment.vhost_socket:
        # Of the two ends this is Open vSwitch's.
        return {
            "type": "vhost-user",
            "version": "1.1.0",
            "vhost-user": {"mode": "client", "path": attachment.vhost_socket},
        }
    pci = {"pci-address": attachment.device} | ({"representor-device": representor} if representor else {})
    return {"type": "pci", "version": "1.1.0", "pci": pci}


def _routes(gateways: Sequence[Address]) -> list[dict[str, str]]:
    return [{"dst": "0.0.0.0/0" if each.version == 4 else "::/0", "gw": str(each)} for each in gateways]


def error(problem: CniError, version: str) -> dict[str, Any]:
    """An error as the runtime reads it."""
    answer: dict[str, Any] = {"cniVersion": version, "code": int(problem.code), "msg": problem.text}
    if problem.details:
        answer["details"] = problem.details
    return answer
