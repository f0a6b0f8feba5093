"""What a lab stands on: network namespaces, an underlay that joins them, and a node's own Open vSwitch.

A node's underlay NIC is a port of a second bridge, br-phy, which holds the node's addresses: Open vSwitch's userspace
tunnels are routed through its own ports and need it so (ovs userspace-tunneling documentation).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.lab import processes
from deploy.lab.layout import (
    WORLD,
    LabError,
    LabSettings,
    Layout,
    controller_addresses,
    controller_name,
    load_balancer_pools,
    netns_path,
    networks,
    node_addresses,
    outside_addresses,
    pod_cidrs,
    router_addresses,
    segment_networks,
    segment_of,
    underlay_mac,
)
from topology.naming import Address

_SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
_PROGRAMS = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "ethtool": "ethtool",
    "nft": "nftables",
    "ovs-vswitchd": "openvswitch-switch",
    "ovsdb-server": "openvswitch-common",
    "ovs-vsctl": "openvswitch-switch",
}
_DEAF_NIC = "table netdev lab {\n chain nic {\n type filter hook ingress device eth0 priority 0\n policy drop\n }\n}\n"
#: Seconds that ovs-vswitchd may take to carry out a configuration.
_SWITCH_WAIT = 15


def check_machine() -> None:
    """Raise LabError where a lab can't run here, with what to do about it."""
    if os.geteuid() != 0:
        raise LabError("a lab makes network namespaces, which takes root: run it with sudo")
    missing = sorted({package for program, package in _PROGRAMS.items() if shutil.which(program) is None})
    if missing:
        raise LabError(f"missing programs: apt-get install {' '.join(missing)}")


def run(argv: Sequence[str], *, netns: str = "", env: Mapping[str, str] | None = None, text: str | None = None) -> str:
    """Run a command to its end and return what it printed. Raises LabError with its complaint."""
    inside = ["nsenter", f"--net={netns_path(netns)}", "--"] if netns else []
    done = subprocess.run(
        [*inside, *argv],
        capture_output=True,
        text=True,
        input=text,
        timeout=60,
        check=False,
        env={**os.environ, **(env or {})},
    )
    if done.returncode:
        raise LabError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def namespaces() -> set[str]:
    """The names of all network namespaces on the machine."""
    try:
        return {entry.name for entry in netns_path("").iterdir()}
    except FileNotFoundError:
        return set()


def make_namespace(netns: str) -> None:
    """A network namespace with its loopback up. Raises LabError."""
    if netns in namespaces():
        raise LabError(f"there is a network namespace {netns} already: is another lab of this name up?")
    run(["ip", "netns", "add", netns])
    run(["ip", "-n", netns, "link", "set", "lo", "up"])


def remove_namespace(netns: str) -> None:
    """A network namespace and everything in it."""
    if netns in namespaces():
        run(["ip", "netns", "del", netns])


def make_underlay(layout: Layout, settings: LabSettings) -> None:
    """The network between nodes, and a host outside the cluster on it, behind which is the world."""
    make_namespace(layout.net)
    _ip(layout.net, f"link add br0 address {_router_mac(settings, 0)} type bridge", "link set br0 up")
    if settings.segments > 1:
        _make_router(layout, settings)
    if settings.tls:
        addresses = controller_addresses(settings)
        _ip(layout.net, *(f"addr add {each}/{_prefix(settings, each)} dev br0{_nodad(each)}" for each in addresses))
        run(["ethtool", "-K", "br0", "tx", "off"], netns=layout.net)
    make_namespace(layout.outside)
    _plug(layout, settings, layout.outside, "outside", outside_addresses(settings)[0])
    # Addresses of the world, which lead back to nowhere: only what is masqueraded gets an answer.
    commands = [f"addr add {address} dev lo" for address in WORLD]
    for address in outside_addresses(settings):
        commands.append(f"addr add {address}/{_prefix(settings, address)} dev eth0{_nodad(address)}")
    commands += [f"route add {pool} dev eth0" for pool in load_balancer_pools(settings)]
    for number in range(1, settings.segments):
        for here, there in zip(router_addresses(settings, 0), segment_networks(settings, number), strict=True):
            commands.append(f"route add {there} via {here}")
    _ip(layout.outside, *commands)


