"""SQLite, opened read-only, under an authorizer that knows the tables, columns and functions that are allowed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from .errors import DatabaseFault
from .sqlengines import Caps, Rows, Watch, cell, too_large, too_slow, unusable
from .sqlguard import Refused
from .sqlschema import Schema, inspect

if TYPE_CHECKING:
    from pydantic import JsonValue

    from .sqlguard import Checked
    from .sqlschema import Tables

_EVERY = 1_000
"""Instructions of SQLite's machine between two looks at the watch: about 20 microseconds."""

_SLOW = (sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_QUERYS_OWN = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE)

_FUNCTIONS = """
abs acos avg ceil ceiling char coalesce concat concat_ws count cume_dist current_date current_time
current_timestamp date datetime dense_rank exp first_value floor glob group_concat ifnull iif instr
json_array_length json_extract json_type julianday lag last_value lead length like ln log log10 log2 lower
ltrim max min mod nth_value ntile nullif octet_length percent_rank pow power rank replace round row_number
rtrim sign sqrt strftime string_agg substr substring sum time timediff total trim trunc typeof unicode
unixepoch upper -> ->>
"""
"""What the functions that a query may call are named in SQLite itself."""


@dataclass(slots=True)
class Sqlite:
    """A file of SQLite. Each query has a connection of its own, that nobody else could undo the safeguards of."""

    url: URL
    functions: frozenset[str]
    path: Path = field(init=False)

    def __post_init__(self) -> None:
        name = self.url.database or ""
        if name in ("", ":memory:") or name.startswith("file:"):
            raise unusable("only a file can be opened read-only: no database in memory, no file: URI")
        self.path = Path(name)

    def _open(self, seconds: float) -> sqlite3.Connection:
        uri = f"{self.path.resolve().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, timeout=seconds, isolation_level=None)
        connection.execute("PRAGMA query_only=ON")
        connection.execute("PRAGMA trusted_schema=OFF")  # views and generated columns call no function that acts
        return connection

    def inspect(self, tables: Tables, watch: Watch) -> Schema:
        """See Database.inspect."""
        creator = partial(self._open, watch.left())
        engine = sqlalchemy.create_engine("sqlite://", creator=creator, poolclass=sqlalchemy.NullPool)
        try:
            with engine.connect() as connection:
                return inspect(connection, "sqlite", tables)
        except (DBAPIError, sqlite3.Error) as error:
            raise self._fault(error) from error

    def query(self, checked: Checked, schema: Schema, caps: Caps, watch: Watch) -> Rows:
        """See Database.query."""
        try:
            with closing(self._open(watch.left())) as connection:
                _guard(connection, self._authorizer(schema, _Catalog.of(connection, schema)), caps, watch)
                with self._refusals(caps, watch, told=True):
                    connection.execute(f"EXPLAIN QUERY PLAN {checked.sql}").fetchall()
                with self._refusals(caps, watch, told=False):
                    return _fetched(connection.execute(checked.sql), caps)
        except sqlite3.Error as error:
            raise self._fault(error) from error

    @contextmanager
    def _refusals(self, caps: Caps, watch: Watch, *, told: bool) -> Iterator[None]:
        """What SQLite says of a query; in its own words only where these cannot hold data."""
        try:
            yield
        except sqlite3.DataError as error:
            raise too_large(caps) from error
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if code in _SLOW or watch.over():
                raise too_slow(caps.seconds) from error
            if code == sqlite3.SQLITE_TOOBIG:
                raise too_large(caps) from error
            if code not in _QUERYS_OWN:
                raise
            raise Refused("engine", str(error) if told else f"it failed with {type(error).__name__}") from error

    def _authorizer(self, schema: Schema, catalog: _Catalog) -> Callable[..., int]:
        names = {table.name.lower(): {one.name.lower() for one in table.columns} for table in schema.tables}
        functions = frozenset(_FUNCTIONS.split()) | self.functions

        def authorize(action: int, first: str | None, second: str | None, _: str | None, source: str | None) -> int:
            table, name = (first or "").lower(), (second or "").lower()
            seen = source is not None and (action, table, name) in catalog.in_views
            if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
                allowed = True
            elif action == sqlite3.SQLITE_FUNCTION:
                allowed = seen or name in functions
            elif action == sqlite3.SQLITE_READ and table in names:
                allowed = seen or not name or name in names[table]
            elif action == sqlite3.SQLITE_READ:  # without a column also what WITH defines, which is no table
                allowed = seen or not (name or table in catalog.tables or table.startswith(("sqlite_", "pragma_")))
            else:
                allowed = False
            return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

        return authorize

    def _fault(self, error: Exception) -> DatabaseFault:
        cause = error.orig if isinstance(error, DBAPIError) else error
        return DatabaseFault(f"database {self.path.name!r} cannot be read", f"{type(cause).__name__}: {cause}")


@dataclass(frozen=True, slots=True)
class _Catalog:
    """What there is, and what the views that are allowed read and call; both in lower case."""

    tables: frozenset[str]
    in_views: frozenset[tuple[int, str, str]]

    @classmethod
    def of(cls, connection: sqlite3.Connection, schema: Schema) -> _Catalog:
        found = dict(connection.execute("SELECT lower(name), type FROM sqlite_schema WHERE type IN ('table', 'view')"))
        used: set[tuple[int, str, str]] = set()

        def note(action: int, first: str | None, second: str | None, _: str | None, source: str | None) -> int:
            if source is not None:
                used.add((action, (first or "").lower(), (second or "").lower()))
            return sqlite3.SQLITE_OK

        connection.set_authorizer(note)
        for table in schema.tables:
            if found.get(table.name.lower()) == "view":
                quoted = table.name.replace('"', '""')
                connection.execute(f'EXPLAIN SELECT * FROM main."{quoted}"').close()
        return cls(frozenset(found), frozenset(used))


def _guard(connection: sqlite3.Connection, authorizer: Callable[..., int], caps: Caps, watch: Watch) -> None:
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(caps.bytes, 100_000))
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0)
    connection.set_authorizer(authorizer)
    connection.set_progress_handler(watch.over, _EVERY)


def _fetched(cursor: sqlite3.Cursor, caps: Caps) -> Rows:
    rows: list[list[JsonValue]] = []
    size = 0
    for row in cursor:
        values = [cell(value) for value in row]
        size += len(json.dumps(values, ensure_ascii=False).encode())
        if size > caps.bytes:
            if not rows:
                raise too_large(caps)
            return Rows(rows, cut=True)
        rows.append(values)
        if len(rows) == caps.rows:
            break
    return Rows(rows, cut=False)
