"""Between an SQLAgent and its database: what can be told without importing anything, and calls in threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread
from pydantic import JsonValue

from .errors import DatabaseFault

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from .sqlengines import Database, Watch
    from .sqlguard import Checked
    from .sqlschema import Schema, Tables

T = TypeVar("T")

GRACE_S = 1.0
"""Seconds that an engine has to end a query by itself after its time; then nobody waits for it any more."""

MOST_REPAIRS = 2

Refusal = dict[str, JsonValue]
"""`rule` and `why`."""


def dialect_of(database: object) -> str:
    """What a database speaks, as far as can be told of a URL or an engine."""
    if isinstance(database, str):
        return database.partition(":")[0].partition("+")[0]
    return str(getattr(getattr(database, "dialect", None), "name", ""))


def problems_with(database: object, tables: object, functions: object) -> Iterator[str]:
    """What is wrong with what an SQLAgent is to read, one sentence each."""
    missing = [module for module in ("sqlalchemy", "sqlglot") if find_spec(module) is None]
    if missing:
        yield f"SQLAgent needs {' and '.join(missing)}; pip install 'flujo-agent[sql]'"
    if dialect_of(database) not in ("sqlite", "postgresql"):
        yield "database= is 'sqlite:///FILE', 'postgresql+psycopg://...', or an Engine of SQLAlchemy for one of them"
    if isinstance(tables, str) or not isinstance(tables, (Sequence, Mapping)) or not tables:
        yield "tables= names the tables that may be read; there is no way to allow all"
    else:
        columns = [*tables.values()] if isinstance(tables, Mapping) else []
        if not all(isinstance(name, str) and name for name in tables):
            yield "tables= holds names of tables"
        if not all(_names(of_table) for of_table in columns):
            yield "tables= holds for each table a list of names of columns, empty for all of them"
    if not _names(functions):
        yield "functions= is a list of names of functions"


def number_problems(caps: Mapping[str, object], repairs: object) -> Iterator[str]:
    """What is wrong with the bounds of an SQLAgent, one sentence each."""
    for name, value in caps.items():
        if name in ("max_rows", "max_bytes"):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                yield f"{name}={value!r} must be a whole number of 1 or more"
        elif value is None and name == "max_cost":
            continue
        elif not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
            yield f"{name}={value!r} must be a number above 0"
    if not isinstance(repairs, int) or isinstance(repairs, bool) or not 0 <= repairs <= MOST_REPAIRS:
        yield f"repairs={repairs!r} must be 0, 1 or {MOST_REPAIRS}"


def _names(value: object) -> bool:
    return (
        not isinstance(value, str)
        and isinstance(value, Sequence)
        and all(isinstance(name, str) and name for name in value)
    )


@dataclass(slots=True)
class Desk:
    """Takes statements for a database, and calls it in threads that nobody waits for longer than a query may take."""

    given: str | Engine
    tables: Tables
    functions: frozenset[str]
    max_rows: int
    max_bytes: int
    timeout_s: float
    max_cost: float | None
    _database: Database | None = None
    _lock: Lock = field(default_factory=Lock)

    async def schema(self) -> Schema:
        """What may be read, as it is now.

        Raises:
            DatabaseFault: The database cannot be asked, or lacks one of the tables.
            ConfigurationError: It cannot be read safely.
        """

        def inspect(watch: Watch) -> Schema:
            return self._opened().inspect(self.tables, watch)

        from .sqlguard import Refused  # here: needs the extra [sql]

        try:
            return await self._in_time(inspect)
        except Refused as refused:
            raise DatabaseFault("the tables of the database cannot be looked up", refused.why) from None

    async def check(self, sql: str, schema: Schema) -> tuple[Checked | None, Refusal | None]:
        """A statement as it may be run, or why it may not."""
        from .sqlguard import Refused, check  # here: needs the extra [sql]

        try:
            checked = await anyio.to_thread.run_sync(check, sql, schema, self.functions, self.max_rows)
        except Refused as refused:
            return None, {"rule": refused.rule, "why": refused.why}
        return checked, None

    async def query(self, checked: Checked, schema: Schema) -> dict[str, JsonValue]:
        """The rows of a query, or as `refused` why there are none."""
        from .sqlengines import Caps  # here: needs the extra [sql]
        from .sqlguard import Refused

        caps = Caps(self.max_rows, self.max_bytes, self.timeout_s, self.max_cost)
        try:
            found = await self._in_time(lambda watch: self._opened().query(checked, schema, caps, watch))
        except Refused as refused:
            return {"refused": {"rule": refused.rule, "why": refused.why}}
        rows: list[JsonValue] = [*found.values]
        full = checked.clamped and len(rows) == self.max_rows
        return {"sql": checked.sql, "columns": [*checked.columns], "rows": rows, "truncated": found.cut or full}

    def _opened(self) -> Database:
        from .sqlopen import open_database  # here: needs the extra [sql]

        with self._lock:
            if self._database is None:
                self._database = open_database(self.given, self.functions)
            return self._database

    async def _in_time(self, work: Callable[[Watch], T]) -> T:
        """Call a database in a thread. Who is cancelled, or waits too long, leaves it; the engine then ends it.

        Raises:
            Refused: It takes too long.
        """
        watch = await anyio.to_thread.run_sync(_watch, self.timeout_s)
        try:
            with anyio.fail_after(self.timeout_s + GRACE_S):
                return await anyio.to_thread.run_sync(work, watch, abandon_on_cancel=True)
        except TimeoutError:
            raise _too_slow(self.timeout_s) from None
        finally:
            watch.stop.set()


def _watch(seconds: float) -> Watch:
    from .sqlengines import Watch  # here, in a thread: needs the extra [sql], whose import takes a moment

    return Watch(seconds)


def _too_slow(seconds: float) -> Exception:
    from .sqlengines import too_slow  # needs the extra [sql], whose import takes a moment

    return too_slow(seconds)
