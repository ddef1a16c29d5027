"""A worker: goes on with the runs of one pipeline that wait for nobody but a process."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import anyio
import anyio.abc

from flujo.core import (
    AbortPipeline,
    AlreadyResumed,
    ConfigurationError,
    Flujo,
    FlujoError,
    InputError,
    OnRunResume,
    Pause,
    PipelineResult,
    ResumeError,
    RunAborted,
    SnapshotError,
    StillRunning,
    accepted_fingerprints,
    migrated,
)

from .errors import StoreError
from .listed import TARGET, Decided
from .protocol import HitlStore

__all__ = ["Progress", "Worker"]

_MOST_LISTED = 1000
_LONGEST_WAIT_S = 600.0
_CANCELLED = "cancelled on request"
"""What core says, too, of a run that its store was asked to end."""

Resume = Callable[[], Awaitable[PipelineResult | None]]
"""Goes on with a run; gives None where its question is open again, or goes by another id."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a worker did.

    Attributes:
        event: `begun`; `ended`, and `cancelled` where that was asked for, with a result; `reopened` where a decision
            proved to be none;
            `refused` where a run cannot go on; `waiting` where the store cannot be used.
        run_id: With which run; empty where it is none.
        why: Why, for people.
        result: What came of it.
    """

    event: Literal["begun", "ended", "cancelled", "reopened", "refused", "waiting"]
    run_id: str
    why: str
    result: PipelineResult | None = None


class Worker:
    """Goes on with runs whose question was decided or has expired, whose process went away, or that should end.

    Any number of workers may share a store: each run is gone on with by one. A run that cannot go on is told, left as
    it is, and tried again later and later; it stops no other.

    Args:
        flujo: The pipeline, with a store that is a HitlStore. Only its runs are looked at.
        tell: Is told what happens.
        concurrency: Most runs at once.

    Raises:
        ConfigurationError: The store cannot list what waits.
    """

    def __init__(self, flujo: Flujo, tell: Callable[[Progress], object], *, concurrency: int = 4) -> None:
        if flujo.store is None or not hasattr(flujo.store, "decided"):
            why = "its store keeps no decisions" if flujo.store else "it has no store"
            raise ConfigurationError("a worker cannot use this Flujo", why, 'Pass store="sqlite:///runs.db"')
        store: HitlStore = flujo.store  # type: ignore[assignment]  # what is asked of it here is there
        given = {**flujo.given, "store": store, "hooks": [*flujo.observers, self._cancel_on_request]}
        self.flujo: Flujo = Flujo(**given, plugins=flujo.plugins, policy=flujo.policy)
        self.store: HitlStore = store
        self._tell = tell
        self._room = concurrency
        self._active: set[str] = set()
        self._cancelled: set[str] = set()
        self._others: set[str] = set()
        self._later: dict[tuple[str, str], tuple[int, float]] = {}
        self._is_ending = False
        self._wake = anyio.Event()

    def end(self) -> None:
        """Take up nothing new; `work` returns when what it began has ended."""
        self._is_ending = True
        self._wake.set()

    async def work(self, *, once: bool = False, poll_s: float = 1.0) -> None:
        """Go on with what waits, until `end` is called; or, `once`, until nothing waits.

        Args:
            once: Whether to return when nothing is left that can go on now; then a store that cannot be used raises.
            poll_s: Seconds between two looks at the store.
        """
        async with self.flujo, anyio.create_task_group() as group:
            while not self._is_ending:
                self._wake = anyio.Event()
                begun = await self._look(group, poll_s, once=once)
                if once and not begun and not self._active:
                    return
                with anyio.move_on_after(poll_s):
                    await self._wake.wait()

    async def cancel(self, run_id: str) -> PipelineResult:
        """End one run that nobody holds, at once; it is `aborted`, and what was done is kept.

        Raises:
            StillRunning: Somebody holds it.
            FlujoError: It is not of this pipeline, or there is nothing to end.
        """
        async with self.flujo:
            self._cancelled = {run_id}
            return await self.flujo.resume_async(run_id, retry=True)

    # --- what waits -----------------------------------------------------------------------------------------------

    async def _look(self, group: anyio.abc.TaskGroup, poll_s: float, *, once: bool) -> int:
        """Begin with what waits, as far as there is room; how many that were."""
        before = len(self._active)
        try:
            waiting = await self._waiting()
            await self._refuse_changed({run_id for run_id, _, _ in waiting} | self._active)
            for run_id, why, resume in waiting:
                if len(self._active) >= self._room or self._is_ending:
                    break
                if run_id not in self._active and self._is_due(run_id, why):
                    self._active.add(run_id)
                    group.start_soon(self._go_on, run_id, why, resume, poll_s)
        except StoreError as error:
            if once:
                raise
            self._tell(Progress("waiting", "", str(error)))
        return len(self._active) - before

    async def _waiting(self) -> list[tuple[str, str, Resume]]:
        store, now = self.store, datetime.now(UTC)
        found: list[tuple[str, str, Resume]] = []
        for run_id in await self._to_cancel():
            found.append((run_id, "to be cancelled", self._again(run_id)))
        for plan in self._plans():
            for decided in await store.decided(plan, _MOST_LISTED):
                who = f" by {decided.actor}" if decided.actor else ""
                found.append((decided.receipt.run_id, f"decided{who}: {decided.receipt.pause_id}", self._with(decided)))
            for late in await store.expired(now, plan, _MOST_LISTED):
                found.append((late.run_id, f"expired: {late.pause_id}", self._late(late.run_id, late.pause_id)))
            for run_id in await store.orphans(plan):
                found.append((run_id, "left behind", self._again(run_id)))
        return found

    def _plans(self) -> list[str]:
        """Fingerprints of the plans whose runs go on here: of this one, and those that a migration leads from."""
        return accepted_fingerprints(self.flujo.plan.fingerprint)

    async def _refuse_changed(self, ours: AbstractSet[str]) -> None:
        """Tell, once each, of runs that were decided and began with this pipeline as it is no more."""
        decided = {one.receipt.run_id for one in await self.store.decided(None, _MOST_LISTED)}
        for run_id in decided - ours - self._others:
            is_ours = False  # one that is deleted or damaged is perhaps of another pipeline
            with suppress(ResumeError, SnapshotError):
                is_ours = await self._is_ours(run_id)
            if not is_ours:
                self._others.add(run_id)

    async def _to_cancel(self) -> list[str]:
        """Runs of ours that should end; who holds one ends it, also here: the store tells them."""
        wanted = [one for one in await self.store.cancel_requested() if one not in self._others | self._active]
        ours: list[str] = []
        others: list[str] = []
        for run_id in wanted:
            try:
                (ours if await self._is_ours(run_id) else others).append(run_id)
            except SnapshotError as error:
                self._tell(Progress("refused", run_id, str(error)))
                others.append(run_id)
            except ResumeError:  # deleted since
                continue
        self._others.update(others)
        self._cancelled = set(ours) | self._cancelled & self._active  # those perhaps did not look yet
        return ours

    async def _is_ours(self, run_id: str) -> bool:
        """Whether a run goes on here; where it would, had the pipeline not changed, that is told."""
        snapshot, plan = (await self.store.load(run_id)).snapshot, self.flujo.plan
        if snapshot.fingerprint in self._plans():
            return True
        if snapshot.pipeline == plan.name:
            begun = snapshot.tags.get(TARGET)
            why = (
                f"it began with plan {snapshot.fingerprint[:12]}{f' of {begun}' if begun else ''}, and"
                f" {plan.name!r} is now {plan.fingerprint[:12]}"
            )
            do = "Run a worker with the pipeline as it was, or register a migration: flujo.core.migrate"
            self._tell(Progress("refused", run_id, str(ResumeError("it cannot go on here", why, do))))
        return False

    def _again(self, run_id: str) -> Resume:
        return lambda: self.flujo.resume_async(run_id, retry=True)

    def _late(self, run_id: str, pause_id: str) -> Resume:
        return lambda: self.flujo.resume_async(run_id, pause=pause_id)

    def _with(self, decided: Decided) -> Resume:
        async def resume() -> PipelineResult | None:
            receipt, run_id = decided.receipt, decided.receipt.run_id
            try:
                return await self.flujo.resume_async(run_id, decided.decision, pause=await self._shown(decided))
            except InputError as error:  # who recorded it could not know the pipeline's own types
                await self.store.withdraw(receipt)
                self._tell(Progress("reopened", run_id, str(error)))
                return None
            except AlreadyResumed:
                if not await self._waits(decided):
                    raise
                if await self._has_moved(decided):  # the store lets the decision go with its question when it is saved
                    await self.flujo.resume_async(run_id, retry=True)
                if await self._waits(decided):
                    why = f"a migration left {receipt.pause_id!r} no place in {self.flujo.plan.name!r}"
                    do = f"Give the answer to what it asks now: flujo runs resume FILE {run_id} --answer"
                    raise ResumeError("what was decided cannot be applied", why, do) from None
                return None

        return resume

    async def _waits(self, decided: Decided) -> bool:
        """Whether a decision is still to be applied."""
        before = await self.store.decisions(decided.receipt.run_id)
        return any(one.receipt == decided.receipt and not one.is_applied for one in before)

    async def _has_moved(self, decided: Decided) -> bool:
        """Whether a migration gave the very question that was decided another id."""
        kept = await self.store.load(decided.receipt.run_id)
        asked = [one.shown_digest for one in migrated(self.flujo.plan, kept.snapshot, kept.late)[0].pauses]
        return decided.shown_digest is not None and asked.count(decided.shown_digest) == 1

    async def _shown(self, decided: Decided) -> Pause | str:
        """The question that was decided, as it is asked now; its id where that is not known, or it is not open.

        Raises:
            InputError: It is not what was shown to who decided.
        """
        run_id, pause_id = decided.receipt.run_id, decided.receipt.pause_id
        asked = [one for one in (await self.store.load(run_id)).snapshot.pauses if one.id == pause_id]
        if decided.shown_digest is None or not asked:
            return pause_id
        if asked[0].shown_digest != decided.shown_digest:
            why = "what it asks now is not what was shown to who decided"
            raise InputError(f"decision for {pause_id!r} of run {run_id!r} does not count", why, "Decide it anew")
        return asked[0]

    async def _cancel_on_request(self, event: OnRunResume) -> None:
        if event.run.run_id in self._cancelled:
            raise AbortPipeline(_CANCELLED)

    # --- one run --------------------------------------------------------------------------------------------------

    async def _go_on(self, run_id: str, why: str, resume: Resume, poll_s: float) -> None:
        self._tell(Progress("begun", run_id, why))
        try:
            result = await resume()
            self._later = {key: wait for key, wait in self._later.items() if key[0] != run_id}
            if result is not None:
                self._tell(_end_of(run_id, why, result))
        except (StillRunning, AlreadyResumed):  # it goes on elsewhere
            self._put_off(run_id, why, poll_s)
        except Exception as error:  # whatever is wrong with one run, the others must go on
            said = str(error) if isinstance(error, FlujoError) else f"{type(error).__name__}: {error}"
            is_first = self._put_off(run_id, why, poll_s) == 1
            if is_first and not (isinstance(error, ResumeError) and await self._went_on(run_id)):
                self._tell(Progress("refused", run_id, said))
        finally:
            self._active.discard(run_id)
            self._wake.set()

    async def _went_on(self, run_id: str) -> bool:
        """Whether another worker was quicker, so that it does not wait any more."""
        try:
            return all(run_id != other for other, _, _ in await self._waiting())
        except StoreError:
            return False

    def _put_off(self, run_id: str, why: str, poll_s: float) -> int:
        """Try a run later, and each time much later; how often that was."""
        times = self._later.get((run_id, why), (0, 0.0))[0] + 1
        wait_s = min(_LONGEST_WAIT_S, poll_s * 2 ** min(times, 20))
        self._later[run_id, why] = (times, time.monotonic() + wait_s)
        return times

    def _is_due(self, run_id: str, why: str) -> bool:
        return self._later.get((run_id, why), (0, 0.0))[1] <= time.monotonic()


def _end_of(run_id: str, why: str, result: PipelineResult) -> Progress:
    if isinstance(result.error, RunAborted) and result.error.reason == _CANCELLED:
        return Progress("cancelled", run_id, "on request", result)
    return Progress("ended", run_id, why, result)
