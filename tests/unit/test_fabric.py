"""Bridges that are wired port to port: packets go from one to the next until they are where they should be."""

from __future__ import annotations

import pytest
from wired import Wired, line

from flows import fields as f
from topology.naming import ROUTER_MAC

FAMILIES = pytest.mark.parametrize("version", [4, 6])


@FAMILIES
def test_a_packet_crosses_three_bridges_and_is_answered(version: int) -> None:
    cluster = Wired(line("a", "b", "c"), pods=["a", "c"])
    there = cluster.ping("a", "c", version)
    assert there.way == ["a", "b", "c"]
    pod = cluster.pod("c")
    assert (there.port, there.packet[f.ETH_SRC], there.packet[f.ETH_DST]) == (pod.port, ROUTER_MAC, pod.mac)
    back = cluster.ping("c", "a", version, reply=True)
    assert back.way == ["c", "b", "a"]
    assert back.packet[f.CT_STATE] == f.CT_TRK | f.CT_EST | f.CT_RPL
