"""Laws that hold in any cluster with any policies, and what the random clusters and questions must be good for."""

from __future__ import annotations

import json
from collections import Counter
from copy import deepcopy
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from policy_oracle import Party, World, verdict
from policy_worlds import Case, Raw, address_of, cases, questions, worlds

few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def answers(case: Case, objects: list[Raw]) -> list[bool]:
    there = World(objects)
    return [verdict(there, *question).allowed for question in case.questions]


@few
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_objects_is_of_no_meaning(case: Case, chance: Random) -> None:
    shuffled = list(case.objects)
    chance.shuffle(shuffled)
    assert answers(case, shuffled) == answers(case, case.objects)


@few
@given(cases())
def test_without_their_policies_all_are_allowed(case: Case) -> None:
    assert all(answers(case, [each for each in case.objects if "olicy" not in each["kind"]]))


@few
@given(cases(), st.data())
def test_a_rule_more_in_a_network_policy_never_refuses_what_was_allowed(case: Case, data: st.DataObject) -> None:
    """As long as it doesn't isolate for a direction that was free: so the types are written down first."""
    objects = deepcopy(case.objects)
    policies = [each["spec"] for each in objects if each["kind"] == "NetworkPolicy"]
    for spec in policies:
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    before = answers(case, objects)
    assert before == answers(case, case.objects)
    for spec in policies:
        for direction in ("ingress", "egress"):
            rule = data.draw(st.sampled_from([None, {}, {"ports": [{"port": 80}]}, {"ports": [{"protocol": "UDP"}]}]))
            spec.setdefault(direction, []).extend([] if rule is None else [rule])
    assert all(after or not allowed for allowed, after in zip(before, answers(case, objects), strict=True))


def before_all(action: str) -> Raw:
    """An Admin policy that goes before all others, and does one thing with all traffic of pods that it can name."""
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha1",
        "kind": "AdminNetworkPolicy",
        "metadata": {"name": ""},
        "spec": {
            "priority": -1,
            "subject": {"namespaces": {}},
            "ingress": [{"action": action, "from": [{"namespaces": {}}]}],
            "egress": [{"action": action, "to": [{"networks": ["0.0.0.0/0", "::/0"]}]}],
        },
    }


@few
@given(cases())
def test_passing_first_is_as_if_the_admin_tier_were_empty(case: Case) -> None:
    """Rules for ingress name pods alone as sources: about others no rule of the tier could have decided either."""
    tier_less = [
        each
        for each in case.objects
        if each["kind"] != "AdminNetworkPolicy" and each.get("spec", {}).get("tier") != "Admin"
    ]
    assert answers(case, [*case.objects, before_all("Pass")]) == answers(case, tier_less)


@few
@given(cases())
def test_accepting_first_settles_all_between_pods(case: Case) -> None:
    there = World([*case.objects, before_all("Allow")])
    assert all(verdict(there, *each).allowed for each in case.questions if each.source.pod and each.destination.pod)
    there = World([*case.objects, before_all("Deny")])
    assert not any(verdict(there, *each).allowed for each in case.questions if each.source.pod)


@few
@given(cases())
def test_a_party_may_be_named_by_its_address(case: Case) -> None:
    there = World(case.objects)
    for question in case.questions:
        by_address = question._replace(
            source=Party(address=address_of(case.objects, question.source, question.version)),
            destination=Party(address=address_of(case.objects, question.destination, question.version)),
        )
        assert verdict(there, *by_address) == verdict(there, *question)


#: What worlds must have, as it stands in their JSON without quotes.
FEATURES = """
hostNetwork / pod-template-hash / matchLabels / matchExpressions / operator: In / operator: NotIn / operator: Exists
operator: DoesNotExist / podSelector: {} / namespaceSelector: {} / ipBlock / except / endPort / port: http
protocol: SCTP / policyTypes: [] / nodes: {} / nodes: / networks / kind: NetworkPolicy / kind: ClusterNetworkPolicy
kind: AdminNetworkPolicy / kind: BaselineAdminNetworkPolicy / tier: Admin / tier: Baseline
action: Accept / action: Allow / action: Deny / action: Pass
destinationNamedPort / sctp / range / namedPort / portNumber / portRange
"""
#: What must come of some questions.
OUTCOMES = """
egress allows: default / egress allows: NetworkPolicy / egress refuses: isolated
ingress allows: default / ingress allows: NetworkPolicy / ingress refuses: isolated / ingress allows: own
egress allows: ClusterNetworkPolicy / egress refuses: ClusterNetworkPolicy / egress passed
ingress allows: ClusterNetworkPolicy / ingress refuses: ClusterNetworkPolicy / ingress passed
allows: AdminNetworkPolicy / refuses: AdminNetworkPolicy
allows: BaselineAdminNetworkPolicy / refuses: BaselineAdminNetworkPolicy
"""


def listed(text: str) -> list[str]:
    return [each for line in text.strip().splitlines() for each in line.split(" / ")]


def test_worlds_have_everything_and_their_questions_reach_it() -> None:
    """A property that holds where nothing happens says little: so everything must happen before long."""
    missing = {*listed(FEATURES), "equal priorities", *listed(OUTCOMES)}
    allowed: Counter[bool] = Counter()

    def saw_everything(case: Case) -> bool:
        text = json.dumps(case.objects).replace('"', "")
        missing.difference_update([each for each in missing if each in text])
        priorities = [each["spec"]["priority"] for each in case.objects if "priority" in each.get("spec", {})]
        if len(set(priorities)) < len(priorities):
            missing.discard("equal priorities")
        there = World(case.objects)
        for question in case.questions:
            answer = verdict(there, *question)
            allowed[answer.allowed] += 1
            for direction, decision in (("egress", answer.egress), ("ingress", answer.ingress)):
                if decision is not None:
                    outcome = f"{'allows' if decision.allowed else 'refuses'}: {decision.reason.split()[0]}"
                    missing.difference_update([outcome, f"{direction} {outcome}"])
                    missing.difference_update([f"{direction} passed"] if decision.passed else [])
        return not missing

    # Some hundred are enough, as a rule. How many the rarest takes is chance, and so many it never does.
    limits = settings(few, max_examples=5000, database=None, phases=[Phase.generate])
    try:
        find(cases(), saw_everything, settings=limits)
    except NoSuchExample:
        pytest.fail(f"never seen: {sorted(missing)}")
    assert 0.1 < allowed[True] / allowed.total() < 0.9


@few
@given(worlds())
def test_questions_are_about_pods_and_can_be_answered(objects: list[Raw]) -> None:
    there = World(objects)
    asked = questions(objects)
    assert len(set(asked)) == len(asked)
    for source, destination, protocol, port, version in asked[:: max(1, len(asked) // 200)]:
        ends = there.end(source, version), there.end(destination, version)
        assert any(end.pod for end in ends)
        assert protocol == "ICMP" or 1 <= port <= 65535
