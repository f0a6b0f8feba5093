"""How long the controller's event loop is blocked: by what people ask, by what it does by itself, by changes.

Everything the controller does it does in one loop, one thing after another: while a step takes long, no switch is
answered, no lease renewed and no change sent. A controller knows 1,000 nodes, 10,000 pods, 1,000 Services with
1,800 load balancers' addresses and 1,500 policies. One switch is a real bridge; the others are connections in memory
that confirm everything. Told is the CPU of the loop's thread, so that other work on the machine doesn't count: of the
longest time in which nothing else had its turn, and of the whole.
"""

import asyncio
import http.client
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from itertools import chain
from struct import pack, unpack_from

import msgspec
import rig
from change_bookkeeping import Link
from cluster_objects import node, node_ports, pod, pod_port, service, slice_of
from cluster_policies import namespaces, pods, policies

from controller.api import serve
from controller.api.server import routes
from controller.app import Controller
from controller.channel import Channel
from controller.fleet import Peer
from controller.process import collect_seldom
from controller.sync import Phase
from flows.cookies import Scope
from flows.openflow import encode
from flows.openflow.wire import Multipart, Type
from flows.pipeline import DIGEST
from flows.state import Port
from flows.tables.digest import digest_flow
from topology.manifest_state import Snapshot
from topology.model import Node, Object, Service

#: Pods are ten for each namespace.
NODES, NAMESPACES, SERVICES, WITH_POLICIES, RUNS = 1_000, 1_000, 1_000, 200, 3
QUICK_NODES, QUICK_NAMESPACES, QUICK_SERVICES, QUICK_POLICIES, QUICK_RUNS = 100, 100, 100, 20, 2
#: Letters of a name that are told.
WIDTH = 52
#: Of ten Services so many have two load balancers' addresses.
BALANCED = 9
#: The node that has a real switch.
HOME = node(0)
#: Twenty namespaces, as the query of a URL.
TEAM = "%2C".join(f"space-{index}" for index in range(20))
#: What is asked of a route that can't be asked as it is, or of which another question is worth knowing.
QUESTIONS = {
    "/v1/nodes/{name}": ("/v1/nodes/node-1",),
    "/v1/pods/{namespace}/{name}": ("/v1/pods/space-0/web-0",),
    "/v1/services/{namespace}/{name}": ("/v1/services/bench/service-0",),
    "/v1/nodes/{name}/flows": (
        "/v1/nodes/node-0/flows?diff=1",
        "/v1/nodes/node-0/flows?table=35",
        "/v1/nodes/node-0/flows?service=bench/service-0",
        "/v1/nodes/node-0/flows",
    ),
    "/v1/nodes/{name}/groups": ("/v1/nodes/node-0/groups",),
    "/v1/nodes": ("/v1/nodes?limit=100", "/v1/nodes"),
    "/v1/pods": ("/v1/pods?limit=100", "/v1/pods"),
    "/v1/services": ("/v1/services?limit=100", "/v1/services", "/v1/services?counters=1"),
    "/v1/endpoints": ("/v1/endpoints?limit=100", "/v1/endpoints", "/v1/endpoints?counters=1"),
    "/v1/policies": ("/v1/policies?limit=100", "/v1/policies", "/v1/policies?counters=1"),
    "/v1/matrix": ("/v1/matrix?namespace=space-0%2Cspace-1&port=80", f"/v1/matrix?namespace={TEAM}&port=80"),
    "/v1/policy-check": ("/v1/policy-check?from=space-0/web-0&to=space-1/api-0&port=8080",),
    "/v1/path": ("/v1/path?from=node-1&to=node-2",),
    "/v1/trace": ("/v1/trace?from=space-0/web-0&to=space-1/api-0&port=8080",),
    "/v1/topology": ("/v1/topology", "/v1/topology?load=1", "/v1/topology?format=svg"),
}


# What is measured -----------------------------------------------------------------------------------------------------


