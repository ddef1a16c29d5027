"""What a JSON schema asks for: the type behind it, among those that a step can see, or else the schema itself.

Nothing is imported or made. The check knows the words that pydantic writes (JSON Schema 2020-12).
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from operator import ge, gt, le, lt
from typing import Any
from uuid import UUID

from pydantic import BaseModel, JsonValue

from .assignable import members
from .check import adapter_of
from .foreign import attempt
from .plan import StepNode

_COMMON = (bool, str, int, float, Decimal, date, datetime, list[str], list[int], dict[str, str], dict[str, object])


def type_of_schema(node: StepNode, schema: Mapping[str, JsonValue]) -> object:
    """The type that a paused step gave as `schema=`, found again by its JSON schema; None where none is the same."""
    for hint in _candidates(node):
        if inspect.isclass(hint) and "title" in schema and schema["title"] != hint.__name__:
            continue
        adapter = adapter_of(hint)
        if adapter is not None and attempt(adapter.json_schema)[0] == schema:
            return hint
    return None


def _candidates(node: StepNode) -> Iterator[object]:
    yield node.output_type
    yield from members(node.output_type)
    yield from _COMMON
    function = inspect.unwrap(getattr(node.step.function, "__func__", node.step.function))
    held = attempt(inspect.getclosurevars, function)[0] if inspect.isfunction(function) else None
    near = () if held is None else (*held.nonlocals.values(), *held.globals.values())
    yield from filter(_is_data, (*near, *getattr(function, "__globals__", {}).values()))


def _is_data(value: object) -> bool:
    kinds = inspect.isclass(value) and (issubclass(value, (BaseModel, Enum)) or hasattr(value, "__dataclass_fields__"))
    return kinds or (inspect.isclass(value) and issubclass(value, dict) and hasattr(value, "__total__"))


# --- without the type ---------------------------------------------------------------------------------------------

_CLASSES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "null": (type(None),),
    "array": (list, tuple), "object": (dict,),
}  # fmt: skip
_FORMATS: dict[str, type] = {"date": date, "date-time": datetime, "time": time, "uuid": UUID}


def unfit(schema: object, value: object, root: Mapping[str, JsonValue]) -> str | None:
    """Why a JSON value does not fit a schema; None where it does.

    Args:
        schema: The schema, or a part of one.
        value: The value.
        root: The whole schema, in which `$ref` looks.
    """
    if not isinstance(schema, dict):
        return None if schema is not False else "nothing is allowed here"
    if isinstance(ref := schema.get("$ref"), str):
        definitions = root.get("$defs")
        found = definitions.get(ref.rpartition("/")[2]) if isinstance(definitions, dict) else None
        return unfit(found, value, root)
    for several in ("anyOf", "oneOf"):
        parts = schema.get(several)
        if isinstance(parts, list) and all(unfit(part, value, root) is not None for part in parts):
            return "it is none of what is allowed"
    if "const" in schema and value != schema["const"]:
        return "it is not the one value that is allowed"
    if isinstance(allowed := schema.get("enum"), list) and value not in allowed:
        return f"it is none of {', '.join(map(repr, allowed))}"
    classes = _CLASSES.get(str(schema.get("type")))
    is_bool = isinstance(value, bool) and schema.get("type") != "boolean"
    if classes is not None and (not isinstance(value, classes) or is_bool):
        return f"it is no {schema['type']}"
    return _unfit_size(schema, value) or _unfit_parts(schema, value, root)


def _unfit_size(schema: Mapping[str, Any], value: object) -> str | None:
    if isinstance(value, (int, float)):
        rules = (("minimum", ge), ("maximum", le), ("exclusiveMinimum", gt), ("exclusiveMaximum", lt))
        broken = [word for word, holds in rules if word in schema and not holds(value, schema[word])]
        return f"{broken[0]} is {schema[broken[0]]}" if broken else None
    if isinstance(value, (str, list, dict)):
        least, most = {str: ("minLength", "maxLength"), list: ("minItems", "maxItems")}.get(type(value), ("", ""))
        if not schema.get(least, 0) <= len(value) <= schema.get(most, len(value)):
            return f"its length is not {schema.get(least, 0)} to {schema.get(most, 'any')}"
        if isinstance(value, str) and "pattern" in schema and not attempt(re.search, schema["pattern"], value)[0]:
            return f"it does not fit {schema['pattern']}"
        kind = _FORMATS.get(str(schema.get("format"))) if isinstance(value, str) else None
        if kind and (form := adapter_of(kind)) and attempt(form.validate_json, json.dumps(value), strict=True)[1]:
            return f"it is no {schema['format']}"
    return None


def _unfit_parts(schema: Mapping[str, Any], value: object, root: Mapping[str, JsonValue]) -> str | None:
    parts: list[tuple[object, object]] = []
    if isinstance(value, dict):
        if missing := [name for name in schema.get("required", ()) if name not in value]:
            return f"{missing[0]!r} is missing"
        known = schema.get("properties", {})
        parts = [(known.get(name, schema.get("additionalProperties", True)), one) for name, one in value.items()]
    elif isinstance(value, list):
        first = schema.get("prefixItems", [])
        parts = list(zip(first, value, strict=False))
        parts += [(schema.get("items", True), one) for one in value[len(first) :]]
    return next((problem for part, one in parts if (problem := unfit(part, one, root))), None)
