"""Durable runs: a store that survives `kill -9`, and tokens by which a pause is answered once."""

from .asking import Approval, NotApproved, approve, human_input
from .errors import StoreClosed, StoreError
from .signer import HmacSigner
from .sqlite import Durability, SQLiteStore

__all__ = [
    "Approval",
    "Durability",
    "HmacSigner",
    "NotApproved",
    "SQLiteStore",
    "StoreClosed",
    "StoreError",
    "approve",
    "human_input",
]
