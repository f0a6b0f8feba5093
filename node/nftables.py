"""The nftables rules of a node: what leaves the cluster, what comes to the node's ports, what the switch refuses.

One table of our own, replaced as a whole and atomically; nobody else's rules are looked at.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address

import msgspec

from topology.naming import ENTRY_ADDRESSES, GATEWAY_PORT, Address, Network

TABLE = "signalbox"
#: Declared first, so that the deletion finds a table also the first time.
_NO_TABLE = f"table inet {TABLE} {{}}\ndelete table inet {TABLE}\n"
_FAMILIES = {4: "ip", 6: "ip6"}
_LOOPBACK = {4: "127.0.0.0/8", 6: "::1"}


class NftError(Exception):
    """nft refuses; the text is its own."""


class HostPort(msgspec.Struct, frozen=True, order=True):
    """A port of the node that a pod has; `address` is empty where it is that of every address of the node."""

    protocol: str
    port: int
    address: str = ""


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
    masquerade = list(_masquerade(cluster_cidrs, sorted(nodes, key=int), sorted(routed, key=int)))
    chains = {
        "postrouting": ["type nat hook postrouting priority srcnat; policy accept;", *masquerade],
        # Pods' connections to node ports never get here: the switch serves them where the pod is.
        "prerouting": [
            "type nat hook prerouting priority dstnat; policy accept;",
            f'iifname "{GATEWAY_PORT}" return',
            "jump entry",
        ],
        "output": ["type nat hook output priority -100; policy accept;", "jump entry"],
        "entry": _entry(node_ports, sorted(host_ports), sorted(health_ports)),
        # What comes from the switch and would go back there is what it refuses: a port of a Service that none offers.
        "refuse": [
            "type filter hook prerouting priority mangle; policy accept;",
            f'iifname != "{GATEWAY_PORT}" return',
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


def _set(addresses: Sequence[Address], version: int) -> str:
    listed = ", ".join(str(each) for each in addresses if each.version == version)
    return f"{{ {listed} }}" if listed else ""


def _entry(node_ports: tuple[int, int], host_ports: Sequence[HostPort], health_ports: Sequence[int]) -> list[str]:
    """What comes to ports of this node goes into the switch, as to an address that stands for the node."""
    lines = [f"{_FAMILIES[version]} daddr {_LOOPBACK[version]} return" for version in (4, 6)]
    lines.append("fib daddr type != local return")
    if health_ports:
        lines.append(f"tcp dport {{ {', '.join(map(str, health_ports))} }} return")
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
            if each.address and ip_address(each.address).version == entry.version:
                lines.append(f"{family} daddr {each.address} {each.protocol.lower()} dport {each.port} {goes_in}")
    return lines


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
