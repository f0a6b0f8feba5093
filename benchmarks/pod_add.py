"""A pod's way into the cluster: from exec of the CNI plugin to the first answered ping, in a lab of two nodes.

The pod's namespace and manifest are there before, as a runtime's and an API server's would be. The plugin is run as a
runtime runs it; when it returns, the new pod pings a pod on the other node from a socket that was opened before, so
that no start of a ping program is counted. Between pods everything is taken away again. Then all of them are added
once more, several at a time, and each form of the plugin is started alone.

The controller's part is read from the bridge's snoop socket, where ovs-vswitchd copies what it exchanges with the
controller: from the PortStatus that names the pod's port to the reply to the commit of the bundle that holds the pod's
flows. So it is the switch's view of it: both ways over the socket, the controller's work, and the commit.
"""

import contextlib
import ctypes
import os
import signal
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import rig

from deploy.lab import kubelet, substrate
from deploy.lab.cluster import Lab, owner, settings_for
from deploy.lab.layout import LabError, netns_path
from flows.cookies import OBJECT_MASK
from flows.openflow.framing import Framer
from flows.openflow.wire import BundleControl, Type
from node.cni import plugin
from node.cni.build import BuildError, compile_plugin
from topology.naming import BRIDGE, object_id, pod_port_name

RUNS, QUICK_RUNS, WARM_UP = 200, 20, 3
#: ADDs at a time, and times that each form of the plugin is started.
AT_A_TIME, STARTS, QUICK_STARTS = 10, 500, 100
NAMESPACE, HERE, THERE, PEER = "bench", "node-1", "node-2", "peer"
_COMMIT_REPLY = BundleControl.COMMIT_REPLY.to_bytes(2, "big")
_NEW_NET = 0x4000_0000
#: Seconds until a ping is sent again, and until it is given up.
_AGAIN, _GIVE_UP = 0.02, 10.0


def manifest(name: str, node: str) -> str:
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\n"
        f"spec: {{nodeName: {node}, containers: [{{name: main, image: none}}]}}\n---\n"
    )


class Snoop:
    """What a bridge and its controller say to each other, with the time at which it was seen."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        # A hello that offers OpenFlow 1.5 alone.
        self._socket.sendall(struct.pack("!BBHIHHI", 6, Type.HELLO, 16, 1, 1, 8, 1 << 6))
        self.seen: list[tuple[float, bytes]] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        framer = Framer()
        while data := self._socket.recv(1 << 16):
            now = time.monotonic()
            with self._changed:
                self.seen += [(now, message) for message in framer.feed(data)]
                self._changed.notify_all()

    def bundle_after(self, port: str, reason: int, made_by: int | None = None) -> float | None:
        """Seconds from a port's status to the reply to the commit of the next bundle, one with a flow of `made_by`."""
        deadline = time.monotonic() + 2
        with self._changed:
            while (found := self._find(port, reason, made_by)) is None and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
        return found

    def _find(self, port: str, reason: int, made_by: int | None) -> float | None:
        told, holds = None, made_by is None
        for when, message in self.seen:
            if told is None:
                named = message[1] == Type.PORT_STATUS and message[32:48].rstrip(b"\0") == port.encode()
                told = when if named and message[8] == reason else None
            elif message[1] == Type.BUNDLE_ADD and message[17] == Type.FLOW_MOD:
                holds = holds or int.from_bytes(message[24:32], "big") & OBJECT_MASK == made_by
            elif message[1] == Type.BUNDLE_CONTROL and holds and message[12:14] == _COMMIT_REPLY:
                return when - told
        return None

    def forget(self) -> None:
        with self._changed:
            self.seen.clear()


