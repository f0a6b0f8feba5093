"""Which objects are meant, in kubectl's words, and all their rows: lists are asked for page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from controller.cli.kinds import BY_WORD, KINDS, Kind
from controller.cli.printing import Row
from controller.cli.questions import ask

#: Rows of a page, as kubectl has it: an answer stays small, and others are heard between two.
CHUNK = 500


class Target(msgspec.Struct, frozen=True):
    """A kind, and the names that are meant of it; all where there are none."""

    kind: Kind
    names: tuple[str, ...] = ()


class Wanted(msgspec.Struct, frozen=True):
    """Which objects are wanted: of a namespace, or of all where that is empty; and by which selectors."""

    namespace: str = ""
    labels: str = ""
    fields: str = ""
    counters: bool = False
    chunk: int = CHUNK

    def query(self, kind: Kind, names: Sequence[str] = ()) -> dict[str, str]:
        """What the controller is asked: as much of it as it can choose itself."""
        conditions = [*filter(None, [self.fields])]
        if kind.name == "workloads":
            conditions.append("kind=Workload")
        if len(names) == 1:
            conditions.append(f"name={names[0]}")
        query = {
            "namespace": self.namespace if kind.namespaced else "",
            "labelSelector": self.labels,
            "fieldSelector": ",".join(conditions),
            "counters": "1" if self.counters else "",
        }
        return {name: value for name, value in query.items() if value}


def choosing(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which namespace."""
    command = click.option("-A", "--all-namespaces", is_flag=True, help="Objects of every namespace.")(command)
    return click.option("-n", "--namespace", default="default", show_default=True, help="The objects' namespace.")(
        command
    )


def targets(words: Sequence[str]) -> list[Target]:
    """What `KIND [NAME]...`, `KIND,KIND` or `KIND/NAME...` means. Raises click.ClickException."""
    first, *names = words
    if "/" in first:
        found: dict[str, list[str]] = {}
        for word in words:
            kind, slash, name = word.partition("/")
            if not slash or not name:
                raise click.UsageError(f"{word}: say KIND/NAME here too, or KIND NAME...")
            found.setdefault(kind_of(kind).name, []).append(name)
        return [Target(BY_WORD[kind], tuple(each)) for kind, each in found.items()]
    return [Target(kind_of(word), tuple(names)) for word in first.split(",") if word]


def kind_of(word: str) -> Kind:
    """The kind that a word is for. Raises click.ClickException."""
    known = BY_WORD.get(word.lower())
    if known is None:
        raise click.ClickException(f"there is no kind {word!r}; the kinds are {', '.join(each.name for each in KINDS)}")
    return known


def check(target: Target, wanted: Wanted) -> None:
    """Say what can't be asked of a kind before anything is asked. Raises click.ClickException."""
    kind = target.kind
    if wanted.counters and not kind.counters:
        raise click.ClickException(f"--counters: {kind.name} have none; services, endpoints and policies do")
    if wanted.labels and not kind.labelled:
        there = [each.name for each in KINDS if each.labelled]
        raise click.ClickException(
            f"--selector: {kind.name} have no labels to select by; {', '.join(there[:-1])} and {there[-1]} do"
        )


def rows(socket_path: Path | None, lab: str | None, target: Target, wanted: Wanted) -> list[Row]:
    """The rows of a target that there are."""
    found = [row for page in pages(socket_path, lab, target, wanted) for row in page if target.kind.has(row)]
    return [row for row in found if row.get("name") in target.names] if target.names else found


def pages(socket_path: Path | None, lab: str | None, target: Target, wanted: Wanted) -> Iterator[list[Row]]:
    """The answers, one after another. What all switches have counted is asked for once, so that isn't cut."""
    query = wanted.query(target.kind, target.names)
    if wanted.chunk and not wanted.counters:
        query["limit"] = str(wanted.chunk)
    while True:
        answer = ask(socket_path, lab, target.kind.asked, **query)
        if answer.get("missing"):
            click.echo(f"nothing is counted of {', '.join(answer['missing'])}: no answer in time", err=True)
        yield answer["items"]
        if "continue" not in answer:
            return
        query["continue"] = answer["continue"]


def missing(target: Target, found: Sequence[Row], wanted: Wanted) -> str:
    """Which names of a target aren't among its rows, in words; empty if all are."""
    there = {row["name"] for row in found} if target.names else set()
    names = [repr(name) for name in target.names if name not in there]
    where = f" in namespace {wanted.namespace}" if target.kind.namespaced and wanted.namespace else ""
    return f"{target.kind.name} {', '.join(names)} not found{where}" if names else ""
