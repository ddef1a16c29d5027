"""Faults at named points of a run: an error, a kill, a delay, a cancel."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self, get_args

import anyio
import anyio.lowlevel

from flujo.core import (
    Capabilities,
    ConfigurationError,
    EntryData,
    ExecutionBackend,
    Hold,
    KeptRun,
    LocalBackend,
    Receipt,
    RunStore,
    Snapshot,
    StepExecutionRequest,
    StepOutcome,
    TokenSigner,
)
from flujo.core.execution import capabilities_of

Point = Literal[
    "before_step", "after_step", "before_write", "after_write",
    "before_create", "after_create", "before_claim", "after_claim", "before_save", "after_save",
    "before_release", "after_release",
]  # fmt: skip
"""Where a fault may strike: around an attempt of a step; and, with `faults.store`, around what a store writes of it,
and around the begin, the resume and the end of a run, which belong to no step. A run whose store failed is released.
"""


class Cancellable(Protocol):
    """What `cancels` takes: an `anyio.CancelScope`, or the handle that `Flujo.start` gives."""

    def cancel(self) -> object:
        """Cancel it."""


@dataclass(slots=True)
class _Fault:
    point: Point
    where: str | None
    visit: int | None
    act: Callable[[], Awaitable[object]]
    told: str
    struck: int = 0

    def is_due(self, point: Point, where: str, visits: Counter[tuple[Point, str | None]]) -> bool:
        """Whether it strikes at this visit."""
        fits = point == self.point and self.where in (None, where)
        return fits and self.visit in (None, visits[point, self.where])


class FaultInjector:
    """An `ExecutionBackend` that lets another do the work, and strikes at named points before and after it.

    For instance::

        with FaultInjector().sleeps(60, at="after_step", step="pay") as faults:
            result = Flujo(Step(pay, timeout_s=0.1), backend=faults).run("A-17")
        assert isinstance(result.error, StepTimeout)

    Each method takes `at`, the point: `before_step`, or `after_step`, when the attempt has ended in whatever way but a
    cancel; the others with `Flujo(..., store=faults.store(...))`; `step`, the step's path (None is
    any step); and `visit`, which time the point is reached there, from 1 (None is every time). Each attempt of a step
    is a visit. Faults due at the same visit strike in the order given.

    Args:
        backend: Where the steps really run; None is in this process.

    Attributes:
        struck: Point and step path of each fault that struck, in order.
    """

    def __init__(self, backend: ExecutionBackend | None = None) -> None:
        self.backend: ExecutionBackend = backend or LocalBackend()
        self.capabilities: Capabilities = capabilities_of(self.backend)
        self.struck: list[tuple[str, str]] = []
        self._visits: Counter[tuple[Point, str | None]] = Counter()
        self._faults: list[_Fault] = []

    # --- faults -----------------------------------------------------------------------------------------------------

    def raises(
        self, error: BaseException | type[BaseException], *, at: Point, step: str | None = None, visit: int | None = 1
    ) -> Self:
        """Raise `error` out of the backend, as one that is broken or lost its connection does."""

        async def act() -> None:
            raise error

        return self._plan(at, step, visit, act, f"raises {error!r}")

    def kills(self, *, at: Point, step: str | None = None, visit: int | None = 1) -> Self:
        """End this process at once with SIGKILL, as a crash or the kernel's out-of-memory killer does."""

        async def act() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        return self._plan(at, step, visit, act, "kills")

    def sleeps(self, seconds: float, *, at: Point, step: str | None = None, visit: int | None = 1) -> Self:
        """Wait, as a slow network does; a timeout or cancel ends it."""

        async def act() -> None:
            await anyio.sleep(seconds)

        return self._plan(at, step, visit, act, f"sleeps {seconds:g} s")

    def cancels(self, target: Cancellable, *, at: Point, step: str | None = None, visit: int | None = 1) -> Self:
        """Cancel a scope around the run (a cancel from outside) or the run's handle, and let it take effect here."""

        async def act() -> None:
            target.cancel()
            await anyio.lowlevel.checkpoint()

        return self._plan(at, step, visit, act, "cancels")

    def _plan(
        self, at: Point, where: str | None, visit: int | None, act: Callable[[], Awaitable[object]], told: str
    ) -> Self:
        if at not in get_args(Point):
            why = f"it is none of {', '.join(get_args(Point))}"
            raise ConfigurationError(f"at={at!r} cannot be used", why)
        if visit is not None and visit < 1:
            raise ConfigurationError(f"visit={visit!r} cannot be used", "visits are counted from 1")
        number = "every visit" if visit is None else f"visit {visit}"
        place = "any step" if where is None else repr(where)
        self._faults.append(_Fault(at, where, visit, act, f"{told} {at} of {place}, {number}"))
        return self

    # --- points -----------------------------------------------------------------------------------------------------

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        """Run one attempt on the wrapped backend, between its two points; see ExecutionBackend."""
        path = request.ctx.step_path
        await self.reach("before_step", path)
        outcome = await self.backend.execute_step(request)
        await self.reach("after_step", path)
        return outcome

    def store(self, store: RunStore) -> RunStore:
        """A store that writes into `store`, with points around what it writes.

        `step` of a fault is the path of the row's step; of a row that people do not see, as a choice, it is empty.
        Rows that are written together are all reached before and after.
        """
        return _FaultyStore(self, store)

    async def reach(self, point: Point, where: str) -> None:
        """Say that a point was reached: what is planned for this visit strikes."""
        self._visits[point, where] += 1
        self._visits[point, None] += 1
        for fault in [fault for fault in self._faults if fault.is_due(point, where, self._visits)]:
            fault.struck += 1
            self.struck.append((point, where))
            await fault.act()

    # --- strictness -------------------------------------------------------------------------------------------------

    def assert_done(self) -> None:
        """Fail unless every planned fault struck: a test of a fault that never happened proves nothing."""
        left = [fault.told for fault in self._faults if not fault.struck]
        if left:
            raise AssertionError(f"planned and never reached: {'; '.join(left)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:  # else that is what the test must show
            self.assert_done()


@dataclass(frozen=True, slots=True)
class _FaultyStore:
    faults: FaultInjector
    store: RunStore

    @property
    def signer(self) -> TokenSigner | None:
        """See RunStore."""
        return self.store.signer

    async def create(self, snapshot: Snapshot) -> Hold:
        """See RunStore."""
        await self.faults.reach("before_create", "")
        hold = await self.store.create(snapshot)
        await self.faults.reach("after_create", "")
        return hold

    async def append(self, hold: Hold, rows: Sequence[EntryData]) -> None:
        """See RunStore."""
        for row in rows:
            await self.faults.reach("before_write", row.path)
        await self.store.append(hold, rows)
        for row in rows:
            await self.faults.reach("after_write", row.path)

    async def save(self, hold: Hold, snapshot: Snapshot) -> None:
        """See RunStore."""
        await self.faults.reach("before_save", "")
        await self.store.save(hold, snapshot)
        await self.faults.reach("after_save", "")

    async def release(self, hold: Hold) -> None:
        """See RunStore."""
        await self.faults.reach("before_release", "")
        await self.store.release(hold)
        await self.faults.reach("after_release", "")

    async def load(self, run_id: str) -> KeptRun:
        """See RunStore."""
        return await self.store.load(run_id)

    async def receipt(self, run_id: str, pause_id: str | None = None) -> Receipt | None:
        """See RunStore."""
        return await self.store.receipt(run_id, pause_id)

    async def orphans(self, fingerprint: str) -> Sequence[str]:
        """See RunStore."""
        return await self.store.orphans(fingerprint)

    async def claim(self, position: int, stood: str, receipt: Receipt, rows: Sequence[EntryData]) -> Hold:
        """See RunStore."""
        await self.faults.reach("before_claim", "")
        hold = await self.store.claim(position, stood, receipt, rows)
        await self.faults.reach("after_claim", "")
        return hold
