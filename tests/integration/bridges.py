"""Bridges of one Open vSwitch that are wired port to port by veths, with pods, and the compiler's flows in them.

There is no controller: what the compiler makes is encoded and written to each bridge's management socket. Everything is
in network namespaces without a name, which end with this process.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from pathlib import Path

from controller.batch import BUNDLE_ID, encoded, replacement
from controller.session import Session
from flows.compiler import Compiler
from flows.cookies import Scope
from flows.openflow import encode
from flows.openflow.messages import BundleReply, Error, Message
from flows.openflow.wire import BundleControl
from flows.state import Port
from flows.update import CLUSTER, Update
from topology.graph import Wire, wire
from topology.model import TRANSIT, Node, Pod
from topology.naming import HOST_END_MAC_PREFIX, POD_MAC_PREFIX, Network, format_mac, mac_of, pod_port_name

_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
_POD, _FIRST_WIRE = 10, 100


class Holder:
    """A network namespace that lives as long as this object's process."""

    def __init__(self) -> None:
        argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--", "sh", "-c", "echo; exec sleep infinity"]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.process.stdout.readline()
        self.run("ip", "link", "set", "lo", "up")

    def argv(self, *words: str) -> list[str]:
        """A command as it is called in here."""
        return ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", "--", *words]

    def run(self, *words: str, text: str | None = None) -> str:
        done = subprocess.run(self.argv(*words), input=text, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Control:
    """A bridge's management socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(str(path))
        self._session = Session(time.monotonic())
        while self._session.features is None:
            self._flush()
            self._session.receive(self._socket.recv(65536), time.monotonic())
        self._flush()

    def _flush(self) -> None:
        self._socket.sendall(b"".join(self._session.output))
        self._session.output = []

    def bundle(self, messages: Iterable[bytes]) -> None:
        """Messages in one bundle, of which none may be refused."""
        wrapped = [encode.bundle_add(BUNDLE_ID, each, number) for number, each in enumerate(messages, 1)]
        for last in (
            [encode.bundle_control(BundleControl.OPEN_REQUEST, BUNDLE_ID)],
            [*wrapped, encode.bundle_control(BundleControl.COMMIT_REQUEST, BUNDLE_ID)],
        ):
            self._socket.sendall(b"".join(last))
            told: list[Message] = []
            while not any(isinstance(each, BundleReply) for each in told):
                told += self._session.receive(self._socket.recv(65536), time.monotonic())
                self._flush()
            assert not [each for each in told if isinstance(each, Error)], told

    def close(self) -> None:
        self._socket.close()


class Bridges:
    """A bridge for each node that the wires name, and on some of them a pod, which is called after its node."""

    def __init__(
        self, directory: Path, wires: Iterable[Wire], pods: Iterable[str], transit: Iterable[str] = ()
    ) -> None:
        self.wires = list(wires)
        self.names = sorted({name for each in self.wires for name in (each.a, each.b)})
        self.compiler = Compiler()
        self.pods: dict[str, Holder] = {}
        self._directory = directory
        self._environment = {**os.environ, **{f"OVS_{name}DIR": str(directory) for name in ("RUN", "DB", "LOG")}}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._controls: dict[str, Control] = {}
        self._ports: dict[str, dict[str, int]] = {name: {} for name in self.names}
        self.host = Holder()
        try:
            self._start()
            self._build(set(pods), set(transit))
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        database = f"unix:{self._directory / 'db.sock'}"
        self._run("ovsdb-tool", "create", str(self._directory / "conf.db"), _SCHEMA)
        self._spawn("ovsdb-server", str(self._directory / "conf.db"), f"--remote=p{database}", "--unixctl=none")
        self.vsctl("--no-wait", "init")
        control = f"--unixctl={self._directory / 'control.sock'}"
        self._spawn("ovs-vswitchd", database, "--disable-system", control)

    def _spawn(self, *argv: str) -> None:
        with (self._directory / f"{argv[0]}.log").open("wb") as log:
            words = self.host.argv("setpriv", "--pdeathsig", "KILL", "--", *argv)
            self._processes.append(subprocess.Popen(words, env=self._environment, stdout=log, stderr=log))

    def _run(self, *argv: str) -> str:
        words = self.host.argv(*argv)
        done = subprocess.run(words, env=self._environment, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
        return done.stdout

    def vsctl(self, *words: str) -> str:
        return self._run("ovs-vsctl", f"--db=unix:{self._directory / 'db.sock'}", "--retry", "--timeout=20", *words)

    def ofctl(self, *words: str) -> str:
        return self._run("ovs-ofctl", "-O", "OpenFlow15", *words)

    def appctl(self, *words: str) -> str:
        return self._run("ovs-appctl", "-t", str(self._directory / "control.sock"), *words)

    def _build(self, pods: set[str], transit: set[str]) -> None:
        ports: list[str] = []
        for name in self.names:
            settings = ("datapath_type=netdev", "fail_mode=secure", "protocols=OpenFlow15")
            ports += ["--", "add-br", name, "--", "set", "bridge", name, *settings]
        for number, each in enumerate(self.wires):
            devices = f"w{number}a", f"w{number}b"
            self.host.run("ip", "link", "add", devices[0], "type", "veth", "peer", "name", devices[1])
            for device, name, port in zip(devices, (each.a, each.b), (each.a_port, each.b_port), strict=True):
                # Wires carry what bridges send, and nothing of the kernel's own.
                self.host.run("sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=1")
                self.host.run("ip", "link", "set", device, "up")
                ports += self._add_port(name, device, _FIRST_WIRE + number)
                self._ports[name][port] = _FIRST_WIRE + number
        for number, name in enumerate(self.names, 1):
            self.compiler.put(node(name, number, is_transit=name in transit))
        for name in pods:
            ports += self._add_port(name, self._make_pod(name), _POD)
        self.vsctl(*ports[1:])
        for name in self.names:
            self._controls[name] = Control(self._directory / f"{name}.mgmt")
            self.compiler.set_ports(name, self.ports(name))
        self.compiler.set_links(self.wires)
        for name in self.names:
            self._fill(name)

    def _add_port(self, bridge: str, device: str, number: int) -> list[str]:
        return ["--", "add-port", bridge, device, "--", "set", "interface", device, f"ofport_request={number}"]

    def _make_pod(self, name: str) -> str:
        pod = self.pods[name] = Holder()
        cidrs = self.compiler.cluster.nodes[name].pod_cidrs
        addresses = tuple(cidr[2] for cidr in cidrs)
        self.compiler.put(Pod(namespace="default", name=name, node=name, addresses=addresses))
        device = pod_port_name("default", name)
        mac = format_mac(mac_of(POD_MAC_PREFIX, addresses[0]))
        peer = ["peer", "name", "eth0", "address", mac, "netns", str(pod.process.pid)]
        self.host.run("ip", "link", "add", device, "type", "veth", *peer)
        self.host.run("ip", "link", "set", device, "up")
        pod.run("ethtool", "-K", "eth0", "tx", "off")
        for cidr, address in zip(cidrs, addresses, strict=True):
            pod.run("ip", "address", "add", f"{address}/{cidr.prefixlen}", "dev", "eth0", "nodad")
        pod.run("ip", "link", "set", "eth0", "up")
        for cidr in cidrs:
            pod.run("ip", f"-{cidr.version}", "route", "add", "default", "via", str(cidr[1]))
        return device

    def ports(self, name: str, down: Iterable[str] = ()) -> list[Port]:
        """A node's ports, of which those `down` have no link."""
        found = [Port(number, port, number, up=port not in down) for port, number in self._ports[name].items()]
        if name in self.pods:
            address = self.compiler.cluster.nodes[name].pod_cidrs[0][2]
            found.append(Port(_POD, pod_port_name("default", name), mac_of(HOST_END_MAC_PREFIX, address)))
        return found

    def _fill(self, name: str) -> None:
        flows, groups = list(self.compiler.flows(name)), list(self.compiler.groups(name))
        messages = [encode.group_mod(each) for each in groups]
        if not self.compiler.cluster.nodes[name].is_transit:
            messages += [message for message, _ in replacement(self.compiler.flows(CLUSTER), Scope.CLUSTER, 1)]
        messages += [message for message, _ in replacement(flows, Scope.NODE, 1)]
        self._controls[name].bundle(messages)

    def take(self, updates: Iterable[Update]) -> None:
        """Have the bridges follow a change."""
        for update in updates:
            transit = self.compiler.cluster.transit
            names = set(self.names) - transit if update.scope == CLUSTER else {update.scope}
            for name in names:
                self._controls[name].bundle(message for message, _ in encoded(update).steps)

    def device(self, wire: Wire, end: str) -> str:
        """The device at a node's end of a wire."""
        return f"w{self.wires.index(wire)}{'a' if end == wire.a else 'b'}"

    def set_link(self, wire: Wire, state: str) -> None:
        """Take a wire's link "down", or "up" again: both ends notice."""
        self.host.run("ip", "link", "set", self.device(wire, wire.a), state)

    def address(self, pod: str, version: int = 4) -> str:
        return str(next(cidr[2] for cidr in self.compiler.cluster.nodes[pod].pod_cidrs if cidr.version == version))

    def ping(self, source: str, target: str, *options: str, version: int = 4) -> int:
        """How many pings are answered."""
        words = ["ping", f"-{version}", "-n", "-q", *options, self.address(target, version)]
        done = subprocess.run(self.pods[source].argv(*words), capture_output=True, text=True, timeout=60, check=False)
        return next(int(line.split(",")[1].split()[0]) for line in done.stdout.splitlines() if " received" in line)

    def carried(self) -> Mapping[Wire, int]:
        """Packets that each wire has carried, either way."""
        told = json.loads(self.host.run("ip", "-j", "-s", "link"))
        stats = {row["ifname"]: row["stats64"] for row in told}
        found: dict[Wire, int] = {}
        for each in self.wires:
            counted = stats[self.device(each, each.a)]
            found[each] = counted["rx"]["packets"] + counted["tx"]["packets"]
        return found

    def close(self) -> None:
        for control in self._controls.values():
            control.close()
        for process in self._processes:
            process.kill()
            process.wait()
        for holder in (*self.pods.values(), self.host):
            holder.close()


def node(name: str, number: int, *, is_transit: bool = False) -> Node:
    """The number-th node."""
    cidrs: tuple[Network, ...] = (ip_network(f"10.244.{number}.0/24"), ip_network(f"fd00:10:244:{number:x}::/64"))
    labels = (TRANSIT,) if is_transit else ()
    return Node(name=name, addresses=(), pod_cidrs=() if is_transit else cidrs, labels=labels)


def join(a: str, b: str, number: int = 0) -> Wire:
    """A wire between two nodes, whose ports are called after the other end; `number` tells parallel ones apart."""
    suffix = f"-{number}" if number else ""
    return wire((a, f"to-{b}{suffix}"), (b, f"to-{a}{suffix}"))
