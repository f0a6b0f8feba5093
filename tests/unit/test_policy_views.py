"""What people are shown of policies and identities: rows, counters, verdicts; by the API and the command line."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from click.testing import CliRunner, Result
from counts import answer, count, entry
from policy_objects import has
from test_compiler import UPLINKS, node, pod_port
from test_policy_parts import compiled, turns

from controller import counting, flow_views, policy_views, views
from controller.api import serve
from controller.app import Controller
from controller.cli import client
from controller.flow_views import Wanted
from controller.policy_views import QuestionError, check
from deploy.command import main
from flows import fields as f
from flows.compiler import Compiler
from flows.openflow.messages import FlowStats, UnreadReply
from flows.registers import DESTINATION_IDENTITY
from flows.tables import policy as table
from flows.update import CLUSTER
from flows.values import Flow
from topology.manifest_state import Snapshot
from topology.model import ContainerPort, Namespace, Object, Pod
from topology.policies import Action, IpBlock, NodeSet, PodSet, Policy, PolicyPort, Rule, Tier

_SQL = ContainerPort(port=5432, name="sql")


def _pod(name: str, number: int, place: int, ports: tuple[ContainerPort, ...] = (), **labels: str) -> Pod:
    addresses = (ip_address(f"10.244.{number}.{place}"), ip_address(f"fd00:10:244:{number}::{place:x}"))
    return Pod(namespace="shop", name=name, node=f"n{number}", labels=tuple(sorted(labels.items())), ports=ports,
               addresses=addresses)  # fmt: skip


CLIENT, OTHER, DB = (
    _pod("client", 1, 2, app="client"),
    _pod("other", 1, 3, app="other"),
    _pod("db", 2, 2, (_SQL,), app="db"),
)
AGENT = Pod(namespace="shop", name="agent", node="n1", host_network=True)
OF_CLIENT, OF_DB = (PodSet((has("app", name),), "shop") for name in ("client", "db"))
DB_POLICY = Policy(
    namespace="shop", name="db", subjects=OF_DB, ingress=(Rule(peers=(OF_CLIENT,), ports=(PolicyPort("TCP", "sql"),)),)
)
SAME = msgspec.structs.replace(DB_POLICY, name="same")
GUARD = Policy(
    kind="ClusterNetworkPolicy",
    name="guard",
    tier=Tier.ADMIN,
    priority=5,
    subjects=PodSet(),
    egress=(
        Rule(Action.ACCEPT, peers=(NodeSet(),), ports=(PolicyPort("UDP", 53),), name="dns"),
        Rule(
            Action.DENY,
            peers=(IpBlock(ip_network("192.0.2.0/24"), (ip_network("192.0.2.128/25"),)), NodeSet()),
            ports=(PolicyPort("TCP", 8000, 8999), PolicyPort("TCP", 22)),
        ),
    ),
)
OBJECTS: tuple[Object, ...] = (
    *(node(1), node(2), Namespace(name="shop"), CLIENT, OTHER, DB, AGENT),
    *(DB_POLICY, SAME, GUARD),
)


@pytest.fixture
def cluster() -> Compiler:
    return compiled(*OBJECTS)


def row(rows: Iterable[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = (each for each in rows if each["name"] == name)
    return found


# Rows ---------------------------------------------------------------------------------------------------------------


def test_identities_tell_what_their_pods_have_in_common(cluster: Compiler) -> None:
    number = cluster.policies.identities.of_pod("shop", "db")
    rows = list(policy_views.identities(cluster))
    assert [each["number"] for each in rows] == sorted(each["number"] for each in rows) and len(rows) == 3
    assert row(rows, str(number)) == {
        "number": number,
        "name": str(number),
        "namespace": "shop",
        "labels": ["app=db"],
        "ports": ["sql=5432/TCP"],
        "pods": 1,
        "podNames": ["db"],
        "status": "InUse",
    }
    cluster.remove(DB.key)
    idle = row(policy_views.identities(cluster), str(number))
    assert (idle["status"], idle["pods"], idle["podNames"]) == ("Idle", 0, [])


def test_policies_tell_their_rules_and_pods_in_words(cluster: Compiler) -> None:
    rows = list(policy_views.policies(cluster))
    assert [each["name"] for each in rows] == ["guard", "db", "same"]
    assert row(rows, "db") == {
        "kind": "NetworkPolicy",
        "namespace": "shop",
        "name": "db",
        "tier": "NetworkPolicy",
        "priority": None,
        "subjects": "pods app=db in namespace shop",
        "pods": 1,
        "podNames": ["shop/db"],
        "directions": ["ingress"],
        "ingress": ["Accept from pods app=client in namespace shop on sql/TCP"],
        "egress": [],
        "rules": 1,
        "flows": 3,
        "reason": "",
    }
    guard = row(rows, "guard")
    assert (guard["tier"], guard["priority"], guard["subjects"], guard["pods"]) == ("Admin", 5, "all pods", 3)
    assert guard["egress"] == [
        "Accept to all nodes on 53/UDP (dns)",
        "Deny to 192.0.2.0/24 except 192.0.2.128/25 or all nodes on 8000-8999/TCP, 22/TCP",
    ]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(), "Accept from anywhere"),
        (Rule(Action.PASS, peers=()), "Pass from nobody"),
        (Rule(ports=()), "Accept from anywhere on no port"),
        (Rule(ports=(PolicyPort("SCTP"), PolicyPort("", "web"))), "Accept from anywhere on SCTP, web"),
        (Rule(peers=(PodSet((), "", (has("team", "a", "b"),)),)), "Accept from namespaces team in (a, b)"),
        (Rule(peers=(PodSet((has("app", "x"),), ""),)), "Accept from pods app=x"),
        (Rule(peers=(NodeSet((has("zone", "z"),)),)), "Accept from nodes zone=z"),
    ],
)
def test_a_rule_in_words(rule: Rule, words: str) -> None:
    given = msgspec.structs.replace(DB_POLICY, ingress=(rule,))
    assert row(policy_views.policies(compiled(given)), "db")["ingress"] == [words]


def test_a_policy_that_is_not_as_it_was_written_says_why() -> None:
    broken = msgspec.structs.replace(DB_POLICY, fault="spec.ingress is 5; it must be a list")
    full, crowded = turns("a", table.RANKS - 1), turns("b", 2)
    rows = list(policy_views.policies(compiled(broken, full, crowded)))
    assert row(rows, "db")["reason"] == "spec.ingress is 5; it must be a list"
    assert row(rows, "b")["reason"] == "no room at its priority: it denies"
    assert row(rows, "a")["reason"] == ""


def stats(flow: Flow, packets: int) -> FlowStats:
    return FlowStats(flow.table, flow.priority, flow.cookie, flow, packets, packets * 100, 1.0, b"")


def test_packets_of_a_flow_count_for_each_policy_that_has_a_part_in_it_summed_over_switches(cluster: Compiler) -> None:
    counts: policy_views.Counts = {}
    for packets in (3, 40):
        policy_views.add_counts(counts, [count(flow, packets) for flow in cluster.flows(CLUSTER)])
    rows = list(policy_views.policies(cluster, counts))
    for name in ("db", "same"):
        # Two flows allow - the port in each family - and one isolates.
        told = row(rows, name)
        assert (told["ingressAllowed"], told["ingressDenied"], told["egressAllowed"]) == (86, 43, 0)
        assert (told["allowed"], told["denied"]) == (86, 43)
    guard = row(rows, "guard")
    # Two nodes' addresses at one port; what is denied is a conjunction, which counts where it ends.
    assert (guard["egressAllowed"], guard["egressDenied"]) == (guard["allowed"], guard["denied"]) == (86, 43)


def crowd() -> list[Pod]:
    """Five clients and five databases, each an identity of its own."""
    both = [(app, index) for app in ("client", "db") for index in range(5)]
    return [_pod(f"{app}{index}", 1, 10 + place, app=app, copy=str(index)) for place, (app, index) in enumerate(both)]


def test_parts_of_a_conjunction_count_nothing_and_its_end_counts_and_passing_is_counted_apart() -> None:
    pods = crowd()
    passing = Policy(kind="ClusterNetworkPolicy", name="pass", tier=Tier.ADMIN, subjects=OF_DB,
                     ingress=(Rule(Action.PASS, peers=(OF_CLIENT,)),))  # fmt: skip
    cluster = compiled(*pods, passing)
    flows = list(cluster.policies.flows_of(passing.key))
    counts: policy_views.Counts = {}
    policy_views.add_counts(counts, [count(flow, 7) for flow in flows])
    told = row(policy_views.policies(cluster, counts), "pass")
    assert (told["ingressPassed"], told["allowed"], told["denied"], told["flows"]) == (7, 0, 0, 11)


def test_flows_of_other_tables_and_those_that_are_not_ours_are_not_counted(cluster: Compiler) -> None:
    counts: policy_views.Counts = {}
    known = count(Flow(51, 1, (f.IN_PORT(3),), (), 0), 5)
    strange = msgspec.structs.replace(known, head=known.head[:-5] + b"\xff" * 5)
    elsewhere = [count(flow, 5) for flow in cluster.flows(CLUSTER) if flow.table not in policy_views.TABLES]
    policy_views.add_counts(counts, [strange, *elsewhere])
    assert counts == {} and elsewhere


def test_flows_of_a_policy_are_those_it_has_a_part_in_and_read_in_words(cluster: Compiler) -> None:
    dump = [stats(flow, 0) for flow in cluster.flows(CLUSTER)]
    rows = list(flow_views.flows(cluster, "n1", dump, Wanted(policy="shop/same")))
    assert {each["object"] for each in rows} == {"NetworkPolicy shop/db"} and len(rows) == 3
    assert "tcp,tcp_dst=5432 from shop[app=client] to shop[app=db]: go on in Commit" in [each["words"] for each in rows]
    assert "to shop[app=db]: drop" in [each["words"] for each in rows]
    assert len(list(flow_views.flows(cluster, "n1", dump, Wanted(policy="guard")))) == cluster.policies.size(GUARD.key)


def test_a_conjunction_s_flows_name_its_rule() -> None:
    pods = crowd()
    given = msgspec.structs.replace(DB_POLICY, ingress=(Rule(), Rule(peers=(OF_CLIENT,))))
    cluster = compiled(*pods, given)
    dump = [stats(flow, 0) for flow in cluster.flows(CLUSTER)]
    words = [each["words"] for each in flow_views.flows(cluster, "n1", dump, Wanted(policy="shop/db"))]
    assert "all parts of ingress rule 1 of NetworkPolicy shop/db: go on in Commit" in words
    assert "to shop[app=db,copy=3]: part 1 of 2 of ingress rule 1 of NetworkPolicy shop/db" in words


def test_a_name_means_a_policy_of_the_cluster_or_of_the_default_namespace() -> None:
    here = msgspec.structs.replace(DB_POLICY, namespace="default", name="guard")
    cluster = compiled(*OBJECTS, here)
    assert policy_views.named(cluster, "guard") == [GUARD.key, here.key]
    assert policy_views.named(cluster, "default/guard") == [here.key]
    assert policy_views.named(cluster, "db") == policy_views.named(cluster, "shop/guard") == []


def test_the_maker_of_a_policy_s_flow_is_the_policy(cluster: Compiler) -> None:
    (flow,) = (each for each in cluster.policies.flows_of(DB_POLICY.key) if not each.program)
    assert f.match(DESTINATION_IDENTITY(cluster.policies.identities.of_pod("shop", "db"))) == flow.match
    assert views.maker(cluster, flow.cookie) == "NetworkPolicy shop/db"


# May A reach B? -----------------------------------------------------------------------------------------------------


def test_a_verdict_names_the_rule_or_who_isolates(cluster: Compiler) -> None:
    told = check(cluster, "shop/client", "shop/db", "TCP", 5432, 0)
    assert told == {
        "source": "Pod shop/client (10.244.1.2)",
        "destination": "Pod shop/db (10.244.2.2)",
        "protocol": "TCP",
        "port": 5432,
        "allowed": True,
        "reason": "ingress, NetworkPolicy tier: Accept by rule 0 of NetworkPolicy shop/db",
        "steps": [
            "egress, Admin tier: nothing",
            "egress, NetworkPolicy tier: nothing",
            "egress, Baseline tier: nothing",
            "ingress, Admin tier: nothing",
            "ingress, NetworkPolicy tier: Accept by rule 0 of NetworkPolicy shop/db",
        ],
    }
    denied = check(cluster, "shop/other", "shop/db", "TCP", 5432, 6)
    assert (denied["allowed"], denied["source"]) == (False, "Pod shop/other (fd00:10:244:1::3)")
    assert denied["reason"] == (
        "ingress, NetworkPolicy tier: Deny, no rule of NetworkPolicy shop/db or NetworkPolicy shop/same allows it"
    )


@pytest.mark.parametrize(
    ("source", "destination", "protocol", "port", "reason"),
    [
        ("shop/client", "node/n2", "UDP", 53, "egress, Admin tier: Accept by rule 0 (dns) of "
         "ClusterNetworkPolicy guard"),
        ("shop/client", "192.0.2.7", "TCP", 22, "egress, Admin tier: Deny by rule 1 of ClusterNetworkPolicy guard"),
        ("shop/client", "192.0.2.200", "TCP", 22, "no policy says anything of it"),
        ("10.244.1.2", "shop/agent", "TCP", 22, "egress, Admin tier: Deny by rule 1 of ClusterNetworkPolicy guard"),
        ("node/n2", "shop/db", "TCP", 1, "no policy is asked: neither end is a pod, or a node talks to its own pod"),
        ("198.51.100.7", "shop/db", "ICMP", 9, "ingress, NetworkPolicy tier: Deny, no rule of NetworkPolicy shop/db or "
         "NetworkPolicy shop/same allows it"),
    ],
)  # fmt: skip
def test_nodes_and_addresses_can_be_asked_about(
    cluster: Compiler, source: str, destination: str, protocol: str, port: int, reason: str
) -> None:
    assert check(cluster, source, destination, protocol, port, 4)["reason"] == reason


def test_pods_whose_status_tells_no_address_are_found_by_what_their_port_announces() -> None:
    quiet = msgspec.structs.replace(DB, addresses=())
    cluster = compiled(node(1), node(2), CLIENT, quiet, DB_POLICY)
    with pytest.raises(QuestionError, match="pod shop/db has no address yet"):
        check(cluster, "shop/client", "shop/db", "TCP", 5432, 0)
    cluster.set_ports("n2", [*UPLINKS, pod_port(10, "shop", "db", 2, 2)])
    for name in ("shop/db", "10.244.2.2", "fd00:10:244:2::2"):
        told = check(cluster, "shop/client", name, "TCP", 5432, 0)
        assert told["destination"].startswith("Pod shop/db") and told["reason"].startswith(
            "ingress, NetworkPolicy tier: Accept"
        )


def test_a_policy_without_room_is_asked_as_the_closed_one_that_it_is() -> None:
    full, crowded = turns("a", table.RANKS - 1), turns("b", 2)
    cluster = compiled(node(1), node(2), CLIENT, DB, full, crowded)
    told = check(cluster, "shop/client", "shop/db", "UDP", 9, 0)
    assert not told["allowed"]
    assert told["reason"] == (
        "ingress, Admin tier: Deny by rule 0 (closed: no room at its priority) of ClusterNetworkPolicy b"
    )
    assert check(cluster, "shop/client", "shop/db", "TCP", 2, 0)["allowed"]


@pytest.mark.parametrize(
    ("source", "destination", "protocol", "port", "family", "said"),
    [
        ("shop/nobody", "shop/db", "TCP", 80, 0, "no pod shop/nobody; say NAMESPACE/POD, node/NAME or an address"),
        ("client", "shop/db", "TCP", 80, 0, "no pod default/client"),
        ("shop/client", "node/n9", "TCP", 80, 0, "no node 'n9'"),
        ("shop/client", "node/n2", "TCP", 80, 6, "shop/client and node/n2 have no IPv6 in common"),
        ("10.244.1.2", "2001:db8::1", "TCP", 80, 0, "10.244.1.2 and 2001:db8::1 have no family in common"),
        (
            "shop/client",
            "shop/svc/db",
            "TCP",
            80,
            0,
            "shop/svc/db: policies judge endpoints, not Services; ask of a pod",
        ),
        ("shop/client", "shop/db", "GRE", 80, 0, "no protocol 'GRE'; the protocols are TCP, UDP, SCTP, ICMP"),
        ("shop/client", "shop/db", "UDP", 0, 0, "UDP goes to a port from 1 to 65535"),
        ("shop/client", "shop/db", "TCP", 65536, 0, "TCP goes to a port from 1 to 65535"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    cluster: Compiler, source: str, destination: str, protocol: str, port: int, family: int, said: str
) -> None:
    with pytest.raises(QuestionError) as refused:
        check(cluster, source, destination, protocol, port, family)
    assert said in str(refused.value)


# The API ------------------------------------------------------------------------------------------------------------

Get = Callable[..., Any]


@pytest.fixture
async def get(tmp_path: Path) -> AsyncIterator[Get]:
    controller = Controller()
    controller.take(Snapshot({each.key: each for each in OBJECTS}))
    runner = await serve(controller, tmp_path / "api.sock")
    connector = aiohttp.UnixConnector(str(tmp_path / "api.sock"))
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask(path: str, status: int = 200) -> Any:
            async with session.get(f"http://controller{path}") as response:
                assert response.status == status, await response.text()
                return json.loads(await response.text())

        ask.controller = controller  # type: ignore[attr-defined]
        yield ask
    await runner.cleanup()


class Counting:
    """A switch that has met each flow of its policy tables so often."""

    def __init__(self, compiler: Compiler, packets: int) -> None:
        self._compiler, self._packets = compiler, packets

    def request_counts(
        self, make: Callable[[int], bytes], take: Callable[[UnreadReply], None], then: Callable[[], None]
    ) -> None:
        number = make(0)[16]
        entries = [entry(each, self._packets, 0) for each in self._compiler.flows(CLUSTER) if each.table == number]
        take(UnreadReply(0, False, answer(entries)))
        then()


async def test_the_api_lists_identities_and_policies(get: Get) -> None:
    assert {each["namespace"] for each in (await get("/v1/identities"))["items"]} == {"shop"}
    plain = (await get("/v1/policies"))["items"]
    assert [each["name"] for each in plain] == ["guard", "db", "same"] and "allowed" not in plain[0]


async def test_the_names_of_pods_are_left_out_of_policies_on_request(get: Get) -> None:
    whole = (await get("/v1/policies"))["items"]
    assert (whole[0]["pods"], len(whole[0]["podNames"])) == (3, 3)
    assert (await get("/v1/policies?names=0"))["items"] == [{**each, "podNames": []} for each in whole]
    assert (await get("/v1/policies?names=1"))["items"] == whole
    assert "watch doesn't go with names" in (await get("/v1/policies?watch=1&names=0", 400))["error"]


async def test_the_api_counts_over_all_switches_that_answer(get: Get) -> None:
    controller = get.controller  # type: ignore[attr-defined]
    controller.fleet.syncs = {"n1": Counting(controller.compiler, 1), "n2": Counting(controller.compiler, 10)}
    found = row((await get("/v1/policies?counters=1"))["items"], "db")
    assert (found["allowed"], found["denied"]) == (22, 11)


class Silent:
    """A switch that doesn't answer."""

    def request_counts(self, *arguments: object) -> None:
        pass


