"""Nodes that people have drained: what was said, where it is kept, and nodes as they are with it.

    source ──Node──> Drains.take ──Node with `drained`──> Controller
                        ▲
    people ──put──> Store: the Node's annotation in Kubernetes, a directory, or this controller's memory

A node is drained if its source says so (annotation `signalbox.io/drained`) or if people have said so here. With
Kubernetes these are one: what people say becomes the annotation, which all controllers read. Elsewhere it is beside the
source, in a directory that controllers may share; those that don't know nothing of one another's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from topology.model import Key, Node, Object

#: Seconds for which it is waited that the source says again what it was told.
HEARD = 2.0


class DrainError(Exception):
    """It can't be kept that a node is drained, or isn't: so nothing has changed. The text says why."""


class SourceSaysError(Exception):
    """It is the source that says that a node is drained: it isn't for us to say otherwise."""


class Store(Protocol):
    """Where it is kept which nodes are drained."""

    #: Kubernetes, StateDirectory or Memory.
    kind: str
    #: What is to be known of it, in words; may be empty.
    note: str
    #: Whether it is the source that it is told, which says it from then on.
    tells_source: bool

    @property
    def names(self) -> frozenset[str]:
        """The nodes that are drained whatever the source says."""

    async def put(self, node: str, *, drained: bool) -> None:
        """Keep that a node is drained, or isn't. Raises DrainError."""

    def refresh(self) -> None:
        """Take what others have kept."""


class Memory:
    """Kept as long as this process lives."""

    kind = "Memory"
    tells_source = False
    note = (
        "it ends with this controller, which has no --state-dir; if there are several, the others don't know of it, "
        "and go on giving the node work from the nodes that are theirs"
    )

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()

    async def put(self, node: str, *, drained: bool) -> None:
        self.names = self.names | {node} if drained else self.names - {node}

    def refresh(self) -> None:
        pass


class StateDirectory:
    """Kept as a file for each drained node, `drained/NAME`, which comes and goes in one step. Raises DrainError."""

    kind = "StateDirectory"
    tells_source = False

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "drained"
        self.note = f"it is kept in {directory}; of several controllers, those that share it know of it"
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.names = self._read()
        except OSError as error:
            raise DrainError(f"--state-dir {directory}: {error.strerror}") from error

    async def put(self, node: str, *, drained: bool) -> None:
        try:
            await asyncio.to_thread(self._write, node, drained)
        except OSError as error:
            raise DrainError(f"{error.filename or self._directory}: {error.strerror}") from error
        self.names = self.names | {node} if drained else self.names - {node}

    def refresh(self) -> None:
        # A directory that is away for a moment changes nothing.
        with contextlib.suppress(OSError):
            self.names = self._read()

    def _read(self) -> frozenset[str]:
        return frozenset(path.name for path in self._directory.iterdir())

    def _write(self, node: str, drained: bool) -> None:
        path = self._directory / node
        if drained:
            path.touch(mode=0o600)
        else:
            path.unlink(missing_ok=True)
        # The name is in the directory: that is what must be there after a loss of power.
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Drains:
    """Nodes as they are with what people have said of them."""

    def __init__(self, store: Store | None = None) -> None:
        self.store: Store = store or Memory()
        #: Nodes as the source has them.
        self._said: dict[str, Node] = {}
        self._lock = asyncio.Lock()
        self._news = asyncio.Event()

    def take(self, changed: Iterable[Object], gone: Iterable[Key]) -> list[Object]:
        """Objects of the source that have changed, nodes among them as they are to be."""
        for kind, _, name in gone:
            if kind == "Node":
                self._said.pop(name, None)
        return [self._taken(each) if isinstance(each, Node) else each for each in changed]

    def differing(self, nodes: Mapping[str, Node]) -> list[Node]:
        """Nodes as the source has them, of which something else has been said than these are."""
        return [each for each in self._said.values() if nodes.get(each.name) != self._marked(each)]

    async def put(self, name: str, *, drained: bool) -> bool:
        """Have a node drained, or not any more; whether that is new. Raises DrainError and SourceSaysError."""
        async with self._lock:
            node = self._said[name]
            before = node.drained or name in self.store.names
            if node.drained and not drained and not self.store.tells_source:
                raise SourceSaysError(f"node {name!r} is drained by its manifest: take the annotation away there")
            # Also where it seems to be so already: the source may be late.
            await self.store.put(name, drained=drained)
            if self.store.tells_source:
                await self._heard(name, drained)
            return before is not drained

    async def _heard(self, name: str, drained: bool) -> None:
        """Wait until the source says what it was told, but not for long: it will."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARD):
                while name in self._said and self._said[name].drained is not drained:
                    self._news.clear()
                    await self._news.wait()

    def _taken(self, node: Node) -> Node:
        self._said[node.name] = node
        self._news.set()
        return self._marked(node)

    def _marked(self, node: Node) -> Node:
        if node.drained or node.name not in self.store.names:
            return node
        return msgspec.structs.replace(node, drained=True)
