"""Durable runs: a store that survives `kill -9`, and tokens by which a pause is answered once."""

from .errors import StoreClosed, StoreError
from .signer import HmacSigner
from .sqlite import Durability, SQLiteStore

__all__ = ["Durability", "HmacSigner", "SQLiteStore", "StoreClosed", "StoreError"]
