"""What one manifest file says, and what is wrong with it."""

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.manifests import Declaration, Parsed, parse
from topology.model import ContainerPort, Namespace, Node
from topology.workloads import PodSpec, Template, Workload

POD = """\
    apiVersion: v1
    kind: Pod
    metadata:
      name: web-0
      namespace: shop
      labels: {app: web, tier: ""}
    spec:
      nodeName: node-1
      containers:
      - name: server
        image: example/server
        command: [python3, -m, http.server]
        args: ["8000"]
        workingDir: /tmp
        env:
        - {name: GREETING, value: hello}
        - {name: EMPTY}
        ports:
        - {containerPort: 8000, name: http}
      - name: beside
        ports: [{containerPort: 53, protocol: UDP}]
"""

DEPLOYMENT = """\
    apiVersion: apps/v1
    kind: Deployment
    metadata:
      name: web
    spec:
      replicas: 3
      selector:
        matchLabels: {app: web}
      template:
        metadata:
          labels: {app: web}
        spec:
          containers: [{name: server}]
"""

NODE = """\
    apiVersion: v1
    kind: Node
    metadata:
      name: node-1
      labels: {zone: west}
    spec:
      podCIDRs: [10.244.1.0/24, "fd00:10:244:1::/64"]
    status:
      addresses:
      - {type: Hostname, address: node-1}
      - {type: InternalIP, address: 192.0.2.1}
      - {type: InternalIP, address: "2001:db8::1"}
"""

SERVER = "Pod shop/web-0: spec.containers[0]"
PORT = f"{SERVER}.ports[0].containerPort"
CIDR = "Node node-1: spec.podCIDRs[0]"
ADDRESS = "Node node-1: status.addresses[1].address"
WEB = "Deployment default/web: "
EXPRESSION = f"{WEB}spec.selector.matchExpressions[0]"
UNSATISFIED = f"{WEB}spec.template.metadata.labels does not satisfy spec.selector"


def expression(text: str) -> tuple[str, str]:
    """The Deployment's selector, and another in its place."""
    return "matchLabels: {app: web}", f"matchExpressions: [{text}]"


def read(text: str) -> Parsed:
    return parse("file.yaml", dedent(text).encode())


def only(text: str) -> Declaration:
    parsed = read(text)
    assert parsed.problems == ()
    (declared,) = parsed.declared
    return declared.value


def problems(text: str) -> list[str]:
    return [str(problem) for problem in read(text).problems]


def test_a_node_has_its_internal_addresses_and_pod_cidrs_in_the_order_written() -> None:
    assert only(NODE) == Node(
        name="node-1",
        addresses=(ip_address("192.0.2.1"), ip_address("2001:db8::1")),
        pod_cidrs=(ip_network("10.244.1.0/24"), ip_network("fd00:10:244:1::/64")),
        labels=(("kubernetes.io/hostname", "node-1"), ("zone", "west")),
    )


def test_the_single_pod_cidr_counts_where_there_is_no_list() -> None:
    node = only("{apiVersion: v1, kind: Node, metadata: {name: a}, spec: {podCIDR: 10.244.1.0/24}}")
    assert isinstance(node, Node)
    assert node.pod_cidrs == (ip_network("10.244.1.0/24"),)


def test_a_namespace_has_its_name_as_a_label() -> None:
    assert only("{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}}") == Namespace(
        name="shop", labels=(("kubernetes.io/metadata.name", "shop"), ("team", "a"))
    )


def test_a_pod_has_the_ports_of_all_containers_and_runs_the_first() -> None:
    assert only(POD) == Workload(
        kind="Pod",
        namespace="shop",
        name="web-0",
        template=Template(
            labels=(("app", "web"), ("tier", "")),
            node="node-1",
            ports=(ContainerPort(port=8000, name="http"), ContainerPort(port=53, protocol="UDP")),
            run=PodSpec(
                command=("python3", "-m", "http.server"),
                args=("8000",),
                env=(("GREETING", "hello"), ("EMPTY", "")),
                working_dir="/tmp",
            ),
        ),
    )


