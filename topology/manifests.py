"""Kubernetes YAML to declared objects: what one file says, and what is wrong with it, with line and remedy.

Owns the reading of every kind we know. Must not know other files (`topology.manifest_state` compares them) nor where
text comes from. A broken object is a value, not an exception: the rest of its file counts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from ipaddress import ip_address, ip_network

import msgspec

from topology import manifest_fields as fields
from topology.drained import drained
from topology.link_costs import link_costs
from topology.model import BRIDGE_INDEX, BRIDGES, ContainerPort, EndpointSlice, Key, Namespace, Node, labels_of
from topology.naming import Network, places
from topology.policies import Policy
from topology.policy_manifests import is_policy, logged, policy
from topology.selectors import selects
from topology.service_manifests import endpoint_slice, endpoints, pod_status, service
from topology.services import ServiceSpec
from topology.workload_manifests import API, port_workload
from topology.workloads import PodSpec, PodStatus, PortWorkload, Probe, Template, Workload
from topology.yaml_tree import FieldError, Tree, YamlError, documents

#: What a document can declare: pods and what makes them are workloads.
Declaration = Node | Namespace | Workload | PortWorkload | PodStatus | ServiceSpec | EndpointSlice | Policy

#: More than Kubernetes bears in a whole cluster; keeps a slip of the finger from filling the memory.
_MAX_REPLICAS = 100_000


class Problem(msgspec.Struct, frozen=True, order=True):
    """Something that must be put right. `object` is `Deployment default/web`, or empty where that can't be told.

    What is not from a file has an empty one, and line 0.
    """

    file: str
    line: int
    object: str
    reason: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.file else ""
        return place + (f"{self.object}: " if self.object else "") + self.reason


class Note(msgspec.Struct, frozen=True, order=True):
    """Something that a person may want to know and that does no harm: what was passed over."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


class Declared(msgspec.Struct, frozen=True):
    """An object and where it stands."""

    value: Declaration
    file: str
    line: int

    @property
    def key(self) -> Key:
        return self.value.key

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


class Parsed(msgspec.Struct, frozen=True):
    """What one file says.

    `broken` are the objects that it names but doesn't describe well; `unnamed` says that there may be others, in what
    couldn't be read at all. A policy that isn't described well is declared all the same, as one that fails closed.
    """

    declared: tuple[Declared, ...]
    broken: frozenset[Key]
    unnamed: bool
    problems: tuple[Problem, ...]
    notes: tuple[Note, ...]


def object_words(key: Key) -> str:
    """An object in words: `Pod default/web-0`, `Node a`."""
    kind, namespace, name = key
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def parse(file: str, data: bytes) -> Parsed:
    """Read a file's documents. `file` is the name that problems give."""
    reader = _Reader(file)
    try:
        for document in documents(data):
            reader.read(document)
    except YamlError as error:
        reader.unnamed = True
        reader.problems.append(Problem(file, error.line, "", f"the text {error.reason}"))
    return Parsed(
        tuple(reader.declared),
        frozenset(reader.broken),
        reader.unnamed,
        tuple(reader.problems),
        tuple(reader.notes),
    )


