"""The connection to PostgreSQL that writes: batches of work as transactions, and the lease of who holds runs."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import astuple, replace
from typing import Any
from weakref import WeakValueDictionary

import psycopg
from psycopg import errors

from flujo.core import FlujoError, Hold

from .connection import Connection, Held, pass_on_cancels
from .errors import StoreDamaged, StoreError, StoreUnreachable
from .lane import Ticket
from .owner import Beats, Me, Owner, is_gone
from .postgres_schema import Place, PostgresConnection, connect, fault_of

__all__ = ["PostgresTransactions", "in_our_time"]

_TRIES = 5
"""How often a batch is begun in which two who write jam."""

_ENTRIES = "INSERT INTO journal(run, position, payload) SELECT * FROM unnest(?::bigint[], ?::bigint[], ?::bytea[])"
_JAMS = (errors.DeadlockDetected, errors.SerializationFailure, errors.UniqueViolation)
"""What becomes of two who write the same at once; the second time, what the other wrote is seen."""

_ENDED = (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow, psycopg.InterfaceError)
"""What is heard of a connection that is ended, perhaps before the driver knows that it is."""

_log = logging.getLogger("flujo.hitl")


def in_our_time(db: Connection, owner: Owner) -> Owner:
    """What another process wrote, with its wall time (the server's) as our clock would have shown it."""
    (now,) = db.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    return replace(owner, beat_wall=owner.beat_wall - now + time.time())


class PostgresTransactions:
    """Used by the thread of a lane alone.

    Each transaction counts up a number of its own writer: where the answer to a COMMIT was lost, that says whether it
    counted. (The server's `pg_xact_status` may speak of another transaction after a crash.)

    Args:
        place: Where runs are kept.
        me: This store as a holder.
    """

    def __init__(self, place: Place, me: Me) -> None:
        self.me: Me = me
        self.beats: Beats = Beats()
        self.held: dict[str, Held] = {}
        self.holds: WeakValueDictionary[str, Hold] = WeakValueDictionary()
        self.plans: dict[tuple[str, str], int] = {}
        self.version: int = 0
        self.has_deleted: bool = False
        self.pending: list[tuple[int, int, bytes]] = []
        self._place = place
        self._db: PostgresConnection | None = None
        self._writer = secrets.randbits(62)
        self._number = 0
        self._is_registered = False

    @property
    def db(self) -> PostgresConnection:
        """The connection of this transaction: it is never made anew in the middle of one."""
        if self._db is None:
            raise StoreUnreachable(self._place.name, "its connection was lost")
        return self._db

    def _open(self) -> PostgresConnection:
        if self._db is None or self._db.is_lost:
            self._drop()
            self._db = connect(self._place)
            self._db.execute("DELETE FROM batches WHERE at < now() - interval '30 days'")
            self._db.execute("INSERT INTO batches VALUES(?, 0) ON CONFLICT DO NOTHING", (self._writer,))
        return self._db

    # --- a batch ------------------------------------------------------------------------------------------------------

    def commit(self, tickets: Sequence[Ticket[object]]) -> None:
        """See Writes."""
        run_ids = sorted({ticket.run_id for ticket in tickets if ticket.run_id})
        error = self._transact(lambda: self._do(tickets), run_ids)
        if error is None:
            return
        if len(tickets) > 1 and not isinstance(error, StoreError) and not _is_of_all(error):
            for ticket in tickets:
                self.commit([ticket])
            return
        fault = self._fault(error)
        for ticket in tickets:
            ticket.result, ticket.error = None, fault

    def _do(self, tickets: Sequence[Ticket[object]]) -> None:
        for ticket in tickets:
            if ticket.is_left and ticket.undo is not None:
                continue
            ticket.result = ticket.error = None
            try:
                ticket.result = ticket.work()
            except FlujoError as refused:
                ticket.error = refused

    def _transact(self, work: Callable[[], object], run_ids: Sequence[str] = ()) -> Exception | None:
        """Do it in one transaction, anew where that was lost; returns what is wrong with it."""
        until, number = time.monotonic() + self._place.wait_s, 0
        while True:
            number += 1
            try:
                self._begin(run_ids)
                beat = self._beat() if self._is_registered and self.me.is_due() else None
                work()
                self._end()
            except Exception as error:  # whatever it is, those who wait must hear of it, or they wait for ever
                gone = self._is_gone() or isinstance(error, _ENDED)
                again = time.monotonic() < until if gone else isinstance(error, _JAMS) and number < _TRIES
                self._roll_back()
                if not again or isinstance(error, FlujoError):
                    return error
            else:
                if beat is not None:
                    self.me.kept(beat)
                return None

    def _begin(self, run_ids: Sequence[str]) -> None:
        """Begin, count, and lock the runs in the order of their ids, so that two who write many wait and never jam."""
        found, locked = self._open().begin(self._writer, run_ids)
        if found is None:
            raise StoreDamaged(self._place.name, "the row that counts its commits is gone")
        self._number = int(found[0])
        self.version += 1
        for run_id, fence, owner, cancel in locked:
            held, hold = self.held.get(run_id), self.holds.get(run_id)
            if cancel is not None and hold is not None and (hold.fence, owner) == (fence, self.me.id):
                hold.cancel()  # who writes often hears of it at once
            if held is not None and (held.fence, owner) == (fence, self.me.id):
                held.version = self.version

    def _end(self) -> None:
        self.flush()
        try:
            self.db.execute("COMMIT")
        except psycopg.OperationalError:  # whatever the driver says of it: it may be there
            self._drop()
            if not self._has_counted():
                raise

    def flush(self) -> None:
        """See Writing."""
        if self.pending:
            # as three lists: half the time of a row after the other
            self.db.execute(_ENTRIES, tuple(map(list, zip(*self.pending, strict=True))))
            self.pending.clear()

    def _has_counted(self) -> bool:
        """Whether a transaction is there whose COMMIT got no answer. Waits where the server is still at it."""
        ask = "SELECT number FROM batches WHERE writer = ? FOR UPDATE"
        found = self._open().execute(ask, (self._writer,)).fetchone()
        if found is not None and found[0] == self._number:
            return True
        self._drop()  # so that it is begun anew
        return False

    def _fault(self, error: Exception) -> Exception:
        if isinstance(error, FlujoError):
            return error
        if isinstance(error, psycopg.Error):
            return fault_of(error, self._place.name)
        fault = StoreError(f"store {str(self._place.name)!r} cannot keep this", f"{type(error).__name__}: {error}")
        fault.__cause__ = error
        return fault

    def _is_gone(self) -> bool:
        return self._db is None or self._db.is_lost

    def _roll_back(self) -> None:
        self.held.clear()
        self.plans.clear()
        self.pending.clear()
        self.me.unsettle()  # what was written of us may be rolled back with the rest
        if self._db is None:
            return
        try:
            self._db.execute("ROLLBACK")
        except psycopg.Error:  # a connection that cannot even do that is of no use any more
            self._drop()

    def _drop(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with suppress(psycopg.Error):
                db.raw.close()

    # --- the lease ----------------------------------------------------------------------------------------------------

    def register(self) -> None:
        """Write who holds runs from here on, inside a transaction."""
        if not self._is_registered:
            self.me.kept(self._beat())
            self._is_registered = True

    def _beat(self) -> Owner:
        owner = self.me.beat()
        pass_on_cancels(self.db, self.me, self.holds)
        facts: tuple[Any, ...] = astuple(owner)
        self.db.execute(
            "INSERT INTO owners VALUES(?,?,?,?,?,?,?,?, extract(epoch FROM clock_timestamp())) ON CONFLICT (id) DO"
            " UPDATE SET beat = excluded.beat, beat_mono = excluded.beat_mono, beat_wall = excluded.beat_wall",
            facts[:-1],
        )
        return owner

    def is_free(self, owner: int | None) -> bool:
        """Whether nobody holds a run any more that `owner` held."""
        if owner is None:
            return True
        if owner == self.me.id:
            return False
        found = self.db.execute("SELECT * FROM owners WHERE id=?", (owner,)).fetchone()
        return found is None or is_gone(in_our_time(self.db, Owner(*found)), self.beats)

    def tidy(self) -> None:
        """See Writes: the server does that by itself."""

    def wait_s(self) -> float | None:
        """See Writes."""
        return self.me.lease_s / 3 if self._is_registered else None

    def rest(self) -> None:
        """Renew the lease, or let it go when nothing is held."""
        if not self._is_registered or not self.me.is_due():
            return
        error = self._transact(self._renew)
        if error is not None:  # tried again after a third of the lease
            _log.warning("store %r: the lease of its runs was not renewed: %s", str(self._place.name), error)

    def _renew(self) -> None:
        ask = "SELECT 1 FROM runs WHERE status=0 AND owner=? LIMIT 1"
        if self.db.execute(ask, (self.me.id,)).fetchone() is not None:
            return
        self.db.execute("DELETE FROM owners WHERE id=?", (self.me.id,))
        self._is_registered = False

    def close(self) -> None:
        """Give back what is held, and let go of the connection."""
        if self._db is not None and self._is_registered:
            # who closes a store does not wait for a server that is away
            self._place = replace(self._place, wait_s=min(1.0, self._place.wait_s))
            error = self._transact(self._leave)
            if error is not None:  # the lease ends by itself
                _log.warning("store %r: runs could not be given back: %s", str(self._place.name), error)
        self._drop()

    def _leave(self) -> None:
        self.db.execute("UPDATE runs SET owner=NULL WHERE status=0 AND owner=?", (self.me.id,))
        self.db.execute("DELETE FROM owners WHERE id=?", (self.me.id,))
        self.db.execute("DELETE FROM batches WHERE writer=?", (self._writer,))


def _is_of_all(error: Exception) -> bool:
    """Whether it comes of the server, and not of one ticket."""
    return isinstance(error, psycopg.OperationalError)
