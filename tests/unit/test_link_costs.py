"""The annotation that says what links cost: the same in manifests and in Kubernetes' API."""

from __future__ import annotations

import pytest

from topology import manifest_fields as fields
from topology.link_costs import ANNOTATION, link_costs
from topology.manifests import parse
from topology.model import Node
from topology.yaml_tree import tree_of


def read(text: str) -> tuple[tuple[tuple[str, int], ...], list[str]]:
    problems: list[str] = []
    remarks = fields.Remarks(lambda error: problems.append(str(error)), lambda tree, note: None)
    return link_costs(tree_of({"metadata": {"annotations": {ANNOTATION: text}}}), remarks), problems


@pytest.mark.parametrize(
    ("text", "costs"),
    [
        ("s1-eth3=10", (("s1-eth3", 10),)),
        (" s1-eth4 = 65535,s1-eth3=1, ", (("s1-eth3", 1), ("s1-eth4", 65535))),
        ("", ()),
    ],
)
def test_costs_are_by_port(text: str, costs: tuple[tuple[str, int], ...]) -> None:
    assert read(text) == (costs, [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s1-eth3", "as in s1-eth3=10"),
        ("=5", "as in s1-eth3=10"),
        ("a-name-too-long-for-linux=5", "as in s1-eth3=10"),
        ("x=0, y=5", "from 1 to 65535"),
        ("x=65536", "from 1 to 65535"),
        ("x=-1", "from 1 to 65535"),
        ("x=1.5", "from 1 to 65535"),
        ("x=²", "from 1 to 65535"),
        ("x=1,x=2", "x twice"),
    ],
)
def test_a_mistake_is_told_and_nothing_of_it_counts(text: str, said: str) -> None:
    costs, (problem,) = read(text)
    assert costs == () and said in problem


def test_a_node_s_manifest_has_them_and_a_mistake_leaves_the_node_as_it_is() -> None:
    manifest = "apiVersion: v1\nkind: Node\nmetadata:\n  name: n\n  annotations: {signalbox.io/link-costs: %s}\n"
    parsed = parse("f.yaml", (manifest % "'x=7'").encode())
    (declared,) = parsed.declared
    assert isinstance(declared.value, Node) and declared.value.link_costs == (("x", 7),)
    parsed = parse("f.yaml", (manifest % "'x=y'").encode())
    (declared,), (problem,) = parsed.declared, parsed.problems
    assert isinstance(declared.value, Node) and declared.value.link_costs == ()
    assert (problem.line, problem.object) == (5, "Node n")
