"""Sessions in which a database itself refuses to write, to run long and to give much: one class for each engine.

Importing this imports SQLAlchemy.
"""

from __future__ import annotations

import json
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
    """The values of a JSON object in order, of equal names too; a number that no float holds exactly is a text."""

    def number(digits: str) -> float | str:
        return float(digits) if Decimal(repr(float(digits))) == Decimal(digits) else digits

    pairs: list[tuple[str, JsonValue]] = []

    def keep(found: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
        pairs[:] = found  # the outermost object is the last one that ends
        return dict(found)

    json.loads(text, parse_float=number, object_pairs_hook=keep)
    return [value for _, value in pairs]


def too_slow(seconds: float) -> Refused:
    """The refusal of a query that took too long."""
    return Refused("timeout", f"it takes more than {seconds:g} s; ask for less, or by columns with an index")


def too_large(caps: Caps) -> Refused:
    """The refusal of a row or a value that is too large."""
    return Refused("size", f"a row of it has more than {caps.bytes:,} bytes; ask for fewer or shorter columns")
