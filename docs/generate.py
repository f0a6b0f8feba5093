"""Writes the pages that follow from the code: pipeline, cli, config, metrics, API. `--check` says which have drifted.

python docs/generate.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Any

import click

from controller.api import server
from controller.app import Controller
from controller.metrics import DECLARED
from deploy import config
from deploy.command import main
from flows import cookies
from flows.cookies import KIND_NAMES, Kind, Scope
from flows.pipeline import BY_NUMBER, TABLES
from flows.registers import REGISTERS, Bits, Identity, Zone
from flows.words import identity_text
from topology.identities import FIRST_IDENTITY

HERE = Path(__file__).parent
_NOTE = "<!-- Made by docs/generate.py from the code: change that, and run it again. -->\n"


def pipeline() -> str:
    """Tables, registers, zones and cookies."""
    tables = [
        (
            str(table.number),
            f"`{table.name}`",
            table.purpose,
            ", ".join(f"`{BY_NUMBER[number].name}`" for number in table.next) or "-",
            _names(table.reads),
            _names(table.writes),
        )
        for table in TABLES
    ]
    registers = [
        (f"`{bits.name}`", f"`{_place(bits)}`", f"`{bits.mask:#x}`", bits.purpose)
        for bits in REGISTERS
    ]  # fmt: skip
    identities = [(f"`{each.name}`", str(each.value), identity_text(each)) for each in Identity]
    zones = [(f"`{zone.name}`", f"{zone.value} (`{zone.value:#x}`)") for zone in Zone]
    layout = [
        ("63..56", "owner", f"`{cookies.OWNER:#x}`: Signalbox"),
        ("55", "scope", ", ".join(f"{scope.value} {scope.name.lower()}" for scope in Scope)),
        ("54..48", "kind", ", ".join(f"{kind.value} {KIND_NAMES[kind]}" for kind in Kind)),
        ("47..40", "", "zero"),
        (
            "39..0",
            "object",
            "a hash of the object's kind, namespace and name; an identity's number; zero for the pipeline's own flows",
        ),
    ]
    pods = cookies.cookie(Scope.NODE, Kind.POD, 0)
    policies = cookies.cookie(Scope.CLUSTER, Kind.POLICY, 0)
    pods_mask = cookies.OWNER_MASK | cookies.SCOPE_BIT | cookies.KIND_MASK
    shared, shared_mask = cookies.scope_match(Scope.CLUSTER)
    return f"""{_NOTE}
# The pipeline

