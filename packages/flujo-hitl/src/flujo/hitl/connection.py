"""What the rules of a store need of a database: SQL with `?` for facts, and who writes in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakValueDictionary

from flujo.core import Hold

from .owner import Me

__all__ = ["Connection", "Cursor", "Held", "Moments", "Writing", "pass_on_cancels"]


class Cursor(Protocol):
    """Rows that were found."""

    def fetchone(self) -> Any:
        """The next one, or None."""

    def fetchall(self) -> list[Any]:
        """All of them."""

    def __iter__(self) -> Iterator[Any]:
        """One after the other."""


class Connection(Protocol):
    """A connection, inside a transaction."""

    def execute(self, sql: str, facts: Sequence[Any] = ..., /) -> Cursor:
        """Run one statement."""

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> object:
        """Run one change for each row."""


@dataclass(slots=True)
class Held:
    """A run that this store holds: its row, the fence of the hold, where its journal goes on, and when that was so."""

    row: int
    fence: int
    next: int
    version: int


class Writing(Protocol):
    """The transaction of a batch, as those see it whose work is done in it."""

    me: Me
    held: dict[str, Held]
    holds: WeakValueDictionary[str, Hold]
    """What was given to those who write a run, for as long as they have it."""
    plans: dict[tuple[str, str], int]
    version: int
    """Of what other connections wrote; while it stays the same, so do the holds of this store."""
    pending: list[tuple[int, int, bytes]]
    """Entries of this batch (run, position, payload): written all at once, before it is committed."""
    has_deleted: bool

    @property
    def db(self) -> Connection:
        """The connection."""

    def flush(self) -> None:
        """Write the entries that are pending: who reads a journal in this transaction, or deletes it, does so first."""

    def register(self) -> None:
        """Write who holds runs from here on."""

    def is_free(self, owner: int | None) -> bool:
        """Whether nobody holds a run any more that `owner` held."""


def pass_on_cancels(db: Connection, me: Me, holds: Mapping[str, Hold]) -> None:
    """Tell those who hold runs by this store which of them should end. It may be said again: they know."""
    for (run_id,) in db.execute("SELECT run_id FROM runs WHERE cancel IS NOT NULL AND owner=?", (me.id,)).fetchall():
        if (hold := holds.get(run_id)) is not None:
            hold.cancel()


class Moments(Protocol):
    """Where connections come from that read."""

    def moment(self) -> AbstractContextManager[Connection]:
        """A connection that sees the store as of one moment."""
