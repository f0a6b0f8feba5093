"""What every object has: labels, and the key that tells it from all others.

Imports nothing: whatever describes objects may use it. `topology.model` hands these names on. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Sorted (key, value) pairs: hashable, and equal when the labels are.
Labels = tuple[tuple[str, str], ...]
#: Kind, namespace (empty where there is none) and name: what identifies an object.
Key = tuple[str, str, str]


def labels_of(mapping: Mapping[str, str]) -> Labels:
    """A mapping of labels in the form that objects hold."""
    return tuple(sorted(mapping.items()))
