"""HTTP to Kubernetes' API server: where it is, who we are, bytes there and back. Nothing of what they mean.

The one place that imports the official client, of which it uses the authentication (a pod's service account, or a
kubeconfig with whatever that has) and the transport: bytes go past its models, which take a millisecond for a pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import yaml
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

log = logging.getLogger(__name__)

#: Seconds to connect; for bytes of an answer to go on coming; for an answer to be there.
CONNECT, SILENCE, ANSWER = 5.0, 20.0, 120.0
#: Seconds between two attempts to authenticate anew.
RENEWAL = 10.0
#: A connection whose peer is gone is noticed after about 20 seconds, also where nothing is sent.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000),
)


class KubeconfigError(Exception):
    """There is no way to the API server; the text says what to do."""


class TransportError(Exception):
    """A request that had no whole answer; the text says why."""


class Answer(msgspec.Struct, frozen=True):
    """What the server said. `retry_after`: seconds for which it wants to be left alone."""

    status: int
    body: bytes
    retry_after: float = 0.0


class Stream(msgspec.Struct, frozen=True):
    """An answer that goes on. If its status isn't 200, `body` is all of it."""

    status: int
    chunks: AsyncIterator[bytes]
    body: bytes = b""
    retry_after: float = 0.0


class _Way:
    """Connections with one set of credentials; given up once others are there and nobody uses them any more."""

    def __init__(self, api: Any) -> None:
        self.api = api
        self.users = 0
        self.retired = False

    @contextlib.asynccontextmanager
    async def used(self) -> AsyncIterator[Any]:
        self.users += 1
        try:
            yield self.api
        finally:
            self.users -= 1
            await self.close_if_idle()

    async def close_if_idle(self) -> None:
        if self.retired and not self.users:
            await self.api.close()


class Client:
    """Requests to one API server."""

    def __init__(self, kubeconfig: Path | None = None, context: str | None = None) -> None:
        """Without `kubeconfig`, as the pod's service account."""
        self._kubeconfig = kubeconfig
        self._context = context
        self._way: _Way | None = None
        self._renewed = 0.0

    async def connect(self) -> None:
        """Read the configuration. Raises KubeconfigError."""
        configuration = Configuration()
        try:
            if self._kubeconfig is None:
                load_incluster_config(configuration)
            elif not self._kubeconfig.is_file():
                raise KubeconfigError(f"{self._kubeconfig}: no such file")
            else:
                await load_kube_config(
                    str(self._kubeconfig), self._context, client_configuration=configuration, persist_config=False
                )
            api = ApiClient(configuration)
            api.rest_client = _Transport(configuration)
        # A kubeconfig that isn't one raises whatever its reader stumbles over.
        except (ConfigException, OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
            where = self._kubeconfig or "in-cluster configuration"
            remedy = "" if self._kubeconfig else "; outside of a pod, say --kubeconfig FILE"
            # YAML's complaints have several lines.
            raise KubeconfigError(f"{where}: {' '.join(str(error).split())}{remedy}") from error
        former, self._way = self._way, _Way(api)
        if former is not None:
            # What is under way there may go on.
            former.retired = True
            await former.close_if_idle()

    async def close(self) -> None:
        """End all connections."""
        if self._way is not None:
            await self._way.api.close()

    async def ask(self, method: str, path: str, body: object = None, content_type: str = "") -> Answer:
        """One request and its whole answer. Raises TransportError."""
        timeout = aiohttp.ClientTimeout(total=ANSWER, sock_connect=CONNECT, sock_read=SILENCE)
        way = self._current()
        with _Requesting():
            async with way.used() as api:
                response = await _request(api, method, path, body, content_type, timeout)
                async with response:
                    data = await response.read()
                answer = Answer(response.status, data, _retry_after(response))
        await self._renew_if(answer.status, way)
        return answer

    @contextlib.asynccontextmanager
    async def stream(self, path: str, idle: float) -> AsyncIterator[Stream]:
        """An answer that goes on until the server ends it, or is silent for `idle` seconds. Raises TransportError."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=idle)
        way = self._current()
        async with way.used() as api:
            with _Requesting():
                # Also a server that takes the connection and then says nothing has to begin to answer.
                async with asyncio.timeout(SILENCE):
                    response = await _request(api, "GET", path, None, "", timeout)
                    body = b"" if response.status == 200 else await response.read()
            try:
                yield Stream(response.status, _chunks(response), body, _retry_after(response))
            finally:
                # Not released to the pool: there may be more to come on it.
                response.close()
        await self._renew_if(response.status, way)

    def _current(self) -> _Way:
        if self._way is None:
            raise TransportError("not connected")
        return self._way

    async def _renew_if(self, status: int, way: _Way) -> None:
        """Read the configuration again where the server doesn't know us any more: tokens and certificates expire.

        Once for all that was asked with the former credentials: what is said of those says nothing of the new ones.
        """
        now = asyncio.get_running_loop().time()
        if status == 401 and way is self._way and now - self._renewed > RENEWAL:
            self._renewed = now
            try:
                await self.connect()
            except KubeconfigError as error:
                log.error("%s", error)


class _Transport(RESTClientObject):  # type: ignore[misc]
    """The client's own, with connections that notice when their other end is gone."""

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(limit=self.maxsize, ssl=self.ssl_context, socket_factory=_socket)


def _socket(address: Any) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    for option in _KEEPALIVE:
        made.setsockopt(*option)
    return made


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    while True:
        with _Requesting():
            chunk = await response.content.readany()
        if not chunk:
            return
        yield chunk


class _Requesting:
    """Whatever goes wrong inside is a request that failed."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        match error:
            case TransportError() | None:
                return
            case TimeoutError():
                raise TransportError("no answer in time") from error
            # Of the client, of plugins for credentials, of what they stand on: none of it is to end the source.
            case Exception():
                raise TransportError(f"{type(error).__name__}: {error}".rstrip(": ")) from error


async def _request(
    api: Any, method: str, path: str, body: object, content_type: str, timeout: aiohttp.ClientTimeout
) -> aiohttp.ClientResponse:
    # Uncompressed: compressing a large list takes a server longer than sending it.
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    if content_type:
        headers["Content-Type"] = content_type
    method, url, headers, body, _ = await api.param_serialize(
        method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
    )
    answer = await api.call_api(method, url, headers, body, _request_timeout=timeout)
    response: aiohttp.ClientResponse = answer.response
    return response


def _retry_after(response: aiohttp.ClientResponse) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), 60.0) if text.isdecimal() else 0.0