class _Reader:
    """What has been read of a file so far."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.declared: list[Declared] = []
        self.broken: set[Key] = set()
        self.unnamed = False
        self.problems: list[Problem] = []
        self.notes: list[Note] = []

    def read(self, tree: Tree, *, in_list: bool = False) -> None:
        key: Key | None = None
        words = ""
        try:
            kind = tree.require("kind", remedy="say what the object is, as in kind: Pod").text()
            api = tree.require("apiVersion", remedy="say of which API the kind is, as in apiVersion: v1").text()
            words = kind
            if (api, kind) == ("v1", "List"):
                self._read_list(tree, in_list)
                return
            known = _kind(api, kind)
            if known is None:
                self._note(tree, f"{kind} of {api} is not a kind that is read here: passed over")
                return
            namespaced, build = known
            key = _key(tree, kind, namespaced)
            words = object_words(key)
            value = build(_Object(key, tree, self._note, partial(self._report, words)))
            self.declared.append(Declared(value, self.file, tree.line))
        except FieldError as error:
            self._report(words, error)
            if key is None:
                self.unnamed = True
            else:
                self.broken.add(key)

    def _read_list(self, tree: Tree, in_list: bool) -> None:
        if in_list:
            raise tree.error("is a List in a List; put its items into the outer one")
        items = tree.get("items")
        for item in items.items() if items else []:
            self.read(item, in_list=True)

    def _report(self, words: str, error: FieldError) -> None:
        self.problems.append(Problem(self.file, error.line, words, str(error)))

    def _note(self, tree: Tree, text: str) -> None:
        self.notes.append(Note(self.file, tree.line, text))


class _Object(msgspec.Struct, frozen=True):
    """An object that is being read: what it is called, its fields, and where to say more of it.

    `note` is for what was passed over, `report` for what is wrong with an object that is there all the same.
    """

    key: Key
    tree: Tree
    note: Callable[[Tree, str], None]
    report: Callable[[FieldError], None]

    @property
    def namespace(self) -> str:
        return self.key[1]

    @property
    def name(self) -> str:
        return self.key[2]


# Metadata ---------------------------------------------------------------------------------------------------------


def _key(tree: Tree, kind: str, namespaced: bool) -> Key:
    name = fields.name(tree.require("metadata", "name", remedy="give the object a name"), _longest_name(kind))
    namespace = tree.get("metadata", "namespace")
    if not namespaced:
        return (kind, "", name)
    return (kind, fields.name(namespace, 63) if namespace else "default", name)


def _longest_name(kind: str) -> int:
    return 63 if kind == "Namespace" else 253


# Nodes and namespaces -----------------------------------------------------------------------------------------------


def _node(node: _Object) -> Node:
    addresses = []
    statuses = node.tree.get("status", "addresses")
    for status in statuses.items() if statuses else []:
        kind = status.require("type", remedy="say what the address is, as in type: InternalIP").text()
        if kind == "InternalIP":
            addresses.append(fields.address(status.require("address", remedy="give the node's IP address")))
    labels = {"kubernetes.io/hostname": node.name} | fields.labels(node.tree.get("metadata", "labels"))
    return Node(
        name=node.name,
        addresses=tuple(addresses),
        pod_cidrs=_pod_cidrs(node.tree),
        labels=labels_of(labels),
        link_costs=link_costs(node.tree, fields.Remarks(node.report, node.note)),
        bridge_index=_bridge_index(node.tree),
        drained=drained(node.tree, fields.Remarks(node.report, node.note)),
    )


def _bridge_index(tree: Tree) -> int:
    found = tree.get("metadata", "annotations", BRIDGE_INDEX)
    if not found:
        return 0
    text = found.text()
    if not (text.isascii() and text.isdecimal() and int(text) < BRIDGES):
        raise found.error(f"is {text!r}; it must be a whole number below {BRIDGES}, in quotes")
    return int(text)


def _pod_cidrs(tree: Tree) -> tuple[Network, ...]:
    plural, single = tree.get("spec", "podCIDRs"), tree.get("spec", "podCIDR")
    trees = plural.items() if plural else [single] if single else []
    cidrs: list[Network] = []
    for item in trees:
        cidr = _cidr(item)
        if any(cidr.version == other.version for other in cidrs):
            raise item.error(f"is {cidr}, a second IPv{cidr.version} CIDR; a node has one for each family: remove one")
        cidrs.append(cidr)
    return tuple(cidrs)


def _cidr(tree: Tree) -> Network:
    text = tree.text()
    try:
        cidr = ip_network(text, strict=False)
    except ValueError as error:
        raise tree.error(f"is {text!r}; it must be a CIDR, as 10.244.1.0/24 or fd00:10:244:1::/64") from error
    if "/" not in text or ip_address(text.partition("/")[0]) != cidr.network_address:
        raise tree.error(f"is {text}, which is no network's address; write {cidr}")
    if not places([cidr]):
        raise tree.error(f"is {cidr}, which has no room for a pod; take a larger network")
    return cidr


def _namespace(namespace: _Object) -> Namespace:
    made = make_namespace(namespace.name, fields.labels(namespace.tree.get("metadata", "labels")))
    denied, allowed = logged(namespace.tree, fields.Remarks(namespace.report, namespace.note))
    return msgspec.structs.replace(made, log_denied=denied, log_allowed=allowed)


def make_namespace(name: str, labels: dict[str, str]) -> Namespace:
    """A namespace with the label that Kubernetes gives to each."""
    return Namespace(name=name, labels=labels_of(labels | {"kubernetes.io/metadata.name": name}))


# Pods and what makes them -------------------------------------------------------------------------------------------


def _pod(pod: _Object) -> Workload | PodStatus:
    spec, owners = pod.tree.get("spec"), pod.tree.get("metadata", "ownerReferences")
    if spec is None and pod.tree.get("status") is not None:
        return pod_status(pod.namespace, pod.name, pod.tree)
    if owners and owners.items():
        # Nobody asks for it by itself: it is there because a workload, or a node, has made it.
        return pod_status(pod.namespace, pod.name, pod.tree, _template(pod.tree, pod))
    return Workload(kind="Pod", namespace=pod.namespace, name=pod.name, template=_template(pod.tree, pod))


def _daemon_set(workload: _Object) -> Workload:
    return _workload(workload, replicas=0)


def _replicated(workload: _Object) -> Workload:
    replicas = workload.tree.get("spec", "replicas")
    return _workload(workload, replicas=1 if replicas is None else replicas.number(0, _MAX_REPLICAS))


def _workload(workload: _Object, replicas: int) -> Workload:
    kind, namespace, name = workload.key
    tree = workload.tree.require("spec", "template", remedy="describe the pods that are to be made")
    template = _template(tree, workload)
    written = workload.tree.require(
        "spec", "selector", remedy="say which pods are this object's, as matchLabels: {app: web}"
    )
    selector = fields.selector(written)
    if not selector:
        raise written.error("selects every pod; name a label of the template, as matchLabels: {app: web}")
    for requirement in selector:
        if not selects((requirement,), template.labels):
            line = (tree.get("metadata", "labels") or tree).line
            raise FieldError(
                line,
                "spec.template.metadata.labels",
                f"does not satisfy spec.selector, which wants {requirement}; give the template that label or change "
                "the selector",
            )
    start = workload.tree.get("spec", "ordinals", "start") if kind == "StatefulSet" else None
    return Workload(
        kind=kind,
        namespace=namespace,
        name=name,
        template=template,
        replicas=replicas,
        first_ordinal=0 if start is None else start.number(0, 2**31 - 1),
    )


def _template(tree: Tree, owner: _Object) -> Template:
    """What a Pod, or a workload's template, says of its pods. `tree` has `metadata` and `spec`."""
    spec = tree.require("spec", remedy="describe the pod: at least its containers")
    containers = spec.require("containers", remedy="list at least one container").items()
    if not containers:
        raise spec.require("containers", remedy="").error("is empty; list at least one container")
    node, host_network = spec.get("nodeName"), spec.get("hostNetwork")
    return Template(
        labels=labels_of(fields.labels(tree.get("metadata", "labels"))),
        node=fields.name(node, 253) if node else "",
        node_selector=labels_of(fields.labels(spec.get("nodeSelector"))),
        host_network=host_network.flag() if host_network else False,
        ports=tuple(port for container in containers for port in _ports(container)),
        run=_run(containers[0], owner),
    )


