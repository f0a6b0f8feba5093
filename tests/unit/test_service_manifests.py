"""What Services, EndpointSlices, Endpoints and Pods' status say in YAML, and what is wrong with them."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from textwrap import dedent

import pytest

from topology.manifest_state import ManifestState
from topology.manifests import Declaration, parse
from topology.model import (
    ContainerPort,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Pod,
    ServicePort,
    Subset,
)
from topology.model import Service as GivenService
from topology.services import ServiceSpec
from topology.workloads import PodStatus, Probe, Workload

SERVICE = """\
    apiVersion: v1
    kind: Service
    metadata: {name: web, namespace: shop}
    spec:
      type: LoadBalancer
      clusterIPs: [10.96.0.10, "fd00:10:96::10"]
      ipFamilies: [IPv4, IPv6]
      ipFamilyPolicy: RequireDualStack
      selector: {app: web, tier: front}
      ports:
      - {name: http, port: 80, targetPort: http, nodePort: 30080}
      - {name: dns, port: 53, protocol: UDP, targetPort: 5353}
      externalIPs: [203.0.113.1]
      loadBalancerIP: 198.51.100.1
      loadBalancerClass: signalbox.io/load-balancer
      loadBalancerSourceRanges: [192.0.2.0/24]
      allocateLoadBalancerNodePorts: false
      externalTrafficPolicy: Local
      internalTrafficPolicy: Local
      healthCheckNodePort: 30100
      sessionAffinity: ClientIP
      sessionAffinityConfig:
        clientIP: {timeoutSeconds: 60}
      publishNotReadyAddresses: true
      trafficDistribution: PreferSameNode
    status:
      loadBalancer:
        ingress:
        - {ip: 198.51.100.2}
        - {hostname: example.com}
"""

SLICE = """\
    apiVersion: discovery.k8s.io/v1
    kind: EndpointSlice
    metadata:
      name: web-1
      namespace: shop
      labels: {kubernetes.io/service-name: web}
    addressType: IPv4
    ports:
    - {name: http, port: 8080}
    - {name: dns, port: 5353, protocol: UDP}
    endpoints:
    - addresses: [10.244.1.2]
      nodeName: node-1
      zone: east
      targetRef: {kind: Pod, name: web-0}
      conditions: {ready: false, serving: true, terminating: true}
      hints:
        forZones: [{name: east}, {name: west}]
    - addresses: [10.244.1.3, 10.244.1.4]
"""

ENDPOINTS = """\
    apiVersion: v1
    kind: Endpoints
    metadata: {name: web, namespace: shop}
    subsets:
    - addresses:
      - {ip: 10.244.1.2, nodeName: node-1, targetRef: {name: web-0}}
      notReadyAddresses:
      - {ip: "fd00::3"}
      ports:
      - {name: http, port: 8080, protocol: TCP}
    - addresses: [{ip: 10.244.1.9}]
"""

STATUS = """\
    apiVersion: v1
    kind: Pod
    metadata: {name: web-0, namespace: shop, deletionTimestamp: "2000-01-01T00:00:00Z"}
    status:
      podIPs: [{ip: 10.244.1.2}, {ip: "fd00::2"}]
      conditions:
      - {type: Initialized, status: "True"}
      - {type: Ready, status: "False"}
