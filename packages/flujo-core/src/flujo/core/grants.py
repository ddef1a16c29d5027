"""What a ledger hands out and what it makes wait: open reservations, and demands that do not fit yet."""

from __future__ import annotations

from contextvars import ContextVar
from threading import Event as ThreadEvent
from typing import TYPE_CHECKING

from .errors import FlujoError
from .usage import Charge, Fit
from .wakeup import LoopEvent

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


class Waiter:
    """A demand that did not fit yet."""

    __slots__ = ("enclosing", "event", "fit", "grant", "ledger", "owner", "refusal")

    def __init__(self, ledger: Ledger, fit: Fit, owner: object, event: LoopEvent | ThreadEvent) -> None:
        self.ledger: Ledger = ledger
        self.fit: Fit = fit
        self.owner: object = owner
        self.event: LoopEvent | ThreadEvent = event
        self.enclosing: tuple[Grant, ...] = ()
        self.grant: Grant | None = None
        self.refusal: FlujoError | None = None

    def answer(self) -> Grant:
        """What it was served, once its event is set; raises its refusal."""
        if self.refusal is not None:
            raise self.refusal
        assert self.grant is not None
        return self.grant
