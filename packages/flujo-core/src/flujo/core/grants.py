"""Open reservations, and those around the running code."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from .usage import Charge

if TYPE_CHECKING:
    from .ledger import Ledger


class Grant:
    """An open reservation: the charge it holds in every ledger of the line. `owner` is whose it is."""

    __slots__ = ("charge", "ledger", "owner")

    def __init__(self, charge: Charge, ledger: Ledger, owner: object) -> None:
        self.charge: Charge = charge
        self.ledger: Ledger = ledger
        self.owner: object = owner


ENCLOSING: ContextVar[tuple[Grant, ...]] = ContextVar("flujo_enclosing_leases", default=())
"""Leases around the running code, closed ones too. Tasks and worker threads started inside inherit them.

So a task that is started inside a lease but not awaited there counts as nested too: where nothing else is open, it is
refused rather than left to wait. The other way round, a hang, would be worse.
"""