def _make_router(layout: Layout, settings: LabSettings) -> None:
    """The router that joins the L2 segments is where their bridges are: it has an address on each of them."""
    commands = []
    for number in range(settings.segments):
        bridge = f"br{number}"
        if number:
            mac = _router_mac(settings, number)
            commands += [f"link add {bridge} address {mac} type bridge", f"link set {bridge} up"]
        for address in router_addresses(settings, number):
            commands.append(f"addr add {address}/{_prefix(settings, address)} dev {bridge}{_nodad(address)}")
    for address in outside_addresses(settings):
        commands.append(f"route add {_everywhere(address)} via {address}")
    if settings.mode == "routed":
        for index in range(len(settings.nodes)):
            for cidr, address in zip(pod_cidrs(settings, index), node_addresses(settings, index), strict=True):
                commands.append(f"route add {cidr} via {address}")
    _ip(layout.net, *commands)
    for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        run(["tee", f"/proc/sys/net/{setting}"], netns=layout.net, text="1\n")


def make_node(layout: Layout, settings: LabSettings, name: str, index: int) -> None:
    """A node's namespace, its NIC on the underlay, and its switch with br-phy."""
    netns = layout.node_netns(name)
    make_namespace(netns)
    bridge = f"br{segment_of(settings, index)}"
    _plug(layout, settings, netns, f"node{index + 1}", node_addresses(settings, index)[0], bridge)
    # The switch listens on the NIC beside the kernel, not before it: the kernel must not take the same packets too.
    run(["nft", "-f", "-"], netns=netns, text=_DEAF_NIC)
    directory = layout.node(name)
    directory.mkdir(parents=True)
    for number in range(1, settings.controllers + 1):
        (directory / f"{controller_name(number)}.sock").symlink_to(layout.openflow_of(number))
    run(["ovsdb-tool", "create", str(directory / "conf.db"), str(_SCHEMA)])
    start_database(layout, name)
    start_switch(layout, name)
    mac = underlay_mac(node_addresses(settings, index)[0])
    vsctl(
        layout, name,
        "add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type=netdev",
        f'other_config:hwaddr="{mac}"', "--", "set", "interface", "br-phy", f"mtu_request={settings.mtu}",
        "--", "add-port", "br-phy", "eth0",
    )  # fmt: skip
    prepare_switch(layout, settings, name, index)


def prepare_switch(layout: Layout, settings: LabSettings, name: str, index: int) -> None:
    """What a switch doesn't keep over a restart: br-phy's addresses if it was made anew, neighbours, a setting."""
    netns = layout.node_netns(name)
    found = run(["ip", "-n", netns, "addr", "show", "dev", "br-phy"])
    commands = ["link set br-phy up"]
    for address in node_addresses(settings, index):
        if f" {address}/" not in found:
            commands.append(f"addr add {address}/{_prefix(settings, address)} dev br-phy{_nodad(address)}")
    router = router_addresses(settings, segment_of(settings, index))
    for address in router if settings.segments > 1 else outside_addresses(settings):
        commands.append(f"route replace {_everywhere(address)} via {address} dev br-phy")
    _ip(netns, *commands)
    run(["ethtool", "-K", "br-phy", "tx", "off"], netns=netns)
    # A client that takes a port again at once would be taken for a broken sender.
    appctl(layout, name, "dpctl/ct-disable-tcp-seq-chk")
    # Without this the first packet to each peer would be lost while its MAC is asked for.
    for other in range(len(settings.nodes)):
        if other != index and segment_of(settings, other) == segment_of(settings, index):
            for address in node_addresses(settings, other):
                mac = underlay_mac(node_addresses(settings, other)[0])
                appctl(layout, name, "tnl/neigh/set", "br-phy", str(address), mac)
    for address in router if settings.segments > 1 else ():
        mac = _router_mac(settings, segment_of(settings, index))
        appctl(layout, name, "tnl/neigh/set", "br-phy", str(address), mac)


def start_database(layout: Layout, node: str) -> None:
    """A node's ovsdb-server."""
    directory = layout.node(node)
    run(
        [
            "ovsdb-server", str(directory / "conf.db"), f"--remote=punix:{directory / 'db.sock'}",
            f"--unixctl={directory / 'ovsdb.ctl'}", f"--pidfile={directory / 'ovsdb.pid'}",
            f"--log-file={directory / 'ovsdb.log'}", "-vconsole:off", "--detach", "--monitor", "--no-chdir",
        ],
        netns=layout.node_netns(node),
        env=switch_environment(layout, node),
    )  # fmt: skip
    vsctl(layout, node, "--no-wait", "init")


