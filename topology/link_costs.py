"""What a node's annotation says that wires at its ports cost: `signalbox.io/link-costs: "s1-eth3=10, s1-eth4=20"`.

The same in manifests and in Kubernetes' API. A mistake is told, and none of the annotation counts. Pure.
"""

from __future__ import annotations

from topology import manifest_fields as fields
from topology.yaml_tree import FieldError, Tree

ANNOTATION = "signalbox.io/link-costs"
#: Costs are whole numbers from 1 to this.
HIGHEST = 0xFFFF
#: Characters that the name of a port may have, on Linux.
_LONGEST = 15


def link_costs(node: Tree, remarks: fields.Remarks) -> tuple[tuple[str, int], ...]:
    """Costs by the ports' names, sorted."""
    tree = node.get("metadata", "annotations", ANNOTATION)
    try:
        return _read(tree) if tree else ()
    except FieldError as error:
        remarks.report(error)
        return ()


def _read(tree: Tree) -> tuple[tuple[str, int], ...]:
    found: dict[str, int] = {}
    for part in filter(None, map(str.strip, tree.text().split(","))):
        port, separator, cost = map(str.strip, part.partition("="))
        if not separator or not 0 < len(port) <= _LONGEST:
            raise tree.error(f"has {part!r}; write the port's name and what its link costs, as in s1-eth3=10")
        if not cost.isascii() or not cost.isdecimal() or not 1 <= int(cost) <= HIGHEST:
            raise tree.error(f"has {part!r}; a cost is a whole number from 1 to {HIGHEST}")
        if port in found:
            raise tree.error(f"has the port {port} twice")
        found[port] = int(cost)
    return tuple(sorted(found.items()))
