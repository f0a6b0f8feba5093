"""signalbox lab: a cluster on this machine."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from deploy.lab.cluster import Lab

_REST = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.group()
def lab() -> None:
    """A cluster on this machine: nodes and pods in network namespaces, each node with its own Open vSwitch."""


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """One line for what can't be done, instead of a traceback. Imports are late: --help shouldn't pay for them."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        from deploy.lab.layout import LabError

        if os.geteuid() != 0:
            raise click.ClickException("labs are made of network namespaces, which takes root: use sudo")
        try:
            function(*args, **kwargs)
        except LabError as error:
            raise click.ClickException(str(error)) from error

    return wrapped


_name = click.option(
    "--name", default="lab", envvar="SIGNALBOX_LAB", show_default=True, help="Which lab: several run side by side."
)
_files = click.option(
    "-f", "--filename", "files", multiple=True, type=click.Path(path_type=Path), help="A manifest, or a directory."
)
_output = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    show_default=True,
    help="Output format.",
)


def _lab(name: str, quiet: bool = False) -> Lab:
    from deploy.lab.cluster import Lab

    return Lab(name, (lambda text: None) if quiet else (lambda text: click.echo(text, err=True)))


@lab.command()
@_name
@click.option("--nodes", type=click.IntRange(1), help="How many nodes.  [default: 3, or those in the manifests]")
@click.option(
    "--encap",
    type=click.Choice(["vxlan", "geneve", "gre"]),
    default="vxlan",
    show_default=True,
    help="Encapsulation between nodes.",
)
@click.option(
    "--mode",
    type=click.Choice(["overlay", "routed", "hybrid"]),
    default="overlay",
    show_default=True,
    help="How nodes reach one another: by tunnels, by routing, or by routing on each segment and by tunnels beyond.",
)
@click.option(
    "--segments",
    type=click.IntRange(1, 16),
    default=1,
    show_default=True,
    help="L2 segments that the nodes are on, joined by a router.",
)
@click.option(
    "--source-identity",
    type=click.Choice(["tunnel-key", "address"]),
    default="tunnel-key",
    show_default=True,
    help="How a node knows which pod sends from another node: by the tunnel's key, or by its address.",
)
@click.option(
    "--ip-family",
    type=click.Choice(["dual", "ipv4", "ipv6"]),
    default="dual",
    show_default=True,
    help="Addresses of nodes and pods.",
)
@click.option(
    "--controllers", type=click.IntRange(1, 9), default=1, show_default=True, help="How many controllers, as replicas."
)
@click.option("--mtu", type=click.IntRange(1350, 9000), default=1500, show_default=True, help="The underlay's MTU.")
@click.option("--tls", is_flag=True, help="Switches and controller speak TLS, each node with its own certificate.")
@click.option(
    "--owner", "pid", type=int, metavar="PID", help="Take the lab down when this process ends, however it ends."
)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing of the progress.")
@_files
@_command
def up(
    name: str,
    nodes: int | None,
    encap: str,
    mode: str,
    segments: int,
    source_identity: str,
    ip_family: str,
    controllers: int,
    mtu: int,
    tls: bool,
    pid: int | None,
    quiet: bool,
    files: Sequence[Path],
) -> None:
    """Bring a lab up, with the objects of manifests."""
    from deploy.lab.cluster import owner, settings_for

    begun = time.monotonic()
    here = _lab(name, quiet)
    owned = owner(pid) if pid is not None else {}
    settings = settings_for(
        name,
        nodes,
        files,
        encap=encap,
        mode=mode,
        segments=segments,
        source_identity=source_identity,
        ip_family=ip_family,
        controllers=controllers,
        mtu=mtu,
        tls=tls,
        **owned,
    )
    problems = here.up(settings, files)
    for problem in problems:
        click.echo(f"warning: {problem}", err=True)
    option = "" if name == "lab" else f" --name {name}"
    click.echo(f"lab {name} is up: {len(settings.nodes)} nodes, {time.monotonic() - begun:.1f} s")
    click.echo(f"try: signalbox lab status{option}")
    if problems:
        raise SystemExit(1)


@lab.command()
@_name
@_files
@_command
def apply(name: str, files: Sequence[Path]) -> None:
    """Make or change the objects in manifests."""
    for title, done in _lab(name, quiet=True).apply(_some(files)):
        click.echo(f"{title} {done}")


@lab.command()
@_name
@_files
@_command
def delete(name: str, files: Sequence[Path]) -> None:
    """Delete the objects that manifests name."""
    missing = False
    for title, done in _lab(name, quiet=True).delete(_some(files)):
        click.echo(f"{title} {done}")
        missing |= done == "not found"
    if missing:
        raise SystemExit(1)


def _some(files: Sequence[Path]) -> Sequence[Path]:
    if not files:
        raise click.UsageError("name a manifest or a directory with -f")
    return files


@lab.command("exec", context_settings=_REST)
@_name
@click.option("-n", "--namespace", default="default", show_default=True, help="The pod's namespace.")
@click.argument("pod")
@click.argument("argv", nargs=-1, required=True, metavar="-- COMMAND...", type=click.UNPROCESSED)
@_command
def exec_(name: str, namespace: str, pod: str, argv: tuple[str, ...]) -> None:
    """Run a command in a pod's network namespace."""
    here = _lab(name)
    pod_argv = _pod_first(argv)
    options, command = pod_argv
    namespace = options.get("namespace", namespace)
    started = here.pod(pod, namespace)
    _become(here.netns_of(started), command, {"HOSTNAME": started.name, **started.env}, started.working_dir)