def start_switch(layout: Layout, node: str) -> None:
    """A node's ovs-vswitchd. `--monitor` starts it again where it dies of a fault of its own."""
    directory = layout.node(node)
    argv = [
        "ovs-vswitchd", f"unix:{directory / 'db.sock'}", f"--unixctl={directory / 'vswitchd.ctl'}",
        f"--pidfile={directory / 'vswitchd.pid'}", f"--log-file={directory / 'vswitchd.log'}",
        "-vconsole:off", "--disable-system", "--detach", "--monitor", "--no-chdir",
    ]  # fmt: skip
    deadline = time.monotonic() + _SWITCH_WAIT
    while True:
        try:
            run(argv, netns=layout.node_netns(node), env=switch_environment(layout, node))
            return
        except LabError:
            # One that was killed a moment ago has its pidfile until its monitor has noticed.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def stop_switch(layout: Layout, node: str, number: int = signal.SIGTERM) -> None:
    """End a node's ovs-vswitchd."""
    process = processes.of_pidfile(layout.node(node) / "vswitchd.pid")
    if process is not None:
        processes.stop([process], number=number)


def switch_environment(layout: Layout, node: str) -> dict[str, str]:
    """Variables with which Open vSwitch's tools find a node's switch and database."""
    directory = str(layout.node(node))
    return {"OVS_RUNDIR": directory, "OVS_DBDIR": directory, "OVS_LOGDIR": directory}


def directed(layout: Layout, node: str, argv: Sequence[str]) -> list[str]:
    """A command on a node. No variable says where ovs-appctl finds the switch: it is told, unless it has been."""
    words = list(argv)
    if words and words[0] == "ovs-appctl" and not any(each.startswith(("-t", "--target")) for each in words):
        words.insert(1, f"--target={layout.node(node) / 'vswitchd.ctl'}")
    return words


def vsctl(layout: Layout, node: str, *words: str) -> str:
    """ovs-vsctl on a node."""
    database = f"--db=unix:{layout.node(node) / 'db.sock'}"
    # On the node, like everything: what waits there for a switch ends with the lab.
    argv = ["ovs-vsctl", database, f"--timeout={_SWITCH_WAIT}", *words]
    return run(argv, netns=layout.node_netns(node), env=switch_environment(layout, node))


def appctl(layout: Layout, node: str, command: str, *arguments: str) -> str:
    """What ovs-appctl would ask a node's ovs-vswitchd, which may need a moment to be there. Raises LabError.

    Asked over its control socket (JSON-RPC, ovs-appctl(8)): a lab asks thousands of times, once for each pair of nodes.
    """
    path = layout.node(node) / "vswitchd.ctl"
    question = json.dumps({"id": 0, "method": command, "params": arguments}).encode()
    deadline = time.monotonic() + _SWITCH_WAIT
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as control:
                control.settimeout(_SWITCH_WAIT)
                control.connect(str(path))
                control.sendall(question)
                answer = _one_object(control)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise LabError(f"node {node}: {command}: ovs-vswitchd doesn't answer: {error}") from error
            time.sleep(0.02)
    if answer.get("error") is not None:
        raise LabError(f"node {node}: {command} {' '.join(arguments)}: {str(answer['error']).strip()}")
    return str(answer["result"])


def _one_object(control: socket.socket) -> dict[str, Any]:
    received = b""
    while True:
        data = control.recv(1 << 16)
        if not data:
            raise ConnectionError("it hung up in the middle of an answer")
        received += data
        # Until it is whole, it isn't JSON.
        with contextlib.suppress(ValueError):
            answer: dict[str, Any] = json.loads(received)
            return answer


def _plug(layout: Layout, settings: LabSettings, netns: str, port: str, address: Address, bridge: str = "br0") -> None:
    """An eth0 in a namespace, with its other end on the underlay."""
    mac = underlay_mac(address)
    _ip(
        layout.net,
        f"link add {port} mtu {settings.mtu} type veth peer name eth0 mtu {settings.mtu} address {mac} netns {netns}",
        f"link set {port} master {bridge} up",
    )
    _ip(netns, "link set eth0 up")
    run(["ethtool", "-K", "eth0", "tx", "off"], netns=netns)


def _ip(netns: str, *commands: str) -> None:
    run(["ip", "-n", netns, "-batch", "-"], text="\n".join(commands) + "\n")


def _prefix(settings: LabSettings, address: Address) -> int:
    v4, v6 = networks(settings.underlay, "underlay")
    return v4.prefixlen if address.version == 4 else v6.prefixlen


def _router_mac(settings: LabSettings, number: int) -> str:
    return underlay_mac(router_addresses(settings, number)[0])


def _everywhere(address: Address) -> str:
    return "0.0.0.0/0" if address.version == 4 else "::/0"


def _nodad(address: Address) -> str:
    return " nodad" if address.version == 6 else ""
