"""Services, their endpoints and the status of pods, from YAML trees. `topology.manifests` calls these for their kinds.

Must not know other objects: whether an address is free is `topology.services`' business. Raises FieldError.
"""

from __future__ import annotations

from topology import manifest_fields as fields
from topology.model import Endpoint, EndpointPort, EndpointSlice, ServicePort, Subset, labels_of
from topology.naming import Address
from topology.services import ServiceSpec
from topology.workloads import PodStatus, Template
from topology.yaml_tree import Tree

_TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
DEFAULT_AFFINITY = 10800
_LONGEST_AFFINITY = 86400
_FAMILIES = {"IPv4": 4, "IPv6": 6}
DISTRIBUTIONS = {"PreferClose": "PreferSameZone"}
SERVICE_NAME = "kubernetes.io/service-name"


def service(namespace: str, name: str, tree: Tree) -> ServiceSpec:
    """A Service as it is asked for."""
    spec = tree.require("spec", remedy="describe the Service: its ports, and which pods it is for")
    kind = fields.one_of(spec.get("type"), _TYPES, "ClusterIP")
    addresses, headless = _cluster_ips(spec)
    families = spec.get("ipFamilies")
    selector, ports = spec.get("selector"), spec.get("ports")
    if kind != "ExternalName" and not headless and ports is None:
        spec.require("ports", remedy="list the ports that the Service has, as {port: 80, targetPort: 8080}")
    requested, class_ = spec.get("loadBalancerIP"), spec.get("loadBalancerClass")
    affinity = fields.one_of(spec.get("sessionAffinity"), ("None", "ClientIP"), "None")
    timeout = spec.get("sessionAffinityConfig", "clientIP", "timeoutSeconds")
    distribution = fields.one_of(
        spec.get("trafficDistribution"), ("PreferClose", "PreferSameZone", "PreferSameNode"), ""
    )
    health = spec.get("healthCheckNodePort")
    return ServiceSpec(
        namespace=namespace,
        name=name,
        type=kind,
        headless=headless,
        cluster_ips=addresses,
        families=tuple(_FAMILIES[fields.one_of(each, tuple(_FAMILIES), "")] for each in families.items())
        if families
        else (),
        family_policy=fields.one_of(
            spec.get("ipFamilyPolicy"), ("SingleStack", "PreferDualStack", "RequireDualStack"), ""
        ),
        ports=_ports(ports, kind) if ports else (),
        selector=labels_of(fields.labels(selector)) if selector and fields.labels(selector) else None,
        external_ips=_addresses(spec.get("externalIPs")),
        load_balancer_ip=fields.address(requested) if requested and requested.text() else None,
        load_balancer_class=class_.text() if class_ else "",
        load_balancer_status=_ingress(tree.get("status", "loadBalancer", "ingress")),
        source_ranges=tuple(map(fields.network, ranges.items()))
        if (ranges := spec.get("loadBalancerSourceRanges"))
        else (),
        allocate_node_ports=fields.flag(spec.get("allocateLoadBalancerNodePorts"), True),
        external_local=_is_local(spec.get("externalTrafficPolicy")),
        internal_local=_is_local(spec.get("internalTrafficPolicy")),
        health_check_node_port=health.number(0, 65535) if health else 0,
        affinity_seconds=0
        if affinity == "None"
        else timeout.number(1, _LONGEST_AFFINITY)
        if timeout
        else DEFAULT_AFFINITY,
        publish_not_ready=fields.flag(spec.get("publishNotReadyAddresses"), False),
        distribution=DISTRIBUTIONS.get(distribution, distribution),
    )


def _is_local(tree: Tree | None) -> bool:
    return fields.one_of(tree, ("Cluster", "Local"), "Cluster") == "Local"


def _cluster_ips(spec: Tree) -> tuple[tuple[Address, ...], bool]:
    single, plural = spec.get("clusterIP"), spec.get("clusterIPs")
    trees = plural.items() if plural else [single] if single and single.text() else []
    if any(tree.text() == "None" for tree in trees):
        return (), True
    addresses = tuple(fields.address(tree) for tree in trees)
    if len({each.version for each in addresses}) != len(addresses):
        raise trees[-1].error(f"is {addresses[-1]}, a second address of its family; a Service has one of each")
    return addresses, False


def _ports(tree: Tree, kind: str) -> tuple[ServicePort, ...]:
    ports: list[ServicePort] = []
    for item in tree.items():
        number = item.require("port", remedy="give the Service's port, a number").number(1, 65535)
        name, node_port = item.get("name"), item.get("nodePort")
        port = ServicePort(
            port=number,
            protocol=fields.protocol(item.get("protocol")),
            name=name.text() if name else "",
            target=_target(item.get("targetPort")),
            node_port=node_port.number(0, 65535) if node_port and kind in ("NodePort", "LoadBalancer") else 0,
        )
        for other in ports:
            if (other.port, other.protocol) == (port.port, port.protocol):
                raise item.error(f"has port {port.port}/{port.protocol} once more; a Service has each once")
            if other.name == port.name:
                raise item.error(
                    f"is called {port.name!r} as another port is; name each" if name else "has no name; name each port"
                )
        ports.append(port)
    return tuple(ports)


