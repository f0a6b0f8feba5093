"""What is told of peers that aren't let in: once each, not without end, and no more than fits."""

from __future__ import annotations

from controller import refusals
from controller.refusals import Refusals, Why


def test_a_peer_is_told_of_once_and_again_after_a_while_with_how_often_it_was() -> None:
    here = Refusals()
    said = [here.add("192.0.2.1", Why.EXPIRED, "its certificate has expired", float(second)) for second in range(601)]
    assert said[0] == "192.0.2.1 is refused: its certificate has expired"
    assert said[1:600] == [None] * 599
    assert said[600] == ("192.0.2.1 is refused: its certificate has expired (599 times more since this was last said)")
    assert here.totals == {Why.EXPIRED: 601}


def test_another_reason_of_the_same_peer_is_told_of_too() -> None:
    here = Refusals()
    assert here.add("192.0.2.1", Why.EXPIRED, "expired", 0.0)
    assert here.add("192.0.2.1", Why.WRONG_NODE, "n2", 1.0)
    # The same kind in other words is nothing new: a peer could find words without end.
    assert here.add("192.0.2.1", Why.WRONG_NODE, "n3", 2.0) is None
    latest, former = here.rows(3.0)
    assert (latest["kind"], latest["reason"], latest["count"], latest["secondsAgo"]) == ("wrong node", "n3", 2, 1)
    assert former["kind"] == "expired certificate"


def test_many_peers_fill_neither_log_nor_memory() -> None:
    here = Refusals()
    said = [here.add(f"2001:db8::{number:x}", Why.NOT_TLS, "rubbish", 0.0) for number in range(5000)]
    lines = [line for line in said if line is not None]
    assert len(lines) == refusals.LINES + 1 and "many peers are refused" in lines[-1]
    assert len(list(here.rows(0.0))) == refusals.REMEMBERED
    assert here.totals == {Why.NOT_TLS: 5000}
    assert here.add("192.0.2.1", Why.NOT_TLS, "rubbish", refusals.LINES_WITHIN + 1) is not None


def test_what_was_long_ago_is_not_shown() -> None:
    here = Refusals()
    here.add("192.0.2.1", Why.SLOW, "slow", 0.0)
    assert list(here.rows(refusals.SHOWN_FOR)) and not list(here.rows(refusals.SHOWN_FOR + 1))
