"""Durable runs and human decisions: a SQLite run store, signed tokens, encryption at rest."""

from .asking import Approval, NotApproved, approve, human_input
from .errors import (
    NeedsAsyncio,
    RunDamaged,
    RunSealed,
    StoreBusy,
    StoreClosed,
    StoreDamaged,
    StoreError,
    StoreForeign,
    StoreUnreachable,
    StoreWriteError,
)
from .listed import Decided, OpenPause, Page, RunRow
from .protocol import HitlStore
from .sqlite import SQLiteStore
from .tokens import HmacSigner
from .worker import Progress, Worker

__all__ = [
    "Approval",
    "Decided",
    "HitlStore",
    "HmacSigner",
    "NeedsAsyncio",
    "NotApproved",
    "OpenPause",
    "Page",
    "Progress",
    "RunDamaged",
    "RunRow",
    "RunSealed",
    "SQLiteStore",
    "StoreBusy",
    "StoreClosed",
    "StoreDamaged",
    "StoreError",
    "StoreForeign",
    "StoreUnreachable",
    "StoreWriteError",
    "Worker",
    "approve",
    "human_input",
]
