"""What a node's annotation says of whether it gets new work: `signalbox.io/drained: "true"`.

The same in manifests and in Kubernetes' API. A mistake is told, and counts as if there were no annotation. Pure.
"""

from __future__ import annotations

from topology import manifest_fields as fields
from topology.yaml_tree import FieldError, Tree

ANNOTATION = "signalbox.io/drained"


def drained(node: Tree, remarks: fields.Remarks) -> bool:
    """Whether a node is drained."""
    tree = node.get("metadata", "annotations", ANNOTATION)
    try:
        return _read(tree) if tree else False
    except FieldError as error:
        remarks.report(error)
        return False


def _read(tree: Tree) -> bool:
    text = tree.text()
    if text not in ("true", "false"):
        raise tree.error(f'is {text!r}; write "true" or "false", in quotes')
    return text == "true"
