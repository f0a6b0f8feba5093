"""What differs from node to node, found out before the agent starts: its pod CIDRs and addresses, where the controllers
are, and its certificate.

    API server ──Nodes, Secret──> node.yaml and tls/ in a directory of the host ──> agent, Open vSwitch

The agent then doesn't ask the API server. When that is away and there are files of an earlier start, they are used: so
a node boots again without it. Files are written beside and renamed, so no half is ever read.
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import os
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from deploy import config
from deploy.kubernetes.manifest import NODE_SECRET, NODES_NAMESPACE

log = logging.getLogger(__name__)

#: Where a pod finds its service account.
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TLS_FILES = ("tls.crt", "tls.key", "ca.crt")
#: Seconds that one request may take.
_LIMIT = 10.0
_OPENFLOW_PORT = 6653


class ApiError(Exception):
    """The API server can't be asked or says no; the text says why. `status` is 0 where there is no answer."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class NotYetError(Exception):
    """Something isn't there yet; the text says what, and what makes it be."""


class Api:
    """The cluster's API server, as this pod's service account."""

    def __init__(self, host: str, port: int, account: Path = ACCOUNT, tls: ssl.SSLContext | None = None) -> None:
        self._host, self._port, self._account, self._tls = host, port, account, tls

    @classmethod
    def of_pod(cls, environment: Mapping[str, str] = os.environ) -> Api:
        """Where the environment of a pod says. Raises ApiError."""
        try:
            host, port = environment["KUBERNETES_SERVICE_HOST"], int(environment["KUBERNETES_SERVICE_PORT"])
            return cls(host, port, tls=ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")))
        except (KeyError, ValueError, OSError) as error:
            raise ApiError(f"this is no pod with a service account: {error!r}") from error

    def get(self, path: str) -> Any:
        """An object. Raises ApiError."""
        connection = (
            http.client.HTTPSConnection(self._host, self._port, timeout=_LIMIT, context=self._tls)
            if self._tls
            else http.client.HTTPConnection(self._host, self._port, timeout=_LIMIT)
        )
        try:
            # Read each time: the kubelet renews it.
            token = (self._account / "token").read_text().strip()
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}", "Accept": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise ApiError(f"{path}: {answer.status} {answer.reason}", answer.status)
            return json.loads(body)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ApiError(f"the API server at {self._host}:{self._port} can't be asked: {error}") from error
        finally:
            connection.close()


def find_out(api: Api, name: str, label: str, files: Iterable[Path]) -> dict[str, Any]:
    """Settings of the agent of node `name`. Raises ApiError and NotYetError."""
    node = api.get(f"/api/v1/nodes/{quote(name, safe='')}")
    spec = node.get("spec", {})
    cidrs = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
    if not cidrs:
        raise NotYetError(
            f"node {name} has no pod CIDR: the controller manager gives it with --allocate-node-cidrs and "
            "--cluster-cidr (kubeadm: networking.podSubnet)"
        )
    addresses = _addresses(node)
    if not addresses:
        raise NotYetError(f"node {name} has no address of type InternalIP")
    found: dict[str, Any] = {"name": name, "podCidr": cidrs, "nodeIp": addresses}
    given = _given(files)
    if not given.get("controller"):
        family = ip_address(addresses[0]).version
        items = api.get(f"/api/v1/nodes?labelSelector={quote(label, safe='')}").get("items", [])
        where = [each for item in items for each in _addresses(item) if ip_address(each).version == family]
        if not where:
            raise NotYetError(f"no node with label {label} has an IPv{family} address: controllers run on those")
        scheme, port = _port(given.get("listen") or ())
        found["controller"] = [f"{scheme}:{_bracketed(each)}:{port}" for each in sorted(where)]
    return found


def _addresses(node: Any) -> list[str]:
    told = node.get("status", {}).get("addresses") or ()
    return [each["address"] for each in told if each.get("type") == "InternalIP"]


def _given(files: Iterable[Path]) -> dict[str, Any]:
    """What configuration files say that matters here; whether they are right is for their commands to say."""
    given: dict[str, Any] = {}
    for path in files:
        content = yaml.safe_load(path.read_text()) or {}
        node, controller = (content.get(section) or {} for section in ("node", "controller"))
        given |= {"controller": node["controller"]} if node.get("controller") else {}
        given |= {"listen": controller["listen"]} if controller.get("listen") else {}
        given |= {"tlsCert": node["tlsCert"]} if node.get("tlsCert") else {}
    return given


def _port(targets: Iterable[str]) -> tuple[str, int]:
    for target in targets:
        scheme, _, rest = target.partition(":")
        if scheme in ("ssl", "tcp"):
            return scheme, int(rest.rpartition(":")[2])
    return "ssl", _OPENFLOW_PORT


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def certificate(api: Api, name: str) -> dict[str, bytes]:
    """A node's certificate, its key and the CA's, by file name. Raises ApiError and NotYetError."""
    secret = NODE_SECRET + name
    try:
        data = api.get(f"/api/v1/namespaces/{NODES_NAMESPACE}/secrets/{quote(secret, safe='')}").get("data") or {}
    except ApiError as error:
        if error.status != 404:
            raise
        data = {}
    missing = [each for each in TLS_FILES if not data.get(each)]
    if missing:
        raise NotYetError(
            f"Secret {NODES_NAMESPACE}/{secret} has no {', '.join(missing)}: make it with 'signalbox pki node "
            f"{name}' and 'signalbox kubernetes secrets'"
        )
    return {each: base64.b64decode(data[each]) for each in TLS_FILES}


def write(
    api: Callable[[], Api],
    name: str,
    directory: Path,
    files: Iterable[Path] = (),
    *,
    label: str,
    patience: float,
    pause: float = 1.0,
) -> None:
    """Have node.yaml and tls/ in a directory: found out now, or after `patience` seconds those of an earlier start."""
    files = list(files)
    output, tls = directory / "node.yaml", directory / "tls"
    # A certificate that is elsewhere was put on the node by somebody else.
    wants_tls = Path(_given(files).get("tlsCert", "/")).parent == tls
    complaint, began = "", time.monotonic()
    while True:
        try:
            asked = api()
            found = find_out(asked, name, label, files)
            secret = certificate(asked, name) if wants_tls else {}
            break
        except (ApiError, NotYetError) as error:
            complete = output.exists() and (not wants_tls or all((tls / each).exists() for each in TLS_FILES))
            if complete and time.monotonic() - began >= patience:
                log.warning("%s; going on with what was found out at an earlier start", error)
                return
            if str(error) != complaint:
                log.warning("waiting: %s", error)
            complaint = str(error)
            time.sleep(pause)
    directory.mkdir(parents=True, exist_ok=True)
    if secret:
        tls.mkdir(mode=0o700, exist_ok=True)
    # The key first: whoever looks at the certificate finds its key.
    for each in sorted(secret, key=("tls.key", "ca.crt", "tls.crt").index):
        _write(tls / each, secret[each])
    content = {"apiVersion": config.API_VERSION, "kind": config.KIND, "node": found}
    _write(output, yaml.safe_dump(content, sort_keys=False).encode())
    log.info("node %s: pods in %s, controllers %s", name, found["podCidr"], found.get("controller", "as configured"))


def _write(path: Path, data: bytes) -> None:
    if path.exists() and path.read_bytes() == data:
        return
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
