"""What several files declare together, and what stays in force when something breaks."""

from ipaddress import ip_address
from textwrap import dedent

from hypothesis import given
from hypothesis import strategies as st

from topology.manifest_state import ManifestState, Snapshot, difference
from topology.manifests import Problem
from topology.model import Key, Namespace, Object, Pod


def node(name: str, number: int, cidr: str = "") -> str:
    return dedent(f"""\
        apiVersion: v1
        kind: Node
        metadata: {{name: {name}}}
        spec: {{podCIDRs: [{cidr or f"10.244.{number}.0/24"}]}}
        status: {{addresses: [{{type: InternalIP, address: 192.0.2.{number}}}]}}
        ---
        """)


def pod(name: str, node: str = "", namespace: str = "default") -> str:
    return dedent(f"""\
        apiVersion: v1
        kind: Pod
        metadata: {{name: {name}, namespace: {namespace}}}
        spec: {{nodeName: {node or "null"}, containers: [{{name: main, command: [{name}]}}]}}
        ---
        """)


def stateful_set(name: str, replicas: object) -> str:
    return dedent(f"""\
        apiVersion: apps/v1
        kind: StatefulSet
        metadata: {{name: {name}}}
        spec:
          replicas: {replicas}
          selector: {{matchLabels: {{app: {name}}}}}
          template:
            metadata: {{labels: {{app: {name}}}}}
            spec: {{containers: [{{name: main}}]}}
        ---
        """)


def network_policy(name: str, port: int) -> str:
    return dedent(f"""\
        apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {{name: {name}}}
        spec: {{podSelector: {{}}, ingress: [{{ports: [{{port: {port}}}]}}]}}
        ---
        """)


def take(state: ManifestState, **files: str | Problem) -> Snapshot:
    return state.update({k: v.encode() if isinstance(v, str) else v for k, v in files.items()})


def only(**files: str | Problem) -> Snapshot:
    return take(ManifestState(), **files)


def pods(snapshot: Snapshot) -> set[str]:
    return {f"{item.namespace}/{item.name}" for item in snapshot.pods()}


def told(snapshot: Snapshot) -> list[str]:
    return [str(problem) for problem in snapshot.problems]


def test_workloads_become_pods_on_the_nodes_of_other_files_with_what_to_run() -> None:
    snapshot = only(a=stateful_set("db", 2), b=node("n1", 1) + node("n2", 2) + pod("x"))
    assert pods(snapshot) == {"default/db-0", "default/db-1", "default/x"}
    assert {item.node for item in snapshot.pods()} == {"n1", "n2"}
    assert snapshot.pod_specs["Pod", "default", "x"].command == ("x",)
    assert snapshot.pod_specs.keys() == {item.key for item in snapshot.pods()}
    assert told(snapshot) == []


def test_namespaces_that_are_used_are_there_and_so_is_the_default_one() -> None:
    snapshot = only(a=pod("x", namespace="shop"))
    assert {item.name for item in snapshot.objects.values() if isinstance(item, Namespace)} == {"default", "shop"}


def test_a_declared_namespace_keeps_its_labels() -> None:
    labelled = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}}"
    snapshot = only(a=labelled, b=pod("x", namespace="shop"))
    shop = snapshot.objects["Namespace", "", "shop"]
    assert shop == Namespace(name="shop", labels=(("kubernetes.io/metadata.name", "shop"), ("team", "a")))


def test_a_pod_on_a_node_that_is_not_declared_is_noted() -> None:
    (note,) = only(a=pod("x", "elsewhere")).notes
    assert str(note) == "a:1: Pod default/x: spec.nodeName is elsewhere, a node that is not declared: its pods wait"


def test_text_that_is_not_yaml_keeps_what_the_file_declared_before() -> None:
    state = ManifestState()
    take(state, a=pod("x") + pod("y"))
    assert pods(take(state, a=pod("z") + "kind: [")) == {"default/x", "default/y", "default/z"}
    assert told(state.snapshot) == [
        "a:7: the text is not YAML: did not find expected node content while parsing a flow node"
    ]
    assert pods(take(state, a=pod("z"))) == {"default/z"}
    assert told(state.snapshot) == []


