"""What a ledger hands out and what it makes wait: open reservations, and demands that do not fit yet."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Event as ThreadEvent
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from .errors import FlujoError
from .usage import Charge, Fit, Usage, UsageLimits
from .wakeup import LoopEvent

if TYPE_CHECKING:
    from .ledger import Ledger


@runtime_checkable
class Governor(Protocol):
    """Admits use that is counted beyond this process, as one quota of many workers: `Flujo(..., limits=governor)`.

    It is asked once a run's own ledger, and a Budget that has its `limits`, have let a demand pass. Runs in several
    threads and event loops may share it. `assert_conforms` of `flujo.core.testing` checks one.
    """

    @property
    def limits(self) -> UsageLimits:
        """The most it ever admits; read once. Demands are fitted to it before they are made."""

    async def reserve(self, worst: Charge) -> Any:
        """Hold an amount until it is settled, waiting in turn for room; gives what `settle` is called with.

        Raises:
            UsageLimitExceeded: It can never fit.
        """

    def settle(self, lease: Any, used: Usage) -> None:
        """Give the amount back and count what was used, which may be nothing, or more. Never waits.

        A second call for one lease does nothing.
        """

    def book(self, used: Usage) -> None:
        """Count use that was not reserved. Never waits."""


@dataclass(slots=True, eq=False)
class Grant:
    """An open reservation: the charge it holds in every ledger of the line. `owner` is whose it is.

    `is_priced` says whether its USD are the most it may cost. `above` is what a Governor gave for it. `recall` asks it
    back while its work waits for something else.
    """

    charge: Charge
    ledger: Ledger
    owner: object
    is_priced: bool = True
    above: Any = None
    recall: Callable[[], object] = bool  # which does nothing


ENCLOSING: ContextVar[tuple[Grant, ...]] = ContextVar("flujo_enclosing_leases", default=())
"""Leases around the running code, closed ones too. Tasks and worker threads started inside inherit them.

So a task that is started inside a lease but not awaited there counts as nested too: where nothing else is open, it is
refused rather than left to wait. The other way round, a hang, would be worse.
"""


@dataclass(slots=True, eq=False)
class Waiter:
    """A demand that did not fit yet; one that `yields` gave up what it had for others, and comes after them."""

    ledger: Ledger
    fit: Fit
    owner: object
    event: LoopEvent | ThreadEvent
    yields: bool = False
    enclosing: tuple[Grant, ...] = ()
    row: dict[Waiter, None] = field(default_factory=dict)
    grant: Grant | None = None
    refusal: FlujoError | None = None

    def answer(self) -> Grant:
        """What it was served, once its event is set; raises its refusal."""
        if self.refusal is not None:
            raise self.refusal
        assert self.grant is not None
        return self.grant
