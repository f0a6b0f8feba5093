"""What is damaged, leaked or killed in the middle: CHECK says it, GC and DEL take it away, and another ADD works."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from guests import NAMESPACE, Guest
from probes import answers, inside, ping_all, pod_netns, until

from deploy.lab import kubelet, processes, substrate
from deploy.lab.cluster import Lab
from deploy.lab.kubelet import CniFailure
from deploy.lab.layout import LabError
from node.cni.spec import Code
from topology.naming import OBJECT_ID_BITS, object_id, pod_port_name

#: Seconds in which an agent that does something wrong has done it.
_A_MOMENT = 0.4


def port_of(guest: Guest) -> str:
    return pod_port_name(NAMESPACE, guest.name)


def has_link(guest: Guest) -> bool:
    return port_of(guest) in substrate.run(["ip", "-n", guest.lab.layout.node_netns(guest.node), "-br", "link"])


def number_of(guest: Guest) -> int | None:
    """A port's number as the switch's database has it, 0 before it has one; None where there is no such port."""
    try:
        words = ("--if-exists", "get", "interface", port_of(guest), "ofport")
        told = substrate.vsctl(guest.lab.layout, guest.node, "--no-wait", *words).strip()
    except LabError:
        return None
    return int(told) if told.isdigit() else 0 if told else None


def traces(guest: Guest) -> list[str]:
    """What there is of a pod on its node."""
    found = ["link"] if has_link(guest) else []
    found += ["row"] if number_of(guest) is not None else []
    found += ["eth0"] if "eth0" in inside(guest.netns, ["ip", "-br", "link"]).stdout else []
    return found


def collect(guest: Guest, *stay: Guest) -> None:
    running = [each for each in kubelet.running(guest.lab.layout).values() if each.node == guest.node]
    valid = [{"containerID": each.container, "ifname": "eth0"} for each in [*running, *stay]]
    variables = dict.fromkeys(guest.variables(), "")
    guest.call("GC", variables, **{"cni.dev/valid-attachments": valid})


@contextlib.contextmanager
def stopped(guest: Guest, pidfile: str) -> Iterator[None]:
    """A daemon of the node that does nothing for a while."""
    process = processes.of_pidfile(guest.lab.layout.node(guest.node) / pidfile)
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        resume(guest, pidfile)


def resume(guest: Guest, pidfile: str) -> None:
    process = processes.of_pidfile(guest.lab.layout.node(guest.node) / pidfile)
    assert process is not None
    os.kill(process.pid, signal.SIGCONT)


# Damage ---------------------------------------------------------------------------------------------------------------


def test_check_says_that_the_port_or_its_flows_are_gone(lab: Lab, guest: Guest) -> None:
    guest.declare()
    result = guest.add()
    guest.call("CHECK", prevResult=result)
    mask = (1 << OBJECT_ID_BITS) - 1
    cookie = f"cookie={object_id('Pod', NAMESPACE, guest.name):#x}/{mask:#x}"
    environment = substrate.switch_environment(lab.layout, guest.node)
    substrate.run(["ovs-ofctl", "del-flows", "br-int", cookie], env=environment)
    with pytest.raises(CniFailure, match=f"no flows for pod {NAMESPACE}/{guest.name}") as failure:
        guest.call("CHECK", prevResult=result)
    assert failure.value.code == Code.IO
    lab.audit()
    lab.wait_for_sync()
    guest.call("CHECK", prevResult=result)
    substrate.vsctl(lab.layout, guest.node, "del-port", "br-int", port_of(guest))
    with pytest.raises(CniFailure, match="has no port on this node") as failure:
        guest.call("CHECK", prevResult=result)
    assert failure.value.code == Code.UNKNOWN_CONTAINER


def test_gc_takes_away_what_has_lost_its_other_half(guest: Guest) -> None:
    guest.declare()
    guest.add()
    substrate.vsctl(guest.lab.layout, guest.node, "del-port", "br-int", port_of(guest))
    assert traces(guest) == ["link", "eth0"]
    collect(guest)
    assert not traces(guest)
    guest.add()
    substrate.run(["ip", "-n", guest.lab.layout.node_netns(guest.node), "link", "del", port_of(guest)])
    assert traces(guest) == ["row"]
    collect(guest)
    assert not traces(guest)


def test_gc_leaves_alone_what_is_being_made(guest: Guest) -> None:
    guest.declare()
    with stopped(guest, "ovsdb.pid"), ThreadPoolExecutor(1) as pool:
        process = guest.begin("ADD")
        until(lambda: has_link(guest), "the interface is made")
        collecting = pool.submit(collect, guest, guest)
        # Time to do harm: that it does none has no sign of its own.
        time.sleep(_A_MOMENT)
        assert has_link(guest)
        resume(guest, "ovsdb.pid")
        collecting.result()
    status, told = guest.finish(process)
    assert status == 0, told
    assert traces(guest) == ["link", "row", "eth0"]


# Death ----------------------------------------------------------------------------------------------------------------

#: How far an ADD has come, what keeps it from going on, and how one sees that it is there.
STEPS = {
    "the interface is made": ("ovsdb.pid", lambda guest: has_link(guest)),
    "the row is written": ("vswitchd.pid", lambda guest: number_of(guest) is not None),
    "the port has a number": ("", lambda guest: bool(number_of(guest))),
}


def restart_agent(guest: Guest) -> None:
    guest.lab.start_agent(guest.node)
    guest.lab.wait_for_agents()


@pytest.mark.parametrize("then", ["del", "add"])
@pytest.mark.parametrize("victim", ["plugin", "agent"])
@pytest.mark.parametrize("step", STEPS)
def test_an_add_that_is_killed_leaves_nothing_behind_and_may_be_tried_again(
    lab: Lab, guest: Guest, step: str, victim: str, then: str
) -> None:
    pidfile, reached = STEPS[step]
    assert not traces(guest)
    with stopped(guest, pidfile) if pidfile else contextlib.nullcontext():
        if pidfile:
            guest.declare()
        process = guest.begin("ADD")
        until(lambda: reached(guest), step)
        if victim == "plugin":
            process.kill()
            process.wait()
        else:
            lab.stop_agent(guest.node, signal.SIGKILL)
            status, told = guest.finish(process)
            assert status == 1 and told["code"] == Code.TRY_LATER, told
    if victim == "agent":
        restart_agent(guest)
    if then == "del":
        guest.call("DEL")
        assert not traces(guest)
    if not pidfile:
        guest.declare()
    guest.add()
    answers(pod_netns(lab, "a1"), guest.addresses[0])
    guest.call("DEL")
    assert not traces(guest)


def test_del_of_an_add_that_goes_on_without_its_plugin_waits_for_it(guest: Guest) -> None:
    guest.declare()
    with stopped(guest, "ovsdb.pid"):
        process = guest.begin("ADD")
        until(lambda: has_link(guest), "the interface is made")
        process.kill()
        process.wait()
        deleting = guest.begin("DEL")
        with pytest.raises(subprocess.TimeoutExpired):
            deleting.wait(_A_MOMENT)
    assert guest.finish(deleting) == (0, {})
    assert not traces(guest)


@pytest.mark.parametrize("victim", ["plugin", "agent"])
def test_whenever_an_add_is_killed_nothing_is_left_and_the_next_works(lab: Lab, guest: Guest, victim: str) -> None:
    """By the clock: also where no step of its own is."""
    guest.declare()
    lab.wait_for_sync()
    for delay in (0.0, 0.002, 0.004, 0.007, 0.011, 0.016, 0.024):
        process = guest.begin("ADD")
        time.sleep(delay)
        if victim == "plugin":
            process.kill()
            process.wait()
        else:
            lab.stop_agent(guest.node, signal.SIGKILL)
            guest.finish(process)
            restart_agent(guest)
        guest.call("DEL")
        assert not traces(guest), f"after {delay:g} s"
        guest.add()
        answers(pod_netns(lab, "a1"), guest.addresses[0])
        guest.call("DEL")


# Many -----------------------------------------------------------------------------------------------------------------


def test_fifty_adds_at_a_time_are_all_served_and_all_go_again(lab: Lab) -> None:
    crowd = [Guest(lab, f"many{number}", "node-2") for number in range(50)]
    try:
        for each in crowd:
            each.declare()
        with ThreadPoolExecutor(50) as pool:
            list(pool.map(Guest.add, crowd))
            known = [address for each in crowd for address in each.addresses]
            assert len(set(known)) == len(known) == 100
            assert not ping_all((pod_netns(lab, "a1"), address) for address in known)
            list(pool.map(lambda each: each.call("DEL"), crowd))
        assert not [each.name for each in crowd if traces(each)]
    finally:
        for each in crowd:
            each.leave()
