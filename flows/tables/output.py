"""Output: sends the packet to the exit that Route chose. Only here do the node's own port numbers matter."""

from __future__ import annotations

from collections.abc import Iterator

from flows import fields as f
from flows.pipeline import FABRIC, OUTPUT
from flows.registers import EXIT, EXIT_PORT, HAIRPIN, SOURCE_IDENTITY, TUNNEL_KEY, WIRE_KEY, Exit
from flows.values import PORT_IN_PORT, Flow, Goto, Move, Output, OutputBits, SetField
from topology.naming import FABRIC_SENDER_PREFIX

_BACK, _PRIORITY = 210, 200


def pipeline_flows(cookie: int) -> Iterator[Flow]:
    """To the port that Route named; back to where it came from only what Commit or UnSNAT has marked."""
    yield Flow(OUTPUT.number, _BACK, (HAIRPIN(1),), (Output(PORT_IN_PORT),), cookie)
    yield Flow(OUTPUT.number, _PRIORITY, (EXIT(Exit.PORT),), (OutputBits(EXIT_PORT),), cookie)
    # To another node by wire, with word of who sends: Route has set where the frame is bound for.
    told = (SetField(f.ETH_SRC, FABRIC_SENDER_PREFIX << 32), Move(SOURCE_IDENTITY, WIRE_KEY), Goto(FABRIC.number))
    yield Flow(OUTPUT.number, _PRIORITY, (EXIT(Exit.FABRIC),), told, cookie)


def gateway_flows(port: int, cookie: int) -> Iterator[Flow]:
    """To the host."""
    yield Flow(OUTPUT.number, _PRIORITY, (EXIT(Exit.GATEWAY),), (Output(port),), cookie)


def routed_flows(port: int, cookie: int) -> Iterator[Flow]:
    """To another node by the host."""
    yield Flow(OUTPUT.number, _PRIORITY, (EXIT(Exit.ROUTED),), (Output(port),), cookie)


def tunnel_flows(port: int, cookie: int) -> Iterator[Flow]:
    """To another node, with word of who sends: Route has set the tunnel's far end."""
    program = (Move(SOURCE_IDENTITY, TUNNEL_KEY), Output(port))
    yield Flow(OUTPUT.number, _PRIORITY, (EXIT(Exit.TUNNEL),), program, cookie)
