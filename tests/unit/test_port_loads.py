"""How much ports carry, from two looks."""

from __future__ import annotations

from controller.port_loads import LEAST, MOST, Load, PortLoads
from flows.openflow.messages import PortDesc, PortStats

PORTS = [PortDesc(1, "x1", 0, True, 10_000_000), PortDesc(2, "sb-tun0", 0, True)]


def counted(number: int, seconds: float, rx: int, tx: int) -> PortStats:
    return PortStats(number, seconds, 0, 0, rx, tx, 0, 0, 0, 0)


def test_a_load_is_what_was_carried_meanwhile_by_the_switch_s_own_clock() -> None:
    loads = PortLoads()
    assert loads.take("n", PORTS, [counted(1, 100.0, 1000, 0), counted(2, 100.0, 0, 0)], 5.0) == {}
    # Two seconds by the switch's clock, whatever the controller's says.
    found = loads.take("n", PORTS, [counted(1, 102.0, 1000 + 250_000_000, 500), counted(2, 102.0, 0, 1000)], 6.1)
    assert found == {
        ("n", "x1"): Load(1e9, 2000, 10_000_000_000),
        ("n", "sb-tun0"): Load(0, 4000, 0),
    }
    assert found["n", "x1"].part == 0.1 and found["n", "sb-tun0"].part is None


def test_only_a_look_of_late_makes_the_next_one_enough() -> None:
    loads = PortLoads()
    assert not loads.is_fresh("n", 10.0)
    loads.take("n", PORTS, [counted(1, 1.0, 0, 0)], 10.0)
    assert not loads.is_fresh("n", 10.0 + LEAST / 2)
    assert loads.is_fresh("n", 10.0 + LEAST) and loads.is_fresh("n", 10.0 + MOST)
    assert not loads.is_fresh("n", 11.0 + MOST)
    assert loads.take("n", PORTS, [counted(1, 2.0, 5, 5)], 11.0 + MOST) == {}
    loads.keep_only([])
    assert not loads.is_fresh("n", 12.0 + MOST)


def test_what_was_made_anew_or_isn_t_counted_has_no_load() -> None:
    loads = PortLoads()
    loads.take("n", PORTS, [counted(1, 100.0, 1000, 1000), counted(2, 5.0, 2**64 - 1, 2**64 - 1)], 1.0)
    assert loads.take("n", PORTS, [counted(1, 1.0, 10, 10), counted(2, 6.0, 2**64 - 1, 2**64 - 1)], 2.0) == {}
    # The same age and less than before; and a port that is described no more.
    assert loads.take("n", PORTS[:1], [counted(1, 2.0, 5, 5), counted(9, 2.0, 5, 5)], 3.0) == {}
