"""Durable stores for runs that wait for people: one winner per decision, nothing lost with a process."""

from .errors import StoreClosed, StoreDamaged, StoreError, StoreTooNew, StoreUnavailable
from .protocol import HitlStore, Page, Question, Recorded, RunLine
from .sqlite_store import SQLiteStore

__all__ = [
    "HitlStore",
    "Page",
    "Question",
    "Recorded",
    "RunLine",
    "SQLiteStore",
    "StoreClosed",
    "StoreDamaged",
    "StoreError",
    "StoreTooNew",
    "StoreUnavailable",
]
