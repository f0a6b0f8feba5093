"""YAML text as a tree that knows its lines, and asks for fields by what they must be.

Owns: reading YAML, and the words for what is wrong with a field. Must not know any kind of object. Text comes from a
manifest file; `topology.manifests` walks the tree. Pure.

The tree is made here, from the parser's events, because PyYAML's own composer recurses in C: a file of 200,000 opening
brackets would end the process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

#: Far deeper than any manifest, far shallower than what the stack bears.
MAX_DEPTH = 100

_TAG = "tag:yaml.org,2002:"
#: What YAML 1.1 reads a plain scalar as, in words.
_SCALARS = {"int": "a number", "float": "a number", "bool": "true or false", "null": "empty", "timestamp": "a date"}


class YamlError(ValueError):
    """Text that isn't YAML from some line on. `line` counts from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


class FieldError(ValueError):
    """A field that isn't what it must be: its line, its path in the object, and what to do about it."""

    def __init__(self, line: int, path: str, reason: str) -> None:
        super().__init__(f"{path or 'the document'} {reason}")
        self.line = line


class Tree:
    """A value in a document. `path` is empty for the document itself, else as in `spec.ports[0].port`."""

    __slots__ = ("_pairs", "_scalar", "_tag", "line", "path")

    def __init__(self, line: int, tag: str, scalar: str = "") -> None:
        self.line = line
        self.path = ""
        self._tag = tag
        self._scalar = scalar
        #: A mapping's keys and values; a sequence's values, each with itself as key.
        self._pairs: list[tuple[Tree, Tree]] = []

    def error(self, reason: str) -> FieldError:
        """The error to raise about this value."""
        return FieldError(self.line, self.path, reason)

    def __bool__(self) -> bool:
        """Whether there is anything: null stands for an absent field, as in Kubernetes."""
        return self._tag != "null"

    def get(self, *names: str) -> Tree | None:
        """The value of a field, or of a field of a field; None where any of them is absent or null."""
        found = self
        for name in names:
            value = found.fields().get(name)
            if not value:
                return None
            found = value
        return found

    def require(self, *names: str, remedy: str) -> Tree:
        """The same, where absence is an error."""
        found = self
        for name in names:
            inner = found.get(name)
            if inner is None:
                # The line is that of the innermost mapping that is there: where to begin adding.
                path = ".".join((self.path, *names) if self.path else names)
                raise FieldError(found.line, path, f"is missing; {remedy}")
            found = inner
        return found

    def fields(self) -> dict[str, Tree]:
        """The fields of a mapping."""
        return self._fields(None)

    def field(self, name: str) -> Tree | None:
        """One field, although others may be given twice; None where it is absent or null."""
        return self._fields(name).get(name) or None

    def _fields(self, only: str | None) -> dict[str, Tree]:
        if self._tag != "map":
            raise self.error(f"is {self._what()}; it must be a mapping of names to values")
        fields: dict[str, Tree] = {}
        for key, value in self._pairs:
            name = key._scalar
            path = f"{self.path}.{name}" if self.path else name
            if key._tag == "merge":
                # Merges of merges grow without bound in a few lines.
                raise FieldError(key.line, path, "merges another mapping, which is not read; write its fields out")
            if only not in (None, name):
                continue
            if name in fields:
                raise FieldError(key.line, path, "is given twice; keep one of them")
            fields[name] = value._at(path)
        return fields

    def _at(self, path: str) -> Tree:
        # An anchor's value may stand in several places: each place gets its own path.
        copy = Tree(self.line, self._tag, self._scalar)
        copy._pairs = self._pairs
        copy.path = path
        return copy

    def items(self) -> list[Tree]:
        """The values of a sequence."""
        if self._tag != "seq":
            raise self.error(f"is {self._what()}; it must be a list")
        return [value._at(f"{self.path}[{i}]") for i, (_, value) in enumerate(self._pairs)]

    def text(self) -> str:
        """A string. A date counts as one: only YAML, not JSON and so not Kubernetes, knows dates."""
        if self._tag in ("str", "timestamp"):
            return self._scalar
        remedy = f': write it in quotes, "{self._scalar}"' if self._tag in _SCALARS else ""
        raise self.error(f"is {self._what()}; it must be a string{remedy}")

    @property
    def is_text(self) -> bool:
        """Whether it is a string."""
        return self._tag == "str"

    def digits(self) -> str:
        """A number as it is written, for whoever knows which numbers there may be."""
        if self._tag in ("int", "float"):
            return self._scalar
        raise self.error(f"is {self._what()}; it must be a number")

    def number(self, low: int, high: int) -> int:
        """A whole number within bounds."""
        # Plain decimals alone: nobody means octal, or minutes and seconds, which YAML 1.1 knows too.
        plain = self._tag == "int" and re.fullmatch(r"[-+]?(0|[1-9][0-9]{0,18})", self._scalar)
        if not plain or not low <= int(self._scalar) <= high:
            raise self.error(f"is {self._what()}; it must be a whole number from {low} to {high}")
        return int(self._scalar)

    def flag(self) -> bool:
        """True or false."""
        if self._tag != "bool":
            raise self.error(f"is {self._what()}; it must be true or false")
        return self._scalar.lower() in ("true", "yes", "on")

    def texts(self) -> tuple[str, ...]:
        """A list of strings."""
        return tuple(item.text() for item in self.items())

    def _what(self) -> str:
        match self._tag:
            case "map":
                return "a mapping"
            case "seq":
                return "a list"
        shown = self._scalar if len(self._scalar) <= 40 else self._scalar[:37] + "..."
        name = _SCALARS.get(self._tag)
        return f"{shown} ({name})" if shown and name else name or repr(shown)