def _target(tree: Tree | None) -> int | str:
    if tree is None:
        return 0
    if not tree.is_text:
        return tree.number(1, 65535)
    if tree.text().isdecimal():
        raise tree.error(f"is {tree.text()!r}, a name of digits; write the number without quotes")
    return tree.text()


def _addresses(tree: Tree | None) -> tuple[Address, ...]:
    return tuple(fields.address(each) for each in tree.items()) if tree else ()


def _ingress(tree: Tree | None) -> tuple[Address, ...]:
    return tuple(fields.address(ip) for each in tree.items() if (ip := each.get("ip"))) if tree else ()


def endpoint_slice(namespace: str, name: str, tree: Tree) -> EndpointSlice:
    """An EndpointSlice (discovery.k8s.io/v1)."""
    labels = tree.require("metadata", "labels", remedy=f"say which Service it is for, with the label {SERVICE_NAME}")
    service = labels.get(SERVICE_NAME)
    if service is None:
        raise labels.error(f"doesn't have {SERVICE_NAME}; it says which Service the slice is for")
    version = tree.require("addressType", remedy="say IPv4 or IPv6")
    family = fields.one_of(version, ("IPv4", "IPv6", "FQDN"), "")
    listed, ports = tree.get("endpoints"), tree.get("ports")
    endpoints = tuple(
        each
        for item in (listed.items() if listed and family != "FQDN" else [])
        for each in _endpoints(item, _FAMILIES[family])
    )
    subset = Subset(tuple(map(_endpoint_port, ports.items())) if ports else (), endpoints)
    return EndpointSlice(namespace=namespace, name=name, service=service.text(), subsets=(subset,))


def _endpoints(tree: Tree, version: int) -> list[Endpoint]:
    ready = fields.flag(tree.get("conditions", "ready"), True)
    serving = fields.flag(tree.get("conditions", "serving"), ready)
    terminating = fields.flag(tree.get("conditions", "terminating"), False)
    node, zone = tree.get("nodeName"), tree.get("zone")
    pod, hints = tree.get("targetRef", "name"), tree.get("hints", "forZones")
    found = []
    for item in tree.require("addresses", remedy="give the endpoint's address").items():
        address = fields.address(item)
        if address.version != version:
            raise item.error(f"is {address}, not of the slice's addressType; put it into a slice of its own")
        found.append(
            Endpoint(
                address=address,
                node=node.text() if node else "",
                zone=zone.text() if zone else "",
                pod=pod.text() if pod else "",
                ready=ready,
                serving=serving,
                terminating=terminating,
                zones=tuple(each.require("name", remedy="name the zone").text() for each in hints.items())
                if hints
                else (),
            )
        )
    return found


def _endpoint_port(tree: Tree) -> EndpointPort:
    name = tree.get("name")
    return EndpointPort(
        port=tree.require("port", remedy="give the port's number").number(1, 65535),
        protocol=fields.protocol(tree.get("protocol")),
        name=name.text() if name else "",
    )


def endpoints(namespace: str, name: str, tree: Tree) -> EndpointSlice:
    """An Endpoints object (v1): the endpoints of the Service of its name."""
    subsets = []
    listed = tree.get("subsets")
    for item in listed.items() if listed else []:
        ports = item.get("ports")
        found = []
        for field, ready in (("addresses", True), ("notReadyAddresses", False)):
            for each in addresses.items() if (addresses := item.get(field)) else []:
                node, pod = each.get("nodeName"), each.get("targetRef", "name")
                found.append(
                    Endpoint(
                        address=fields.address(each.require("ip", remedy="give the endpoint's address")),
                        node=node.text() if node else "",
                        pod=pod.text() if pod else "",
                        ready=ready,
                        serving=ready,
                    )
                )
        subsets.append(Subset(tuple(map(_endpoint_port, ports.items())) if ports else (), tuple(found)))
    return EndpointSlice(kind="Endpoints", namespace=namespace, name=name, service=name, subsets=tuple(subsets))


def pod_status(namespace: str, name: str, tree: Tree, template: Template | None = None) -> PodStatus:
    """What a Pod document says of a pod that is there: its addresses, whether it is ready, whether it is ending.

    With `template` the pod is there also when nothing else declares it.
    """
    addresses = tree.get("status", "podIPs")
    conditions = tree.get("status", "conditions")
    ready = True
    for each in conditions.items() if conditions else []:
        if each.require("type", remedy="say which condition it is").text() == "Ready":
            state = each.require("status", remedy='say "True" or "False"')
            ready = fields.one_of(state, ("True", "False", "Unknown"), "") == "True"
    return PodStatus(
        namespace=namespace,
        name=name,
        addresses=tuple(fields.address(each.require("ip", remedy="give the address")) for each in addresses.items())
        if addresses
        else (),
        ready=ready,
        terminating=tree.get("metadata", "deletionTimestamp") is not None,
        template=template,
    )
