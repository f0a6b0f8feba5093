"""Whom a flow record is about: names for the numbers and addresses that nodes' exports hold. Rows for API and CLI.

Records name a node by its observation domain (IPFIX), its address (sFlow) or its engine (NetFlow), all functions of the
node, and everybody else by addresses. A record is of the past: who asks late may be told the address's next owner.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flows.compiler import Compiler
from topology.naming import gateway_addresses, observation_domain, translation_addresses

Row = dict[str, Any]


def exporters(compiler: Compiler) -> Iterator[Row]:
    """Every node as a record's sender, with what it is to send to whom."""
    exports = [
        {"protocol": each.protocol.value, "collectors": list(each.collectors)}
        | {"sampling": each.sampling, "interval": each.interval}
        for each in compiler.exports
    ]
    for name, node in sorted(compiler.cluster.nodes.items()):
        domain = observation_domain(name)
        yield {
            "node": name,
            "observationDomain": domain,
            "engine": f"{domain >> 8 & 0xFF}/{domain & 0xFF}",
            "addresses": [str(each) for each in node.addresses],
            "exports": exports,
        }


def names(compiler: Compiler) -> Iterator[Row]:
    """Every address of the cluster that may be in a record, and whose it is; pods with their ports on the bridge."""
    for name, node in sorted(compiler.cluster.nodes.items()):
        for address in (*node.addresses, *gateway_addresses(node.pod_cidrs), *translation_addresses(node.pod_cidrs)):
            yield _row(str(address), "Node", "", name, name)
        for pod, local in compiler.local_pods(name):
            kind = "Workload" if pod.port else "Pod"
            for address in local.addresses:
                yield _row(str(address), kind, pod.namespace, pod.name, name) | {
                    "port": pod.port_name,
                    "portNumber": local.port,
                }
    for _, service in sorted(compiler.cluster.services.items()):
        for address in dict.fromkeys((*service.cluster_ips, *service.load_balancer_ips, *service.external_ips)):
            yield _row(str(address), "Service", service.namespace, service.name, "")


def _row(address: str, kind: str, namespace: str, name: str, node: str) -> Row:
    row: Row = {"address": address, "kind": kind, "namespace": namespace, "name": name, "node": node}
    return row | {"port": "", "portNumber": None}
