"""Numbers of titles: each its own, the same in whatever order titles came, also where hashes meet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import numbers
from flows.numbers import NumberError, Numbers

#: What OpenFlow keeps for itself: OFPG_ANY and its like.
RESERVED = 0xFFFFFF00
titles = st.sampled_from([f"default/s{number}/http/4" for number in range(30)])


@pytest.fixture
def few_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """First hashes of which there are only three, so that they meet all the time; second ones as ever."""
    monkeypatch.setattr(numbers, "_first", lambda title: 1 + numbers._hash(title) % 3)


def taken(*given: str) -> Numbers:
    made = Numbers()
    made.take(given)
    return made


def test_a_number_is_one_that_a_group_can_have() -> None:
    for index in range(1000):
        title = f"s{index}"
        assert 0 < Numbers()(title) < 1 << 31 <= numbers._second(title) < RESERVED


@given(st.text())
def test_a_title_alone_has_its_number_whether_it_is_in_use_or_not(title: str) -> None:
    assert taken(title)(title) == Numbers()(title)


@pytest.mark.usefixtures("few_hashes")
def test_numbers_are_a_function_of_the_titles_in_use_and_not_of_how_they_came() -> None:
    @given(st.lists(st.tuples(st.booleans(), titles)))
    def holds(events: list[tuple[bool, str]]) -> None:
        made, left = Numbers(), set[str]()
        for comes, title in events:
            if comes and title not in left:
                made.take([title])
                left.add(title)
            elif not comes:
                made.drop([title])
                left.discard(title)
        afresh = taken(*sorted(left))
        found = [made(title) for title in sorted(left)]
        assert found == [afresh(title) for title in sorted(left)]
        assert len(set(found)) == len(found)

    holds()


@pytest.mark.usefixtures("few_hashes")
def test_who_may_get_another_number_when_one_comes_or_goes_is_named_beforehand() -> None:
    @given(st.sets(titles), titles)
    def holds(there: set[str], title: str) -> None:
        others = there - {title}
        without, with_it = taken(*others), taken(*others, title)
        moved = {each for each in others if without(each) != with_it(each)}
        assert moved <= without.rivals([title]) and moved <= with_it.rivals([title])

    holds()


@pytest.mark.usefixtures("few_hashes")
def test_the_first_by_name_keeps_its_number_when_another_with_its_hash_comes() -> None:
    names = [f"s{index}" for index in range(20)]
    first = min(names)
    rival = next(name for name in names[1:] if numbers._first(name) == numbers._first(first))
    made = taken(rival)
    before = made(rival)
    made.take([first])
    assert made(first) == before != made(rival)
    made.drop([first])
    assert made(rival) == before


def test_titles_that_nothing_tells_apart_are_an_error_that_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "_hash", lambda title: 7)
    made = taken("a", "b")
    assert made("a") != made("b")
    made.take(["c"])
    with pytest.raises(NumberError, match="c: its number is that of another; rename it"):
        made("c")


@pytest.mark.usefixtures("few_hashes")
def test_the_title_that_has_a_number_is_found_and_none_for_a_number_that_none_has() -> None:
    @given(st.lists(st.tuples(st.booleans(), titles)))
    def holds(events: list[tuple[bool, str]]) -> None:
        made, left = Numbers(), set[str]()
        for comes, title in events:
            (made.take if comes else made.drop)([title])
            (left.add if comes else left.discard)(title)
            whole = {made(each): each for each in left}
            every = {1, 2, 3, *whole, *(numbers._second(f"default/s{number}/http/4") for number in range(30))}
            assert {number: made.title(number) for number in every} == {number: whole.get(number) for number in every}

    holds()