def socket_inside(netns: str) -> socket.socket:
    """A raw ICMP socket of a network namespace. A thread goes there, because it need not come back."""
    opened: list[socket.socket | OSError] = []

    def go() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            with netns_path(netns).open() as file:
                if libc.setns(file.fileno(), _NEW_NET):
                    raise OSError(ctypes.get_errno(), "setns")
            opened.append(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
        except OSError as error:
            opened.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    if isinstance(opened[0], OSError):
        raise opened[0]
    return opened[0]


def first_answer(pinger: socket.socket, address: str) -> tuple[float, int]:
    """When the first ping was answered, and how many before it were not."""
    number = 0
    deadline = time.monotonic() + _GIVE_UP
    while time.monotonic() < deadline:
        body = struct.pack("!BBHHH", 8, 0, 0, 77, number)
        total = sum(struct.unpack("!4H", body))
        pinger.sendto(struct.pack("!BBHHH", 8, 0, ~(total + (total >> 16)) & 0xFFFF, 77, number), (address, 0))
        pinger.settimeout(_AGAIN)
        with contextlib.suppress(TimeoutError):
            while True:
                packet = pinger.recv(2048)
                now = time.monotonic()
                if packet[20] == 0 and packet[24:26] == b"\0\x4d":
                    # An answer may be late rather than lost: which one it answers tells.
                    return now, int.from_bytes(packet[26:28], "big")
        number += 1
    raise RuntimeError(f"no ping to {address} was answered within {_GIVE_UP:g} s")


@contextlib.contextmanager
def lab_of_two() -> Iterator[Lab]:
    lab = Lab(f"bench{os.getpid()}")
    with tempfile.TemporaryDirectory() as directory:
        peer = Path(directory) / "peer.yaml"
        space = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n---\n"
        peer.write_text(space + manifest(PEER, THERE))
        try:
            # Where this process is killed, the lab's guardian takes the lab down.
            problems = lab.up(settings_for(lab.layout.name, 2, **owner(os.getpid())), [peer])
            if problems:
                raise LabError("; ".join(problems))
            yield lab
        finally:
            if lab.is_up:
                lab.down()


def declare(lab: Lab, names: list[str]) -> None:
    """Have the controller know the pods; the lab isn't asked to start them."""
    path = lab.layout.manifests / "benchmark.yaml"
    temporary = path.with_name(".benchmark.yaml")
    temporary.write_text("".join(manifest(name, HERE) for name in names))
    temporary.rename(path)
    deadline = time.monotonic() + 30
    while {row["name"] for row in lab.ask("pods")["items"]} != {PEER, *names}:
        if time.monotonic() > deadline:
            raise RuntimeError("the controller doesn't know the pods")
        time.sleep(0.05)


def one(lab: Lab, snoop: Snoop, name: str, peer: str) -> tuple[float, float, int, float | None, float]:
    """Seconds from exec to return and to the first answer, pings lost, the controller's part, and its bundle's."""
    pod = kubelet.Running(
        namespace=NAMESPACE, name=name, node=HERE, container=f"bench-{name}", host_network=False, argv=()
    )
    netns, port = lab.layout.pod_netns(NAMESPACE, name), pod_port_name(NAMESPACE, name)
    substrate.make_namespace(netns)
    with socket_inside(netns) as pinger:
        begun = time.monotonic()
        kubelet.call_plugin(lab.layout, pod, "ADD")
        returned = time.monotonic()
        answered, lost = first_answer(pinger, peer)
        part = snoop.bundle_after(port, 0, object_id("Pod", NAMESPACE, name))
        (bundle,) = (row["lastBundleSeconds"] for row in lab.ask("nodes")["items"] if row["name"] == HERE)
        kubelet.call_plugin(lab.layout, pod, "DEL")
        snoop.bundle_after(port, 1)
    substrate.remove_namespace(netns)
    snoop.forget()
    return returned - begun, answered - begun, lost, part, bundle


def in_parallel(lab: Lab, names: list[str]) -> tuple[list[float], float]:
    """Seconds that each ADD took, of several at a time, and all of them together."""
    pods = [
        kubelet.Running(namespace=NAMESPACE, name=name, node=HERE, container=name, host_network=False, argv=())
        for name in names
    ]
    for pod in pods:
        substrate.make_namespace(lab.layout.pod_netns(NAMESPACE, pod.name))

    def add(pod: kubelet.Running) -> float:
        begun = time.monotonic()
        kubelet.call_plugin(lab.layout, pod, "ADD")
        return time.monotonic() - begun

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        begun = time.monotonic()
        took = list(pool.map(add, pods))
        whole = time.monotonic() - begun
        list(pool.map(lambda pod: kubelet.call_plugin(lab.layout, pod, "DEL"), pods))
    for pod in pods:
        substrate.remove_namespace(lab.layout.pod_netns(NAMESPACE, pod.name))
    return took, whole


def starts(program: Path, count: int) -> list[float]:
    """Seconds from spawning a program, as the plugin that is asked for its versions, to its end."""
    found = []
    with Path(os.devnull).open("r+") as nothing:
        actions = [(os.POSIX_SPAWN_DUP2, nothing.fileno(), descriptor) for descriptor in (0, 1)]
        for _ in range(count):
            begun = time.monotonic()
            pid = os.posix_spawn(program, [str(program)], {"CNI_COMMAND": "VERSION"}, file_actions=actions)
            os.waitpid(pid, 0)
            found.append(time.monotonic() - begun)
    return found


def start_rows(count: int) -> list[list[str]]:
    """How long each form of the plugin takes to start and to answer what needs no agent."""
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "script"
        script.write_bytes(Path(plugin.__file__).read_bytes())
        script.chmod(0o755)
        forms = {"the script": script, "nothing: /bin/true": Path("/bin/true")}
        with contextlib.suppress(BuildError):
            compile_plugin(Path(directory) / "compiled")
            forms = {"compiled": Path(directory) / "compiled", **forms}
        took = {name: starts(path, count) for name, path in forms.items()}
    to = statistics.median(took["the script"])
    return [row(f"start and VERSION, {name}", values, to, "the script") for name, values in took.items()]


def row(name: str, values: list[float], to: float, what: str) -> list[str]:
    middle, worst = statistics.median(values), rig.percentile(values, 0.99)
    return [name, f"{middle * 1e3:.1f} ms", f"{worst * 1e3:.1f} ms", f"{middle / to:.2f}", what]


def measure(lab: Lab, runs: int) -> list[list[str]]:
    names = [f"pod-{number}" for number in range(WARM_UP + runs)]
    declare(lab, names)
    (peer,) = (row["addresses"][0] for row in lab.ask("pods")["items"] if row["name"] == PEER)
    snoop = Snoop(lab.layout.node(HERE) / f"{BRIDGE}.snoop")
    found = []
    for number, name in enumerate(names):
        rig.progress(f"pod {number + 1} of {len(names)}")
        result = one(lab, snoop, name, peer)
        if number >= WARM_UP:
            found.append(result)
    parts = [each[3] for each in found if each[3] is not None]
    if len(parts) != len(found):
        print(f"{len(found) - len(parts)} bundles weren't seen on the snoop socket", file=sys.stderr)
    whole = [each[1] for each in found]

    many, together = in_parallel(lab, names[WARM_UP:])
    alone = [each[0] for each in found]
    total = statistics.median(whole)
    lost = sum(each[2] for each in found)
    return [
        row("exec of ADD to first ping answered", whole, 0.060, "aim, 60 ms"),
        row("  exec to return: plugin and agent, flows included", [each[0] for each in found], total, "all"),
        row("  return to first ping answered", [each[1] - each[0] for each in found], total, "all"),
        row("PortStatus to bundle's commit reply: controller's part", parts, 0.010, "aim, 10 ms"),
        row("  of that, bundle's start to commit reply, by its clock", [each[4] for each in found],
            statistics.median(parts), "controller's part"),
        ["pings lost after ADD returned", str(lost), "", f"{lost / len(found):.2f}", "a pod"],
        row(f"exec of ADD to return, {AT_A_TIME} at a time", many, statistics.median(alone), "one at a time"),
        [f"  ADDs a second, {AT_A_TIME} at a time", f"{len(many) / together:.0f}", "",
         f"{len(many) / together * statistics.median(alone):.2f}", "one at a time"],
    ]  # fmt: skip


def main() -> None:
    quick = rig.arguments(__doc__ or "")
    rig.need("ovs-vswitchd", "ovsdb-server", "nft", "ethtool", "nsenter")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    runs = QUICK_RUNS if quick else RUNS
    try:
        with lab_of_two() as lab:
            rows = measure(lab, runs)
        rows += start_rows(QUICK_STARTS if quick else STARTS)
    except LabError as error:
        sys.exit(f"the lab: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    rig.table(
        [f"name ({runs} pods, one after another unless said)", "median", "p99", "ratio", "compared with"],
        rows,
    )


if __name__ == "__main__":
    main()
