"""The schema in PostgreSQL: its tables, its version, and how a connection to it is opened."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psycopg
from psycopg import errors, sql

from .errors import StoreDamaged, StoreError, StoreForeign, StoreUnreachable, StoreWriteError

__all__ = ["MIGRATIONS", "Place", "PostgresConnection", "connect", "fault_of"]

_LOCK = 0x464C4A48
"""Of the advisory lock under which the schema is made."""

_FIRST = """
CREATE TABLE plans(
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, pipeline TEXT NOT NULL, fingerprint BYTEA NOT NULL,
  UNIQUE(fingerprint, pipeline));
CREATE TABLE runs(
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, plan BIGINT NOT NULL,
  status INTEGER NOT NULL, fence BIGINT NOT NULL, owner BIGINT, began BIGINT NOT NULL, changed BIGINT NOT NULL,
  tenant TEXT, actor TEXT, cancel BIGINT) WITH (fillfactor = 80);
CREATE INDEX runs_status ON runs(status, id);
CREATE INDEX runs_plan ON runs(plan, status);
CREATE INDEX runs_tenant ON runs(tenant, status) WHERE tenant IS NOT NULL;
CREATE INDEX runs_cancel ON runs(cancel) WHERE cancel IS NOT NULL;
CREATE TABLE snapshots(
  run BIGINT PRIMARY KEY, position BIGINT NOT NULL, length BIGINT NOT NULL, payload BYTEA NOT NULL);
CREATE TABLE journal(run BIGINT NOT NULL, position BIGINT NOT NULL, payload BYTEA NOT NULL, PRIMARY KEY(run, position));
CREATE TABLE pauses(
  run BIGINT NOT NULL, pause TEXT COLLATE "C" NOT NULL, shown BYTEA NOT NULL, expires BIGINT, roles TEXT,
  question BYTEA NOT NULL, PRIMARY KEY(run, pause));
CREATE INDEX pauses_expire ON pauses(expires) WHERE expires IS NOT NULL;
CREATE TABLE decisions(
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run BIGINT NOT NULL, pause TEXT COLLATE "C" NOT NULL,
  digest BYTEA NOT NULL, decided BIGINT NOT NULL, applied BIGINT NOT NULL, decision BYTEA, actor TEXT, reason BYTEA,
  UNIQUE(run, pause));
CREATE INDEX decisions_waiting ON decisions(id) WHERE applied = 0;
CREATE TABLE owners(
  id BIGINT PRIMARY KEY, boot TEXT NOT NULL, space TEXT NOT NULL, pid BIGINT NOT NULL, started BIGINT NOT NULL,
  lease_s DOUBLE PRECISION NOT NULL, beat BIGINT NOT NULL, beat_mono DOUBLE PRECISION NOT NULL,
  beat_wall DOUBLE PRECISION NOT NULL);
CREATE TABLE batches(writer BIGINT PRIMARY KEY, number BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL DEFAULT now());
"""

_SECOND = """
ALTER TABLE runs ADD COLUMN target TEXT;
ALTER TABLE pauses ADD COLUMN stuck INTEGER;
DROP INDEX pauses_expire;
CREATE INDEX pauses_expire ON pauses(expires) WHERE expires IS NOT NULL AND stuck IS NULL;
"""

# From here on snapshots may be squeezed: what an earlier version wrote is read as it is.
_THIRD = ""

# `shown` is the digest of what was shown to who decided; of what was decided before this version it is not known.
_FOURTH = """
ALTER TABLE decisions ADD COLUMN shown BYTEA;
"""

MIGRATIONS: tuple[str, ...] = (_FIRST, _SECOND, _THIRD, _FOURTH)
"""What leads from each version of the schema to the next; `version` is how many of them were done."""


_BEGIN = b"""
BEGIN;
UPDATE batches SET number = number + 1, at = now() WHERE writer = %s RETURNING number;
SELECT run_id, fence, owner, cancel FROM runs WHERE run_id = ANY(%s::text[]) ORDER BY run_id FOR UPDATE
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where runs are kept.

    Attributes:
        facts: Of the connection, as libpq names them.
        schema: Of the tables.
        wait_s: Seconds to wait for a server that is away, and for locks.
        name: For people, without secrets.
    """

    facts: dict[str, Any]
    schema: str
    wait_s: float
    name: Path


class PostgresConnection:
    """A `Connection` over one of the driver: it takes the SQL of the rules, which is SQLite's where both differ."""

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self.raw: psycopg.Connection[Any] = raw

    def execute(self, sql: str, facts: Sequence[Any] = (), /) -> psycopg.Cursor[Any]:
        """See Connection."""
        return self.raw.execute(_spoken(sql), facts)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> None:
        """See Connection."""
        several = list(rows)
        if len(several) == 1:
            self.execute(sql, several[0])
        elif several:
            with self.raw.cursor() as cursor:
                cursor.executemany(_spoken(sql), several)  # which the driver sends in one go

    def begin(self, writer: int, run_ids: Sequence[str]) -> tuple[Any, list[Any]]:
        """Begin, count up, and lock these runs, in one turn: by the driver's quoting, for the server takes no
        arguments for several statements. (A pipeline of the driver does not always say that its connection was lost.)

        Returns:
            The row with the new number, or None; and id, fence, owner and request to end of each run.
        """
        with psycopg.ClientCursor(self.raw) as cursor:
            cursor.execute(_BEGIN, (writer, list(run_ids)))
            cursor.nextset()
            counted = cursor.fetchone()
            cursor.nextset()
            return counted, cursor.fetchall()

    @property
    def is_lost(self) -> bool:
        """Whether the server is no longer there for it."""
        return self.raw.closed or self.raw.broken


