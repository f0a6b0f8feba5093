"""The node's own Node object in Kubernetes: the pod CIDRs and addresses that an agent is told there. The only import of
Kubernetes' client in this folder, and the only question that the agent asks Kubernetes.

One watch of one object, begun without a version: the server tells first how it is and then how it changes, so there is
nothing to list and nothing that could be too old. What the agent does with a change is not its own to say: it ends, and
whoever keeps it running starts it with the new facts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
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

from topology.naming import Address, Network

log = logging.getLogger(__name__)

#: Seconds: that a watch lasts before it is begun anew, that the server may take to begin, between attempts.
_WATCH, _PATIENCE, _RETRY = 300, 20.0, 2.0


class NodeObjectError(Exception):
    """There is no way to the API server, or what it says makes no sense; the text says why."""


class NodeFacts(msgspec.Struct, frozen=True):
    """What a Node object says that an agent must know."""

    pod_cidrs: tuple[Network, ...]
    addresses: tuple[Address, ...]


class _Address(msgspec.Struct):
    type: str = ""
    address: str = ""


class _Spec(msgspec.Struct, rename="camel"):
    pod_cidrs: list[str] = msgspec.field(default_factory=list, name="podCIDRs")
    pod_cidr: str = msgspec.field(default="", name="podCIDR")


class _Status(msgspec.Struct):
    addresses: list[_Address] = []


class _Node(msgspec.Struct):
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)
    #: Of an error that stands in the place of a node.
    message: str = ""


class _Event(msgspec.Struct):
    type: str
    object: _Node


def facts_of(node: _Node) -> NodeFacts:
    """The facts in a Node object. Raises NodeObjectError."""
    cidrs = node.spec.pod_cidrs or [each for each in [node.spec.pod_cidr] if each]
    inner = [each.address for each in node.status.addresses if each.type == "InternalIP"]
    try:
        return NodeFacts(tuple(map(ip_network, cidrs)), tuple(map(ip_address, inner)))
    except ValueError as error:
        raise NodeObjectError(str(error)) from error


async def follow(name: str, kubeconfig: Path | None) -> AsyncIterator[NodeFacts]:
    """The facts of a node, and again whenever they are others; for ever. Without `kubeconfig` as a pod's account."""
    log.info("Node %s: waiting for its object", name)
    last: NodeFacts | None = None
    said = ""

    def say(problem: str) -> None:
        nonlocal said
        if problem and problem != said:
            log.warning("Node %s: %s", name, problem)
        said = problem

    while True:
        try:
            async for event in _watch(name, kubeconfig):
                if event.type == "ERROR":
                    raise NodeObjectError(event.object.message or "the watch ends with an error")
                # A node that is deleted may come back as it was.
                if event.type == "DELETED":
                    continue
                facts = facts_of(event.object)
                if not facts.pod_cidrs or not facts.addresses:
                    say("it has no spec.podCIDRs or no InternalIP yet: who gives nodes their CIDRs?")
                elif facts != last:
                    last = facts
                    yield facts
                    say("")
        except NodeObjectError as error:
            say(str(error))
        await asyncio.sleep(_RETRY)


async def _watch(name: str, kubeconfig: Path | None) -> AsyncIterator[_Event]:
    """What happens to one Node, until the server ends the watch. Raises NodeObjectError."""
    query = [("fieldSelector", f"metadata.name={name}"), ("watch", "true"), ("timeoutSeconds", str(_WATCH))]
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_PATIENCE, sock_read=_WATCH + _PATIENCE)
    decoder = msgspec.json.Decoder(_Event)
    try:
        # Anew each time: tokens and certificates are replaced while we wait.
        async with await _connect(kubeconfig) as api:
            request = await api.param_serialize(
                "GET", "/api/v1/nodes", query_params=query, auth_settings=["BearerToken"]
            )
            answer = await api.call_api(*request, _request_timeout=timeout)
            response: aiohttp.ClientResponse = answer.response
            async with response:
                if response.status != 200:
                    raise NodeObjectError(f"the API server answers {response.status}: {await _said(response)}")
                async for line in response.content:
                    yield decoder.decode(line)
    except (aiohttp.ClientError, ApiException, msgspec.MsgspecError, OSError, TimeoutError, ValueError) as error:
        raise NodeObjectError(f"the API server can't be asked: {error!r}") from error


async def _said(response: aiohttp.ClientResponse) -> str:
    text = await response.text()
    try:
        return msgspec.json.decode(text, type=_Node).message or text[:200]
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
        raise NodeObjectError(f"{kubeconfig or 'in-cluster configuration'}: {error}") from error
    return ApiClient(configuration)
