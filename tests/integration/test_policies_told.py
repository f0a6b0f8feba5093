"""What people are told of policies: counters, identities, what `policy check` says, and what is wrong with them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from callers import Document, put, signalbox, write
from policing import cluster_policy, hold, labelled, policed, policy, silent, ways
from probes import HERE, addresses, inside, pod_netns, until

from deploy.lab.cluster import Lab

WEBS, CLIENTS = "red/web1 red/web2", "red/near red/far blue/near blue/far"


@pytest.fixture(scope="module")
def lab(policy_lab: Lab) -> Lab:
    return policy_lab


def counted(lab: Lab, name: str) -> tuple[int, int]:
    """How many packets a policy has allowed and denied, as the command shows."""
    rows = json.loads(signalbox(lab, "get", "policies", "-A", "--counters", "-o", "json"))["items"]
    (row,) = [each for each in rows if each["name"] == name]
    return row["allowed"], row["denied"]


def scraped(lab: Lab, name: str) -> tuple[float, ...]:
    """The same of a policy, as Prometheus is told."""
    socket = lab.layout.api_of(lab.controllers[0])
    argv = ["curl", "-sf", "--unix-socket", str(socket), "http://controller/metrics"]
    text = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout
    found = {
        verdict: float(line.split()[-1])
        for line in text.splitlines()
        for verdict in ("allowed", "denied")
        if line.startswith("signalbox_policy_packets_total{") and f'policy="{name}",verdict="{verdict}"' in line
    }
    return tuple(found.get(verdict, 0) for verdict in ("allowed", "denied"))


def send(lab: Lab, pod: str, address: str, port: int, count: int) -> None:
    """So many datagrams, each of them alone."""
    code = (
        "import socket,sys,time\n"
        "link = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)\n"
        "for n in range(int(sys.argv[3])): link.sendto(b'one', (sys.argv[1], int(sys.argv[2]))); time.sleep(0.005)\n"
    )
    done = inside(pod_netns(lab, pod, "red"), ["python3", "-Ic", code, address, str(port), str(count)])
    assert done.returncode == 0, done.stderr


def test_counters_are_those_of_the_packets_that_were_sent(lab: Lab) -> None:
    rule = policy("counted", {"who": "web1"}, ingress=[{"ports": [{"port": 9, "protocol": "UDP"}]}])
    many = [{"ipBlock": {"cidr": f"198.18.{n}.0/24"}} for n in range(20)] + [{"podSelector": {}}]
    # By a conjunction, and in the other direction.
    out = policy(
        "out",
        {"who": "far"},
        policyTypes=["Egress"],
        egress=[{"to": many, "ports": [{"port": port, "protocol": "UDP"} for port in (9, 11, 13)]}],
    )
    with policed(lab, rule, out):
        for address in addresses(lab, "web1", "red"):
            send(lab, "near", address, 9, 20)
            send(lab, "near", address, 10, 7)
            send(lab, "far", address, 9, 5)
            # Its egress denies it: no ingress policy sees it.
            send(lab, "far", address, 12, 3)
        # The switch counts what its datapath has met, and the datapath's counters are read now and then.
        until(lambda: counted(lab, "counted") == (50, 14), "what was sent is counted")
        until(lambda: counted(lab, "out") == (10, 6), "counted by the other, too")
        # What is asked of all switches now, and what looks at each in turn add up to: flows are read in one way.
        until(lambda: scraped(lab, "counted") == (50, 14), "the metrics say so too")


def test_policies_and_identities_are_listed_in_words(lab: Lab) -> None:
    admin = cluster_policy(
        "first",
        {"namespaces": labelled({"team": "a"})},
        priority=7,
        ingress=[{"action": "Deny", "name": "no-blue", "from": [{"namespaces": labelled({"team": "b"})}]}],
    )
    with policed(lab, admin, policy("second", {"app": "web"}, ingress=[{"ports": [{"port": "http"}]}])):
        rows = {
            row["name"]: row
            for row in json.loads(signalbox(lab, "get", "policies", "-n", "red", "-o", "json"))["items"]
        }
        assert (rows["first"]["tier"], rows["first"]["priority"], rows["first"]["pods"]) == ("Admin", 7, 4)
        assert (rows["second"]["tier"], rows["second"]["podNames"]) == ("NetworkPolicy", ["red/web1", "red/web2"])
        assert "no-blue" in rows["first"]["ingress"][0] and "http" in rows["second"]["ingress"][0]
        table = signalbox(lab, "get", "policies", "-n", "red")
        assert "first" in table and "second" in table
    known = {tuple(row["podNames"]): row for row in lab.ask("identities")["items"] if row["namespace"] == "red"}
    assert "app=web" in known["web1",]["labels"] and known["web1",]["ports"] == ["dns=8080/UDP", "http=8080/TCP"]


def test_policy_check_names_the_rule_and_its_exit_code_is_the_verdict(lab: Lab) -> None:
    with policed(
        lab, policy("in", {"app": "web"}, ingress=[{"from": [{"podSelector": {"matchLabels": {"tier": "front"}}}]}])
    ):
        assert "ALLOWED" in signalbox(lab, "policy", "check", "red/near", "red/web1", "--tcp", "8080")
        argv = [sys.executable, "-m", "deploy.command", "policy", "check", "blue/far", "red/web1", "--udp", "53", "-6"]
        done = subprocess.run(
            [*argv, "--lab", lab.layout.name], capture_output=True, text=True, cwd=HERE.parent.parent, check=False
        )
        assert done.returncode == 1, done.stderr
        assert "DENIED" in done.stdout and "red/in" in done.stdout, done.stdout
        assert "ALLOWED" in signalbox(lab, "policy", "check", "node/node-1", "red/web1", "--icmp")
        assert "ALLOWED" in signalbox(lab, "policy", "check", "192.0.2.7", "blue/far", "--sctp", "7")


#: Pods, a rule that is wrong, and what is said of it.
WRONG: list[tuple[str, Document, str]] = [
    ("red/web1", {"ports": [{"protocol": "ICMP", "port": 8080}]}, "ICMP"),
    ("red/web2", {"ports": [{"port": 8081, "endPort": 8080}]}, "endPort"),
    ("red/near", {"from": [{"ipBlock": {"cidr": "10.244.0.0/33"}}]}, "10.244.0.0/33"),
    ("blue/near", {"from": [{"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.245.0.0/24"]}}]}, "10.245.0.0/24"),
    ("blue/far", {"form": [{"podSelector": {}}]}, "form"),
]


def test_policies_that_are_wrong_are_told_and_close_what_they_select_while_others_hold(lab: Lab) -> None:
    other = policy("other", {"who": "far"}, ingress=[{"ports": [{"port": 8080}]}])
    closed = " ".join(pod for pod, _, _ in WRONG)
    wrong = [
        policy(f"wrong-{name}", {"who": name}, namespace, ingress=[{}, rule])
        for (namespace, name), rule in ((pod.split("/"), rule) for pod, rule, _ in WRONG)
    ]
    with policed(lab, other, *wrong):
        status = lab.ask("status")
        assert not status["healthy"] and len(status["problems"]) == len(WRONG)
        rows = {f"{row['namespace']}/{row['name']}": row for row in lab.ask("policies")["items"]}
        for pod, _, complaint in WRONG:
            namespace, name = pod.split("/")
            (problem,) = [each for each in status["problems"] if f"networkpolicy.{namespace}.wrong-{name}.yaml" in each]
            assert complaint in problem and complaint in rows[f"{namespace}/wrong-{name}"]["reason"], problem
        hold(
            lab,
            # The rule before the one that is wrong allows all, but what is closed is closed. Nodes go on to probe.
            allowed=[*ways(closed, "red/far", 8080, ("tcp",)), *ways("node-1", "red/web1")],
            denied=[*ways("red/far", closed), *ways("red/near", "red/web1 red/web2"), *ways(closed, "red/far", 8081)],
        )
    assert lab.ask("status")["healthy"]


def test_a_policy_that_is_no_yaml_any_more_is_told_and_what_it_said_stays(lab: Lab) -> None:
    good = policy("good", {"app": "web"}, ingress=[])
    with policed(lab, good):
        path = lab.layout.manifests / "networkpolicy.red.good.yaml"
        put(path, path.read_text() + "\n  bad: [unclosed\n")
        until(lambda: not lab.ask("status")["healthy"], "the broken file is noticed")
        silent(lab, ways("red/near blue/far", WEBS))
        write(lab, good)
    assert lab.ask("status")["healthy"]
