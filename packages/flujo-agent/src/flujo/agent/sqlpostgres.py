"""PostgreSQL in a read-only transaction, with the time, the rows and the bytes bounded by the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from .errors import DatabaseFault
from .sqlengines import Caps, Rows, Watch, parsed, too_large, too_slow
from .sqlguard import Refused
from .sqlschema import Schema, inspect

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

    from .sqlguard import Checked
    from .sqlschema import Tables

_SETTINGS = {
    "search_path": "",  # names of functions, types and operators are those of PostgreSQL, whatever a schema holds
    "standard_conforming_strings": "on",  # a backslash in a text is a backslash, as in what was checked
    "jit": "off",  # compiling does not look at the time
}

_WRAPPED = """SELECT CASE WHEN sum(octet_length(r.j)) OVER (ROWS UNBOUNDED PRECEDING) <= %s THEN r.j END
FROM (SELECT row_to_json(q)::text AS j FROM ({}) AS q LIMIT %s) AS r"""
"""The server counts rows and bytes. Its two values make the driver send one statement and no more: with values
PostgreSQL takes no second one after a semicolon."""

_TIMED_OUT = ("57014", "55P03", "25P04")
_GONE = ("08", "53", "57", "58", "XX")


@dataclass(slots=True)
class Postgres:
    """A database of PostgreSQL. All settings end with the transaction, so that the engine's pool may be shared."""

    engine: Engine

    def inspect(self, tables: Tables, watch: Watch) -> Schema:
        """See Database.inspect."""
        try:
            with self._session(watch) as connection:
                return inspect(connection, "postgres", tables)
        except DBAPIError as error:
            raise _fault(error) from error

    def query(self, checked: Checked, schema: Schema, caps: Caps, watch: Watch) -> Rows:
        """See Database.query."""
        sql = _WRAPPED.format(checked.sql.replace("%", "%%"))
        values = (caps.bytes, caps.rows)
        with _refusals(caps, told=True), self._session(watch) as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {sql}", values).scalar_one()
            _check_cost(plan, caps)
            _bound_time(connection, watch)
            with _refusals(caps, told=False):
                found = connection.exec_driver_sql(sql, values).scalars().all()
        rows = [parsed(text) for text in found if text is not None]
        if found and not rows:
            raise too_large(caps)
        return Rows(rows, cut=len(rows) < len(found))

    @contextmanager
    def _session(self, watch: Watch) -> Iterator[Connection]:
        with self.engine.connect() as plain:
            # an engine may be set to AUTOCOMMIT, where nothing would be read-only
            connection = plain.execution_options(isolation_level="READ COMMITTED", postgresql_readonly=True)
            for name, value in _SETTINGS.items():
                connection.exec_driver_sql(f"SELECT set_config('{name}', %s, true)", (value,))
            _bound_time(connection, watch)
            _verify(connection)
            try:
                yield connection
            finally:
                connection.rollback()


def _bound_time(connection: Connection, watch: Watch) -> None:
    millis = str(max(1, round(watch.left() * 1000)))
    for name in ("statement_timeout", "lock_timeout"):
        connection.exec_driver_sql(f"SELECT set_config('{name}', %s, true)", (millis,))


def _verify(connection: Connection) -> None:
    """Ask the server itself: a proxy in between, or a driver, may not have done what it was told."""
    asked = "SELECT current_setting('transaction_read_only'), current_setting('statement_timeout')"
    read_only, timeout = connection.exec_driver_sql(asked).one()
    if read_only != "on" or timeout in ("0", ""):
        why = f"the session is not read-only under a timeout (read-only {read_only}, timeout {timeout})"
        raise DatabaseFault("the database cannot be read safely", why)


def _check_cost(plan: Any, caps: Caps) -> None:
    found = json.loads(plan) if isinstance(plan, str) else plan
    cost = float(found[0]["Plan"]["Total Cost"])
    if caps.cost is not None and cost > caps.cost:
        raise Refused("cost", f"the database estimates its cost at {cost:,.0f}, more than {caps.cost:,.0f}")


@contextmanager
def _refusals(caps: Caps, *, told: bool) -> Iterator[None]:
    """What the server says of a query; in its own words only before it has read data, which these may repeat."""
    try:
        yield
    except DBAPIError as error:
        state = _state(error)
        if state in _TIMED_OUT:
            raise too_slow(caps.seconds) from error
        if error.connection_invalidated or not state or state.startswith(_GONE):
            raise _fault(error) from error
        words = str(error.orig).splitlines()[0] if told else f"it failed with {type(error.orig).__name__}"
        raise Refused("engine", f"{words} ({state})") from error


def _state(error: DBAPIError) -> str:
    """The SQLSTATE, which each driver keeps under its own name."""
    cause: Any = error.orig
    return str(getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or "")


def _fault(error: DBAPIError) -> DatabaseFault:
    lines = str(error.orig).splitlines()
    return DatabaseFault("the database cannot be read", f"{type(error.orig).__name__}: {lines[0] if lines else ''}")