def _ports(container: Tree) -> list[ContainerPort]:
    ports = []
    listed = container.get("ports")
    for tree in listed.items() if listed else []:
        number = tree.require("containerPort", remedy="give the port's number").number(1, 65535)
        name, host_ip = tree.get("name"), tree.get("hostIP")
        everywhere = host_ip is None or host_ip.text() in ("0.0.0.0", "::", "")
        ports.append(
            ContainerPort(
                port=number,
                name=name.text() if name else "",
                protocol=fields.protocol(tree.get("protocol")),
                host_port=host_port.number(1, 65535) if (host_port := tree.get("hostPort")) else 0,
                host_ip=None if everywhere or host_ip is None else fields.address(host_ip, loopback=True),
            )
        )
    return ports


def _run(container: Tree, owner: _Object) -> PodSpec:
    command, args, directory = container.get("command"), container.get("args"), container.get("workingDir")
    return PodSpec(
        command=command.texts() if command else (),
        args=args.texts() if args else (),
        env=_env(container, owner),
        working_dir=directory.text() if directory else "",
        readiness=_probe(container.get("readinessProbe"), container),
    )


def _probe(tree: Tree | None, container: Tree) -> Probe | None:
    if tree is None:
        return None
    command, tcp, http = tree.get("exec", "command"), tree.get("tcpSocket"), tree.get("httpGet")
    if command:
        return Probe(command=command.texts())
    asked = tcp or http
    if asked is None:
        raise tree.error("has no exec, tcpSocket or httpGet; say how to see whether the container is ready")
    port, path = asked.require("port", remedy="give the port to try"), asked.get("path")
    if port.is_text:
        named = [each.port for each in _ports(container) if each.name == port.text()]
        if not named:
            raise port.error(f"is {port.text()!r}, a name that none of the container's ports has")
        number = named[0]
    else:
        number = port.number(1, 65535)
    return Probe(port=number, path=(path.text() if path else "/") if http else "")