def test_a_deployment_is_in_the_default_namespace_and_has_one_replica_unless_it_says_otherwise() -> None:
    one = only(DEPLOYMENT.replace("replicas: 3", "replicas:"))
    assert isinstance(one, Workload)
    assert (one.kind, one.namespace, one.name, one.replicas) == ("Deployment", "default", "web", 1)
    three = only(DEPLOYMENT)
    assert isinstance(three, Workload)
    assert three.replicas == 3


def test_a_list_is_its_items_and_several_documents_are_all_read() -> None:
    parsed = read(
        """\
        apiVersion: v1
        kind: List
        items:
        - {apiVersion: v1, kind: Namespace, metadata: {name: a}}
        - {apiVersion: v1, kind: Namespace, metadata: {name: b}}
        ---
        # nothing here
        ---
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "c"}}
        """
    )
    assert [(item.key[2], item.line) for item in parsed.declared] == [("a", 4), ("b", 5), ("c", 9)]
    assert parsed.problems == ()
    assert parsed.notes == ()


def test_kinds_that_are_not_read_are_noted_and_do_no_harm() -> None:
    parsed = read("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n---\napiVersion: x.io/v1\nkind: Node\n")
    assert [str(note) for note in parsed.notes] == [
        "file.yaml:1: ConfigMap of v1 is not a kind that is read here: passed over",
        "file.yaml:5: Node of x.io/v1 is not a kind that is read here: passed over",
    ]
    assert (parsed.declared, parsed.problems, parsed.unnamed) == ((), (), False)


def test_a_variable_from_elsewhere_is_noted_and_left_out() -> None:
    parsed = read(POD.replace("{name: EMPTY}", "{name: FROM, valueFrom: {fieldRef: {fieldPath: status.podIP}}}"))
    assert [note.line for note in parsed.notes] == [17]
    assert "Pod shop/web-0: spec.containers[0].env[1] has a valueFrom" in parsed.notes[0].text
    (pod,) = parsed.declared
    assert isinstance(pod.value, Workload)
    assert pod.value.template.run.env == (("GREETING", "hello"),)


def test_a_broken_object_leaves_the_others_of_its_file() -> None:
    parsed = read(POD.replace("8000,", "80000,") + "    ---\n" + NODE)
    assert [item.key for item in parsed.declared] == [("Node", "", "node-1")]
    assert parsed.broken == {("Pod", "shop", "web-0")}
    assert not parsed.unnamed


def test_what_comes_before_text_that_is_not_yaml_is_read() -> None:
    parsed = read(NODE + "    ---\n    kind: [Pod\n    ---\n")
    assert [item.key for item in parsed.declared] == [("Node", "", "node-1")]
    assert parsed.unnamed
    assert [problem.line for problem in parsed.problems] == [15]