@lru_cache(maxsize=512)
def _spoken(text: str) -> bytes:
    # an order of joins and the place in a text are what the rules say in SQLite's words
    text = text.replace("%", "%%").replace("CROSS JOIN", "JOIN").replace("instr(", "strpos(")
    return text.replace("?", "%s").encode()


def connect(place: Place) -> PostgresConnection:
    """A connection to a schema of this version; a server that is away may be starting, so it is waited for.

    Raises:
        StoreError: It cannot be; see its leaves.
    """
    deadline, pause = monotonic() + place.wait_s, 0.05
    while True:
        try:
            return _connect(place)
        except psycopg.OperationalError as error:
            if monotonic() + pause > deadline:
                raise fault_of(error, place.name) from None  # the driver's has the whole address
            sleep(pause * random.uniform(0.5, 1))  # so that not all come back at once
            pause = min(1.0, 2 * pause)
        except psycopg.Error as error:
            raise fault_of(error, place.name) from None


def _connect(place: Place) -> PostgresConnection:
    facts = {"connect_timeout": 10, "tcp_user_timeout": 30_000, **place.facts}
    db = PostgresConnection(psycopg.connect(**facts, autocommit=True))
    try:
        db.raw.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(place.schema)))
        db.execute(f"SET lock_timeout = {int(place.wait_s * 1000)}")
        is_off = "current_setting('synchronous_commit') = 'off'"
        db.execute(f"SELECT set_config('synchronous_commit', 'on', false) WHERE {is_off}")
        version = _version(db, place)
        if version < len(MIGRATIONS):
            _migrate(db, place)
        if version > len(MIGRATIONS):
            why = f"it has version {version}, and this flujo-hitl knows versions up to {len(MIGRATIONS)}"
            raise StoreForeign(place.name, why, "Update flujo-hitl")
    except BaseException:
        db.raw.close()
        raise
    return db


def _version(db: PostgresConnection, place: Place) -> int:
    if db.execute("SELECT to_regclass(?)", (f"{place.schema}.version",)).fetchall() == [(None,)]:
        return 0
    ((number,),) = db.execute("SELECT max(number) FROM version").fetchall()
    return int(number or 0)


def _migrate(db: PostgresConnection, place: Place) -> None:
    with db.raw.transaction():
        db.execute("SELECT pg_advisory_xact_lock(?)", (_LOCK,))
        db.raw.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(place.schema)))
        db.execute("CREATE TABLE IF NOT EXISTS version(number INTEGER PRIMARY KEY)")
        done = _version(db, place)  # another process may have been quicker
        for number, change in enumerate(MIGRATIONS[done:], done + 1):
            db.raw.execute(change.encode())
            db.execute("INSERT INTO version VALUES(?)", (number,))


_DAMAGE = (errors.UndefinedTable, errors.UndefinedColumn, errors.DataCorrupted, errors.IndexCorrupted)
_FULL = (errors.DiskFull, errors.ReadOnlySqlTransaction, errors.InsufficientPrivilege)


def fault_of(error: Exception, name: Path) -> StoreError:
    """The error of ours for one of the driver's."""
    why = str(error).strip().partition("\n")[0] or type(error).__name__
    kinds: list[tuple[Any, Callable[[Path, str], StoreError]]] = [(_DAMAGE, StoreDamaged), (_FULL, StoreWriteError)]
    kinds.append(((psycopg.OperationalError, psycopg.InterfaceError), StoreUnreachable))
    for kind, fault in kinds:
        if isinstance(error, kind):
            return fault(name, why)
    return StoreError(f"store {str(name)!r} cannot keep this", f"{type(error).__name__}: {why}")