"""


def only(text: str) -> Declaration:
    parsed = parse("web.yaml", dedent(text).encode())
    assert parsed.problems == () == parsed.notes
    (declared,) = parsed.declared
    return declared.value


def minimal(spec: str) -> ServiceSpec:
    value = only(f"{{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {spec}}}")
    assert isinstance(value, ServiceSpec)
    return value


def test_a_service_says_all_that_it_asks_for() -> None:
    assert only(SERVICE) == ServiceSpec(
        namespace="shop",
        name="web",
        type="LoadBalancer",
        cluster_ips=(ip_address("10.96.0.10"), ip_address("fd00:10:96::10")),
        families=(4, 6),
        family_policy="RequireDualStack",
        selector=(("app", "web"), ("tier", "front")),
        ports=(
            ServicePort(port=80, name="http", target="http", node_port=30080),
            ServicePort(port=53, name="dns", protocol="UDP", target=5353),
        ),
        external_ips=(ip_address("203.0.113.1"),),
        load_balancer_ip=ip_address("198.51.100.1"),
        load_balancer_class="signalbox.io/load-balancer",
        load_balancer_status=(ip_address("198.51.100.2"),),
        source_ranges=(ip_network("192.0.2.0/24"),),
        allocate_node_ports=False,
        external_local=True,
        internal_local=True,
        health_check_node_port=30100,
        affinity_seconds=60,
        publish_not_ready=True,
        distribution="PreferSameNode",
    )


def test_a_service_that_says_least_is_a_cluster_address_for_the_port_itself() -> None:
    assert minimal("{ports: [{port: 80}]}") == ServiceSpec(
        namespace="default", name="web", ports=(ServicePort(port=80, target=0),)
    )


@pytest.mark.parametrize(
    ("spec", "field", "value"),
    [
        ("{clusterIP: None, selector: {app: web}}", "headless", True),
        ("{clusterIPs: [None], ports: [{port: 80}]}", "headless", True),
        ('{clusterIP: "", ports: [{port: 80}]}', "headless", False),
        ("{clusterIP: 10.96.0.7, ports: [{port: 80}]}", "cluster_ips", (ip_address("10.96.0.7"),)),
        ("{type: ExternalName, externalName: example.com}", "ports", ()),
        ("{selector: {}, ports: [{port: 80}]}", "selector", None),
        ("{sessionAffinity: ClientIP, ports: [{port: 80}]}", "affinity_seconds", 10800),
        ("{sessionAffinity: None, ports: [{port: 80}]}", "affinity_seconds", 0),
        ("{trafficDistribution: PreferClose, ports: [{port: 80}]}", "distribution", "PreferSameZone"),
        ("{trafficDistribution: PreferSameZone, ports: [{port: 80}]}", "distribution", "PreferSameZone"),
        ('{loadBalancerIP: "", ports: [{port: 80}]}', "load_balancer_ip", None),
        ("{externalTrafficPolicy: Cluster, ports: [{port: 80}]}", "external_local", False),
        ("{type: NodePort, ports: [{port: 80, nodePort: 0}]}", "ports", (ServicePort(port=80),)),
        ("{type: ClusterIP, ports: [{port: 80, nodePort: 30080}]}", "ports", (ServicePort(port=80),)),
        (
            "{ports: [{name: a, port: 53}, {name: b, port: 53, protocol: UDP}]}",
            "ports",
            (ServicePort(port=53, name="a"), ServicePort(port=53, name="b", protocol="UDP")),
        ),
    ],
)
def test_what_a_field_of_a_service_means(spec: str, field: str, value: object) -> None:
    assert getattr(minimal(spec), field) == value


def test_a_slice_says_its_service_ports_and_each_address_as_an_endpoint() -> None:
    subset = Subset(
        (EndpointPort(port=8080, name="http"), EndpointPort(port=5353, name="dns", protocol="UDP")),
        (
            Endpoint(
                address=ip_address("10.244.1.2"),
                node="node-1",
                zone="east",
                pod="web-0",
                ready=False,
                serving=True,
                terminating=True,
                zones=("east", "west"),
            ),
            Endpoint(address=ip_address("10.244.1.3")),
            Endpoint(address=ip_address("10.244.1.4")),
        ),
    )
    assert only(SLICE) == EndpointSlice(namespace="shop", name="web-1", service="web", subsets=(subset,))


def test_an_endpoint_serves_as_it_is_ready_where_nothing_else_is_said() -> None:
    found = only(SLICE.replace("{ready: false, serving: true, terminating: true}", "{ready: false}"))
    assert isinstance(found, EndpointSlice)
    assert not found.subsets[0].endpoints[0].serving
    assert found.subsets[0].endpoints[1].serving


def test_a_slice_of_names_has_no_endpoints() -> None:
    found = only(SLICE.replace("addressType: IPv4", "addressType: FQDN"))
    assert isinstance(found, EndpointSlice)
    assert found.subsets[0].endpoints == ()


def test_an_endpoints_object_is_of_the_service_of_its_name_a_subset_for_each_set_of_ports() -> None:
    assert only(ENDPOINTS) == EndpointSlice(
        kind="Endpoints",
        namespace="shop",
        name="web",
        service="web",
        subsets=(
            Subset(
                (EndpointPort(port=8080, name="http"),),
                (
                    Endpoint(address=ip_address("10.244.1.2"), node="node-1", pod="web-0"),
                    Endpoint(address=ip_address("fd00::3"), ready=False, serving=False),
                ),
            ),
            Subset((), (Endpoint(address=ip_address("10.244.1.9")),)),
        ),
    )


@pytest.mark.parametrize(("state", "ready"), [("True", True), ("False", False), ("Unknown", False)])
def test_a_pod_s_status_says_its_addresses_whether_it_is_ready_and_whether_it_is_ending(
    state: str, ready: bool
) -> None:
    assert only(STATUS.replace('status: "False"', f'status: "{state}"')) == PodStatus(
        namespace="shop",
        name="web-0",
        addresses=(ip_address("10.244.1.2"), ip_address("fd00::2")),
        ready=ready,
        terminating=True,
    )


def test_a_status_without_conditions_is_of_a_pod_that_is_ready() -> None:
    bare = only("{apiVersion: v1, kind: Pod, metadata: {name: web-0}, status: {}}")
    assert bare == PodStatus(namespace="default", name="web-0")


def test_a_pod_s_status_counts_for_the_pod_whichever_file_it_is_in() -> None:
    pod = """\
        apiVersion: v1
        kind: Pod
        metadata: {name: web-0, namespace: shop}
        spec: {nodeName: node-1, containers: [{name: main}]}
    """
    files = {"pod.yaml": dedent(pod).encode(), "a.yaml": dedent(STATUS).encode()}
    both = ManifestState().update(files).objects["Pod", "shop", "web-0"]
    assert isinstance(both, Pod)
    assert (both.ready, both.terminating, len(both.addresses)) == (False, True, 2)
    alone = ManifestState().update({"pod.yaml": files["pod.yaml"]}).objects["Pod", "shop", "web-0"]
    assert isinstance(alone, Pod)
    assert (alone.ready, alone.terminating, alone.addresses) == (True, False, ())
    assert ("Pod", "shop", "web-0") not in ManifestState().update({"a.yaml": files["a.yaml"]}).objects


def test_a_service_is_in_force_with_what_it_was_given() -> None:
    text = dedent(SERVICE).replace("  loadBalancerIP: 198.51.100.1\n", "").encode()
    given = ManifestState().update({"web.yaml": text}).objects["Service", "shop", "web"]
    assert isinstance(given, GivenService)
    assert given.load_balancer_ips == (ip_address("198.51.100.2"),)
    assert given.health_check_node_port == 30100


def test_what_a_service_can_t_be_given_is_told_with_its_place() -> None:
    text = dedent(SERVICE).replace("10.96.0.10", "10.97.0.10").encode()
    found = ManifestState().update({"web.yaml": b"# a note\n" + text})
    assert ("Service", "shop", "web") not in found.objects
    (problem,) = found.problems
    assert str(problem).startswith(
        "web.yaml:2: Service shop/web: spec.clusterIP 10.97.0.10 is not in the range of Services, 10.96.0.0/16, "
    )


WEB, SLICE_OF, ENDS = "Service shop/web: ", "EndpointSlice shop/web-1: ", "Endpoints shop/web: subsets[0]."
WHAT = "it must be one of"


@pytest.mark.parametrize(
    ("text", "was", "becomes", "line", "problem"),
    [
        (SERVICE, "    spec:", "    speck:", 1, f"{WEB}spec is missing; describe the Service: its ports, and which"),
        (SERVICE, "type: LoadBalancer", "type: Lb", 5, f"{WEB}spec.type is 'Lb'; {WHAT} ClusterIP, NodePort, LoadBal"),
        (SERVICE, "10.96.0.10", "10.96.0", 6, f"{WEB}spec.clusterIPs[0] is '10.96.0'; it must be an IPv4 or IPv6 addr"),
        (
            SERVICE,
            '"fd00:10:96::10"',
            "10.96.0.11",
            6,
            f"{WEB}spec.clusterIPs[1] is 10.96.0.11, a second address of its family; a Service has one of each",
        ),
        (SERVICE, "[IPv4, IPv6]", "[IPv5]", 7, f"{WEB}spec.ipFamilies[0] is 'IPv5'; {WHAT} IPv4, IPv6"),
        (SERVICE, "RequireDualStack", "Dual", 8, f"{WEB}spec.ipFamilyPolicy is 'Dual'; {WHAT} SingleStack, Prefer"),
        (SERVICE, "tier: front", "tier: -", 9, f"{WEB}spec.selector.tier is '-'; a label's value has"),
        (SERVICE, "ports:", "port:", 5, f"{WEB}spec.ports is missing; list the ports that the Service has, as {{port:"),
        (SERVICE, "port: 80, ", "", 11, f"{WEB}spec.ports[0].port is missing; give the Service's port, a number"),
        (SERVICE, "port: 80,", "port: 0,", 11, f"{WEB}spec.ports[0].port is 0 (a number); it must be a whole number"),
        (SERVICE, "30080", "70000", 11, f"{WEB}spec.ports[0].nodePort is 70000 (a number); it must be a whole number"),
        (SERVICE, "Port: http", "Port: 0", 11, f"{WEB}spec.ports[0].targetPort is 0 (a number); it must be a whole nu"),
        (
            SERVICE,
            "Port: http",
            'Port: "80"',
            11,
            f"{WEB}spec.ports[0].targetPort is '80', a name of digits; write the n",
        ),
        (SERVICE, "UDP", "ICMP", 12, f"{WEB}spec.ports[1].protocol is 'ICMP'; {WHAT} TCP, UDP, SCTP"),
        (SERVICE, "name: dns", "name: http", 12, f"{WEB}spec.ports[1] is called 'http' as another port is; name each"),
        (
            SERVICE,
            "{name: dns, port: 53, protocol: UDP",
            "{name: dns, port: 80",
            12,
            f"{WEB}spec.ports[1] has port 80/TCP once more; a Service has each once",
        ),
        (SERVICE, "203.0.113.1", "127.0.0.1", 13, f"{WEB}spec.externalIPs[0] is 127.0.0.1, which no other node can s"),
        (SERVICE, "IP: 198.51.100.1", "IP: none", 14, f"{WEB}spec.loadBalancerIP is 'none'; it must be an IPv4 or IP"),
        (
            SERVICE,
            "192.0.2.0/24",
            "192.0.2.1/24",
            16,
            f"{WEB}spec.loadBalancerSourceRanges[0] is 192.0.2.1/24, which is no network's address; write 192.0.2.0/24",
        ),
        (SERVICE, "Ports: false", "Ports: 0", 17, f"{WEB}spec.allocateLoadBalancerNodePorts is 0 (a number); it must"),
        (
            SERVICE,
            "externalTrafficPolicy: Local",
            "externalTrafficPolicy: local",
            18,
            f"{WEB}spec.externalTrafficPolicy is 'local'; {WHAT} Cluster, Local",
        ),
        (
            SERVICE,
            "internalTrafficPolicy: Local",
            "internalTrafficPolicy: Node",
            19,
            f"{WEB}spec.internalTrafficPolicy is 'Node'; {WHAT} Cluster, Local",
        ),
        (SERVICE, "30100", "-1", 20, f"{WEB}spec.healthCheckNodePort is -1 (a number); it must be a whole number from"),
        (SERVICE, "ClientIP", "Cookie", 21, f"{WEB}spec.sessionAffinity is 'Cookie'; {WHAT} None, ClientIP"),
        (
            SERVICE,
            "timeoutSeconds: 60",
            "timeoutSeconds: 86401",
            23,
            f"{WEB}spec.sessionAffinityConfig.clientIP.timeoutSeconds is 86401 (a number); it must be a whole number f",
        ),
        (
            SERVICE,
            "PreferSameNode",
            "PreferNear",
            25,
            f"{WEB}spec.trafficDistribution is 'PreferNear'; {WHAT} PreferClose, PreferSameZone, PreferSameNode",
        ),
        (
            SERVICE,
            "- {ip: 198.51.100.2}",
            "- {ip: 198.51.100}",
            29,
            f"{WEB}status.loadBalancer.ingress[0].ip is '198.51.100'; it must be an IPv4 or IPv6 address",
        ),
        (
            SLICE,
            "labels: {kubernetes.io/service-name: web}",
            "labels: {app: web}",
            6,
            f"{SLICE_OF}metadata.labels doesn't have kubernetes.io/service-name; it says which Service the slice is",
        ),
        (
            SLICE,
            "labels: {kubernetes.io/service-name: web}",
            "",
            4,
            f"{SLICE_OF}metadata.labels is missing; say which Service it is for, with the label kubernetes.io/service",
        ),
        (SLICE, "addressType: IPv4", "addressType: IP", 7, f"{SLICE_OF}addressType is 'IP'; {WHAT} IPv4, IPv6, FQDN"),
        (SLICE, "addressType: IPv4", "", 1, f"{SLICE_OF}addressType is missing; say IPv4 or IPv6"),
        (SLICE, "port: 8080", "porter: 8080", 9, f"{SLICE_OF}ports[0].port is missing; give the port's number"),
        (SLICE, "10.244.1.2", "fd00::2", 12, f"{SLICE_OF}endpoints[0].addresses[0] is fd00::2, not of the slice's add"),
        (
            SLICE,
            "addresses: [10.244.1.3, 10.244.1.4]",
            "nodeName: a",
            19,
            f"{SLICE_OF}endpoints[1].addresses is missing; give the endpoint's address",
        ),
        (SLICE, "ready: false", "ready: no-idea", 16, f"{SLICE_OF}endpoints[0].conditions.ready is 'no-idea'; it must"),
        (SLICE, "{name: west}", "{}", 18, f"{SLICE_OF}endpoints[0].hints.forZones[1].name is missing; name the zone"),
        (ENDPOINTS, "ip: 10.244.1.2, ", "", 6, f"{ENDS}addresses[0].ip is missing; give the endpoint's address"),
        (ENDPOINTS, "fd00::3", "fe80::3", 8, f"{ENDS}notReadyAddresses[0].ip is fe80::3, which no other node can se"),
        (ENDPOINTS, "port: 8080", "port: x", 10, f"{ENDS}ports[0].port is 'x'; it must be a whole number from 1 to"),
        (STATUS, '"False"', '"No"', 8, "Pod shop/web-0: status.conditions[1].status is 'No'; it must be one of True,"),
        (STATUS, "type: Ready, ", "", 8, "Pod shop/web-0: status.conditions[1].type is missing; say which condition"),
        (STATUS, "{ip: 10.244.1.2}", "{}", 5, "Pod shop/web-0: status.podIPs[0].ip is missing; give the address"),
    ],
)
def test_each_mistake_is_told_with_line_field_and_remedy(
    text: str, was: str, becomes: str, line: int, problem: str
) -> None:
    assert was in text
    parsed = parse("web.yaml", dedent(text.replace(was, becomes, 1)).encode())
    assert parsed.declared == ()
    (found,) = parsed.problems
    assert str(found).startswith(f"web.yaml:{line}: {problem}")


def test_of_several_ports_each_needs_a_name() -> None:
    parsed = parse("x", b"{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 1}, {port: 2}]}}")
    assert str(parsed.problems[0]) == "x:1: Service default/a: spec.ports[1] has no name; name each port"


# Pods: what Services need of them -------------------------------------------------------------------------------------

POD = """\
    apiVersion: v1
    kind: Pod
    metadata: {name: web-0}
    spec:
      containers:
      - name: server
        ports:
        - {containerPort: 8080, name: http, hostPort: 80, hostIP: 192.0.2.1}
        - {containerPort: 53, protocol: UDP, hostPort: 53, hostIP: 0.0.0.0}
        - {containerPort: 54, hostPort: 54, hostIP: 127.0.0.1}
        readinessProbe: PROBE