def test_a_broken_object_keeps_its_last_good_state_while_others_of_its_file_change() -> None:
    state = ManifestState()
    take(state, a=stateful_set("db", 2) + pod("x"))
    assert pods(take(state, a=stateful_set("db", "many") + pod("y"))) == {"default/db-0", "default/db-1", "default/y"}
    assert told(state.snapshot) == [
        "a:5: StatefulSet default/db: spec.replicas is 'many'; it must be a whole number from 0 to 100000"
    ]
    assert pods(take(state, a=stateful_set("db", "few") + pod("y"))) == {"default/db-0", "default/db-1", "default/y"}
    assert pods(take(state, a=pod("y"))) == {"default/y"}


def test_a_file_that_can_not_be_read_keeps_what_it_declared() -> None:
    state = ManifestState()
    take(state, a=pod("x"), b=pod("y"))
    assert pods(take(state, a=Problem("a", 1, "", "can't be read"), b=pod("y"))) == {"default/x", "default/y"}
    assert told(state.snapshot) == ["a:1: can't be read"]


def test_a_file_that_is_deleted_takes_its_objects_and_its_problems_along() -> None:
    state = ManifestState()
    take(state, a=pod("x"), b="kind: [")
    assert pods(take(state, b="kind: [")) == set()
    take(state)
    assert told(state.snapshot) == []


def test_an_object_that_moves_to_another_file_stays() -> None:
    state = ManifestState()
    take(state, a=pod("x"))
    assert pods(take(state, b=pod("x"))) == {"default/x"}
    assert told(state.snapshot) == []


def test_of_an_object_declared_twice_the_one_in_force_stays_whatever_its_files_name() -> None:
    state = ManifestState()
    take(state, b=pod("x", "n1"))
    snapshot = take(state, a=pod("x", "n2"), b=pod("x", "n1"))
    assert [item.node for item in snapshot.pods()] == ["n1"]
    assert told(snapshot) == ["a:1: Pod default/x: is declared at b:1 too; remove one of them"]
    assert [item.node for item in take(state, a=pod("x", "n2")).pods()] == ["n2"]


def test_of_an_object_declared_twice_at_first_the_first_counts() -> None:
    snapshot = only(a=pod("x", "n1") + pod("x", "n2"), b=pod("x", "n3"))
    assert [item.node for item in snapshot.pods()] == ["n1"]
    assert told(snapshot) == [
        "a:6: Pod default/x: is declared at a:1 too; remove one of them",
        "b:1: Pod default/x: is declared at a:1 too; remove one of them",
    ]


def test_a_node_that_claims_anothers_addresses_keeps_what_it_had() -> None:
    state = ManifestState()
    good = take(state, a=node("n1", 1), b=node("n2", 2))
    # The file of the one that changed sorts first: it is the change that counts, not the name.
    snapshot = take(state, a=node("n1", 1, "10.244.0.0/16"), b=node("n2", 2))
    assert snapshot.objects == good.objects
    assert told(snapshot) == [
        "a:1: Node n1: its pod CIDR 10.244.0.0/16 overlaps pod CIDR 10.244.2.0/24 of Node n2 (b:1); change one of them"
    ]


def test_a_new_node_that_claims_anothers_addresses_is_left_out() -> None:
    for number, cidr, words in [
        (1, "10.9.0.0/24", "address 192.0.2.1 overlaps address 192.0.2.1 of Node n1"),
        (9, "10.244.1.128/25", "pod CIDR 10.244.1.128/25 overlaps pod CIDR 10.244.1.0/24 of Node n1"),
        (9, "192.0.0.0/16", "pod CIDR 192.0.0.0/16 overlaps address 192.0.2.1 of Node n1"),
        (9, "192.0.2.0/28", "pod CIDR 192.0.2.0/28 overlaps address 192.0.2.1 of Node n1"),
    ]:
        snapshot = only(a=node("n1", 1), b=node("n9", number, cidr))
        assert [item.name for item in snapshot.nodes()] == ["n1"]
        assert told(snapshot) == [f"b:1: Node n9: its {words} (a:1); change one of them"]


