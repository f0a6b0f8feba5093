"""What the linter says of the datapath flows that established connections have, on every node of a lab."""

from __future__ import annotations

import contextlib
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import msgspec
from callers import Call, Held
from probes import inside

from deploy.lab.cluster import Lab
from deploy.lab.layout import netns_path
from deploy.lab.substrate import appctl, vsctl
from flows.offload.datapath import read_dump
from flows.offload.lint import Verdict, lint

#: The underlay's own: Linux has no such flows, its tunnels' devices do it.
_UNDERLAY = ("eth0", "br-phy")
#: Questions on each connection: until both ends have spoken, and after the caches were emptied.
_BEFORE, _AFTER = 2, 3


class Linted(msgspec.Struct, frozen=True):
    """What became of a scenario's flows."""

    verdicts: tuple[tuple[str, Verdict], ...]

    @property
    def judged(self) -> list[tuple[str, Verdict]]:
        """Node and verdict of all flows that established connections have."""
        return [each for each in self.verdicts if not each[1].occasion]

    @property
    def failed(self) -> list[str]:
        """What TC doesn't take, and nobody has explained."""
        return [
            f"{node}: {'; '.join(map(str, verdict.reasons)) or 'no flow leads there'}\n    {verdict.flow.match}"
            for node, verdict in self.judged
            if not verdict.offloadable or verdict.dangling
        ]

    def __str__(self) -> str:
        exceptions = Counter(each.occasion for _, each in self.verdicts if each.occasion and not each.offloadable)
        told = ", ".join(f"{number} {what}" for what, number in sorted(exceptions.items())) or "none"
        offloadable = sum(each.offloadable for _, each in self.judged)
        return f"{len(self.judged)} flows of established connections, {offloadable} offloadable; exceptions: {told}"


def established(
    lab: Lab, callers: Sequence[tuple[str, Sequence[Call]]], pings: Sequence[tuple[str, str]] = ()
) -> Linted:
    """Hold connections, empty the caches, speak on each again, and judge what the datapaths then have."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(kept(lab))
        held = [stack.enter_context(Held(netns, *calls)) for netns, calls in callers if calls]
        for netns, address in pings:
            stack.enter_context(_pinging(netns, address))
        for each in held * _BEFORE:
            _answered(each)
        for node in lab.nodes:
            appctl(lab.layout, node, "revalidator/purge")
        for each in held * _AFTER:
            _answered(each)
        for ping in pings:
            _pinged(*ping)
        return everything(lab)


def everything(lab: Lab) -> Linted:
    """What all nodes' datapaths have now."""
    return Linted(tuple((node, each) for node in lab.nodes for each in flows_of(lab, node)))


def flows_of(lab: Lab, node: str) -> list[Verdict]:
    """Verdicts of all flows that Signalbox's bridge has made in a node's datapath."""
    found = read_dump(appctl(lab.layout, node, "dpctl/dump-flows", "-m"))
    return lint([each for each in found if each.in_port not in _UNDERLAY])


def _answered(held: Held) -> None:
    outcomes = held.ask()
    assert not [each for each in outcomes if "error" in each], outcomes


def _pinged(netns: str, address: str) -> None:
    """As many are answered as take all that belongs to it to be in the datapath."""
    argv = ["ping", "-n", "-q", "-i", "0.02", "-c", str(_AFTER), "-W", "30", address]
    assert inside(netns, argv).returncode == 0, (netns, address)


@contextlib.contextmanager
def kept(lab: Lab) -> Iterator[None]:
    """Datapaths keep their flows within the block, also those that no packet meets: usually for ten seconds."""
    setting = "other_config:max-idle"
    for node in lab.nodes:
        vsctl(lab.layout, node, "set", "Open_vSwitch", ".", f"{setting}=600000")
    try:
        yield
    finally:
        for node in lab.nodes:
            vsctl(lab.layout, node, "remove", "Open_vSwitch", ".", "other_config", "max-idle")


@contextlib.contextmanager
def _pinging(netns: str, address: str) -> Iterator[None]:
    _pinged(netns, address)
    argv = ["nsenter", f"--net={netns_path(netns)}", "--", "ping", "-n", "-q", "-i", "0.02", address]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


#: Keeps what the linter said of a scenario, to be printed when all tests have run.
Record = Callable[[str, Linted], None]