Packets enter at the first table and only ever go forward. A packet that no flow of a table matches is dropped. How the
tables work together is told in [architecture.md](architecture.md#forwarding); their flows, for a small cluster, are in
`tests/golden/`, a file for each table.

## Tables

{_table(("#", "table", "what it does", "goes on to", "reads", "writes"), tables)}
`ovs-ofctl --names dump-flows br-int` shows these names: the agent writes them to the bridge's `flow_tables`.

## Registers

{_table(("name", "bits", "mask", "what for"), registers)}
## Reserved identities

Those of pods begin at {FIRST_IDENTITY}: [policies.md](policies.md#identities).

{_table(("name", "number", "who"), identities)}
## Conntrack zones

{_table(("name", "zone"), zones)}
## Cookies

A flow's cookie says who made it, and for which object.

{_table(("bits", "part", "values"), layout)}
The two flows of table `Digest` are the exception: their cookie is the digest of a scope.

    # every flow of pods on this node
    ovs-ofctl dump-flows br-int cookie={pods:#x}/{pods_mask:#x}
    # every flow of policies; one that several share has the cookie of the first of them by name
    ovs-ofctl dump-flows br-int cookie={policies:#x}/{pods_mask:#x}
    # every flow that is the same on all nodes
    ovs-ofctl dump-flows br-int cookie={shared:#x}/{shared_mask:#x}

`signalbox flows NODE` shows the object's name beside each flow.
"""


def _names(bits: Sequence[Bits]) -> str:
    return ", ".join(f"`{each.name}`" for each in bits) or "-"


def _place(bits: Bits) -> str:
    if bits.width == bits.field.bits:
        return bits.field.name
    return f"{bits.field.name}[{bits.start}..{bits.start + bits.width - 1}]"


def command_line() -> str:
    """Every command with its arguments and options."""
    parts = "\n".join(_command(("signalbox",), main))
    return f"{_NOTE}\n# The command line\n\n{parts}"


def _command(path: tuple[str, ...], command: click.Command) -> Iterator[str]:
    if len(path) > 1:
        yield f"## {' '.join(path)}\n"
    yield f"{cleandoc(command.help or '')}\n"
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    options = [
        each for each in command.params if isinstance(each, click.Option) and each.name not in ("help", "version")
    ]
    if not isinstance(command, click.Group):
        words = [*path, *(["[OPTIONS]"] if options else []), *map(_argument, arguments)]
        yield f"    {' '.join(words)}\n"
    rows = [(_spelling(option), _explanation(option)) for option in options]
    if rows:
        yield _table(("option", "what it does"), rows)
    if isinstance(command, click.Group):
        for name, each in sorted(command.commands.items()):
            yield from _command((*path, name), each)


def _argument(argument: click.Argument) -> str:
    word = argument.metavar or (argument.name or "").upper()
    return word if argument.required else f"[{word}]"


def _spelling(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    if option.is_flag:
        return names
    if option.metavar:
        return f"{names} {option.metavar}"
    if isinstance(option.type, click.Choice):
        return f"{names} {'/'.join(map(str, option.type.choices))}"
    return f"{names} {option.type.name.upper().removesuffix(' RANGE')}"


def _explanation(option: click.Option) -> str:
    parts = [option.help or ""]
    if option.required:
        parts.append("Required.")
    elif option.show_default and isinstance(option.default, str | int | float | Path):
        parts.append(f"Default: `{option.default}`.")
    if option.multiple:
        parts.append("May be repeated.")
    # Those of controller and node follow from the option's name, which config.md tells.
    if option.envvar and not str(option.envvar).startswith(("SIGNALBOX_CONTROLLER_", "SIGNALBOX_NODE_")):
        parts.append(f"Also `{option.envvar}` in the environment.")
    return " ".join(filter(None, parts))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def configuration() -> str:
    """The configuration file: sections and keys."""
    sections = "\n".join(
        f"## {section}\n\n{_INTRODUCTIONS[section]}\n\n{_keys(section)}"
        for section in (config.SHARED, *config.SECTIONS)
    )
    return f"{_NOTE}\n{_CONFIGURATION}\n{sections}"


_CONFIGURATION = f"""# The configuration file

Everything that `signalbox controller` and `signalbox node` can be told on their command lines can be given in a file:

```yaml
apiVersion: {config.API_VERSION}
kind: {config.KIND}
shared:
  serviceCidr: [10.96.0.0/12]
controller:
  listen: ["ssl:0.0.0.0:6653"]
node:
  clusterCidr: [10.244.0.0/16]
  mtu: 1400
```

    signalbox controller --config /etc/signalbox/config.yaml
    signalbox node --config /etc/signalbox/config.yaml --config /etc/signalbox/node-1.yaml

One file serves both commands, so what both must have alike is written once: a command reads section `shared` and its
own. In a cluster it is the content of a ConfigMap. A key is the option's name in camelCase: `--pod-cidr` is
`podCidr`. What may be repeated on the command line is a list; an option without a value is `true` or `false`.

**What wins**: the command line, then the environment, then the file, then the default. In a file a command's own
section goes before `shared`; of several files the later ones win, key by key. A list is replaced and never joined. In
the environment an option is `SIGNALBOX_CONTROLLER_` or `SIGNALBOX_NODE_` and its name, as in
`SIGNALBOX_NODE_POD_CIDR`; lists are separated by blanks. `SIGNALBOX_CONFIG` names files, separated by colons.

**What is refused**: keys that aren't known and values that can't be, all of them at once, with file, line and remedy.
A command that is started looks at its own section and `shared` only, so a file may have a key for a newer controller
before the nodes know it. Acts, such as `signalbox node --clean`, can't be in a file.

    signalbox config check FILE...                          # everything that is wrong; exit status 1 if anything is
    signalbox config show node --config FILE --mtu 1400     # every value, and where it is from
    signalbox config show node --config FILE -o file        # the same, as a file

A file is read when a command starts. After a change, start the command again: neither restart disturbs traffic.
"""

_INTRODUCTIONS = {
    config.SHARED: "What both know. Services' ranges must be the same on both sides, so give them here.",
    "controller": "Options of [`signalbox controller`](cli.md#signalbox-controller).",
    "node": "Options of [`signalbox node`](cli.md#signalbox-node). `name`, `nodeIp` and `podCidr` differ from node to "
    "node: a second file may have them, or the agent is [told by Kubernetes](node.md#told-by-kubernetes).",
}


def _keys(section: str) -> str:
    rows = []
    for key, option in config.keys(section).items():
        name = config.long_name(option)
        rows.append((f"`{key}`", _kind(option), f"`{name}`: {_explanation(option).replace(' May be repeated.', '')}"))
    return _table(("key", "value", "what it does"), rows)


def _kind(option: click.Option) -> str:
    if option.is_flag:
        return "true or false"
    match option.type:
        case click.Choice():
            one = " or ".join(f"`{each}`" for each in option.type.choices)
        case click.types.IntParamType() | click.types.FloatParamType():
            one = "number"
        case click.Path():
            one = "path"
        case _:
            one = option.metavar or "text"
    return f"list of {one}" if option.multiple else one


def metrics() -> str:
    """Every metric."""
    rows = [
        (f"`{each.name}`", each.type, ", ".join(f"`{label}`" for label in each.labels) or "-", each.about)
        for each in DECLARED
    ]
    return f"{_NOTE}\n{_METRICS}\n{_table(('metric', 'type', 'labels', 'what it says'), rows)}"


_METRICS = """# Metrics

`GET /metrics` of the admin API tells them in Prometheus' text format, and so does `signalbox controller --metrics
ADDRESS:PORT` over plain HTTP, to whoever can reach that address: they name nodes, Services and policies. A scrape asks
no switch anything: what is carried is from the last look, once in `--stats-interval`, or less often where there is much
to read (`signalbox_look_period_seconds`). Counters of a switch begin anew with each connection, as Prometheus' `rate()`
expects of them.

What Services and policies have carried is counted from when the controller began, or they did. These counters don't go
back when switches connect anew or their flows are replaced; of several controllers, each counts all of it for itself.
So that there are no more series than a server can take, `--metrics-objects` Services and as many policies have some of
their own: those that have carried something first, for as long as they are there. What all others carry is counted
together, with empty labels.
"""


def api() -> str:
    """Every route of the admin API."""
    described = server.description(Controller())
    parts = "\n".join(
        _operation(method.upper(), path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    )
    return f"{_NOTE}\n{_API}\n{parts}"


_API = """# The admin API: every route

How it is asked, and what all lists have in common, is in [api.md](api.md).
"""


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    said = [each for each in operation.get("parameters", ()) if each["in"] == "query"]
    schema = next(iter(operation["responses"].values()))["content"]
    media, answer = next(iter(schema.items()))
    row = answer["schema"].get("properties", {}).get("items", {}).get("items", answer["schema"]).get("properties", {})
    parts = [f"## {method} {path}\n\n{operation['summary']}\n"]
    if media != "application/json":
        parts.append(f"The answer is {media}.\n")
    if said:
        rows = [(f"`{each['name']}`", _of_schema(each["schema"]), each["description"]) for each in said]
        parts.append(_table(("parameter", "value", "what it does"), rows))
    if any("description" in field for field in row.values()):
        rows = [(f"`{name}`", _of_schema(field), field.get("description", "")) for name, field in row.items()]
        parts.append(_table(("field", "value", "what it says"), rows))
    return "\n".join(parts)


def _of_schema(schema: dict[str, Any]) -> str:
    """A value in few words."""
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    kind = schema.get("type", "any")
    words = [_JSON[each] for each in ([kind] if isinstance(kind, str) else kind)]
    return " or ".join(words) + (" of text" if schema.get("items", {}).get("type") == "string" else "")


_JSON = {
    "string": "text", "integer": "number", "number": "number", "boolean": "true or false", "array": "list",
    "object": "object", "null": "null", "any": "anything",
}  # fmt: skip


PAGES = {
    "api-reference.md": api,
    "metrics.md": metrics,
    "pipeline.md": pipeline,
    "cli.md": command_line,
    "config.md": configuration,
}


if __name__ == "__main__":
    texts = {HERE / name: make() for name, make in PAGES.items()}
    if sys.argv[1:] == ["--check"]:
        drifted = [path.name for path, text in texts.items() if not path.exists() or path.read_text() != text]
        if drifted:
            sys.exit(f"docs/{', docs/'.join(drifted)}: not what the code says; run 'python docs/generate.py'")
    else:
        for path, text in texts.items():
            path.write_text(text)
