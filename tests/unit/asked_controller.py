"""A controller with its admin API and a switch in memory, which the command line asks as it asks any."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

from aiohttp import web
from click.testing import CliRunner, Result
from fake_switch import Wire
from policy_objects import has
from test_sync import connect, node, pod_port, started, switch_of

from controller.api import serve
from controller.app import Controller
from deploy.command import main
from topology.model import Endpoint, EndpointPort, EndpointSlice, Object, Pod, Service, ServicePort, Subset
from topology.policies import Action, PodSet, Policy, PolicyPort, Rule

#: Two pods of the Service web, one on each node; only the first node's switch is there. A policy lets clients in.
OBJECTS: tuple[Object, ...] = (
    node(1),
    node(2),
    Pod(namespace="default", name="web-1", node="n1", labels=(("app", "web"),)),
    Pod(namespace="default", name="web-2", node="n2", labels=(("app", "web"),)),
    Pod(namespace="other", name="web-1", node="n1", labels=(("app", "web"),)),
    Service(
        namespace="default",
        name="web",
        ports=(ServicePort(port=80, protocol="TCP", name="http"),),
        cluster_ips=(ip_address("10.96.0.7"),),
        selector=(("app", "web"),),
    ),
    EndpointSlice(
        namespace="default",
        name="web-x",
        service="web",
        subsets=(
            Subset(
                (EndpointPort(port=8080, protocol="TCP", name="http"),),
                tuple(
                    Endpoint(address=ip_address(f"10.244.{number}.10"), node=f"n{number}", pod=f"web-{number}")
                    for number in (1, 2)
                ),
            ),
        ),
    ),
    Policy(
        namespace="default",
        name="clients",
        subjects=PodSet((has("app", "web"),), "default"),
        ingress=(Rule(Action.ACCEPT, (PodSet((has("app", "client"),), "default"),), (PolicyPort("TCP", 8080),)),),
    ),
)


class Asked:
    """The controller, and what asks it."""

    def __init__(self, controller: Controller, socket: Path, wire: Wire, runner: web.AppRunner) -> None:
        self.controller = controller
        self.wire = wire
        self._socket = socket
        self._runner = runner

    async def end(self) -> None:
        """Nobody answers any more."""
        await self._runner.cleanup()

    async def run(self, *words: str, color: bool = False) -> Result:
        """What a command prints, while the switch answers what it is asked."""
        at = ("--socket", str(self._socket))
        running = asyncio.create_task(asyncio.to_thread(CliRunner().invoke, main, [*words, *at], color=color))
        while not running.done():
            self.wire.pump()
            await asyncio.sleep(0.002)
        return await running


@contextlib.asynccontextmanager
async def asked(directory: Path, *objects: Object) -> AsyncIterator[Asked]:
    """A controller that knows these objects, or `OBJECTS`, for the length of a block."""
    controller = started(*(objects or OBJECTS))
    controller.not_ready = ""
    runner = await serve(controller, directory / "api.sock")
    try:
        wire = connect(controller, switch_of(1, pod_port("web-1", 1)))
        yield Asked(controller, directory / "api.sock", wire, runner)
    finally:
        await runner.cleanup()
