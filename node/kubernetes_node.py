"""What Kubernetes says of an agent's node: the only import of Kubernetes' client in this folder.

    the Node itself ───────────────────┐
    Nodes with a controller's label ───┼── list, watch ──> NodeFacts, whenever they are complete and others than before
    the Secret of the certificate ─────┘

What can't be asked is asked again, for ever, and what isn't there yet is waited for, by the name of who makes it. What
the agent does with a change is not said here.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from yaml import YAMLError

from node.facts import TLS_NAMES, NodeFacts
from topology.naming import Address, node_secret

log = logging.getLogger(__name__)

#: Seconds that a watch lasts before all is listed again, that the server may take to answer, between attempts.
_WATCH, _PATIENCE, _RETRY = 300, 20.0, 2.0


class ApiError(Exception):
    """There is no way to the API server, or it says no; the text says why."""


class NotYetError(Exception):
    """Something isn't there yet; the text says what, and what makes it be."""


class Wanted(msgspec.Struct, frozen=True):
    """What is to be found out of node `name`. Without `kubeconfig` the server is asked as a pod's account.

    `labels` are those of nodes that controllers run on. The certificate is in a Secret of namespace `secrets`, if that
    is given.
    """

    name: str
    kubeconfig: Path | None = None
    labels: tuple[str, ...] = ()
    secrets: str = ""

    @property
    def node(self) -> Selection:
        """The Node itself."""
        return Selection("/api/v1/nodes", "fieldSelector", f"metadata.name={self.name}")

    def nodes_with(self, label: str) -> Selection:
        """Nodes that controllers run on."""
        return Selection("/api/v1/nodes", "labelSelector", label)

    @property
    def secret(self) -> Selection:
        """The certificate."""
        path = f"/api/v1/namespaces/{self.secrets}/secrets"
        return Selection(path, "fieldSelector", f"metadata.name={node_secret(self.name)}")

    @property
    def selections(self) -> list[Selection]:
        """All that is asked for."""
        return [self.node, *map(self.nodes_with, self.labels), *([self.secret] if self.secrets else [])]


class Selection(msgspec.Struct, frozen=True):
    """Which objects of one kind are asked for."""

    path: str
    kind: str
    what: str


class _Metadata(msgspec.Struct, rename="camel"):
    name: str = ""
    resource_version: str = ""


class _Address(msgspec.Struct):
    type: str = ""
    address: str = ""


class _Spec(msgspec.Struct):
    pod_cidrs: list[str] = msgspec.field(default_factory=list, name="podCIDRs")
    pod_cidr: str = msgspec.field(default="", name="podCIDR")


class _Status(msgspec.Struct):
    addresses: list[_Address] = []


class _Object(msgspec.Struct):
    """A Node or a Secret, or an error that stands in its place."""

    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status | str = msgspec.field(default_factory=_Status)
    data: dict[str, str] | None = None
    message: str = ""

    def addresses(self) -> tuple[Address, ...]:
        """A Node's, in the cluster."""
        told = self.status.addresses if isinstance(self.status, _Status) else []
        return tuple(ip_address(each.address) for each in told if each.type == "InternalIP")


