"""What is asked of Kubernetes' API server: which kinds of object, of which API, and where they are.

Owns the one list of them. `deploy/kubernetes/base/rbac.yaml` must grant what it asks for and nothing more: a test
compares.
"""

from __future__ import annotations

from urllib.parse import urlencode

import msgspec

#: Objects in one page of a list: what Kubernetes' own clients ask for.
PAGE = 500
#: Services and endpoints that somebody else programs, or nobody: kube-proxy leaves the same ones out.
_OURS = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless"


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of object that is listed and watched. `group` is empty for the core API.

    An `optional` one need not be there: whether it is, is asked for again and again.
    """

    kind: str
    group: str = ""
    version: str = "v1"
    plural: str
    namespaced: bool = True
    optional: bool = False
    selector: str = ""

    @property
    def api(self) -> str:
        """What an object's apiVersion says."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """The path of its API: what is asked for to see whether there is one."""
        return f"/apis/{self.api}" if self.group else f"/api/{self.version}"

    @property
    def path(self) -> str:
        """Where all its objects are, of every namespace."""
        return f"{self.root}/{self.plural}"

    def path_of(self, namespace: str, name: str, *, status: bool = False) -> str:
        """Where one object is, or its status alone."""
        inside = f"{self.root}/namespaces/{namespace}/{self.plural}" if self.namespaced else self.path
        return f"{inside}/{name}/status" if status else f"{inside}/{name}"

    def list_path(self, *, limit: int, token: str) -> str:
        """A list, or the next page of one. `limit` 0 asks for all at once."""
        query = {"labelSelector": self.selector, "limit": str(limit or ""), "continue": token}
        return _with(self.path, query)

    def watch_path(self, *, since: str, seconds: int) -> str:
        """A watch that the server ends after so many seconds."""
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "labelSelector": self.selector,
            "resourceVersion": since,
            "timeoutSeconds": str(seconds),
        }
        return _with(self.path, query)


def _with(path: str, query: dict[str, str]) -> str:
    given = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path


NODES = Resource(kind="Node", plural="nodes", namespaced=False)
NAMESPACES = Resource(kind="Namespace", plural="namespaces", namespaced=False)
PODS = Resource(kind="Pod", plural="pods")
SERVICES = Resource(kind="Service", plural="services", selector=_OURS)
SLICES = Resource(kind="EndpointSlice", group="discovery.k8s.io", plural="endpointslices", selector=_OURS)
NETWORK_POLICIES = Resource(kind="NetworkPolicy", group="networking.k8s.io", plural="networkpolicies")
#: Policies of the cluster, in both forms that there have been.
CLUSTER_POLICIES = tuple(
    Resource(
        kind=kind,
        group="policy.networking.k8s.io",
        version=version,
        plural=plural,
        namespaced=False,
        optional=True,
    )
    for kind, version, plural in (
        ("ClusterNetworkPolicy", "v1alpha2", "clusternetworkpolicies"),
        ("AdminNetworkPolicy", "v1alpha1", "adminnetworkpolicies"),
        ("BaselineAdminNetworkPolicy", "v1alpha1", "baselineadminnetworkpolicies"),
    )
)
#: Our own: hosts and virtual machines on bridges' ports (`topology.workload_manifests`).
WORKLOADS = Resource(kind="Workload", group="signalbox.io", version="v1alpha1", plural="workloads", optional=True)

#: Our own: questions where a packet goes (`topology.kubernetes.traceflows`). No part of the cluster's state.
TRACEFLOWS = Resource(
    kind="Traceflow", group="signalbox.io", version="v1alpha1", plural="traceflows", namespaced=False, optional=True
)

#: Everything that the cluster's state is made of.
RESOURCES = (NODES, NAMESPACES, PODS, SERVICES, SLICES, NETWORK_POLICIES, *CLUSTER_POLICIES, WORKLOADS)
BY_KIND = {each.kind: each for each in RESOURCES}
