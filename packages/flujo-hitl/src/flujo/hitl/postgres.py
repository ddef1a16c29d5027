"""Runs kept in PostgreSQL: `pip install 'flujo-hitl[postgres]'`."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from flujo.core import ConfigurationError, FlujoError, PayloadCodec, TokenSigner

from .connection import Connection, Cursor
from .errors import StoreClosed, StoreDamaged, StoreError
from .lane import Ticket
from .owner import Me, Owner, is_gone
from .postgres_schema import Place, PostgresConnection, connect, fault_of
from .postgres_transactions import PostgresTransactions, in_our_time
from .reads import RunReads
from .schema import STATUS
from .store import KeepingStore
from .writes import RunWrites

__all__ = ["PostgresStore"]


class PostgresStore(KeepingStore):
    """A HitlStore in a schema of a PostgreSQL database, for any number of machines.

    What is acknowledged was committed by the server: it is as durable as that makes it; `synchronous_commit` is never
    off. A server that goes away is waited for. Where the answer to a commit was lost, it is found out whether it
    counted, so that nothing is lost and nothing is there twice. Leases go by the server's clock.

    The driver is used in threads, as the one of SQLite is: so it works on asyncio and on trio.

    Args:
        url: `postgresql://user@host/database`.
        schema: Name of the schema; it is made where there is none.
        codec: Encrypts payloads; None writes them as they are.
        signer: Signs the tokens of pauses; None gives them none.
        lease_s: Seconds after which runs of a process can be taken over that does not renew its lease and cannot be
            shown to be gone otherwise.
        wait_s: Seconds to wait for a server that is away, and for locks.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = "flujo",
        codec: PayloadCodec | None = None,
        signer: TokenSigner | None = None,
        lease_s: float = 30.0,
        wait_s: float = 30.0,
    ) -> None:
        try:
            # other libraries name their driver in it
            facts = psycopg.conninfo.conninfo_to_dict(re.sub(r"^(postgres(?:ql)?)\+\w+:", r"\1:", url))
        except psycopg.ProgrammingError:
            do = "Give for instance postgresql://user@host/database"
            raise ConfigurationError("the URL of a PostgresStore cannot be used", "libpq cannot read it", do) from None
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema):
            raise ConfigurationError(f"schema={schema!r} cannot be used", "it is no plain name in small letters")
        name = Path("postgresql") / str(facts.get("host") or "localhost").lstrip("/") / str(facts.get("dbname") or "")
        self._place = Place(dict(facts), schema, wait_s, name)
        self._lease_s = lease_s
        super().__init__(name, codec, signer, lease_s=lease_s, wait_s=wait_s)

    def _start(self) -> None:
        transactions = PostgresTransactions(self._place, Me(self._lease_s))
        readers = _Readers(self._place)
        reads = _Reads(readers, self._payloads, transactions.beats)
        self._use(transactions, _Writes(transactions, self._payloads), readers, reads)

    async def backup(self, path: str | Path) -> None:
        """Refused: the server's own tool does it, and while runs go on."""
        why, do = "it would be less than what the server's own tool does", f"Use pg_dump --schema={self._place.schema}"
        raise ConfigurationError("a store in PostgreSQL cannot be copied by backup()", why, do)


class _Writes(RunWrites):
    """Entries go straight to the journal."""

    tables: Sequence[str] = ("snapshots", "journal", "pauses", "decisions")
    lock: str = " FOR UPDATE"

    def _length(self, row: int, status: int) -> int:
        if status != STATUS["running"]:
            return super()._length(row, status)
        self._in.flush()
        (last,) = self._in.db.execute("SELECT max(position) FROM journal WHERE run=?", (row,)).fetchone()
        return 0 if last is None else int(last) + 1


class _Reads(RunReads):
    """The journal is one table, and the clock of leases the server's."""

    def _entries(self, db: Connection, row: int, first: int) -> Cursor:
        ask = "SELECT position, payload FROM journal WHERE run=? AND position>=? ORDER BY position"
        return db.execute(ask, (row, first))

    def _is_gone(self, db: Connection, owner: Owner) -> bool:
        return is_gone(in_our_time(db, owner), self._beats)


class _Readers:
    """Gives connections to threads; a free one is used again."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._free: list[PostgresConnection] = []
        self._is_closed = False

    @contextmanager
    def moment(self) -> Iterator[Connection]:
        """See Moments."""
        db = self._begun()
        try:
            with _told(self._place.name):
                yield db
                db.execute("COMMIT")
        except BaseException as error:  # whatever it was, another connection may still work
            if isinstance(error, FlujoError) and not isinstance(error, StoreError):
                self._give(db, "ROLLBACK")
            else:
                _close(db)
            raise
        self._give(db)

    def _give(self, db: PostgresConnection, end: str = "") -> None:
        try:
            if end:
                db.execute(end)
        except psycopg.Error:
            _close(db)
            return
        with self._lock:
            if not self._is_closed:
                self._free.append(db)
                return
        _close(db)

    def _begun(self) -> PostgresConnection:
        """A connection that sees one moment; one that was lost while nobody used it is made anew."""
        with self._lock:
            if self._is_closed:
                raise StoreClosed(self._place.name)
            db = self._free.pop() if self._free else None
        begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        if db is not None:
            try:
                db.execute(begin)
                return db
            except psycopg.OperationalError:
                _close(db)
        db = connect(self._place)
        db.execute(begin)
        return db

    def commit(self, tickets: Sequence[Ticket[object]]) -> None:
        """See Writes: do what a lane was given to read."""
        for ticket in tickets:
            try:
                ticket.result = ticket.work()
            except FlujoError as error:
                ticket.error = error
            except Exception as error:  # whatever it is, who waits must hear of it, or waits for ever
                ticket.error = StoreDamaged(self._place.name, f"{type(error).__name__}: {error}")

    def tidy(self) -> None:
        """See Writes: there is nothing to do."""

    def wait_s(self) -> None:
        """See Writes: there is nothing to wait for."""

    def rest(self) -> None:
        """See Writes: there is nothing to do."""

    def close(self) -> None:
        """Let go of what nobody uses; who reads at this moment ends that first."""
        with self._lock:
            self._is_closed = True
            free, self._free = self._free, []
        for db in free:
            _close(db)


@contextmanager
def _told(name: Path) -> Iterator[None]:
    """Turn the driver's errors, and those of reading what was never written, into ours."""
    try:
        yield
    except psycopg.Error as error:
        raise fault_of(error, name) from error
    except FlujoError:
        raise
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise StoreDamaged(name, f"a column holds what was never written: {error}") from error


def _close(db: PostgresConnection) -> None:
    with suppress(psycopg.Error):
        db.raw.close()
