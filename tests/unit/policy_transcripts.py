"""A small cluster, policies for it in a few lines, and transcripts of connections that the policy oracle must confirm.

A line of a transcript says who calls whom, on which port, and what comes of it: `allowed`, or the direction that
refuses, as in `shop/web > shop/db TCP/80 IPv6 : ingress`. It is tried with IPv4 and IPv6, unless it has an address or
names the version.
"""

from __future__ import annotations

import policy_oracle
import yaml
from policy_oracle import Party, Verdict, World, verdict
from policy_worlds import OUTSIDE

# The cluster of all cases: shop and bank, what watches them, and what resolves names.
CLUSTER = """
{kind: Namespace, apiVersion: v1, metadata: {name: shop, labels: {team: sales, env: prod}}}
---
{kind: Namespace, apiVersion: v1, metadata: {name: bank, labels: {team: finance, env: prod}}}
---
{kind: Namespace, apiVersion: v1, metadata: {name: watch, labels: {team: ops}}}
---
{kind: Namespace, apiVersion: v1, metadata: {name: kube-system}}
---
kind: Node
apiVersion: v1
metadata: {name: n1, labels: {zone: east, node-role.kubernetes.io/control-plane: }}
status: {addresses: [{type: Hostname, address: n1}, {type: ExternalIP, address: 203.0.113.1},
                     {type: InternalIP, address: 172.30.0.1}, {type: InternalIP, address: "fd00:172:30::1"}]}
---
kind: Node
apiVersion: v1
metadata: {name: n2, labels: {zone: west}}
status: {addresses: [{type: InternalIP, address: 172.30.0.2}, {type: InternalIP, address: "fd00:172:30::2"}]}
---
kind: Pod
apiVersion: v1
metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}
spec:
  nodeName: n1
  containers:
    - {name: web, ports: [{name: http, containerPort: 8080}, {name: probe, containerPort: 9000, protocol: UDP}]}
    - {name: exporter, ports: [{name: metrics, containerPort: 9100}]}
status: {podIPs: [{ip: 10.244.1.2}, {ip: "fd00:10:244:1::2"}]}
---
kind: Pod
apiVersion: v1
metadata: {name: db, namespace: shop, labels: {app: db, tier: back}}
spec:
  nodeName: n2
  containers: [{name: db, ports: [{name: sql, containerPort: 5432}, {name: metrics, containerPort: 9187}]}]
status: {podIPs: [{ip: 10.244.2.2}, {ip: "fd00:10:244:2::2"}]}
---
kind: Pod
apiVersion: v1
metadata: {name: web, namespace: bank, labels: {app: web}}
spec: {nodeName: n2, containers: [{name: web, ports: [{name: http, containerPort: 80}]}]}
status: {podIPs: [{ip: 10.244.2.3}, {ip: "fd00:10:244:2::3"}]}
---
kind: Pod
apiVersion: v1
metadata: {name: prom, namespace: watch}
spec: {nodeName: n1, containers: [{name: prom}]}
status: {podIPs: [{ip: 10.244.1.3}, {ip: "fd00:10:244:1::3"}]}
---
kind: Pod
apiVersion: v1
metadata: {name: dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  nodeName: n2
  containers: [{name: dns, ports: [{name: dns, containerPort: 53, protocol: UDP}, {name: dns-tcp, containerPort: 53}]}]
status: {podIPs: [{ip: 10.244.2.4}, {ip: "fd00:10:244:2::4"}]}
---
kind: Pod
apiVersion: v1
metadata: {name: agent, namespace: shop, labels: {app: web, tier: front}}
spec: {nodeName: n2, hostNetwork: true, containers: [{name: agent, ports: [{name: http, containerPort: 8080}]}]}
status: {podIPs: [{ip: 172.30.0.2}, {ip: "fd00:172:30::2"}]}
"""
OUT, OUT6 = OUTSIDE[4][0], OUTSIDE[6][0]


def policy(text: str) -> str:
    """A policy from its kind, name, and spec: `NetworkPolicy shop/only-front` and lines of YAML."""
    head, _, spec = text.strip().partition("\n")
    kind, name = head.split()
    namespace, _, name = name.rpartition("/")
    indented = "".join(f"  {line}\n" for line in spec.splitlines())
    place = f", namespace: {namespace}" if namespace else ""
    return f"apiVersion: {policy_oracle.APIS[kind]}\nkind: {kind}\nmetadata: {{name: {name}{place}}}\nspec:\n{indented}"


def world(*policies: str, extra: str = "") -> World:
    texts = [CLUSTER, *(policy(each) for each in policies), *([extra] if extra else [])]
    return World(each for text in texts for each in yaml.safe_load_all(text))


def party(text: str) -> Party:
    if "/" in text:
        return Party(pod=text)
    return Party(node=text) if text in ("n1", "n2") else Party(address=text)


def ask(there: World, line: str) -> list[tuple[int, Verdict]]:
    """What a line of a transcript asks, for each version: `shop/web > shop/db TCP/80`."""
    source, arrow, destination, service, *mark = line.split()
    assert arrow == ">"
    protocol, _, port = service.partition("/")
    addresses = [each for each in (source, destination) if "/" not in each and each not in ("n1", "n2")]
    if mark:
        versions = [int(mark[0].removeprefix("IPv"))]
    else:
        versions = [6 if ":" in addresses[0] else 4] if addresses else [4, 6]
    return [
        (version, verdict(there, party(source), party(destination), protocol, int(port or 0), version))
        for version in versions
    ]


def says(there: World, transcript: str) -> None:
    """Every line of a transcript comes out as it says: allowed, or the direction that refuses."""
    lines = [line for line in transcript.splitlines() if line.strip()]
    assert lines
    for line in lines:
        question, _, expected = line.rpartition(" : ")
        for version, answer in ask(there, question):
            assert (answer.direction or "allowed") == expected.strip(), f"{line} (IPv{version}): {answer}"
            assert answer.allowed == (expected.strip() == "allowed")
