"""Kubernetes label selectors as values, and what they select.

Pure: `topology.manifests` makes them, whoever holds labels asks them.
"""

from __future__ import annotations

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