class Watchdog:
    """How much CPU the loop's thread uses between two turns of others."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        while True:
            begun = time.thread_time()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.thread_time() - begun)


@asynccontextmanager
async def watched() -> AsyncIterator[Watchdog]:
    watchdog = Watchdog()
    task = asyncio.create_task(watchdog.watch())
    await asyncio.sleep(0.005)
    watchdog.longest = 0.0
    try:
        yield watchdog
        await asyncio.sleep(0.005)
    finally:
        task.cancel()


async def measured(name: str, work: Callable[[], Awaitable[object]], runs: int) -> list[str]:
    """A row of the table."""
    rig.progress(name)
    blocks, totals, note = [], [], ""
    for _ in range(runs):
        async with watched() as watchdog:
            begun = time.thread_time()
            found = await work()
            totals.append(time.thread_time() - begun)
        blocks.append(watchdog.longest)
        note = found if isinstance(found, str) else ""
    return [
        name if len(name) <= WIDTH else f"{name[:WIDTH]}...",
        rig.milliseconds(blocks),
        rig.milliseconds(totals),
        note,
    ]


def step(work: Callable[[], object]) -> Callable[[], Awaitable[None]]:
    """Something that is done in one go."""

    async def go() -> None:
        work()

    return go


# The controller -------------------------------------------------------------------------------------------------------


def balanced(index: int) -> Service:
    found = service(index)
    if index % 10 >= BALANCED:
        return found
    addresses = (IPv4Address(0xC612_0000 + index), IPv4Address(0xC613_0000 + index))
    return msgspec.structs.replace(found, type="LoadBalancer", load_balancer_ips=addresses)


def objects(nodes: int, spaces: int, services: int, with_policies: int) -> tuple[list[Object], dict[str, list[Port]]]:
    """The cluster, and what each switch has for ports."""
    homes = {each.name: each for each in map(node, range(nodes))}
    there = list(pods(spaces, nodes))
    made = chain.from_iterable((balanced(index), slice_of(index, 10, nodes)) for index in range(services))
    ports = {name: node_ports() for name in homes}
    count: Counter[str] = Counter()
    for each in there:
        ports[each.node].append(pod_port(homes[each.node], each, count[each.node]))
        count[each.node] += 1
    return [*homes.values(), *namespaces(spaces), *there, *made, *policies(with_policies)], ports


class Switch(Link):
    """A connection in memory, with ports. It says that it holds everything that it should."""

    def __init__(self, of: Node, ports: list[Port], controller: Controller) -> None:
        super().__init__(of.datapath_id)
        self._digests = lambda: {
            Scope.CLUSTER: controller.fleet.cluster.state.digest,
            Scope.NODE: controller.fleet.scope(of.name).digest,
        }
        self._ports = b"".join(
            pack("!IH2x6s2x16sII", each.number, 40, each.mac.to_bytes(6, "big"), each.name.encode(), 0, 0)
            for each in ports
        )

    def _answer(self, message: bytes) -> bytes:
        _, kind, _, xid = unpack_from("!BBHI", message)
        asked = unpack_from("!H", message, 8) if kind == Type.MULTIPART_REQUEST else ()
        if asked == (Multipart.PORT_DESC,):
            return _reply(xid, Multipart.PORT_DESC, self._ports)
        if asked == (Multipart.FLOW_DESC,) and message[16] == DIGEST.number:
            mods = (encode.flow_mod(digest_flow(scope, digest)) for scope, digest in self._digests().items())
            return _reply(xid, Multipart.FLOW_DESC, b"".join(map(_described, mods)))
        return super()._answer(message)


def _reply(xid: int, kind: int, body: bytes) -> bytes:
    return pack("!BBHIHH4x", 6, Type.MULTIPART_REPLY, 16 + len(body), xid, kind, 0) + body


def _described(mod: bytes) -> bytes:
    """A flow-mod as the switch tells of the flow: with statistics, of which there are none."""
    (length,) = unpack_from("!H", mod, 50)
    match = mod[48 : 48 + length + -length % 8]
    body = match + pack("!HH4x", 0, 4) + mod[48 + len(match) :]
    return pack("!H2xBxHHHHH", 24 + len(body), mod[24], unpack_from("!H", mod, 30)[0], 0, 0, 0, 0) + mod[8:16] + body


async def answer(switches: list[tuple[Peer, Switch]]) -> None:
    """Give the controller what switches in memory answer, until they are asked nothing more."""
    busy = True
    while busy:
        busy = False
        for peer, switch in switches:
            if data := switch.answers():
                peer.receive(data, time.monotonic())
                busy = True
                await asyncio.sleep(0)


async def keep_answering(switches: list[tuple[Peer, Switch]]) -> None:
    while True:
        await answer(switches)
        await asyncio.sleep(0.05)


# The questions --------------------------------------------------------------------------------------------------------


class Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def ask(question: str) -> str:
    """The status and the size of an answer."""
    connection = Connection(str(rig.RUN / "api.sock"))
    connection.request("GET", question)
    response = connection.getresponse()
    size = 0
    while part := response.read(1 << 20):
        size += len(part)
    connection.close()
    return f"{size:,} bytes" if response.status == 200 else f"status {response.status}"


def questions(controller: Controller) -> Iterator[str]:
    """Every route that tells something."""
    for route in routes(controller):
        if route.method == "GET":
            yield from QUESTIONS.get(route.path, (route.path,))


async def asked(controller: Controller, runs: int) -> list[list[str]]:
    return [await measured(each, lambda each=each: asyncio.to_thread(ask, each), runs)  # type: ignore[misc]
            for each in questions(controller)]  # fmt: skip


async def audited(controller: Controller) -> None:
    """A full audit of the real switch, which has a flow too many: until it is gone."""
    await asyncio.to_thread(rig.run, "ovs-ofctl", "-O", "OpenFlow15", "add-flow", "br0",
                            "table=35,priority=1,ip,nw_dst=192.0.2.1,actions=drop")  # fmt: skip
    sync = controller.fleet.syncs[HOME.name]
    before = sync.counters.repaired
    sync.audit(full=True)
    await rig.until(lambda: sync.counters.repaired > before, "the repair", limit=30, pause=0.01)


async def measure(sizes: tuple[int, int, int, int], runs: int) -> list[list[str]]:
    rig.start_switch()
    collect_seldom()
    there, ports = objects(*sizes)
    controller = Controller()
    state = {each.key: each for each in there}
    rows = [await measured("the first state is taken", step(lambda: controller.take(Snapshot(state))), 1)]
    channel = Channel(controller.fleet, time.monotonic)
    target = f"tcp:127.0.0.1:{rig.free_port()}"
    await channel.listen(target)
    api = await serve(controller, rig.RUN / "api.sock")

    async def real() -> None:
        await asyncio.to_thread(rig.add_bridges, {"br0": HOME.datapath_id}, target)
        await rig.until(lambda: controller.fleet.phase(HOME.name) is Phase.SYNCED, "the switch in sync")

    rows.append(await measured("a switch connects, which has nothing", real, 1))
    switches = []
    for each in map(node, range(1, sizes[0])):
        link = Switch(each, ports[each.name], controller)
        switches.append((Peer(controller.fleet, link, "memory", time.monotonic()), link))
    hello = pack("!BBHIHHI", 6, Type.HELLO, 16, 1, 1, 8, 1 << 6)

    async def greet() -> None:
        for peer, _ in switches:
            peer.receive(hello, time.monotonic())
            await asyncio.sleep(0)
        await answer(switches)

    rows.append(await measured("the other switches connect", greet, 1))
    rows.append(await measured("what routers are told, at first", step(controller.routes), 1))
    flows = rig.flow_count("br0")
    answering = asyncio.create_task(keep_answering(switches))
    rows += await asked(controller, runs)
    answering.cancel()
    auditing = asyncio.create_task(controller.audits.keep())
    rows.append(await measured("audit of one switch, full", lambda: audited(controller), runs))
    rows += await by_itself(controller, switches, runs)
    rows += await changes(controller, switches, runs)
    auditing.cancel()
    await api.cleanup()
    await channel.close()
    rig.stop_switch()
    rows.append(["flows of the real switch", "", "", f"{flows:,}"])
    return rows


async def by_itself(controller: Controller, switches: list[tuple[Peer, Switch]], runs: int) -> list[list[str]]:
    """What is done again and again."""
    rows = []
    for name, work in {
        "look for lost nodes": controller.look_for_lost_nodes,
        "release identities": controller.release_identities,
        "look at links": controller.look_at_links,
        "look at phases": controller.look_at_phases,
        "ask ports": controller.ask_ports,
        "obey leases": controller.obey_leases,
        "follow drains": controller.follow_drains,
        "tell connections": controller.tell_connections,
        "audit of all, counts": lambda: controller.audit(full=False),
        "statistics: a look": lambda: controller.statistics.look(time.monotonic()),
        "agents: a look": lambda: controller.agents.look(time.monotonic()),
    }.items():
        rows.append(await measured(name, step(work), runs))
        # Nobody answers: a switch in memory holds nothing, which would be repaired.
        for _, switch in switches:
            switch._written.clear()
    return rows


async def changes(controller: Controller, switches: list[tuple[Peer, Switch]], runs: int) -> list[list[str]]:
    """One object or port is another, and every switch has it."""
    number = iter(range(1, 1_000_000))

    def changed(make: Callable[[int], Object]) -> Callable[[], Awaitable[None]]:
        return step(lambda: controller.change([make(next(number))], (), ()))

    def down(turn: int) -> None:
        controller.fleet.take(controller.compiler.set_down([f"node-{turn % 7 + 1}"]), time.monotonic())

    drained = lambda turn: msgspec.structs.replace(node(5), drained=turn % 2 == 1)  # noqa: E731
    rows = []
    for name, work in {
        "a new node": changed(lambda turn: node(60_000 + turn)),
        "a node is drained, or is not": changed(drained),
        "another node is lost": step(lambda: down(next(number))),
        "a new pod": changed(lambda turn: pod(node(turn % 100), 100 + turn)),
        "a new Service": changed(lambda turn: service(20_000 + turn)),
        "other endpoints": changed(lambda turn: slice_of(7, 10, 100, first=turn)),
        "a new policy": changed(lambda turn: msgspec.structs.replace(policies(20)[1], name=f"more-{turn}")),
        "a namespace's labels": changed(
            lambda turn: msgspec.structs.replace(namespaces(5)[-1], labels=(("turn", str(turn)),))
        ),
        "what routers are told, then": step(controller.routes),
    }.items():
        rows.append(await measured(name, work, runs))
        for _, switch in switches:
            switch._written.clear()
    return rows


def main() -> None:
    sizes, runs = (
        ((QUICK_NODES, QUICK_NAMESPACES, QUICK_SERVICES, QUICK_POLICIES), QUICK_RUNS)
        if quick
        else ((NODES, NAMESPACES, SERVICES, WITH_POLICIES), RUNS)
    )
    rows = asyncio.run(measure(sizes, runs))
    rig.progress("")
    title = f"{sizes[0]:,} nodes, {sizes[1] * 10:,} pods (median of {runs})"
    rig.table([title, "longest block", "in all", ""], rows)


if __name__ == "__main__":
    quick = rig.arguments(__doc__ or "")
    rig.isolated(main)
