"""Sessions in which a database itself refuses to write, to run long and to give much: one class for each engine.

Importing this imports SQLAlchemy.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from decimal import Decimal
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from pydantic import JsonValue

from flujo.core import ConfigurationError

from .sqlguard import Refused

if TYPE_CHECKING:
    from .sqlguard import Checked
    from .sqlschema import Schema, Tables

DIALECTS = {"sqlite": "sqlite", "postgresql": "postgres"}
"""Engines whose sessions can be made read-only here, and what sqlglot calls their dialect."""

LONGEST_INTEGER = 300
"""Digits of an integer that is one; Python reads 4,300, other readers of JSON far fewer."""

DEEPEST = 50
"""Levels of a value of JSON that is one; pydantic and Python's reader give up at a few hundred."""

_PIECES = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},]')
"""What tells the parts of an object of JSON apart: texts, brackets and commas."""


@dataclass(frozen=True, slots=True)
class Caps:
    """What one query may take.

    Attributes:
        rows: Most rows.
        bytes: Most bytes of all rows as JSON, and of any one value.
        seconds: Most seconds of the dry run and the query.
        cost: Most that the engine's own estimate may say, in its units; None is no bound. SQLite gives no estimate.
    """

    rows: int
    bytes: int
    seconds: float
    cost: float | None


@dataclass(slots=True)
class Watch:
    """How long a query may still take; `stop` ends it at once."""

    seconds: float
    stop: Event = field(default_factory=Event)
    started: float = field(default_factory=monotonic)

    def left(self) -> float:
        """Seconds that are left, at least one millisecond."""
        return max(0.001, self.seconds - (monotonic() - self.started))

    def over(self) -> bool:
        """Whether it must end."""
        return self.stop.is_set() or monotonic() - self.started > self.seconds


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows as JSON; `cut` where the cap of bytes left some out."""

    values: list[list[JsonValue]]
    cut: bool


class Database(Protocol):
    """A database that is only read. Its methods block, so they are called in a thread."""

    def inspect(self, tables: Tables, watch: Watch) -> Schema:
        """Look up the tables that may be read."""

    def query(self, checked: Checked, schema: Schema, caps: Caps, watch: Watch) -> Rows:
        """Dry-run a query that was checked, and run it.

        Raises:
            Refused: The engine refuses it, or it takes more than the caps allow.
            DatabaseFault: The engine cannot be asked.
        """


def unusable(why: str) -> ConfigurationError:
    """The error of a database that cannot be read safely."""
    do = "Give database= as sqlite:///FILE, postgresql+psycopg://... or an Engine of either"
    return ConfigurationError("the database of an SQLAgent cannot be used", why, do)


def cell(value: object) -> JsonValue:
    """A value of a database as JSON; bytes and what JSON cannot hold as a text."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)  # neither infinite nor NaN
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    return str(value)


def parsed(text: str) -> list[JsonValue]:
    """The values of a JSON object in order, of equal names too; as texts those that JSON cannot carry.

    Such are numbers that no float holds exactly, integers of more digits than Python reads, and what is nested deeply.
    """
    if text.count("[") + text.count("{") > DEEPEST:
        return _one_by_one(text)
    pairs: list[tuple[str, JsonValue]] = []

    def keep(found: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
        pairs[:] = found  # the outermost object is the last one that ends
        return dict(found)

    json.loads(text, parse_int=_integer, parse_float=_number, object_pairs_hook=keep)
    return [value for _, value in pairs]


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= LONGEST_INTEGER else digits


def _number(digits: str) -> float | str:
    return float(digits) if Decimal(repr(float(digits))) == Decimal(digits) else digits


def _one_by_one(text: str) -> list[JsonValue]:
    """The same of an object that may be nested so deeply that JSON's reader, or a journal, would give it up."""
    values: list[JsonValue] = []
    depth = deepest = start = 0
    for piece in _PIECES.finditer(text):
        mark = piece[0][0]
        if mark == '"':
            if depth == 1 and not start:  # the name of a value
                start = text.index(":", piece.end()) + 1
        elif mark in "[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            if depth == 1 and start:
                values.append(_nested(text[start : piece.start()], deepest - 1))
                deepest = start = 0
            depth -= mark != ","
    return values


def _nested(text: str, depth: int) -> JsonValue:
    value: JsonValue = text
    if depth <= DEEPEST:
        value = json.loads(text, parse_int=_integer, parse_float=_number)
    return value


def too_slow(seconds: float) -> Refused:
    """The refusal of a query that took too long."""
    return Refused("timeout", f"it takes more than {seconds:g} s; ask for less, or by columns with an index")


def too_large(caps: Caps) -> Refused:
    """The refusal of a row or a value that is too large."""
    return Refused("size", f"a row of it has more than {caps.bytes:,} bytes; ask for fewer or shorter columns")
