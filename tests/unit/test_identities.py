"""Identities: what makes pods alike, and that numbers depend on what pods are and not on how they came."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_objects import pod, pod_names, pods

from topology import identities as module
from topology.identities import FIRST_IDENTITY, IDENTITY_BITS, UNIMPORTANT, Identities
from topology.model import ContainerPort, Pod

HASH = "pod-template-hash"


def known(*given: Pod) -> Identities:
    made = Identities()
    for each in given:
        made.put(each)
    return made


def numbers(made: Identities, *given: Pod) -> list[int]:
    return [made.of_pod(each.namespace, each.name) for each in given]


# Who is like whom ---------------------------------------------------------------------------------------------------


def test_pods_of_one_namespace_with_the_same_labels_are_one_identity() -> None:
    alike = pod("one", app="web"), pod("two", app="web")
    made = known(*alike)
    (number,) = set(numbers(made, *alike))
    assert FIRST_IDENTITY <= number < 1 << IDENTITY_BITS
    assert made.pods(number) == {("a", "one"), ("a", "two")}
    assert (made[number].namespace, made[number].labels) == ("a", (("app", "web"),))


@pytest.mark.parametrize(
    "other",
    [
        pod("two", "b", app="web"),
        pod("two", app="db"),
        pod("two"),
        pod("two", app="web", tier="front"),
        pod("two", ports=(ContainerPort(port=80, name="http"),), app="web"),
    ],
    ids=["namespace", "value", "no label", "label more", "named port"],
)
def test_pods_that_policies_could_tell_apart_have_identities_of_their_own(other: Pod) -> None:
    first = pod("one", app="web")
    made = known(first, other)
    assert len(set(numbers(made, first, other))) == 2


def test_ports_without_a_name_and_their_order_and_node_and_addresses_don_t_matter() -> None:
    web, dns = ContainerPort(port=80, name="http"), ContainerPort(port=53, name="dns", protocol="UDP")
    first = Pod(namespace="a", name="one", node="n1", ports=(web, dns, ContainerPort(port=9)))
    second = Pod(namespace="a", name="two", node="n2", ports=(dns, web, web), ready=False)
    assert len(set(numbers(known(first, second), first, second))) == 1


@pytest.mark.parametrize("key", sorted(UNIMPORTANT))
def test_labels_that_a_controller_makes_for_each_pod_matter_only_while_a_policy_asks_for_them(key: str) -> None:
    both = pod("one", app="web", **{key: "1"}), pod("two", app="web", **{key: "2"})
    made = known(*both)
    (common,) = set(numbers(made, *both))
    assert made.ask_for(["app", key]) == {key}
    for each in both:
        made.put(each)
    assert len(set(numbers(made, *both))) == 2 and made.idle == {common}
    assert made.ask_for([key]) == set() == made.ask_no_more([key])
    assert made.ask_no_more(["app", key]) == {key}
    for each in both:
        made.put(each)
    assert numbers(made, *both) == [common, common]


def test_a_pod_of_the_host_s_network_has_none_and_loses_the_one_it_had() -> None:
    made = known(pod("one"))
    (number,) = made
    made.put(Pod(namespace="a", name="one", host_network=True))
    assert made.of_pod("a", "one") == 0 and made.idle == {number}
    assert made.of_pod("a", "nobody") == 0


# Coming and going ---------------------------------------------------------------------------------------------------


def test_put_tells_numbers_that_are_new_and_only_those() -> None:
    made = Identities()
    number = made.put(pod("one", app="web"))
    assert number is not None and number in made
    assert made.put(pod("two", app="web")) is None
    assert made.put(pod("one", app="web")) is None
    assert made.put(pod("one", app="db")) not in (None, number)
    assert made.put(pod("one", app="web")) is None


def test_a_number_rests_when_its_last_pod_goes_and_is_back_when_one_comes() -> None:
    made = known(pod("one"), pod("two"))
    (number,) = made
    made.remove("a", "one")
    assert not made.idle
    made.remove("a", "two")
    made.remove("a", "never was there")
    assert made.idle == {number} and list(made) == [number] and not made.pods(number)
    assert made.put(pod("three")) is None
    assert not made.idle and made.of_pod("a", "three") == number


def test_a_number_that_is_released_is_nobody_s() -> None:
    made = known(pod("one"))
    (number,) = made
    made.remove("a", "one")
    made.release(number)
    assert number not in made and not made.idle and made.namespaces() == [] and not made.of_namespace("a")
    assert made.put(pod("one")) == number


def test_a_number_that_pods_have_can_t_be_released() -> None:
    made = known(pod("one"))
    (number,) = made
    with pytest.raises(KeyError):
        made.release(number)
    assert made.of_pod("a", "one") == number


Event = Callable[[Identities, dict[tuple[str, str], Pod]], None]


def _put(new: Pod) -> Event:
    def event(made: Identities, there: dict[tuple[str, str], Pod]) -> None:
        made.put(new)
        there[new.namespace, new.name] = new

    return event


def _remove(name: tuple[str, str]) -> Event:
    def event(made: Identities, there: dict[tuple[str, str], Pod]) -> None:
        made.remove(*name)
        there.pop(name, None)

    return event


def _release(made: Identities, there: dict[tuple[str, str], Pod]) -> None:
    for number in made.idle:
        made.release(number)


events = st.lists(pods.map(_put) | pod_names.map(_remove) | st.just(_release), max_size=30)


@given(events, st.randoms(use_true_random=False))
def test_numbers_are_the_same_in_whatever_order_pods_come(events: list[Event], random: object) -> None:
    made, there = Identities(), dict[tuple[str, str], Pod]()
    for event in events:
        event(made, there)
    left = list(there.values())
    random.shuffle(left)  # type: ignore[attr-defined]
    assert numbers(made, *left) == numbers(known(*left), *left)
    assert not made.unsettled()
    for number in made:
        assert made.of_namespace(made[number].namespace) >= {number}
        assert bool(made.pods(number)) != (number in made.idle)
    assert made.namespaces() == sorted({made[number].namespace for number in made})


# Where hashes meet --------------------------------------------------------------------------------------------------


@pytest.fixture
def few_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """First hashes are all one number; those that follow are as ever."""
    hash_of = module._hash
    monkeypatch.setattr(module, "_hash", lambda title, attempt: hash_of(title, attempt) if attempt else 256)


def settle(made: Identities) -> Identities:
    """Have every identity the number that it is to have."""
    moves = made.unsettled()
    for number in made.squatters(moves):
        made.release(number)
    made.move(moves)
    return made


@pytest.mark.usefixtures("few_hashes")
def test_where_hashes_meet_none_has_the_number_and_each_takes_another_in_whatever_order_they_come() -> None:
    first, second = pod("one", app="web"), pod("two", app="db")
    made, other = settle(known(first, second)), settle(known(second, first))
    assert 256 not in made and len(set(numbers(made, first, second))) == 2
    assert numbers(made, first, second) == numbers(other, first, second)
    assert not made.unsettled()


@pytest.mark.usefixtures("few_hashes")
def test_who_is_left_alone_has_its_first_hash_again() -> None:
    first, second = pod("one", app="web"), pod("two", app="db")
    made = settle(known(first, second))
    made.remove("a", "two")
    assert numbers(settle(made), first) == [256]


@pytest.mark.usefixtures("few_hashes")
def test_an_idle_number_that_is_in_the_way_is_given_up() -> None:
    first, second = pod("one", app="web"), pod("two", app="db")
    made = known(first)
    made.remove("a", "one")
    made.put(second)
    moves = made.unsettled()
    assert (list(moves.values()), made.squatters(moves)) == ([256], [256])
    assert numbers(settle(made), second) == [256] and made.idle == frozenset()


@pytest.mark.usefixtures("few_hashes")
def test_one_that_is_expected_and_comes_where_hashes_meet_is_settled_like_any_other() -> None:
    first, second = pod("one", app="web"), pod("two", app="db")
    made = Identities()
    for each in (first, second):
        made.expect(each, ())
    assert not made.unsettled()
    for each in (first, second):
        made.put(each)
    assert numbers(settle(made), first, second) == numbers(settle(known(second, first)), first, second)
    assert 256 not in made


@pytest.mark.usefixtures("few_hashes")
def test_where_hashes_meet_numbers_follow_from_the_pods_that_there_are() -> None:
    @given(events, st.randoms(use_true_random=False))
    def holds(events: list[Event], random: object) -> None:
        made, there = Identities(), dict[tuple[str, str], Pod]()
        for event in events:
            event(made, there)
            settle(made)
        left = list(there.values())
        random.shuffle(left)  # type: ignore[attr-defined]
        assert numbers(made, *left) == numbers(settle(known(*left)), *left)

    holds()
