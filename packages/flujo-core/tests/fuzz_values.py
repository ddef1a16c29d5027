"""The values that generated pipelines compute with: whole numbers, each a pure function of what a step was given."""

from __future__ import annotations

import operator
import zlib
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel

from flujo.core import FlujoError

MODULUS = 1_000_003


class Memory(BaseModel, frozen=True):
    """The context of generated runs: an ordered reducer, one without order, and a field without any."""

    log: Annotated[list[int], operator.add] = []
    total: Annotated[int, operator.add] = 0
    last: int = 0


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
    """A value to compare and to print: lists and tuples stay apart, and all errors are alike."""
    if isinstance(value, FlujoError):
        return "error"
    if isinstance(value, Mapping):
        return {key: plain(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value))
    return value


def skips(value: object, skips_on: int) -> bool:
    """Whether a step is skipped for its input: never where an error stands in that.

    Steps take anything; what a skipped one hands on is kept by a snapshot, which takes untyped data as JSON alone.
    """
    return bool(skips_on) and mix("when", value) % skips_on == 0 and "error" not in repr(plain(value))


def mix(*parts: object) -> int:
    """A number that differs where any part does."""
    return zlib.crc32(repr(plain(parts)).encode()) % MODULUS


def worth(name: str, ends: str, size: int, *given: object) -> object:
    """What a step gives for its inputs: a number, a list of `size` numbers, or a pair."""
    number = mix(name, *given)
    if ends == "list":
        return [mix(number, place) for place in range(size)]
    return (number, mix(number)) if ends == "pair" else number


def change(field: str, value: object) -> object:
    """What a step that gives `value` writes into a field of the context."""
    return [mix("log", value)] if field == "log" else mix(field, value)
