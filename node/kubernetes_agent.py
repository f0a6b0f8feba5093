"""An agent that Kubernetes tells what differs from node to node.

It begins with what Kubernetes says now, or, where that takes too long, with what it said at an earlier start. A
certificate that is renewed is handed on; whatever else changes ends the agent, and whoever keeps it running starts it
with the new facts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from node import agent, health
from node.agent import AgentError
from node.facts import Kept, NodeFacts
from node.kubernetes_node import Follower, Wanted
from node.settings import Settings, SettingsError

log = logging.getLogger(__name__)

#: Seconds that Kubernetes may take, where there is something of an earlier start.
_PATIENCE = 15.0

MakeSettings = Callable[[NodeFacts], Settings]


async def run(wanted: Wanted, kept: Kept, make: MakeSettings, address: str) -> None:
    """The agent's life. Raises AgentError and SettingsError. At `address`, if there is one, its health is asked for."""
    follower = Follower(wanted)
    facts = follower.facts()
    coming = asyncio.ensure_future(anext(facts))
    earlier = kept.read(tls=bool(wanted.secrets))
    async with contextlib.AsyncExitStack() as stack:
        if address:
            # It may wait for long, and isn't dead.
            await stack.enter_async_context(await health.serve(address, lambda: follower.waits_for))
        await asyncio.wait([coming], timeout=_PATIENCE if earlier is not None else None)
    if earlier is None or coming.done():
        first = coming.result()
        _keep(kept, first)
    else:
        log.warning("%s; going on with what was found out at an earlier start", follower.waits_for)
        first = earlier
    settings = make(first)
    await agent.run(settings, _outdated(settings, coming, facts, kept, make))


async def clean(wanted: Wanted, kept: Kept, make: MakeSettings) -> None:
    """Take away all that such an agent has made on the node, and what was found out. Raises AgentError."""
    facts = kept.read(tls=bool(wanted.secrets))
    await agent.clean(make(facts if facts is not None else await anext(Follower(wanted).facts())))
    kept.remove()


async def _outdated(
    settings: Settings,
    coming: asyncio.Future[NodeFacts],
    facts: AsyncIterator[NodeFacts],
    kept: Kept,
    make: MakeSettings,
) -> str:
    """Returns when the agent's settings are others, and says why."""
    name = settings.name
    while True:
        each = await coming
        _keep(kept, each)
        try:
            if make(each) != settings:
                return f"Kubernetes says other pod CIDRs, addresses or controllers of {name} than before"
        except SettingsError as error:
            return f"Kubernetes says other things of {name} than before: {error}"
        coming = asyncio.ensure_future(anext(facts))


def _keep(kept: Kept, facts: NodeFacts) -> None:
    try:
        kept.write(facts)
    except OSError as error:
        raise AgentError(f"--state-dir: {error}") from error