def _env(container: Tree, owner: _Object) -> tuple[tuple[str, str], ...]:
    env = []
    listed = container.get("env")
    for tree in listed.items() if listed else []:
        name = tree.require("name", remedy="name the variable")
        if not name.text() or "=" in name.text() or "\0" in name.text():
            raise name.error(f"is {name.text()!r}; a variable's name has at least one character and no '='")
        if tree.get("valueFrom"):
            owner.note(tree, f"{object_words(owner.key)}: {tree.path} has a valueFrom, which is not read: left out")
            continue
        value = tree.get("value")
        env.append((name.text(), value.text() if value else ""))
    return tuple(env)


# Policies -----------------------------------------------------------------------------------------------------------


def _policy(each: _Object) -> Policy:
    def note(tree: Tree, text: str) -> None:
        each.note(tree, f"{object_words(each.key)}: {tree.path} {text}")

    return policy(each.key, each.tree, fields.Remarks(each.report, note))


#: Whether a kind's objects are in namespaces, and what makes a value of one.
_Kind = tuple[bool, Callable[[_Object], Declaration]]


def _kind(api: str, kind: str) -> _Kind | None:
    # Policies in whichever version: one that isn't read must not be passed over as if it weren't there.
    return (kind == "NetworkPolicy", _policy) if is_policy(api, kind) else _KINDS.get((api, kind))


#: The APIs and kinds that are read, but for policies.
_KINDS: dict[tuple[str, str], _Kind] = {
    ("v1", "Node"): (False, _node),
    ("v1", "Namespace"): (False, _namespace),
    ("v1", "Service"): (True, lambda each: service(each.namespace, each.name, each.tree)),
    ("v1", "Endpoints"): (True, lambda each: endpoints(each.namespace, each.name, each.tree)),
    ("discovery.k8s.io/v1", "EndpointSlice"): (
        True,
        lambda each: endpoint_slice(each.namespace, each.name, each.tree),
    ),
    ("v1", "Pod"): (True, _pod),
    (API, "Workload"): (True, lambda each: port_workload(each.namespace, each.name, each.tree)),
    ("apps/v1", "Deployment"): (True, _replicated),
    ("apps/v1", "ReplicaSet"): (True, _replicated),
    ("apps/v1", "StatefulSet"): (True, _replicated),
    ("apps/v1", "DaemonSet"): (True, _daemon_set),
}
