"""What a database is to the rules of a store: a transaction in which some SQL is run, from one thread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

__all__ = ["Database", "Row", "Tx"]

Row = tuple[Any, ...]


class Tx(Protocol):
    """An open transaction. SQL has `?` for arguments."""

    @property
    def lock(self) -> str:
        """Stands after a SELECT of rows that are about to be changed."""

    def rows(self, sql: str, arguments: Sequence[object] = ()) -> list[Row]:
        """All rows of a query."""

    def change(self, sql: str, arguments: Sequence[object] = ()) -> int:
        """Change rows; returns how many."""

    def each(self, sql: str, arguments: Iterable[Sequence[object]]) -> None:
        """Run the same change for each."""

    def now_us(self) -> int:
        """Microseconds since the epoch, by the clock that all who use this database share."""


class Database(Tx, Protocol):
    """A connection that one thread owns. It raises errors of its driver; `told` makes ours of them."""

    @property
    def name(self) -> str:
        """For people, without secrets."""

    def begin(self, run_ids: Sequence[str]) -> None:
        """Open what is closed, and start a transaction that will change these runs."""

    def commit(self) -> None:
        """Make it durable."""

    def rollback(self, error: Exception) -> bool:
        """Forget it; returns whether it was no fault of its work, so that the same may be tried once more."""

    def close(self) -> None:
        """Close what is open. Never raises."""

    def forget(self) -> None:
        """In a forked child: the connection is the parent's, and must not even be closed here."""

    def told(self, error: Exception) -> Exception:
        """One of the errors of `flujo.hitl` for one of the driver; another is given back as it is."""
