"""Who may reach whom: the matrix says of identities what `policy-check` says of each of their pods."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_objects import has
from policy_worlds import Case, cases
from test_policy_parts import compiled
from test_policy_verdicts import ordered, snapshot
from test_policy_views import CLIENT, DB, DB_POLICY, OBJECTS, OTHER
from test_policy_worlds import few

from controller import policy_matrix, policy_views
from controller.policy_views import QuestionError
from flows.compiler import Compiler
from topology.model import Pod
from topology.policies import IpBlock, PodSet, Policy, Rule


def matrix(compiler: Compiler, *namespaces: str, protocol: str = "TCP", port: int = 80, family: int = 0) -> Any:
    *_, found = policy_matrix.matrix(compiler, namespaces, protocol, port, family)
    return found


def table(found: Any) -> dict[tuple[str, str], str]:
    """Cells by the names of who asks and who is asked."""
    names = [row["name"] for row in found["subjects"]]
    return {(a, b): found["cells"][i][j] for i, a in enumerate(names) for j, b in enumerate(names)}


def test_it_tells_who_may_reach_whom_at_a_port() -> None:
    found = matrix(compiled(*OBJECTS), "shop", port=5432)
    assert [(row["name"], row["pods"], row["example"]) for row in found["subjects"]] == [
        ("shop[app=client]", 1, "shop/client"),
        ("shop[app=db]", 1, "shop/db"),
        ("shop[app=other]", 1, "shop/other"),
    ]
    assert found["cells"] == [["Allow", "Allow", "Allow"], ["Allow", "Deny", "Allow"], ["Allow", "Deny", "Allow"]]
    assert found["namespaces"] == ["shop"]
    assert set(table(matrix(compiled(*OBJECTS), port=80)).values()) == {"Allow", "Deny"}


@few
@given(cases(), st.sampled_from(["TCP", "UDP", "SCTP", "ICMP"]), st.sampled_from([53, 80, 443, 8080]))
def test_it_agrees_with_the_check_of_each_two_pods(case: Case, protocol: str, port: int) -> None:
    compiler = compiled(*ordered(snapshot(case.objects)))
    identities = compiler.policies.identities
    found = matrix(compiler, protocol=protocol, port=port)
    place = {row["identity"]: index for index, row in enumerate(found["subjects"])}
    pods = [pod for pod in compiler.cluster.pods.values() if pod.addresses and not pod.host_network]
    assert {identities.of_pod(pod.namespace, pod.name) for pod in pods} == set(place)
    said: dict[tuple[int, int], set[bool]] = {}
    for source in pods:
        for target in pods:
            versions = [{each.version for each in pod.addresses} for pod in (source, target)]
            cell = tuple(place[identities.of_pod(pod.namespace, pod.name)] for pod in (source, target))
            verdicts = said.setdefault((cell[0], cell[1]), set())
            if versions[0] & versions[1]:
                ends = (f"{pod.namespace}/{pod.name}" for pod in (source, target))
                verdicts.add(policy_views.check(compiler, *ends, protocol, port, 0)["allowed"])
    words = {frozenset({True}): "Allow", frozenset({False}): "Deny", frozenset({True, False}): "Mixed"}
    for (row, column), verdicts in said.items():
        assert found["cells"][row][column] == words.get(frozenset(verdicts), "None")


def test_pods_of_one_identity_that_a_policy_tells_apart_by_address_are_mixed() -> None:
    twin = msgspec.structs.replace(CLIENT, name="twin", addresses=(ip_address("10.244.1.77"),))
    block = IpBlock(ip_network("10.244.1.0/24"), (ip_network("10.244.1.64/26"),))
    policy = Policy(namespace="shop", name="some", subjects=PodSet((has("app", "other"),), "shop"),
                    ingress=(Rule(peers=(block,)),))  # fmt: skip
    cells = table(matrix(compiled(*OBJECTS, twin, policy)))
    assert cells["shop[app=client]", "shop[app=other]"] == "Mixed"
    assert cells["shop[app=db]", "shop[app=other]"] == "Deny" and cells["shop[app=other]", "shop[app=other]"] == "Allow"


def test_families_that_two_have_not_in_common_are_told_of() -> None:
    old, new = (msgspec.structs.replace(pod, addresses=pod.addresses[part]) for pod, part in
                ((CLIENT, slice(1)), (OTHER, slice(1, 2))))  # fmt: skip
    cells = table(matrix(compiled(old, new, DB)))
    assert Counter(cells.values()) == {"Allow": 7, "None": 2}
    assert table(matrix(compiled(old, new, DB), family=6))["shop[app=client]", "shop[app=db]"] == "None"


def test_pods_without_an_address_yet_are_left_out() -> None:
    new = msgspec.structs.replace(CLIENT, addresses=())
    assert [row["name"] for row in matrix(compiled(new, DB, DB_POLICY), port=5432)["subjects"]] == ["shop[app=db]"]


def many(count: int) -> list[Pod]:
    return [
        msgspec.structs.replace(
            CLIENT, name=f"p{each}", labels=(("app", f"p{each}"),), addresses=(ip_address(1000 + each),)
        )
        for each in range(count)
    ]


@pytest.mark.parametrize(
    ("namespaces", "protocol", "port", "words"),
    [
        ([], "TCP", 80, "there are 101 identities in all, more than 100; say one namespace"),
        (["shop"], "TCP", 80, "there are 101 identities in shop"),
        (["none"], "GRE", 80, "no protocol 'GRE'"),
        (["none"], "TCP", 0, "TCP goes to a port from 1 to 65535"),
    ],
)
def test_what_it_has_no_answer_to_is_refused(namespaces: list[str], protocol: str, port: int, words: str) -> None:
    with pytest.raises(QuestionError, match=words):
        list(policy_matrix.matrix(compiled(*many(101)), namespaces, protocol, port))


def test_a_hundred_identities_are_judged_a_few_at_a_time() -> None:
    found = list(policy_matrix.matrix(compiled(*many(100)), [], "TCP", 80))
    assert len(found) > 400 and found.pop() is not None and set(found) == {None}


def test_addresses_that_make_too_many_kinds_of_pods_are_refused() -> None:
    pods = [
        msgspec.structs.replace(CLIENT, name=f"p{each}", addresses=(ip_address(1000 + each),)) for each in range(201)
    ]
    blocks = tuple(IpBlock(ip_network(f"{ip_address(1000 + each)}/32")) for each in range(201))
    policy = Policy(namespace="shop", name="all", subjects=PodSet((), "shop"), ingress=(Rule(peers=blocks),))
    with pytest.raises(QuestionError, match="201 kinds of pods"):
        list(policy_matrix.matrix(compiled(*pods, policy), [], "TCP", 80))