@pytest.mark.parametrize(
    ("text", "was", "becomes", "line", "problem"),
    [
        (POD, "kind: Pod", "king: Pod", 1, "kind is missing; say what the object is, as in kind: Pod"),
        (POD, "apiVersion: v1", "", 2, "apiVersion is missing; say of which API the kind is"),
        (POD, "name: web-0", "nam: web-0", 4, "Pod: metadata.name is missing; give the object a name"),
        (POD, "name: web-0", "name: 7", 4, "Pod: metadata.name is 7 (a number); it must be a string: write it in q"),
        (POD, "name: web-0", "name: Web_0", 4, "Pod: metadata.name is 'Web_0'; a name has lower-case letters"),
        (POD, "namespace: shop", "namespace: a.b", 5, "Pod: metadata.namespace is 'a.b'; a name has lower-case"),
        (POD, "app: web", "app: 1", 6, "Pod shop/web-0: metadata.labels.app is 1 (a number); it must be a string"),
        (POD, "app: web", "app: -web", 6, "Pod shop/web-0: metadata.labels.app is '-web'; a label's value has"),
        (POD, "app: web", "a/b/c: web", 6, "Pod shop/web-0: metadata.labels.a/b/c has the key 'a/b/c'; a key is"),
        (POD, "app: web", "tier: x", 6, "Pod shop/web-0: metadata.labels.tier is given twice; keep one of them"),
        (POD, "app: web", "<<: {}", 6, "Pod shop/web-0: metadata.labels.<< merges another mapping, which is not re"),
        (POD, "{app: web", "[app: web", 6, "the text is not YAML: "),
        (POD, "nodeName: node-1", "hostNetwork: 1", 8, "Pod shop/web-0: spec.hostNetwork is 1 (a number); it must"),
        (POD, "nodeName: node-1", "nodeName: [a]", 8, "Pod shop/web-0: spec.nodeName is a list; it must be a str"),
        (POD, "[python3, -m, http.server]", "x", 12, f"{SERVER}.command is 'x'; it must be a list"),
        (POD, '["8000"]', "[8000]", 13, f"{SERVER}.args[0] is 8000 (a number); it must be a string: write it in"),
        (POD, "value: hello", "value: yes", 16, f"{SERVER}.env[0].value is yes (true or false); it must be a string"),
        (POD, "name: EMPTY", "name: A=B", 17, f"{SERVER}.env[1].name is 'A=B'; a variable's name has"),
        (
            POD,
            "Port: 8000",
            "Port: 65536",
            19,
            f"{PORT} is 65536 (a number); it must be a whole number from 1 to 65535",
        ),
        (POD, "Port: 8000", "Port: 010", 19, f"{PORT} is 010 (a number); it must be a whole number from 1 to 65535"),
        (
            POD,
            "UDP",
            "X",
            21,
            "Pod shop/web-0: spec.containers[1].ports[0].protocol is 'X'; it must be one of TCP, UDP",
        ),
        (NODE, "10.244.1.0/24", "10.244.1.7/24", 7, f"{CIDR} is 10.244.1.7/24, which is no network's address; write 1"),
        (
            NODE,
            "10.244.1.0/24",
            "10.244.1.0",
            7,
            f"{CIDR} is 10.244.1.0, which is no network's address; write 10.244.1",
        ),
        (NODE, "10.244.1.0/24", "10.244.1.0/31", 7, f"{CIDR} is 10.244.1.0/31, which has no room for a pod; take a la"),
        (NODE, "10.244.1.0/24", "10.244.256.0/24", 7, f"{CIDR} is '10.244.256.0/24'; it must be a CIDR, as 10.244.1"),
        (
            NODE,
            "10.244.1.0/24",
            "fd00::/64",
            7,
            "Node node-1: spec.podCIDRs[1] is fd00:10:244:1::/64, a second IPv6 CI",
        ),
        (NODE, "192.0.2.1", "192.0.2", 11, f"{ADDRESS} is '192.0.2'; it must be an IPv4 or IPv6 address, as"),
        (NODE, "192.0.2.1", "127.0.0.1", 11, f"{ADDRESS} is 127.0.0.1, which no other node can send to; give"),
        (NODE, "192.0.2.1", "fd00::1%eth0", 11, f"{ADDRESS} is 'fd00::1%eth0', an address with a zone; write"),
        (DEPLOYMENT, "replicas: 3", "replicas: -1", 6, f"{WEB}spec.replicas is -1 (a number); it must be a whole n"),
        (DEPLOYMENT, "replicas: 3", "replicas: many", 6, f"{WEB}spec.replicas is 'many'; it must be a whole number"),
        (DEPLOYMENT, "labels: {app: web}", "labels: {app: api}", 11, f"{UNSATISFIED}, which wants app=web; give the"),
        (DEPLOYMENT, "matchLabels: {app: web}", "matchLabels: {}", 8, f"{WEB}spec.selector selects every pod; name a"),
        (DEPLOYMENT, "selector:", "selectors:", 6, f"{WEB}spec.selector is missing; say which pods are this object's"),
        (DEPLOYMENT, "[{name: server}]", "[]", 13, f"{WEB}spec.template.spec.containers is empty; list at least one"),
        (
            DEPLOYMENT,
            *expression("{key: app, operator: Is}"),
            8,
            f"{EXPRESSION}.operator is 'Is'; it must be one of In",
        ),
        (DEPLOYMENT, *expression("{key: app, operator: In}"), 8, f"{EXPRESSION} has no values; list the values to com"),
        (DEPLOYMENT, *expression("{key: app, operator: DoesNotExist}"), 11, f"{UNSATISFIED}, which wants !app; give"),
    ],
)
def test_each_mistake_is_told_with_line_field_and_remedy(
    text: str, was: str, becomes: str, line: int, problem: str
) -> None:
    assert was in text
    (found,) = problems(text.replace(was, becomes, 1))
    assert found.startswith(f"file.yaml:{line}: {problem}")


