"""The values that generated pipelines compute with: whole numbers, each a pure function of what a step was given."""

from __future__ import annotations

import operator
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel

from flujo.core import FlujoError

MODULUS = 1_000_003


class Memory(BaseModel, frozen=True):
    """The context of generated runs: an ordered reducer, one without order, and a field without any."""

    log: Annotated[list[int], operator.add] = []
    total: Annotated[int, operator.add] = 0
    last: int = 0


class Point(BaseModel, frozen=True):
    """Two numbers as a model."""

    left: int
    right: int


GIVES: dict[str, Any] = {
    "int": int, "bit": int, "list": list[int], "pair": dict[str, int], "twin": tuple[int, int], "point": Point,
    "moment": datetime,
}  # fmt: skip
"""What each kind of step gives."""

Delta = tuple[str, object]
"""A change of the context: which field, and what it is given."""


def remembered(deltas: tuple[Delta, ...]) -> tuple[tuple[int, ...], int, int]:
    """What a context holds after some changes: log, total, last."""
    log = tuple(item for field, value in deltas if field == "log" for item in value)  # type: ignore[attr-defined]
    total = sum(value for field, value in deltas if field == "total")  # type: ignore[misc]
    last = next((value for field, value in reversed(deltas) if field == "last"), 0)
    return log, total, last  # type: ignore[return-value]


def seen(memory: Memory) -> tuple[tuple[int, ...], int, int]:
    """What a context holds: log, total, last."""
    return tuple(memory.log), memory.total, memory.last


def plain(value: object) -> object:
    """A value to compare and to print: values of different types stay apart, and all errors are alike."""
    if type(value) is int:
        return value
    if isinstance(value, FlujoError):
        return "error"
    if isinstance(value, Point):
        return ("point", value.left, value.right)
    if isinstance(value, datetime):
        return ("moment", value.timestamp())
    if isinstance(value, Mapping):
        return {key: plain(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value))
    return value


def skips(value: object, skips_on: int, *held: object) -> bool:
    """Whether a step is skipped for its input: never where that is more than JSON.

    Steps take anything; what a skipped one hands on is kept by a snapshot, which takes untyped data as JSON alone.
    """
    return bool(skips_on) and mix("when", value, *held) % skips_on == 0 and is_json(value)


def is_json(value: object) -> bool:
    """Whether a value is one of numbers, lists and dicts alone."""
    if isinstance(value, dict):
        return all(map(is_json, value.values()))
    return all(map(is_json, value)) if isinstance(value, list) else value is None or type(value) is int


def holds_error(value: object) -> bool:
    """Whether an error stands in a value."""
    return "'error'" in repr(plain(value))


def mix(*parts: object) -> int:
    """A number that differs where any part does."""
    return zlib.crc32(repr(plain(parts)).encode()) % MODULUS


def worth(name: str, ends: str, size: int, *given: object) -> object:
    """What a step gives for its inputs."""
    number = mix(name, *given)
    if ends == "list":
        return [mix(number, place) for place in range(size)]
    if ends == "bit":
        return number % 2
    return number if ends == "int" else shaped(ends, number, mix(number))


def shaped(ends: str, left: int, right: int) -> object:
    """One or two numbers in the shape that a step gives."""
    if ends in ("int", "bit", "list"):
        return [left] if ends == "list" else left
    if ends == "moment":
        return datetime.fromtimestamp(left, UTC)
    if ends == "twin":
        return left, right
    return Point(left=left, right=right) if ends == "point" else {"left": left, "right": right}


def first_number(value: object) -> int:
    """The first number that `shaped` was given; 0 of an empty list."""
    if isinstance(value, datetime):
        return int(value.timestamp())
    if isinstance(value, Point):
        return value.left
    if isinstance(value, dict):
        return value["left"]  # type: ignore[no-any-return]
    return next(iter(value), 0) if isinstance(value, (list, tuple)) else value  # type: ignore[return-value]


def change(field: str, value: object) -> object:
    """What a step that gives `value` writes into a field of the context."""
    return [mix("log", value)] if field == "log" else mix(field, value)
