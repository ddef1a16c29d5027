"""The type behind a JSON schema, looked for among those that a step can see. Nothing is imported or made."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import Enum

from pydantic import BaseModel, JsonValue

from .assignable import members
from .check import adapter_of
from .foreign import attempt
from .plan import StepNode

_COMMON = (bool, str, int, float, Decimal, date, datetime, list[str], list[int], dict[str, str], dict[str, object])


def type_of_schema(node: StepNode, schema: Mapping[str, JsonValue]) -> object:
    """The type that a paused step gave as `schema=`, found again by its JSON schema; None where none is the same."""
    for hint in _candidates(node):
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
    if held is not None:
        for value in (*held.nonlocals.values(), *held.globals.values()):
            if _is_data(value):
                yield value
    for value in list(getattr(function, "__globals__", {}).values()):
        if _is_data(value):
            yield value


def _is_data(value: object) -> bool:
    kinds = inspect.isclass(value) and (issubclass(value, (BaseModel, Enum)) or hasattr(value, "__dataclass_fields__"))
    return kinds or (inspect.isclass(value) and issubclass(value, dict) and hasattr(value, "__total__"))
