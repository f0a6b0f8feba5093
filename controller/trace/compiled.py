"""What switches and hosts are to do, as the compiler has it by now, in the form in which packets walk through it.

Nothing is remembered between questions but the flows that were made for the last one: they are made again when the
state has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from controller import views
from controller.trace import hosts
from flows.compiler import Compiler
from flows.interpreter import Interpreter
from flows.update import CLUSTER
from flows.values import Flow, Group
from topology.services import ServiceRanges


class Compiled:
    """The flows and groups that switches are to have; those of the cluster are kept for as long as it is the same."""

    def __init__(
        self,
        compiler: Compiler,
        version: Callable[[], object],
        *,
        keyed: bool = True,
        node_ports: tuple[int, int] = ServiceRanges().node_ports,
    ) -> None:
        """`version` changes whenever the cluster's scope does; `node_ports` are those that hosts give to Services."""
        self.compiler = compiler
        self.keyed = keyed
        self._node_ports = range(node_ports[0], node_ports[1] + 1)
        self._version = version
        self._of: object = None
        self._flows: list[Flow] = []
        self._groups: list[Group] = []
        self._names: Mapping[int, str] = {}
        self._endpoints = views.EndpointNames(compiler)
        self._notes: list[hosts.Told] = []

    def names(self) -> Mapping[int, str]:
        """What cookies' object ids stand for, but those of pods: there are many, and a packet meets few of them."""
        self._refresh()
        return self._names

    def endpoints(self) -> views.EndpointNames:
        """Services' endpoints by what connections keep of them."""
        self._refresh()
        return self._endpoints

    def interpreter(self, node: str) -> Interpreter:
        """What a node's switch is to do."""
        self._refresh()
        shared = ([], []) if node in self.compiler.transit else (self._flows, self._groups)
        down = [port.number for port in self.compiler.ports(node) if not port.up]
        return Interpreter([*shared[0], *self.compiler.flows(node)], [*shared[1], *self.compiler.groups(node)], down)

    def host(self, node: str) -> hosts.Host:
        """What a node's host is to do."""
        self._refresh()
        notes = [*self._notes, *hosts.told(self.compiler.flows(node))]
        return hosts.Host(self.compiler.cluster, node, notes, self.compiler.service_cidrs, self._node_ports)

    def _refresh(self) -> None:
        version = (self._version(),)
        if version != self._of:
            self._flows = list(self.compiler.flows(CLUSTER))
            self._groups = list(self.compiler.groups(CLUSTER))
            self._notes = list(hosts.told(self._flows))
            self._names = views.object_names(self.compiler, with_pods=False)
            self._endpoints = views.EndpointNames(self.compiler)
            self._of = version