async def test_a_switch_that_does_not_answer_is_named_and_the_others_are_counted(
    get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "PATIENCE", 0.05)
    controller = get.controller  # type: ignore[attr-defined]
    controller.fleet.syncs = {"n1": Counting(controller.compiler, 1), "n2": Silent()}
    told = await get("/v1/policies?counters=1")
    assert told["missing"] == ["n2"]
    assert row(told["items"], "db")["denied"] == 1


async def test_the_api_answers_questions_and_refuses_those_that_make_no_sense(get: Get) -> None:
    told = await get("/v1/policy-check?from=shop/client&to=shop/db&protocol=tcp&port=5432&family=6")
    assert told["allowed"] and told["destination"] == "Pod shop/db (fd00:10:244:2::2)"
    for query, said in [
        ("to=shop/db&port=80", "say 'from': NAMESPACE/POD, node/NAME or an address"),
        ("from=shop/db&port=80", "say 'to'"),
        ("from=shop/db&to=shop/client&port=http", "port is a number from 0 to 65535, not 'http'"),
        ("from=shop/db&to=shop/client", "TCP goes to a port from 1 to 65535"),
        ("from=x&to=shop/client&port=1", "no pod default/x"),
    ]:
        assert said in (await get(f"/v1/policy-check?{query}", 400))["error"]


