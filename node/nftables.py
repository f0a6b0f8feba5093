"""The nftables rules of a node: what leaves the cluster, what comes to the node's ports, what the switch refuses.

One table of our own, replaced as a whole and atomically; nobody else's rules are looked at.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address

import msgspec

from topology.naming import ENTRY_ADDRESSES, GATEWAY_PORT, HAIRPIN_ADDRESSES, Address, Network

TABLE = "signalbox"
#: Declared first, so that the deletion finds a table also the first time.
_NO_TABLE = f"table inet {TABLE} {{}}\ndelete table inet {TABLE}\n"
_FAMILIES = {4: "ip", 6: "ip6"}
_LOOPBACK = {4: "127.0.0.0/8", 6: "::1"}


class NftError(Exception):
    """nft refuses; the text is its own."""


class HostPort(msgspec.Struct, frozen=True, order=True):
    """A port of the node that a pod has; `address` is empty where it is that of every address of the node.

    One of a single address leads to the pod itself: `to` and `to_port`. The switch couldn't tell by the address that
    stands for the node which of the node's was called.
    """

    protocol: str
    port: int
    address: str = ""
    to: str = ""
    to_port: int = 0

    @property
    def by_loopback(self) -> bool:
        """Whether it is there for processes of the node alone."""
        return bool(self.address) and ip_address(self.address).is_loopback


def rules(
    cluster_cidrs: Sequence[Network],
    node_ports: tuple[int, int],
    host_ports: Iterable[HostPort] = (),
    health_ports: Iterable[int] = (),
    nodes: Iterable[Address] = (),
    routed: Iterable[Address] = (),
) -> str:
    """The table as `nft -f` takes it.

    `nodes`: their addresses; `routed`: those to which pods' packets go by this host, and which know pods by their own.
    """
    host_ports = sorted(host_ports)
    masquerade = list(_masquerade(cluster_cidrs, sorted(nodes, key=int), sorted(routed, key=int)))
    # By loopback a process has an address that no pod can answer.
    masquerade.append(f'oifname "{GATEWAY_PORT}" ip saddr {_LOOPBACK[4]} counter masquerade')
    masquerade += _calls_of_itself()
    chains = {
        "postrouting": ["type nat hook postrouting priority srcnat; policy accept;", *masquerade],
        # Pods' connections to node ports never get here: the switch serves them where the pod is.
        "prerouting": [
            "type nat hook prerouting priority dstnat; policy accept;",
            f'iifname "{GATEWAY_PORT}" return',
            "jump entry",
        ],
        # From here alone: what others send to loopback addresses is not to get anywhere.
        "output": [
            "type nat hook output priority -100; policy accept;",
            *(_to_pod(each) for each in host_ports if each.by_loopback),
            "jump entry",
        ],
        "entry": _entry(node_ports, host_ports, sorted(health_ports)),
        # What comes from the switch and would go back there is what it refuses: a port of a Service that none offers.
        "refuse": [
            "type filter hook prerouting priority mangle; policy accept;",
            f'iifname != "{GATEWAY_PORT}" return',
            # With host ports at loopback addresses the kernel takes such packets, from pods too.
            f"ip daddr {_LOOPBACK[4]} counter drop",
            f'fib daddr oifname != "{GATEWAY_PORT}" return',
            # A pod on a node that there is not, or not yet. It must not cost a connection while routes change.
            *(
                f"{_FAMILIES[cidr.version]} daddr {cidr} counter reject with icmpx host-unreachable"
                for cidr in cluster_cidrs
            ),
            "meta l4proto tcp counter reject with tcp reset",
            "counter reject with icmpx port-unreachable",
        ],
    }
    # A chain that is jumped to must come first.
    order = ("entry", "postrouting", "prerouting", "output", "refuse")
    text = "\n".join(
        f"  chain {name} {{\n" + "".join(f"    {line}\n" for line in chains[name]) + "  }" for name in order
    )
    return f"{_NO_TABLE}table inet {TABLE} {{\n{text}\n}}\n"


def _masquerade(cluster_cidrs: Sequence[Network], nodes: Sequence[Address], routed: Sequence[Address]) -> Iterator[str]:
    """What leaves the cluster has this node for its sender."""
    for cidr in cluster_cidrs:
        family = _FAMILIES[cidr.version]
        here = f'oifname != "{GATEWAY_PORT}" {family} saddr {cidr}'
        if known := _set(nodes, cidr.version):
            # A connection that began by a tunnel, which a change of mode has just brought here: it stays who it is.
            yield f"{here} {family} daddr {known} tcp flags & (syn | ack) != syn return"
        but = f"{family} daddr != {others} " if (others := _set(routed, cidr.version)) else ""
        yield f"{here} {family} daddr != {cidr} {but}counter masquerade"
    for hairpin in HAIRPIN_ADDRESSES:
        # What the host, or the world by it, asks of a Service whose endpoint is out there, too: by the bridge and back.
        yield f'oifname != "{GATEWAY_PORT}" {_FAMILIES[hairpin.version]} saddr {hairpin} counter masquerade'


def _calls_of_itself() -> Iterator[str]:
    """A process of this node that calls a port of it is the gateway's address to whom it reaches.

    To the node's own address other nodes would answer past the switch that knows the connection.
    """
    for entry in ENTRY_ADDRESSES:
        to = f"{_FAMILIES[entry.version]} daddr {entry}"
        yield f'oifname "{GATEWAY_PORT}" {to} fib saddr type local counter masquerade'


def _set(addresses: Sequence[Address], version: int) -> str:
    listed = ", ".join(str(each) for each in addresses if each.version == version)
    return f"{{ {listed} }}" if listed else ""


def _entry(node_ports: tuple[int, int], host_ports: Sequence[HostPort], health_ports: Sequence[int]) -> list[str]:
    """What comes to ports of this node goes into the switch, as to an address that stands for the node."""
    lines = [f"{_FAMILIES[version]} daddr {_LOOPBACK[version]} return" for version in (4, 6)]
    lines.append("fib daddr type != local return")
    if health_ports:
        lines.append(f"tcp dport {{ {', '.join(map(str, health_ports))} }} return")
    # Before those of all addresses: with a number of the range of node ports, too.
    lines += [_to_pod(each) for each in host_ports if each.to and not each.by_loopback]
    low, high = node_ports
    everywhere = [f"{each.protocol.lower()} . {each.port}" for each in host_ports if not each.address]
    for entry in ENTRY_ADDRESSES:
        family = _FAMILIES[entry.version]
        nfproto = "ipv4" if entry.version == 4 else "ipv6"
        goes_in = f"dnat {family} to {entry}"
        lines.append(f"meta nfproto {nfproto} meta l4proto {{ tcp, udp, sctp }} th dport {low}-{high} {goes_in}")
        if everywhere:
            lines.append(f"meta nfproto {nfproto} meta l4proto . th dport {{ {', '.join(everywhere)} }} {goes_in}")
        for each in host_ports:
            # Of a controller that doesn't say where it leads.
            if each.address and not each.to and ip_address(each.address).version == entry.version:
                lines.append(f"{family} daddr {each.address} {each.protocol.lower()} dport {each.port} {goes_in}")
    return lines


def _to_pod(port: HostPort) -> str:
    """What is sent to a host port of one address goes to the pod."""
    family = _FAMILIES[ip_address(port.address).version]
    to = f"[{port.to}]" if family == "ip6" else port.to
    protocol = port.protocol.lower()
    return f"{family} daddr {port.address} {protocol} dport {port.port} dnat {family} to {to}:{port.to_port}"


def apply(text: str) -> None:
    """Put rules in force. Raises NftError."""
    _nft(text)


def remove() -> None:
    """Take the table away. Raises NftError."""
    _nft(_NO_TABLE)


def _nft(text: str) -> None:
    try:
        done = subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError as error:
        raise NftError("nft is not installed: apt-get install nftables") from error
    if done.returncode:
        raise NftError(f"nft: {done.stderr.strip()}")
