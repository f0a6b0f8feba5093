"""Kubernetes label selectors as values, and what they select.

Pure: `topology.manifests` and people make them, whoever holds labels asks them.
"""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec

from topology.metadata import Labels


class Operator(StrEnum):
    """The operators of a `matchExpressions` entry."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class Requirement(msgspec.Struct, frozen=True):
    """One condition on the label `key`; `values` are what In and NotIn compare with."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def holds(self, labels: Labels) -> bool:
        """Whether labels satisfy it. NotIn holds for labels without the key, as in Kubernetes."""
        value = None
        for key, each in labels:
            if key == self.key:
                value = each
                break
        match self.operator:
            case Operator.IN:
                return value in self.values
            case Operator.NOT_IN:
                return value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None

    def __str__(self) -> str:
        values = ", ".join(self.values)
        match self.operator:
            case Operator.IN if len(self.values) == 1:
                return f"{self.key}={values}"
            case Operator.IN:
                return f"{self.key} in ({values})"
            case Operator.NOT_IN:
                return f"{self.key} not in ({values})"
            case Operator.EXISTS:
                return f"{self.key}"
            case Operator.DOES_NOT_EXIST:
                return f"!{self.key}"


#: All of its requirements must hold; without any it selects everything.
Selector = tuple[Requirement, ...]


def selects(selector: Selector, labels: Labels) -> bool:
    """Whether labels satisfy a selector."""
    for requirement in selector:  # noqa: SIM110 - asked a million times
        if not requirement.holds(labels):
            return False
    return True


_KEY = r"[A-Za-z0-9]([-A-Za-z0-9_./]{0,315}[A-Za-z0-9])?"
_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
_EQUALITY = re.compile(rf"(?P<key>{_KEY})\s*(?P<operator>!=|==|=)\s*(?P<value>{_VALUE})")
_SET = re.compile(rf"(?P<key>{_KEY})\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)")
_EXISTENCE = re.compile(rf"(?P<not>!?)\s*(?P<key>{_KEY})")
#: A comma that isn't within parentheses.
_BETWEEN = re.compile(r",(?![^()]*\))")


def parse(text: str) -> Selector:
    """A selector as kubectl takes it: `a=b,c!=d,e in (f, g),h notin (i),j,!k`. Raises ValueError.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
    """
    return tuple(_requirement(part.strip()) for part in _BETWEEN.split(text)) if text.strip() else ()


def _requirement(part: str) -> Requirement:
    if found := _EQUALITY.fullmatch(part):
        operator = Operator.NOT_IN if found["operator"] == "!=" else Operator.IN
        return Requirement(found["key"], operator, (found["value"],))
    if found := _SET.fullmatch(part):
        operator = Operator.IN if found["operator"] == "in" else Operator.NOT_IN
        values = tuple(value.strip() for value in found["values"].split(","))
        if all(re.fullmatch(_VALUE, value) for value in values):
            return Requirement(found["key"], operator, values)
    elif found := _EXISTENCE.fullmatch(part):
        return Requirement(found["key"], Operator.DOES_NOT_EXIST if found["not"] else Operator.EXISTS)
    raise ValueError(f"expected KEY=VALUE, KEY!=VALUE, KEY in (A, B), KEY notin (A, B), KEY or !KEY, not {part[:60]!r}")