def test_a_node_whose_own_address_is_among_its_pods_is_left_out() -> None:
    snapshot = only(a=node("n1", 1, "192.0.2.0/24"))
    assert snapshot.nodes() == []
    assert told(snapshot) == [
        "a:1: Node n1: its address 192.0.2.1 overlaps its own pod CIDR 192.0.2.0/24; change one of them"
    ]


def test_nodes_may_swap_their_cidrs_at_once() -> None:
    state = ManifestState()
    take(state, a=node("n1", 1, "10.1.0.0/24") + node("n2", 2, "10.2.0.0/24"))
    snapshot = take(state, a=node("n1", 1, "10.2.0.0/24") + node("n2", 2, "10.1.0.0/24"))
    assert told(snapshot) == []
    assert [str(item.pod_cidrs[0]) for item in snapshot.nodes()] == ["10.2.0.0/24", "10.1.0.0/24"]


def test_a_workloads_pod_gives_way_to_a_pod_of_that_name() -> None:
    snapshot = only(a=stateful_set("db", 2), b=pod("db-0", "n1"))
    assert snapshot.objects["Pod", "default", "db-0"] == Pod(namespace="default", name="db-0", node="n1")
    assert told(snapshot) == [
        "a:1: StatefulSet default/db: its pod default/db-0 has the name of another; rename one of the two objects"
    ]


def test_a_thousand_nodes_side_by_side_do_not_overlap_and_one_among_them_does() -> None:
    texts = [
        node(f"n{i}", 1, f"10.{i // 256}.{i % 256}.0/24").replace("192.0.2.1", str(ip_address(0xAC10_0000 + i)))
        for i in range(1000)
    ]
    assert told(only(a="".join(texts))) == []
    (problem,) = told(only(a="".join(texts), b=node("x", 1, "10.2.7.64/26")))
    assert "overlaps pod CIDR 10.2.7.0/24 of Node n519" in problem


FILES = ["a", "b", "c"]
documents = st.one_of(
    st.builds(node, st.sampled_from(["n1", "n2"]), st.integers(1, 3)),
    st.builds(pod, st.sampled_from(["x", "y", "db-0"]), st.sampled_from(["", "n1"])),
    st.builds(stateful_set, st.just("db"), st.sampled_from([0, 2, "many"])),
    st.builds(network_policy, st.sampled_from(["x", "y"]), st.sampled_from([80, 81, 0])),
    st.sampled_from(["kind: [\n", "kind: Pod\n---\n", "{apiVersion: v1, kind: Service}\n---\n"]),
)
file_sets = st.dictionaries(st.sampled_from(FILES), st.lists(documents, max_size=3).map("".join))
# Every document has a name of its own: nothing clashes, nothing is broken.
whole_sets = st.sets(
    st.sampled_from(
        [node("n1", 1), node("n2", 2), pod("x"), pod("y", "n1"), stateful_set("db", 3), network_policy("x", 80)]
    )
)


@given(st.lists(file_sets, max_size=5), whole_sets, st.data())
def test_after_any_history_whole_files_mean_what_they_mean_alone(
    history: list[dict[str, str]], whole: set[str], data: st.DataObject
) -> None:
    parts = data.draw(st.permutations(sorted(whole)))
    last = {name: "".join(parts[i::3]) for i, name in enumerate(FILES)}
    state = ManifestState()
    for files in history:
        take(state, **files)
    assert take(state, **last) == only(**last)


@given(whole_sets, st.data())
def test_neither_the_order_of_documents_nor_the_file_they_are_in_changes_what_they_mean(
    whole: set[str], data: st.DataObject
) -> None:
    parts = data.draw(st.permutations(sorted(whole)))
    spread = only(**{name: "".join(parts[i::3]) for i, name in enumerate(FILES)})
    together = only(a="".join(sorted(whole)))
    assert spread.objects == together.objects
    assert spread.pod_specs == together.pod_specs


