"""Datapath flows as `dpctl/dump-flows` prints them, verbosely or not, for the userspace datapath or a kernel's.

A match becomes a list of `Matched`, named by their place in the text (`ipv4.src`), each with a mask of its own; what a
datapath spells without matching it (`tcp(src=80/0)`) is kept apart. Actions become a tree of `Part`s. What they mean
to TC is for `flows.offload.rules`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

#: Layers that hold the match of what is inside of them. OVS nests VLANs so; which layer a field is in doesn't matter.
_TRANSPARENT = ("encap",)
_LINE = re.compile(
    r"^(?:ufid:(?P<ufid>[0-9a-f-]+),\s*)?(?P<match>.+?),\s+packets:(?P<packets>\d+), bytes:(?P<bytes>\d+)"
)
_ACTIONS = re.compile(r"(?:^|\s|,)actions:(?P<actions>.*?)(?:,\s*dp-extra-info:.*)?,?\s*$")
_OFFLOADED = re.compile(r"(?:^|\s|,)offloaded:(\w+)")
_NOTHING = re.compile(r"[0:.x]*")
_ITEM = re.compile(r"(?P<name>[^(){}=,]*?)(?P<mark>[(={]|$)")


class DatapathTextError(ValueError):
    """A text that is no datapath flow; says which, and what was expected."""


class Part(msgspec.Struct, frozen=True):
    """One item of a list: `name`, `name=value` or `name(parts)`. A bare value, as an output port is, is all name."""

    name: str
    value: str = ""
    parts: tuple[Part, ...] = ()
    #: As it was written.
    text: str = ""

    def find(self, name: str) -> Part | None:
        """The first part of that name."""
        return next((each for each in self.parts if each.name == name), None)


class Matched(msgspec.Struct, frozen=True):
    """A field that a flow matches: its value, and the mask's text where not every bit of it counts."""

    field: str
    value: str
    mask: str | None = None

    def __str__(self) -> str:
        value = self.value if self.mask is None else f"{self.value}/{self.mask}"
        layer, _, name = self.field.partition(".")
        return f"{layer}({name}={value})" if name else f"{layer}({value})"


class DatapathFlow(msgspec.Struct, frozen=True):
    """A flow of a datapath."""

    #: The match as it was written, which `ofproto/trace` takes.
    match: str
    matched: tuple[Matched, ...]
    #: What the text says of the packet without matching it: the protocol of the first one, say.
    unmatched: tuple[Matched, ...]
    actions: tuple[Part, ...]
    ufid: str = ""
    packets: int = 0
    bytes: int = 0
    #: What the datapath itself says: yes, partial; empty where it says nothing.
    offloaded: str = ""

    def value(self, field: str) -> str:
        """What the text says of a field, whether it is matched or not; empty if nothing."""
        return next((each.value for each in (*self.matched, *self.unmatched) if each.field == field), "")

    @property
    def in_port(self) -> str:
        return self.value("in_port")

    @property
    def recirculation(self) -> int:
        """The chain that it is in; 0 where packets enter."""
        return int(self.value("recirc_id") or "0", 0)

    @property
    def goes_on_to(self) -> tuple[int, ...]:
        """The chains in which its packets go on."""
        return tuple(_chains(self.actions))


def read_dump(text: str) -> list[DatapathFlow]:
    """The flows of a dump. Raises DatapathTextError for a line that is neither a flow nor a heading."""
    return [read_flow(line) for line in map(str.strip, text.splitlines()) if line and not line.startswith("flow-dump ")]


def read_flow(line: str) -> DatapathFlow:
    """A line of a dump, or a match and actions alone. Raises DatapathTextError."""
    actions = _ACTIONS.search(line)
    if actions is None:
        raise DatapathTextError(f"no datapath flow, because it has no actions: {line[:80]!r}")
    counted = _LINE.match(line)
    match = counted["match"] if counted else line[: actions.start()]
    ufid, match = ("", match) if not match.startswith("ufid:") else match[len("ufid:") :].split(",", 1)
    if counted:
        ufid = counted["ufid"] or ""
    fields = list(_fields(read_parts(match.strip().rstrip(",")), ""))
    if not fields:
        raise DatapathTextError(f"no datapath flow, because it matches nothing: {line[:80]!r}")
    offloaded = _OFFLOADED.search(line)
    return DatapathFlow(
        match=match.strip(),
        matched=tuple(each for each in fields if not is_nothing(each.mask)),
        unmatched=tuple(each for each in fields if is_nothing(each.mask)),
        actions=read_parts(actions["actions"]),
        ufid=ufid.strip(),
        packets=int(counted["packets"]) if counted else 0,
        bytes=int(counted["bytes"]) if counted else 0,
        offloaded=offloaded[1] if offloaded else "",
    )


def is_nothing(mask: str | None) -> bool:
    """Whether a mask lets every bit be anything."""
    return mask is not None and _NOTHING.fullmatch(mask) is not None


def read_parts(text: str) -> tuple[Part, ...]:
    """A list of items, separated by commas. Raises DatapathTextError where parentheses don't match."""
    return tuple(_part(each) for each in _split(text))


def _part(text: str) -> Part:
    found = _ITEM.match(text)
    assert found is not None
    name = found["name"].strip()
    if found["mark"] == "=":
        return Part(name, text[found.end() :], (), text)
    if found["mark"] in ("(", "{") and _closes_at_the_end(text, found.end() - 1):
        inner = text[found.end() : -1]
        return Part(name, inner, read_parts(inner), text)
    return Part(text, "", (), text)


def _closes_at_the_end(text: str, begin: int) -> bool:
    """Whether what is opened there is closed by the last letter: Open vSwitch writes some faults as f(a)(b)."""
    depth = 0
    for index in range(begin, len(text)):
        depth += (text[index] in "({") - (text[index] in ")}")
        if not depth:
            return index == len(text) - 1
    return False


def _split(text: str) -> Iterator[str]:
    depth = begin = 0
    for index, letter in enumerate(text):
        if letter in "({":
            depth += 1
        elif letter in ")}":
            depth -= 1
            if depth < 0:
                break
        elif letter == "," and not depth:
            if text[begin:index].strip():
                yield text[begin:index].strip()
            begin = index + 1
    if depth:
        raise DatapathTextError(f"parentheses don't match: {text[:80]!r}")
    if text[begin:].strip():
        yield text[begin:].strip()


def _fields(parts: tuple[Part, ...], layer: str) -> Iterator[Matched]:
    for part in parts:
        if part.name in _TRANSPARENT:
            yield from _fields(part.parts, layer)
        elif any(each.text != each.name for each in part.parts):
            yield from _fields(part.parts, f"{layer}{part.name}.")
        elif part.parts or part.value or "(" in part.text:
            yield _matched(f"{layer}{part.name}", part.value)
        else:
            yield Matched(f"{layer}{part.name}", "")


def _matched(field: str, text: str) -> Matched:
    value, slash, mask = text.partition("/")
    return Matched(field, value, mask if slash else None)


def _chains(actions: tuple[Part, ...]) -> Iterator[int]:
    for each in actions:
        if each.name == "recirc":
            yield int(each.value, 0)
        else:
            yield from _chains(each.parts)
