"""Connections that a policy denies or allows are told by the switch, and logged by the controller."""

from __future__ import annotations

import yaml
from callers import put
from guests import NAMESPACE, Guest
from probes import addresses, answers, pings, pod_netns, until

from deploy.lab.cluster import Lab


def lines(lab: Lab, text: str) -> list[str]:
    log = (lab.layout.directory / "controller.log").read_text()
    return [line for line in log.splitlines() if "signalbox.connections" in line and text in line]


def test_a_policy_that_asks_for_it_has_what_it_denies_and_allows_logged(lab: Lab, guest: Guest) -> None:
    guest.declare()
    guest.add()
    friends = [f"{address}/{32 if '.' in address else 128}" for address in addresses(lab, "a1")]
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "told", "namespace": NAMESPACE, "annotations": {"signalbox.io/log": "all"}},
        "spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": each}} for each in friends]}]},
    }
    path = lab.layout.manifests / "told.yaml"
    put(path, yaml.safe_dump(policy))
    try:
        lab.wait_for_sync()
        for index, protocol in enumerate(("ICMP", "ICMPv6")):
            target = guest.addresses[index]
            answers(pod_netns(lab, "a1"), target)
            assert not pings(pod_netns(lab, "c1"), target, wait=0.3)
            for word, pod in (("allowed", "a1"), ("denied", "c1")):
                told = (
                    f"{word} ingress by NetworkPolicy guests/told on node-2: {protocol} {addresses(lab, pod)[index]} "
                )
                until(lambda told=told: bool(lines(lab, told)), told)  # type: ignore[misc]
        path.unlink()
        lab.wait_for_sync()
        answers(pod_netns(lab, "c1"), guest.addresses[0])
    finally:
        path.unlink(missing_ok=True)
        lab.wait_for_sync()