@given(st.lists(file_sets, min_size=1, max_size=5))
def test_nothing_is_in_force_that_its_file_never_declared_and_no_two_nodes_clash(history: list[dict[str, str]]) -> None:
    state = ManifestState()
    # Document by document: one of two that clash may come into force when the other is gone.
    texts = [text for files in history for whole in files.values() for text in (whole, *whole.split("---\n"))]
    ever = {key for text in texts for key in only(a=text).objects}
    for files in history:
        snapshot = take(state, **files)
        assert snapshot.objects.keys() <= ever | {("Namespace", "", "default")}
        assert {item.file for item in state.declared.values()} <= files.keys()
        claimed = [claim for item in snapshot.nodes() for claim in item.pod_cidrs + item.addresses]
        assert len(claimed) == len(set(claimed))


_NAMES = st.lists(st.sampled_from("abcdefgh"), unique=True)


@given(_NAMES, _NAMES, st.sets(st.sampled_from("abcdefgh")))
def test_the_difference_of_two_snapshots_takes_one_to_the_other(
    first: list[str], then: list[str], changed: set[str]
) -> None:
    before: dict[Key, Object] = {each.key: each for each in map(_namespace, first)}
    now: dict[Key, Object] = {}
    for name in then:
        old = before.get(("Namespace", "", name))
        each = _namespace(name) if old is None or name in changed else old
        now[each.key] = each
    new, gone = difference(before, now)
    assert {each.name for each in new if isinstance(each, Namespace)} == set(then) - (set(first) - changed)
    assert {name for _, _, name in gone} == set(first) - set(then)
    assert len(new) + len(gone) == len({each.key for each in new} | set(gone))


def _namespace(name: str) -> Namespace:
    return Namespace(name=name)


def test_what_a_change_leaves_alone_stays_the_same_object() -> None:
    state = ManifestState()
    web = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n---\n"
    texts = {"a.yaml": (node("n1", 1) + stateful_set("db", 2) + web).encode()}
    before = state.update(texts).objects
    now = state.update({**texts, "b.yaml": pod("late").encode()}).objects
    new, gone = difference(before, now)
    assert [each.key for each in new] == [("Pod", "default", "late")]
    assert not gone


def status(name: str, *, owner: bool = True, ending: bool = False) -> str:
    """A pod's document as its node writes it: with `owner` all of the pod, without it what state the pod is in."""
    metadata = [f"name: {name}", "labels: {app: web}"]
    metadata += ["ownerReferences: [{kind: Node, name: n1}]"] * owner
    metadata += ['deletionTimestamp: "2000-01-01T00:00:00Z"'] * ending
    spec = "spec: {nodeName: n1, containers: [{name: main, ports: [{name: http, containerPort: 80}]}]}\n" * owner
    state = 'status: {podIPs: [{ip: 10.244.1.9}], conditions: [{type: Ready, status: "True"}]}\n'
    return f"apiVersion: v1\nkind: Pod\nmetadata: {{{', '.join(metadata)}}}\n{spec}{state}---\n"


def test_a_pod_of_a_workload_has_the_status_that_its_own_document_tells() -> None:
    for whole in (True, False):
        snapshot = only(a=stateful_set("web", 1), b=status("web-0", owner=whole))
        (found,) = snapshot.pods()
        assert found.addresses == (ip_address("10.244.1.9"),) and found.owner == ("StatefulSet", "web")
        assert found.key in snapshot.pod_specs and not snapshot.problems


def test_a_pod_that_nothing_asks_for_any_more_is_there_until_its_document_goes() -> None:
    state = ManifestState()
    take(state, a=stateful_set("web", 1), b=status("web-0"))
    snapshot = take(state, a="", b=status("web-0", ending=True))
    (found,) = snapshot.pods()
    assert (found.node, dict(found.labels), found.terminating) == ("n1", {"app": "web"}, True)
    assert [port.port for port in found.ports] == [80] and found.addresses == (ip_address("10.244.1.9"),)
    # It is not to be started.
    assert not snapshot.pod_specs and not snapshot.problems
    assert not pods(take(state, a=""))
    # A status that doesn't say what the pod is stands for none.
    assert not pods(only(b=status("web-0", owner=False)))
