"""Wired bridges on a real Open vSwitch: packets cross them, spread over equal ways, and go round a link that fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bridges import Bridges, join

FAMILIES = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Bridges]:
    bridges = Bridges(tmp_path, [join("a", "b"), join("b", "c")], ["a", "c"], transit=["b"])
    yield bridges
    bridges.close()


def test_pods_reach_each_other_over_a_bridge_in_transit(three: Bridges) -> None:
    for version in (4, 6):
        assert three.ping("a", "c", "-i0.01", "-c20", "-W1", version=version) == 20
