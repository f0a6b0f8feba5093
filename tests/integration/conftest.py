"""One lab for all tests that leave it as they found it, and what a failing test prints."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guests import Guest
from linting import Linted, Record
from probes import PODS, pod_netns, serves, until

from deploy.lab.cluster import Lab, owner, settings_for
from deploy.lab.layout import LabError
from deploy.lab.substrate import appctl, switch_environment

HERE = Path(__file__).parent
_LINTED = pytest.StashKey[dict[str, Linted]]()
NEEDED = ("ovs-vswitchd", "ovsdb-server", "nft", "ethtool", "ping", "nsenter")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [program for program in NEEDED if shutil.which(program) is None]
    reason = "needs root" if os.geteuid() != 0 else f"needs {', '.join(missing)}" if missing else ""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.integration)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three nodes; pods a1 and a2 on the first, b1 and c1 on the others, all serving; servers on the nodes too."""
    for here in make_pod_lab("t", tmp_path_factory.mktemp("manifests")):
        for netns in [*(pod_netns(here, pod) for pod in PODS), *map(here.netns_of_node, here.nodes)]:
            until(functools.partial(serves, netns), f"the server in {netns}")
        yield here


@pytest.fixture(scope="session")
def offload_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The same, where nodes get NICs: an ovs-vswitchd that has once been told to offload goes on with that."""
    for here in make_pod_lab("o", tmp_path_factory.mktemp("manifests")):
        for pod in PODS:
            netns = pod_netns(here, pod)
            until(functools.partial(serves, netns), f"the server in {netns}")
        yield here


def make_pod_lab(name: str, directory: Path, **settings: Any) -> Iterator[Lab]:
    """Three nodes with the pods of pods.yaml."""
    yield from _make_lab("pods.yaml", name, directory, settings, server="echo_server.py")


def make_service_lab(name: str, directory: Path, **settings: Any) -> Iterator[Lab]:
    """What services.yaml has, and no Services: each test makes its own. Modules that use it call it `lab`."""
    yield from _make_lab("services.yaml", name, directory, settings)


@pytest.fixture(scope="session")
def service_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """What services.yaml has, as labs are if nobody says otherwise."""
    yield from make_service_lab("s", tmp_path_factory.mktemp("services"))


def make_policy_lab(name: str, directory: Path, **settings: Any) -> Iterator[Lab]:
    """What policies.yaml has, and no policies: each test makes its own. Modules that use it call it `lab`."""
    yield from _make_lab("policies.yaml", name, directory, settings)


def _make_lab(
    file: str, name: str, directory: Path, settings: dict[str, Any], server: str = "line_server.py"
) -> Iterator[Lab]:
    text = (HERE / file).read_text().replace("SERVER", str(HERE / server))
    manifests = directory / file
    manifests.write_text(text)
    here = Lab(f"{name}{os.getpid()}")
    problems = here.up(settings_for(here.layout.name, None, [manifests], **settings, **owner(os.getpid())), [manifests])
    try:
        assert not problems
        yield here
    finally:
        here.down()


@pytest.fixture(scope="session")
def policy_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """What policies.yaml has, as labs are if nobody says otherwise."""
    yield from make_policy_lab("p", tmp_path_factory.mktemp("policies"))


@pytest.fixture
def guest(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A pod on node-2 that the test attaches by hand."""
    here = Guest(lab, f"g{abs(hash(request.node.nodeid)) % 10**8}", "node-2")
    yield here
    here.leave()


@pytest.fixture
def offload_record(request: pytest.FixtureRequest) -> Record:
    """Has what the linter says of a scenario's datapath flows printed in the end."""
    linted = request.config.stash.setdefault(_LINTED, {})
    return linted.__setitem__


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if linted := config.stash.get(_LINTED, {}):
        terminalreporter.section("datapath flows that TC takes")
        for scenario, found in linted.items():
            terminalreporter.write_line(f"{scenario}: {found}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    here = getattr(item, "funcargs", {}).get("lab")
    if report.when == "call" and report.failed and isinstance(here, Lab) and here.is_up:
        for title, text in what_one_would_ask_next(here):
            report.sections.append((title, text))
    return report


def what_one_would_ask_next(here: Lab) -> Iterator[tuple[str, str]]:
    """Logs' ends, every node's flows, and what its datapath has."""
    for log in [*here.layout.directory.glob("controller*.log"), *here.layout.directory.glob("nodes/*/agent.log")]:
        if log.exists():
            yield str(log.relative_to(here.layout.directory)), "\n".join(log.read_text().splitlines()[-15:])
    for node in here.nodes:
        done = subprocess.run(
            ["ovs-ofctl", "--names", "--no-stats", "dump-flows", "br-int"],
            env={**os.environ, **switch_environment(here.layout, node)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        yield f"flows of {node}", done.stdout or done.stderr
        for question in ("dpctl/dump-flows", "dpctl/dump-conntrack"):
            try:
                yield f"{question} of {node}", "\n".join(appctl(here.layout, node, question).splitlines()[-200:])
            except LabError as error:
                yield f"{question} of {node}", str(error)
