"""Which connection a question is about: the options that say so, the same for all commands that ask of one."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

#: What goes to a port, and how it is called there.
_PROTOCOLS = {"tcp": "A TCP connection", "udp": "A UDP datagram", "sctp": "An SCTP association"}


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--tcp, --udp, --sctp, --icmp and -6; the command is given what they say as a query's parameters, `connection`.

    What isn't said isn't there: which packet that is, is for whoever is asked.
    """

    @wraps(command)
    def with_connection(*args: Any, icmp: bool, ipv6: bool, **options: Any) -> Any:
        ports = {name.upper(): options.pop(name) for name in _PROTOCOLS}
        said = [(protocol, port) for protocol, port in ports.items() if port is not None]
        if len(said) + icmp > 1:
            raise click.UsageError("say one of --tcp, --udp, --sctp and --icmp")
        said += [("ICMP", 0)] if icmp else []
        connection = {"family": "6"} if ipv6 else {}
        for protocol, port in said:
            connection |= {"protocol": protocol, "port": str(port)}
        return command(*args, connection=connection, **options)

    asked: Callable[..., Any] = with_connection
    asked = click.option("-6", "ipv6", is_flag=True, help="Over IPv6.")(asked)
    asked = click.option("--icmp", is_flag=True, help="A ping; so it is if nothing else is said, to no Service.")(asked)
    for name, what in reversed(_PROTOCOLS.items()):
        number = click.IntRange(1, 65535)
        asked = click.option(f"--{name}", type=number, metavar="PORT", help=f"{what} to this port.")(asked)
    return asked