def tree_of(value: object) -> Tree:
    """The tree of a value as JSON decodes to: mappings, lists, strings, numbers, truths, null. Its lines are all 0."""
    match value:
        case None:
            return Tree(0, "null")
        case bool():
            return Tree(0, "bool", str(value).lower())
        case int():
            return Tree(0, "int", str(value))
        case float():
            return Tree(0, "float", str(value))
        case str():
            return Tree(0, "str", value)
        case Mapping():
            tree = Tree(0, "map")
            tree._pairs = [(Tree(0, "str", str(name)), tree_of(inner)) for name, inner in value.items()]
            return tree
        case Sequence():
            tree = Tree(0, "seq")
            tree._pairs = [(each, each) for each in map(tree_of, value)]
            return tree
    raise TypeError(f"not a JSON value: {value!r}")


def documents(data: bytes) -> Iterator[Tree]:
    """The documents of a YAML text, empty ones left out. Raises YamlError where it stops being YAML.

    The documents before that place have been given by then.
    """
    try:
        yield from _compose(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise YamlError(data.count(b"\n", 0, error.start) + 1, "is not in UTF-8; save it as that") from error
    except yaml.reader.ReaderError as error:
        before = data.decode("utf-8-sig")[: error.position]
        line = before.count("\n") + 1
        raise YamlError(line, f"is not YAML: {error.reason}; remove what isn't text") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark if error.problem_mark is not None else error.context_mark
        context = f" {error.context}" if error.context else ""
        raise YamlError(_line(mark), f"is not YAML: {error.problem}{context}") from error


def _compose(text: str) -> Iterator[Tree]:
    open_nodes: list[_Open] = []
    anchors: dict[str, Tree] = {}
    resolver = yaml.resolver.Resolver()
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        line = _line(event.start_mark)
        match event:
            case yaml.DocumentStartEvent():
                anchors = {}
                continue
            case yaml.ScalarEvent():
                tag = event.tag if event.tag not in (None, "!") else _implied_tag(resolver, event)
                finished = Tree(line, tag.removeprefix(_TAG), event.value)
            case yaml.AliasEvent():
                if event.anchor not in anchors:
                    raise YamlError(line, f"names the anchor {event.anchor!r}, which is not defined before it")
                finished = anchors[event.anchor]
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                if len(open_nodes) == MAX_DEPTH:
                    raise YamlError(line, f"is nested more than {MAX_DEPTH} deep; no manifest is")
                tree = Tree(line, "map" if isinstance(event, yaml.MappingStartEvent) else "seq")
                open_nodes.append(_Open(tree, event.anchor))
                continue
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                done = open_nodes.pop()
                finished = done.tree
                # Known by its anchor only from here on: so no value can contain itself.
                _remember(anchors, done.anchor, finished)
            case _:
                continue
        if isinstance(event, yaml.ScalarEvent):
            _remember(anchors, event.anchor, finished)
        if open_nodes:
            open_nodes[-1].add(finished)
        elif finished:
            yield finished


def _implied_tag(resolver: yaml.resolver.Resolver, event: yaml.ScalarEvent) -> str:
    """What YAML 1.1 takes a scalar for that doesn't say what it is."""
    tag: str = resolver.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
    return tag


def _line(mark: Any) -> int:
    # The C parser's marks and PyYAML's own have no type in common.
    return int(mark.line) + 1 if mark is not None else 1


def _remember(anchors: dict[str, Tree], anchor: Any, tree: Tree) -> None:
    if anchor is not None:
        anchors[anchor] = tree


class _Open:
    """A mapping or sequence whose end hasn't been read."""

    __slots__ = ("_key", "anchor", "tree")

    def __init__(self, tree: Tree, anchor: str | None) -> None:
        self.tree = tree
        self.anchor = anchor
        self._key: Tree | None = None

    def add(self, child: Tree) -> None:
        if self.tree._tag == "seq":
            self.tree._pairs.append((child, child))
        elif self._key is None:
            if child._tag in ("map", "seq"):
                raise YamlError(child.line, "has a mapping or a list as the name of a field; a name must be text")
            self._key = child
        else:
            self.tree._pairs.append((self._key, child))
            self._key = None
