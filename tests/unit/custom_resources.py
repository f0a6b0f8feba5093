"""What an API server does with a CustomResourceDefinition: is its schema structural, and what becomes of objects.

Of the schemas' language only what `_walk` and `faults` name is known; anything else is an error here, not passed over.
Rules in CEL (`x-kubernetes-validations`) are looked at as texts and never evaluated, but for `self == oldSelf`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

Json = dict[str, Any]
#: What describes values, and may stand anywhere; what declares what there is, and may stand outside of `oneOf` only.
_VALUES = {
    "enum", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern", "required", "format",
    "properties", "items", "oneOf",
}  # fmt: skip
_DECLARATIONS = {"type", "description", "default", "nullable", "x-kubernetes-validations"}
_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": int | float, "boolean": bool}


def structural_faults(schema: Json, path: str = "$") -> Iterator[str]:
    """Where a schema breaks Kubernetes' rules for structural ones (KEP 2335)."""
    strange = schema.keys() - _VALUES - _DECLARATIONS - {"additionalProperties"}
    if strange:
        yield f"{path}: {', '.join(sorted(strange))}: not known here"
    if schema.get("type") not in _TYPES:
        yield f"{path}: it has no type"
    if ("properties" in schema or "additionalProperties" in schema) and schema.get("type") != "object":
        yield f"{path}: only an object has properties"
    if "properties" in schema and "additionalProperties" in schema:
        yield f"{path}: properties and additionalProperties exclude each other"
    if (schema.get("type") == "array") != ("items" in schema):
        yield f"{path}: an array has items, and nothing else has"
    if "default" in schema:
        yield from (f"{path}.default: {each}" for each in faults(schema, schema["default"]))
        if pruned(schema, schema["default"]) != schema["default"]:
            yield f"{path}.default: it has what the schema doesn't know"
    if schema.keys() & {"default", "required"} and path == "$" and "default" in schema:
        yield f"{path}: the root has no default"
    for name in schema.get("required", ()):
        if name not in schema.get("properties", {}):
            yield f"{path}: required {name} isn't declared"
    for junctor in schema.get("oneOf", ()):
        yield from _nested_faults(schema, junctor, f"{path}.oneOf")
    if path == "$" and "metadata" in schema.get("properties", {}):
        yield f"{path}: metadata is the server's"
    for name, each in schema.get("properties", {}).items():
        yield from structural_faults(each, f"{path}.{name}")
    if "items" in schema:
        yield from structural_faults(schema["items"], f"{path}[]")


def _nested_faults(schema: Json, nested: Json, path: str) -> Iterator[str]:
    """Inside of `oneOf`: nothing is declared there, and nothing is spoken of that isn't declared outside."""
    if nested.keys() - _VALUES:
        yield f"{path}: {', '.join(sorted(nested.keys() - _VALUES))} can't stand there"
    for name in (*nested.get("required", ()), *nested.get("properties", ())):
        if name not in schema.get("properties", {}):
            yield f"{path}: {name} isn't declared outside"


def pruned(schema: Json, value: Any) -> Any:
    """A value without the fields that its schema doesn't know."""
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        return {key: pruned(known[key], each) for key, each in value.items() if key in known}
    if isinstance(value, list) and "items" in schema:
        return [pruned(schema["items"], each) for each in value]
    return value


def defaulted(schema: Json, value: Any) -> Any:
    """A value with its schema's defaults where it has nothing."""
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        missing = {key: each["default"] for key, each in known.items() if "default" in each and key not in value}
        return {key: defaulted(known.get(key, {}), each) for key, each in (value | missing).items()}
    if isinstance(value, list) and "items" in schema:
        return [defaulted(schema["items"], each) for each in value]
    return value


def faults(schema: Json, value: Any, path: str = "") -> Iterator[str]:
    """What is wrong with a value by its schema, with the field's name."""
    kind = schema.get("type")
    if kind and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield f"{path}: must be of type {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: Unsupported value: {value!r}"
    match value:
        case dict():
            known = schema.get("properties", {})
            yield from (f"{path}.{name}: Required value" for name in schema.get("required", ()) if name not in value)
            for key, each in value.items():
                yield from faults(known.get(key, {}), each, f"{path}.{key}")
        case list():
            yield from _bounds(schema, len(value), "Items", path)
            for index, each in enumerate(value):
                yield from faults(schema.get("items", {}), each, f"{path}[{index}]")
        case str():
            yield from _bounds(schema, len(value), "Length", path)
            if "pattern" in schema and not re.search(schema["pattern"], value):
                yield f"{path}: must match {schema['pattern']}"
            if schema.get("format") == "date-time":
                try:
                    datetime.fromisoformat(value)
                except ValueError:
                    yield f"{path}: must be a date-time"
        case int() | float():
            yield from _bounds(schema, value, "imum", path)
    if "oneOf" in schema and sum(not list(faults(each, value, path)) for each in schema["oneOf"]) != 1:
        yield f"{path}: must validate one and only one schema (oneOf)"


def _bounds(schema: Json, value: float, what: str, path: str) -> Iterator[str]:
    if value < schema.get(f"min{what}", value):
        yield f"{path}: should be at least {schema[f'min{what}']}"
    if value > schema.get(f"max{what}", value):
        yield f"{path}: should be at most {schema[f'max{what}']}"


def immutable_faults(schema: Json, new: Any, old: Any, path: str = "") -> Iterator[str]:
    """Where a value that may not change has changed."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if rule["rule"] == "self == oldSelf" and new != old:
            yield f"{path}: {rule['message']}"
    if isinstance(new, dict) and isinstance(old, dict):
        for key, each in schema.get("properties", {}).items():
            if key in new and key in old:
                yield from immutable_faults(each, new[key], old[key], f"{path}.{key}")
