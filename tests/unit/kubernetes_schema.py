"""Kubernetes' own idea of its objects, as its client's models declare it: strict where the client is lenient.

The client drops fields that it doesn't know, as kubectl without validation does; here each is named. What a model
requires must be there, and every value must be of the declared type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kubernetes.client import models

#: Of other makers; there is no model of them.
FOREIGN = ("cert-manager.io/",)


def problems(found: dict[str, Any]) -> list[str]:
    """What an API server would refuse of an object, or drop."""
    version, kind = found["apiVersion"], found["kind"]
    if version.startswith(FOREIGN):
        return []
    name = "".join(part.capitalize() for part in version.rsplit("/", 1)[-1:]) + kind
    if not hasattr(models, name):
        return [f"there is no {kind} in {version}"]
    return list(_walk(name, found, kind))


def _walk(kind: str, value: Any, path: str) -> Iterator[str]:
    if match := re.fullmatch(r"[Ll]ist\[(.+)\]", kind):
        if not isinstance(value, list):
            yield f"{path} must be a list"
            return
        for index, each in enumerate(value):
            yield from _walk(match[1], each, f"{path}[{index}]")
    elif match := re.fullmatch(r"[Dd]ict[(\[]str, (.+)[)\]]", kind):
        if not isinstance(value, dict):
            yield f"{path} must be a mapping"
            return
        for key, each in value.items():
            yield from _walk(match[1], each, f"{path}.{key}")
    elif kind == "object" and path.endswith(".items"):
        # Of a custom resource's schema: what a list in it holds, which the client leaves open.
        yield from _model(models.V1JSONSchemaProps, value, path)
    elif kind == "object" and path.endswith(".subresources.status"):
        if value != {}:
            yield f"{path} has no fields"
    elif kind == "object" and path.endswith(".default"):
        # Any value; whether it is one of the schema's is looked at where schemas are (`custom_resources`).
        return
    elif hasattr(models, kind):
        yield from _model(getattr(models, kind), value, path)
    elif not _is(kind, value):
        yield f"{path} is {value!r}, which is no {kind}"


def _model(model: Any, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path} must be a mapping"
        return
    attributes = {key: attribute for attribute, key in model.attribute_map.items()}
    for key, each in value.items():
        if key not in attributes:
            yield f"{path}.{key} is unknown"
        else:
            yield from _walk(model.openapi_types[attributes[key]], each, f"{path}.{key}")
    # The models' setters refuse None where a field is required.
    given = {attributes[key]: each for key, each in value.items() if key in attributes}
    try:
        model(**given)
    except ValueError as error:
        yield f"{path}: {error}"


def _is(kind: str, value: Any) -> bool:
    match kind:
        case "str":
            return isinstance(value, str)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "bool":
            return isinstance(value, bool)
        case "float":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "object":
            # A number or a text, as a port or a share may be.
            return isinstance(value, str | int)
    raise AssertionError(f"a type that this doesn't know: {kind}")