@pytest.mark.parametrize(
    ("expressions", "matches"),
    [
        ("[{key: app, operator: In, values: [web, api]}]", True),
        ("[{key: app, operator: In, values: [api]}]", False),
        ("[{key: app, operator: NotIn, values: [api]}]", True),
        ("[{key: other, operator: NotIn, values: [api]}]", True),
        ("[{key: app, operator: Exists}]", True),
        ("[{key: other, operator: Exists}]", False),
        ("[{key: other, operator: DoesNotExist}]", True),
    ],
)
def test_selectors_match_the_template_as_kubernetes_would(expressions: str, matches: bool) -> None:
    text = DEPLOYMENT.replace("matchLabels: {app: web}", f"matchExpressions: {expressions}")
    assert (problems(text) == []) is matches


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"a: \x00", "x:1: the text is not YAML: control characters are not allowed"),
        (b"a: 1\nb: \xff", "x:2: the text is not in UTF-8"),
        (b"a: *b", "x:1: the text names the anchor 'b', which is not defined before it"),
        (b"a: &a [*a]", "x:1: the text names the anchor 'a', which is not defined before it"),
        (b"\n" + b"[" * 200, "x:2: the text is nested more than 100 deep"),
        # libyaml has a limit of its own, in newer versions, and reaches it first.
        (b"\n" + b"[" * 200_000, "x:2: the text is n"),
        (b"? [a]\n: 1", "x:1: the text has a mapping or a list as the name of a field"),
        (b"- a", "x:1: the document is a list; it must be a mapping of names to values"),
    ],
    ids=["control", "encoding", "anchor", "cycle", "depth", "far too deep", "key", "document"],
)
def test_text_that_is_no_manifest_is_told_with_its_line(data: bytes, problem: str) -> None:
    parsed = parse("x", data)
    assert str(parsed.problems[0]).startswith(problem)
    assert parsed.unnamed


def test_a_list_in_a_list_is_refused() -> None:
    inner = "{apiVersion: v1, kind: List, items: []}"
    (problem,) = problems(f"{{apiVersion: v1, kind: List, items: [{inner}]}}")
    assert "the items[0]" not in problem
    assert "List: items[0] is a List in a List; put its items into the outer one" in problem


def test_an_anchor_stands_for_its_value_wherever_it_is_used() -> None:
    parsed = read(
        DEPLOYMENT.replace("matchLabels: {app", "matchLabels: &l {app").replace("labels: {app: web}", "labels: *l")
    )
    assert parsed.problems == ()


manifest_words = st.sampled_from(
    [
        *{word for text in (POD, NODE, DEPLOYMENT) for word in text.replace("\n", " \n ").split(" ")},
        "---\n",
        "&a",
        "*a",
        "<<:",
    ]
)


@given(
    st.one_of(
        st.binary(),
        st.text(st.characters(codec="utf-8")).map(str.encode),
        st.lists(manifest_words).map(lambda w: " ".join(w).encode()),
    )
)
def test_whatever_a_file_holds_is_read_or_told(data: bytes) -> None:
    parsed = parse("x", data)
    lines = data.count(b"\n") + data.count(b"\r") + data.count("\u2028".encode()) + data.count(b"\xc2\x85") + 3
    assert all(1 <= problem.line <= lines for problem in parsed.problems)


@given(
    st.sampled_from([POD, NODE, DEPLOYMENT]),
    st.integers(0, 1000),
    st.integers(0, 40),
    st.text(alphabet=st.characters(codec="utf-8"), max_size=5),
)
def test_a_damaged_manifest_is_read_or_told(text: str, at: int, length: int, instead: str) -> None:
    plain = dedent(text)
    damaged = plain[:at] + instead + plain[at + length :]
    parsed = parse("x", damaged.encode())
    assert parsed.declared or parsed.problems or parsed.notes or not damaged.strip("-. \n")


def test_the_documented_example_is_accepted() -> None:
    text = (Path(__file__).parents[2] / "docs" / "manifests.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    parsed = read(example)
    assert [item.key for item in parsed.declared] == [("Node", "", "node-1"), ("Deployment", "shop", "web")]
    assert parsed.problems == ()
    assert parsed.notes == ()