"""


def workload(probe: str) -> Workload:
    found = only(POD.replace("PROBE", probe))
    assert isinstance(found, Workload)
    return found


def test_host_ports_are_of_one_address_of_the_node_or_of_all() -> None:
    assert workload("{tcpSocket: {port: 1}}").template.ports == (
        ContainerPort(port=8080, name="http", host_port=80, host_ip=ip_address("192.0.2.1")),
        ContainerPort(port=53, protocol="UDP", host_port=53),
        ContainerPort(port=54, host_port=54, host_ip=ip_address("127.0.0.1")),
    )


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ("{exec: {command: [cat, /ready]}}", Probe(command=("cat", "/ready"))),
        ("{tcpSocket: {port: 8080}}", Probe(port=8080)),
        ("{httpGet: {port: http, path: /health}}", Probe(port=8080, path="/health")),
        ("{httpGet: {port: 81}}", Probe(port=81, path="/")),
    ],
)
def test_a_readiness_probe_is_a_command_or_a_port_or_a_path(probe: str, expected: Probe) -> None:
    assert workload(probe).template.run.readiness == expected


@pytest.mark.parametrize(
    ("probe", "problem"),
    [
        ("{grpc: {port: 1}}", "readinessProbe has no exec, tcpSocket or httpGet; say how to see whether the container"),
        ("{httpGet: {path: /}}", "readinessProbe.httpGet.port is missing; give the port to try"),
        ("{tcpSocket: {port: web}}", "readinessProbe.tcpSocket.port is 'web', a name that none of the container's po"),
        ("{tcpSocket: {port: 0}}", "readinessProbe.tcpSocket.port is 0 (a number); it must be a whole number from 1"),
    ],
)
def test_a_probe_that_says_nothing_to_try_is_told(probe: str, problem: str) -> None:
    (found,) = parse("x", dedent(POD.replace("PROBE", probe)).encode()).problems
    assert str(found).startswith(f"x:11: Pod default/web-0: spec.containers[0].{problem}")


def test_the_documented_examples_are_accepted() -> None:
    text = (Path(__file__).parents[2] / "docs" / "services.md").read_text()
    examples = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert examples
    for example in examples:
        parsed = parse("services.md", example.encode())
        assert parsed.declared and parsed.problems == () == parsed.notes