class _List(msgspec.Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    items: list[_Object] = []


class _Event(msgspec.Struct):
    type: str
    object: _Object


_Objects = Mapping[str, _Object]


class Follower:
    """The facts of a node as they are now. `waits_for` says what is missing; nothing once all is there."""

    def __init__(self, wanted: Wanted) -> None:
        self.waits_for = "the API server hasn't answered yet"
        self._wanted = wanted
        self._seen: dict[Selection, _Objects] = {}
        self._changed = asyncio.Event()
        self._said: set[str] = set()

    async def facts(self) -> AsyncIterator[NodeFacts]:
        """The facts, and again whenever they are others; for ever."""
        log.info("Node %s: asking Kubernetes", self._wanted.name)
        tasks = [asyncio.create_task(self._keep(each)) for each in self._wanted.selections]
        for task in tasks:
            task.add_done_callback(lambda _: self._changed.set())
        last: NodeFacts | None = None
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                for task in tasks:
                    if task.done():
                        task.result()
                facts = self._complete()
                if facts is not None and facts != last:
                    last = facts
                    yield facts
        finally:
            for task in tasks:
                task.cancel()

    def _complete(self) -> NodeFacts | None:
        if self._seen.keys() != set(self._wanted.selections):
            return None
        try:
            facts = facts_of(self._wanted, self._seen)
        except (NotYetError, ValueError) as error:
            self._say(str(error))
            return None
        self.waits_for = ""
        self._said.clear()
        return facts

    def _say(self, problem: str) -> None:
        """Once, until all is well again."""
        self.waits_for = problem
        if problem not in self._said:
            self._said.add(problem)
            log.warning("Node %s: %s", self._wanted.name, problem)

    async def _keep(self, selection: Selection) -> None:
        while True:
            try:
                async for objects in _follow(selection, self._wanted.kubeconfig):
                    self._seen[selection] = objects
                    self._changed.set()
            except ApiError as error:
                self._say(str(error))
                await asyncio.sleep(_RETRY)


def facts_of(wanted: Wanted, seen: Mapping[Selection, _Objects]) -> NodeFacts:
    """What was found comes to. Raises NotYetError, and ValueError for addresses that are none."""
    node = seen[wanted.node].get(wanted.name)
    if node is None:
        raise NotYetError(f"there is no Node {wanted.name}: the kubelet makes it, under this name")
    cidrs = node.spec.pod_cidrs or [each for each in [node.spec.pod_cidr] if each]
    if not cidrs:
        raise NotYetError(
            f"node {wanted.name} has no pod CIDR: the controller manager gives it with --allocate-node-cidrs and "
            "--cluster-cidr (kubeadm: networking.podSubnet)"
        )
    addresses = node.addresses()
    if not addresses:
        raise NotYetError(f"node {wanted.name} has no address of type InternalIP")
    labelled = []
    for label in wanted.labels:
        found = [each for other in seen[wanted.nodes_with(label)].values() for each in other.addresses()]
        # Tunnels' family is the one that the nodes reach each other by.
        family = addresses[0].version
        where = sorted(str(each) for each in found if each.version == family)
        if not where:
            raise NotYetError(f"no node with label {label} has an IPv{family} address: controllers run on those")
        labelled.append((label, tuple(map(ip_address, where))))
    tls = _certificate(wanted, seen[wanted.secret]) if wanted.secrets else ()
    return NodeFacts(tuple(map(ip_network, cidrs)), addresses, tuple(labelled), tls)


def _certificate(wanted: Wanted, found: _Objects) -> tuple[bytes, ...]:
    name = node_secret(wanted.name)
    secret = found.get(name)
    data = (secret.data if secret is not None else None) or {}
    missing = sorted(each for each in TLS_NAMES if not data.get(each))
    if missing:
        raise NotYetError(
            f"Secret {wanted.secrets}/{name} has no {', '.join(missing)}: make it with 'signalbox pki node "
            f"{wanted.name}' and 'signalbox kubernetes secrets'"
        )
    return tuple(base64.b64decode(data[each]) for each in TLS_NAMES)


# The API server -------------------------------------------------------------------------------------------------------


async def _follow(selection: Selection, kubeconfig: Path | None) -> AsyncIterator[_Objects]:
    """The objects by name, now and after each change, until the server ends the watch. Raises ApiError."""
    try:
        # Anew each time: tokens and certificates are replaced while we wait.
        async with await _connect(kubeconfig) as api:
            async with await _ask(api, selection) as response:
                listed = msgspec.json.decode(await response.read(), type=_List)
            objects = {each.metadata.name: each for each in listed.items}
            yield dict(objects)
            since = listed.metadata.resource_version
            async with await _ask(api, selection, watch="true", resourceVersion=since, timeoutSeconds=_WATCH) as lines:
                async for line in lines.content:
                    event = msgspec.json.decode(line, type=_Event)
                    match event.type:
                        case "ADDED" | "MODIFIED":
                            objects[event.object.metadata.name] = event.object
                        case "DELETED":
                            objects.pop(event.object.metadata.name, None)
                        case "ERROR":
                            raise ApiError(event.object.message or "the watch ends with an error")
                    yield dict(objects)
    except (aiohttp.ClientError, ApiException, msgspec.MsgspecError, OSError, TimeoutError, ValueError) as error:
        raise ApiError(f"the API server can't be asked: {error!r}") from error


async def _ask(api: Any, selection: Selection, **more: object) -> aiohttp.ClientResponse:
    """A successful answer, of which the head is there. Raises ApiError."""
    query = [(selection.kind, selection.what), *((key, str(value)) for key, value in more.items())]
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_PATIENCE, sock_read=_PATIENCE + (_WATCH if more else 0))
    request = await api.param_serialize("GET", selection.path, query_params=query, auth_settings=["BearerToken"])
    answer = await api.call_api(*request, _request_timeout=timeout)
    response: aiohttp.ClientResponse = answer.response
    if response.status != 200:
        async with response:
            raise ApiError(f"the API server answers {response.status}: {await _said(response)}")
    return response


async def _said(response: aiohttp.ClientResponse) -> str:
    text = await response.text()
    try:
        return msgspec.json.decode(text, type=_Object).message or text[:200]
    except msgspec.MsgspecError:
        return text[:200]


async def _connect(kubeconfig: Path | None) -> Any:
    configuration = Configuration()
    try:
        if kubeconfig is None:
            load_incluster_config(configuration)
        else:
            await load_kube_config(str(kubeconfig), client_configuration=configuration, persist_config=False)
    # A kubeconfig that isn't one raises whatever its reader stumbles over.
    except (ConfigException, YAMLError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ApiError(f"{kubeconfig or 'in-cluster configuration'}: {error}") from error
    return ApiClient(configuration)
