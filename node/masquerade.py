"""The nftables rules of a node: what leaves the cluster does so with the node's address.

One table of our own, replaced as a whole and atomically; nobody else's rules are looked at.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from topology.naming import GATEWAY_PORT, Network

TABLE = "signalbox"
#: Declared first, so that the deletion finds a table also the first time.
_NO_TABLE = f"table inet {TABLE} {{}}\ndelete table inet {TABLE}\n"


class NftError(Exception):
    """nft refuses; the text is its own."""


def rules(cluster_cidrs: Sequence[Network]) -> str:
    """The table as `nft -f` takes it."""
    lines = []
    for cidr in cluster_cidrs:
        family = "ip" if cidr.version == 4 else "ip6"
        lines.append(
            f'    oifname != "{GATEWAY_PORT}" {family} saddr {cidr} {family} daddr != {cidr} counter masquerade'
        )
    chain = "\n".join(["    type nat hook postrouting priority srcnat; policy accept;", *lines])
    return f"{_NO_TABLE}table inet {TABLE} {{\n  chain postrouting {{\n{chain}\n  }}\n}}\n"


def apply(cluster_cidrs: Sequence[Network]) -> None:
    """Put the table in force. Raises NftError."""
    _nft(rules(cluster_cidrs))


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