async def test_flows_of_a_policy_that_isn_t_there_are_not_found(get: Get) -> None:
    assert "no policy 'shop/none'" in (await get("/v1/nodes/n1/flows?policy=shop/none", 404))["error"]


# The command line ---------------------------------------------------------------------------------------------------


@pytest.fixture
def run(cluster: Compiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Runs a command whose questions this cluster answers."""
    counts: policy_views.Counts = {}
    policy_views.add_counts(counts, [count(each, 1) for each in cluster.flows(CLUSTER)])

    def ask(path: Path, resource: list[str], query: dict[str, str] | None = None) -> Any:
        given = query or {}
        match resource:
            case ["identities"]:
                return {"items": list(policy_views.identities(cluster))}
            case ["policies"]:
                found = policy_views.policies(cluster, counts if given.get("counters") else None)
                here = given.get("namespace")
                return {"items": [row for row in found if not here or row["namespace"] in (here, "")]}
            case ["policy-check"]:
                numbers = int(given["port"]), int(given.get("family", "0"))
                return check(cluster, given["from"], given["to"], given["protocol"], *numbers)
            case ["nodes", name, "flows"]:
                dump = [stats(each, 0) for each in cluster.flows(CLUSTER)]
                return {"items": list(flow_views.flows(cluster, name, dump, Wanted(policy=given.get("policy", ""))))}
        raise AssertionError(resource)

    monkeypatch.setattr(client, "ask", ask)
    socket = str(tmp_path / "controller.sock")
    return lambda *words: CliRunner().invoke(main, [*words, "--socket", socket])


def test_get_policies_lists_those_of_a_namespace_with_the_cluster_s(run: Callable[..., Result]) -> None:
    lines = run("get", "policies", "-n", "shop").output.splitlines()
    assert lines[0].split() == ["KIND", "NAME", "PRIORITY", "SUBJECTS", "PODS", "DIRECTIONS", "RULES"]
    assert [line.split()[:2] for line in lines[1:]] == [
        ["ClusterNetworkPolicy", "guard"],
        ["NetworkPolicy", "db"],
        ["NetworkPolicy", "same"],
    ]
    assert [line.split()[0] for line in run("get", "netpol").output.splitlines()[1:]] == ["ClusterNetworkPolicy"]
    counted = run("get", "policy", "db", "-n", "shop", "--counters").output.splitlines()
    assert counted[0].split()[-2:] == ["ALLOWED", "DENIED"] and counted[1].split()[-2:] == ["2", "1"]
    assert run("get", "policies", "-A", "-o", "name").output.split() == ["policy/guard", "policy/db", "policy/same"]


def test_get_identities_lists_labels_ports_and_how_many_pods(run: Callable[..., Result], cluster: Compiler) -> None:
    number = str(cluster.policies.identities.of_pod("shop", "db"))
    lines = run("get", "identities", "-n", "shop").output.splitlines()
    assert lines[0].split() == ["IDENTITY", "LABELS", "PORTS", "PODS", "STATUS"]
    assert [number, "app=db", "sql=5432/TCP", "1", "InUse"] in [line.split() for line in lines[1:]]
    assert run("get", "id", number, "-A", "-o", "name").output.split() == [f"identity/{number}"]
    refused = run("get", "identities", "--counters")
    assert refused.exit_code == 1
    assert "--counters: identities have none; services, endpoints and policies do" in refused.output


def test_policy_check_says_yes_or_no_with_its_exit_code_and_why(run: Callable[..., Result]) -> None:
    yes = run("policy", "check", "shop/client", "shop/db", "--tcp", "5432")
    assert yes.exit_code == 0
    assert (
        yes.output.splitlines()[0] == "Pod shop/client (10.244.1.2) to Pod shop/db (10.244.2.2), TCP port 5432: ALLOWED"
    )
    assert yes.output.splitlines()[-1] == "- ingress, NetworkPolicy tier: Accept by rule 0 of NetworkPolicy shop/db"
    no = run("policy", "check", "shop/other", "shop/db", "--icmp", "-6")
    assert no.exit_code == 1
    assert no.output.splitlines()[0].endswith("Pod shop/db (fd00:10:244:2::2), ICMP: DENIED")
    told = run("policy", "check", "shop/other", "shop/db", "--udp", "53", "-o", "json")
    assert told.exit_code == 1 and json.loads(told.output)["allowed"] is False


def test_policy_check_is_about_a_ping_if_nothing_else_is_said(run: Callable[..., Result]) -> None:
    pinged = run("policy", "check", "shop/other", "shop/db")
    assert pinged.output.splitlines()[0].endswith("Pod shop/db (10.244.2.2), ICMP: DENIED")


@pytest.mark.parametrize("command", [("policy", "check"), ("trace",)])
@pytest.mark.parametrize("words", [("--tcp", "1", "--udp", "2"), ("--icmp", "--sctp", "9")])
def test_a_question_is_about_one_protocol(
    run: Callable[..., Result], command: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused = run(*command, "shop/client", "shop/db", *words)
    assert refused.exit_code == 2
    assert "say one of --tcp, --udp, --sctp and --icmp" in refused.output


def test_flows_of_a_policy_are_shown_in_words(run: Callable[..., Result]) -> None:
    lines = run("flows", "n1", "--policy", "shop/db").output.splitlines()
    assert len(lines) == 4 and any("from shop[app=client] to shop[app=db]" in line for line in lines)
