"""Hundreds of dummy bridges and one controller in a process of its own, for benchmarks that want both.

The controller is the real one (controller.app.Controller and its Channel); its objects are handed to it here instead of
being read from files. It is told what to do by lines on its standard input and answers each with a line of JSON.

One thing differs from a real controller: it waits longer for a silent switch. One ovs-vswitchd stands for hundreds of
switches here and serves them one after another, so each of them is silent for as long as all take together.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import rig
from cluster_objects import FLOWS_A_NODE, node

from controller import channel, session, tls
from controller.app import Controller
from controller.channel import Channel
from controller.fleet import Peer
from controller.process import allow_connections, collect_seldom
from controller.sync import Phase
from controller.tls import Credentials, TlsFiles
from flows.compiler import Compiler
from flows.update import CLUSTER
from topology.manifest_state import Snapshot
from topology.model import Key, Object

FLOWS = 5_000
#: Seconds; see above.
SILENCE = 300.0
#: Variables that say over what switches connect, tcp or ssl, and where the controller's certificate is.
KIND, PKI = "SIGNALBOX_BENCHMARK_KIND", "SIGNALBOX_BENCHMARK_PKI"
#: How many nodes there are that have no addresses, and so next to no flows; none such without it.
BARE = "SIGNALBOX_BENCHMARK_BARE"


def objects(flows: int = FLOWS) -> dict[Key, Object]:
    """As many nodes as make so many cluster-scope flows."""
    bare = int(os.environ.get(BARE, "0"))
    if bare:
        empty = [msgspec.structs.replace(node(index), addresses=(), pod_cidrs=()) for index in range(bare)]
        return {each.key: each for each in empty}
    pipeline = sum(1 for _ in Compiler().flows(CLUSTER))
    nodes = [node(index) for index in range((flows - pipeline) // FLOWS_A_NODE)]
    return {each.key: each for each in nodes}


def bridges(count: int) -> dict[str, int]:
    """Bridges by name, with the datapath ids of the first nodes."""
    return {f"br{index}": node(index).datapath_id for index in range(count)}


class ControllerProcess:
    """The controller as seen from the benchmark."""

    def __init__(self, port: int) -> None:
        self._child = subprocess.Popen(
            [sys.executable, __file__, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._child.pid

    def ask(self, command: str, *words: object) -> dict[str, Any]:
        """Have it do something, and what it says of that."""
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(json.dumps([command, *words]) + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError("the controller has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        """End it without a word, as a crash would."""
        self._child.kill()
        self._child.wait()


class _Served:
    """The controller, and what it can be told."""

    def __init__(self, port: int) -> None:
        self.controller = Controller()
        self.channel = Channel(self.controller.fleet, time.monotonic)
        kind = os.environ.get(KIND, "tcp")
        self.target = f"{kind}:127.0.0.1:{port}"
        self.credentials = None
        if kind == "ssl":
            pki = Path(os.environ[PKI])
            self.credentials = Credentials(TlsFiles(pki / "controller.crt", pki / "controller.key", pki / "ca.crt"))
        self.objects: dict[Key, Object] = {}

    async def listen(self) -> dict[str, Any]:
        """Listen before there is any object: switches that connect wait."""
        await self.channel.listen(self.target, self.credentials)
        return {}

    async def waiting(self, count: int) -> dict[str, Any]:
        """Until so many switches wait for their node."""
        await rig.until(lambda: len(self.controller.fleet.unknown) == count, "switches connected", pause=0.02)
        return {}

    async def take(self, count: int) -> dict[str, Any]:
        """Take all objects, and until so many switches hold all flows."""
        self.objects = objects()
        return await self._measured(Snapshot(self.objects), count, pause=0.02)

    async def change(self, count: int, moved: int) -> dict[str, Any]:
        """Give one node, which has no switch here, other addresses."""
        last = max(self.objects, key=lambda key: int(key[2].removeprefix("node-")))
        new = node(int(last[2].removeprefix("node-")), moved)
        self.objects = {**self.objects, last: new}
        log = self.controller.fleet.cluster
        version = log.version
        answer = await self._measured(Snapshot(self.objects), count, pause=0.001)
        entries = log.since(version)
        assert entries is not None
        return {**answer, "encoded": sum(entry.size for entry in entries)}

    async def rejoin(self, count: int) -> dict[str, Any]:
        """A controller that knows everything before it listens, and until so many switches are in sync."""
        self.objects = objects()
        self.controller.take(Snapshot(self.objects))
        seen: list[float] = []
        fleet = self.controller.fleet
        identified = fleet.identified

        def noted(peer: Peer, datapath_id: int, now: float) -> None:
            seen.append(now)
            identified(peer, datapath_id, now)

        # Looking now and then would come too late: hundreds of switches can be heard in one turn of the loop.
        fleet.identified = noted
        resident = rig.memory()
        cpu, begun = time.process_time(), time.monotonic()
        await self.channel.listen(self.target, self.credentials)
        await rig.until(lambda: self._synced(count), "switches in sync", pause=0.005)
        return {
            "seconds": time.monotonic() - begun,
            "after_first": time.monotonic() - seen[0],
            "cpu": time.process_time() - cpu,
            "flow_mods": sum(sync.counters.flow_mods for sync in self.controller.fleet.syncs.values()),
            "bundles": sum(sync.counters.bundles for sync in self.controller.fleet.syncs.values()),
            "memory": rig.peak_memory(),
            "grown": rig.memory() - resident,
        }

    async def _measured(self, snapshot: Snapshot, count: int, pause: float) -> dict[str, Any]:
        fleet = self.controller.fleet
        sent = sum(sync.counters.sent_bytes for sync in fleet.syncs.values())
        peers = [*fleet.unknown.values(), *fleet.peers.values()]
        cpu, begun = time.process_time(), time.monotonic()
        self.controller.take(snapshot)
        taken = time.process_time() - cpu
        await rig.until(lambda: self._synced(count), "all switches in sync", pause=pause)
        return {
            "seconds": time.monotonic() - begun,
            "cpu": time.process_time() - cpu,
            "take_cpu": taken,
            "memory": rig.peak_memory(),
            "sent": sum(sync.counters.sent_bytes for sync in fleet.syncs.values()) - sent,
            "flow_mods": sum(sync.counters.flow_mods for sync in fleet.syncs.values()),
            "lost": sum(peer not in fleet.peers.values() for peer in peers),
            "flows": sum(fleet.cluster.state.counts.values()),
            "own_flows": sum(fleet.scope(node(count - 1).name).counts.values()),
        }

    def _synced(self, count: int) -> bool:
        # Ends at the first that isn't, so that looking often costs next to nothing.
        syncs = self.controller.fleet.syncs
        return len(syncs) == count and all(sync.phase is Phase.SYNCED for sync in syncs.values())


async def serve(port: int) -> None:
    """Do what standard input says until it ends."""
    served = _Served(port)
    while line := await asyncio.to_thread(sys.stdin.readline):
        command, *words = json.loads(line)
        answer = await getattr(served, command)(*words)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    import logging

    # A line for each of hundreds of switches is nothing to measure.
    logging.disable(logging.WARNING)
    session.GIVE_UP_AFTER = SILENCE
    session.HANDSHAKE_LIMIT = SILENCE
    channel.TLS_LIMIT = SILENCE
    # All of these switches are one Open vSwitch and show its one certificate: it is checked, and taken for any node's.
    named = tls.node_of
    tls.node_of = lambda certificate: named(certificate) and ""
    allow_connections()
    collect_seldom()
    asyncio.run(serve(int(sys.argv[1])))
