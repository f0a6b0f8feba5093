"""Objects as Kubernetes' API server has them: as much of them as matters, and some that doesn't."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]


def meta(name: str, namespace: str = "", labels: Mapping[str, str] | None = None, **more: object) -> Json:
    found: Json = {"name": name, "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:metadata": {}}}], **more}
    if namespace:
        found["namespace"] = namespace
    if labels:
        found["labels"] = dict(labels)
    return found


def node(name: str, index: int, **status: object) -> Json:
    addresses = [
        {"type": "Hostname", "address": name},
        {"type": "InternalIP", "address": f"192.0.2.{index}"},
        {"type": "ExternalIP", "address": f"198.51.100.{index}"},
    ]
    cidrs = [f"10.244.{index}.0/24", f"fd00:244:{index}::/64"]
    return {
        "kind": "Node",
        "metadata": meta(name, labels={"zone": "z1"}),
        "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs},
        "status": {"addresses": addresses, "nodeInfo": {"kernelVersion": "6.1"}, **status},
    }


def namespace(name: str, **more: object) -> Json:
    return {"kind": "Namespace", "metadata": meta(name, labels={"team": name}, **more), "status": {"phase": "Active"}}


def pod(
    namespace: str,
    name: str,
    node: str = "",
    ips: Sequence[str] = (),
    *,
    labels: Mapping[str, str] | None = None,
    ready: bool = True,
    phase: str = "Running",
    spec: Json | None = None,
    **more: object,
) -> Json:
    return {
        "kind": "Pod",
        "metadata": meta(name, namespace, labels, **more),
        "spec": {"containers": [{"name": "c", "image": "i"}], **({"nodeName": node} if node else {}), **(spec or {})},
        "status": {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": str(ready), "lastTransitionTime": None}],
            **({"podIP": ips[0], "podIPs": [{"ip": ip} for ip in ips]} if ips else {}),
        },
    }


def service(namespace: str, name: str, ip: str, *, status: Json | None = None, **spec: Any) -> Json:
    return {
        "kind": "Service",
        "metadata": meta(name, namespace),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": ip,
            "clusterIPs": [ip],
            "selector": {"app": name},
            "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}],
            **spec,
        },
        "status": status or {"loadBalancer": {}},
    }


def endpoint_slice(namespace: str, name: str, service: str, *addresses: str, **more: object) -> Json:
    return {
        "kind": "EndpointSlice",
        "metadata": meta(name, namespace, {"kubernetes.io/service-name": service}),
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [each], "conditions": {"ready": True}, **more} for each in addresses] or None,
    }


def network_policy(namespace: str, name: str, **spec: object) -> Json:
    return {"kind": "NetworkPolicy", "metadata": meta(name, namespace), "spec": {"podSelector": {}, **spec}}


def workload(namespace: str, name: str, **spec: object) -> Json:
    given = {"node": "n1", "port": "vnet0", "mac": "52:54:00:00:00:01", "addresses": ["203.0.113.7"], **spec}
    return {"kind": "Workload", "metadata": meta(name, namespace, {"app": name}), "spec": given}


def cluster_policy(name: str, **spec: object) -> Json:
    return {
        "kind": "ClusterNetworkPolicy",
        "metadata": meta(name, generation=1),
        "spec": {"tier": "Admin", "priority": 10, "subject": {"namespaces": {}}, **spec},
    }
