"""What a ledger hands out and what it makes wait: open reservations, and demands that do not fit yet."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from operator import attrgetter
from threading import Event as ThreadEvent
from threading import Lock
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


FULL = "what is asked for does not fit into what is left"
STUCK = "all that is reserved is held by work that waits for more itself"


class Queue:
    """What a whole tree of ledgers shares; everything here is touched under the lock only."""

    def __init__(self, root: Ledger) -> None:
        self.root = root
        self.lock: Lock = Lock()
        self.open: dict[Grant, None] = {}
        self.inside: dict[Waiter, None] = {}  # those that were inside a lease when they came; they are served first
        self.waiters: dict[Waiter, None] = {}  # all others
        self.blocked: set[Ledger] = set()

    def around(self) -> tuple[Grant, ...]:
        """The open leases around the running code."""
        return tuple(grant for grant in ENCLOSING.get() if grant in self.open)

    def add(self, waiter: Waiter) -> None:
        """Put it in its row, at the end."""
        waiter.enclosing = self.around()
        waiter.row = self.inside if waiter.enclosing or waiter.yields else self.waiters
        waiter.row[waiter] = None

    def remove(self, waiter: Waiter) -> bool:
        """Take it out; says whether it was there."""
        return waiter.row.pop(waiter, waiter) is None

    def pump(self) -> list[Waiter]:
        """Serve waiters and refuse those who wait in vain; returns whom to wake."""
        done: list[Waiter] = []
        while True:
            stuck = next((w for w in self._serve(done) if w.ledger._deadlocked(w.fit, w.enclosing)), None)
            if stuck is None:
                return done
            stuck.refusal = stuck.ledger._tightest(stuck.fit, STUCK)
            self.remove(stuck)
            done.append(stuck)

    def _serve(self, done: list[Waiter]) -> list[Waiter]:
        """Serve in order; returns those who must wait on, and so hold back all who came later in their line."""
        self.blocked = set()
        fronts: list[Waiter] = []
        served = [one for one in sorted(self.inside, key=attrgetter("yields")) if self._settles(one, fronts)]
        for waiter in self.waiters:
            if self.root in self.blocked:
                break  # so that a settle costs the same however many wait
            if self.blocked.isdisjoint(waiter.ledger._line) and self._settles(waiter, fronts):
                served.append(waiter)
        for waiter in served:
            self.remove(waiter)
        done += served
        return fronts

    def _settles(self, waiter: Waiter, fronts: list[Waiter]) -> bool:
        """Serve or refuse it, or note that it must wait on."""
        ledger = waiter.ledger
        waiter.refusal = ledger.account.breach
        if waiter.refusal is not None:
            return True
        charge = None if waiter.yields and fronts else waiter.fit(ledger._room())
        if charge is not None:
            waiter.grant = ledger._hold(charge, waiter.owner, self)
        elif waiter.fit(ledger._room(leases=False)) is None:
            waiter.refusal = ledger._tightest(waiter.fit, FULL)
        else:
            self.blocked |= {ledger, *ledger._blocking(waiter.fit)}
            fronts.append(waiter)
            return False
        return True