def _pod_first(argv: tuple[str, ...]) -> tuple[dict[str, str], tuple[str, ...]]:
    """`exec POD -n NS -- CMD`, as kubectl allows it beside `exec -n NS POD -- CMD`."""
    options: dict[str, str] = {}
    rest = list(argv)
    if "--" in rest and rest[0] != "--":
        while rest[0] in ("-n", "--namespace") and len(rest) > 2:
            options["namespace"] = rest[1]
            del rest[:2]
    if rest[:1] == ["--"]:
        del rest[0]
    if not rest:
        raise click.UsageError("name a command after --")
    return options, tuple(rest)


@lab.command("node", context_settings=_REST)
@_name
@click.argument("node")
@click.argument("argv", nargs=-1, required=True, metavar="-- COMMAND...", type=click.UNPROCESSED)
@_command
def node_(name: str, node: str, argv: tuple[str, ...]) -> None:
    """Run a command on a node: ovs-vsctl, ovs-ofctl and ovs-appctl find the node's own switch."""
    from deploy.lab.substrate import directed, switch_environment

    here = _lab(name)
    _, command = _pod_first(argv)
    _become(here.netns_of_node(node), directed(here.layout, node, command), switch_environment(here.layout, node), "")


def _become(netns: str, argv: Sequence[str], env: dict[str, str], directory: str) -> NoReturn:
    from deploy.lab.layout import netns_path

    os.environ.update(env)
    if directory:
        os.chdir(directory)
    sys.stdout.flush()
    os.execvp("nsenter", ["nsenter", f"--net={netns_path(netns)}", "--", *argv])


@lab.command()
@_name
@_output
@_command
def status(name: str, output: str) -> None:
    """Show a lab's nodes and pods; the exit code is 1 where something isn't in order."""
    from controller.cli.kinds import NODE_COLUMNS
    from controller.cli.printing import Column, print_rows

    here = _lab(name)
    settings = here.settings
    answer = here.status()
    nodes, pods = here.rows("nodes"), here.pods()
    if output == "table":
        way = settings.mode if settings.mode == "routed" else f"{settings.mode} by {settings.encap}"
        click.echo(f"lab {name}: {way}, {answer['nodesInSync']} of {answer['nodes']} nodes in sync\n")
        print_rows(nodes, NODE_COLUMNS, "table")
        click.echo()
        columns = ["namespace", "name", "status", "network", "addresses", "node"]
        print_rows(pods, [Column(each.upper(), each) for each in columns], "table")
        for problem in answer["problems"]:
            click.echo(f"- {problem}")
    else:
        _print(
            {"name": name, "mode": settings.mode, "encap": settings.encap, **answer, "nodes": nodes, "pods": pods},
            output,
        )
    if not answer["healthy"]:
        raise SystemExit(1)


def _print(answer: Any, output: str) -> None:
    import json

    import yaml

    click.echo(
        json.dumps(answer, indent=2) if output == "json" else yaml.safe_dump(answer, sort_keys=False).rstrip("\n")
    )


@lab.command("list")
@_output
@_command
def list_(output: str) -> None:
    """List the labs that are up."""
    from controller.cli.printing import Column, print_rows
    from deploy.lab.cluster import Lab, labs

    rows = []
    for each in labs():
        settings = Lab(each).settings
        rows.append({"name": each, "nodes": len(settings.nodes), "mode": settings.mode, "encap": settings.encap})
    if not rows and output == "table":
        click.echo("No labs are up.", err=True)
    else:
        columns = ("name", "nodes", "mode", "encap")
        print_rows(rows, [Column(each.upper(), each) for each in columns], output)


@lab.command()
@_name
@click.option("-n", "--namespace", default="default", show_default=True, help="The pod's namespace.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is printed from now on, until Ctrl-C.")
@click.argument("what", metavar="POD | node/NODE | switch/NODE | controller[-N]")
@_command
def logs(name: str, namespace: str, follow: bool, what: str) -> None:
    """Print the output of a pod, a node's agent or switch, or the controller."""
    from deploy.lab import kubelet
    from deploy.lab.layout import controller_name

    here = _lab(name)
    kind, _, node = what.rpartition("/")
    if kind in ("node", "switch"):
        here.netns_of_node(node)
        path = here.layout.node(node) / ("agent.log" if kind == "node" else "vswitchd.log")
    elif what in map(controller_name, here.controllers):
        path = here.layout.directory / f"{what}.log"
    else:
        here.pod(what, namespace)
        path = kubelet.log_of(here.layout, namespace, what)
    if follow:
        os.execvp("tail", ["tail", "-n", "+1", "-F", str(path)])
    if path.exists():
        click.echo(path.read_text(errors="replace"), nl=False)


@lab.command()
@_name
@click.option("--all", "every", is_flag=True, help="Every lab on this machine.")
@_command
def down(name: str, every: bool) -> None:
    """Take a lab down: its processes, namespaces and files."""
    from deploy.lab.cluster import labs

    for each in labs() if every else [name]:
        _lab(each).down()
        click.echo(f"lab {each} is down")
