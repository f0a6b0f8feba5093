"""Which address a new pod gets. Pure: what is taken, and what was given last, comes from OVSDB, the only place where it
is written down."""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import chain

from topology.naming import Network, places


class ExhaustedError(Exception):
    """Every place of the node's pod CIDRs is taken."""


def next_place(pod_cidrs: Sequence[Network], taken: Container[int], last: int) -> int:
    """The first free place after the one given last, from the start again after the end.

    So an address rests for as long as it can before another pod has it: what still believes in the old pod has time to
    find out.
    """
    room = places(pod_cidrs)
    start = last + 1 if last + 1 in room else room.start
    for place in chain(range(start, room.stop), range(room.start, start)):
        if place not in taken:
            return place
    raise ExhaustedError(f"no free address in {' or '.join(map(str, pod_cidrs))}: {len(room)} pods have one each")
