"""signalbox policy: questions about network policies."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli.questions import ask, dump, output_option, socket_options


@click.group()
def policy() -> None:
    """Questions about network policies."""


@policy.command()
@click.argument("source")
@click.argument("destination")
@click.option("--tcp", type=click.IntRange(1, 65535), metavar="PORT", help="A TCP connection to this port.")
@click.option("--udp", type=click.IntRange(1, 65535), metavar="PORT", help="UDP to this port.")
@click.option("--sctp", type=click.IntRange(1, 65535), metavar="PORT", help="SCTP to this port.")
@click.option("--icmp", is_flag=True, help="A ping.")
@click.option("-6", "ipv6", is_flag=True, help="Over IPv6.")
@output_option("text", "json", "yaml")
@socket_options
def check(
    source: str,
    destination: str,
    tcp: int | None,
    udp: int | None,
    sctp: int | None,
    icmp: bool,
    ipv6: bool,
    output: str,
    socket_path: Path | None,
    lab: str | None,
) -> None:
    """Say whether SOURCE may reach DESTINATION, and which rule says so; the exit code is 1 where it may not.

    Each is [NAMESPACE/]POD, node/NAME or an IP address.
    """
    asked = [(name, port) for name, port in (("TCP", tcp), ("UDP", udp), ("SCTP", sctp)) if port is not None]
    asked += [("ICMP", 0)] if icmp else []
    if len(asked) != 1:
        raise click.UsageError("give one of --tcp PORT, --udp PORT, --sctp PORT and --icmp")
    ((protocol, port),) = asked
    query = {"from": source, "to": destination, "protocol": protocol, "port": str(port)}
    answer = ask(socket_path, lab, "policy-check", **query, **({"family": "6"} if ipv6 else {}))
    if output != "text":
        dump(answer, output)
    else:
        way = protocol + (f" port {port}" if port else "")
        word = click.style("ALLOWED", fg="green") if answer["allowed"] else click.style("DENIED", fg="red")
        click.echo(f"{answer['source']} to {answer['destination']}, {way}: {word}")
        for step in answer["steps"]:
            click.echo(f"- {step}")
    if not answer["allowed"]:
        raise SystemExit(1)
