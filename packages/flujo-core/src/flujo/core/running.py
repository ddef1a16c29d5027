"""What a run and its attempts and calls share: who it is, what it may use, and how it is ended early."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Literal, Protocol, TypeVar

import anyio
from opentelemetry.trace import Tracer
from pydantic import BaseModel, JsonValue

from . import telemetry
from .backends import LocalBackend
from .cache import Cache
from .check import fitted
from .context import RunContext, RunInfo
from .errors import FlujoError, GuardDenied, RunAborted, StepFailed, UsageLimitExceeded
from .frames import Due, Frame, RunState
from .journal import Entry, Journal
from .ledger import Ledger
from .outcome import Called, Failure
from .pause import Pause, pause_of
from .payloads import Deny, Event, OnGuardDenied, OnRetry, RecordIntent, RecordKind, RecordResult
from .plan import Plan, StepNode
from .plugins import Hooks
from .protocols import ExecutionBackend, RunStore
from .relay import Worker
from .resources import Resources, ResourceSpec
from .result import StepRecord
from .retry import RetryPolicy
from .schedule import advance
from .snapshot import EntryData, entry_data
from .usage import Price, Usage, UsageLimits

T = TypeVar("T")


class Past(Protocol):
    """What a resumed run did before."""

    @property
    def length(self) -> int:
        """Entries of its journal."""

    def records(self) -> list[StepRecord]:
        """Its step records, in order."""

    def rows(self) -> list[EntryData]:
        """Its journal, as data."""


@dataclass(slots=True)
class Setup:
    """What all runs of a Flujo share, resolved once.

    Attributes:
        plan: The plan.
        hooks: Acting hook implementations.
        backend: Where steps run.
        price_of: Asks the price books.
        specs: The resources by name.
        hook_resources: Names that hooks need.
        run_resources: Names of app and run scope that steps need.
        step_resources: For each node that needs resources of step scope, all names it needs.
        resources: The user's Resources object.
        cache: Outputs of steps that are to be kept.
    """

    plan: Plan
    hooks: Hooks
    backend: ExecutionBackend
    price_of: Callable[[str], Price | None]
    specs: Mapping[str, ResourceSpec]
    hook_resources: frozenset[str]
    run_resources: frozenset[str]
    step_resources: Mapping[int, frozenset[str]]
    resources: Resources | None
    cache: Cache = field(default_factory=Cache)

    def resources_view(self, values: Mapping[str, object]) -> Resources:
        """The user's Resources class with the open resources as its fields."""
        view = copy(self.resources or Resources())
        for name, value in values.items():
            setattr(view, name, value)
        return view


@dataclass(frozen=True, slots=True)
class Resumed:
    """How a run came to go on: what was decided and is journaled first, where anything was."""

    pause: Pause | None = None
    value: object = None
    entry: Entry | None = None


@dataclass(eq=False, repr=False)
class Running:
    """The shared part of a run.

    Attributes:
        plain: Whether nobody listens and nothing is traced, so that an attempt is only its work.
        direct: Whether, besides, steps run in this process and nothing is kept, so that the work may be one call.
        verdict: Why the run ends early; None while it does not.
        values: Open resources that hooks may take, by name.
        step_values: Open resources that steps may take, by name.
        scope: Where the run goes on, when it can be cancelled from here or has a deadline.
        deadline_s: Seconds the steps may take; None is unlimited.
        output: What the run gives, once all steps ended well.
        context: The user's context as the run left it.
        workers: Who works on several steps at once.
        held: What is due once all of some workers, whose steps were cancelled, have ended.
        past: What a resumed run did before, read on first use.
        resumed: How it came to go on; None of a run from its start.
        own_limits: Limits that were given to this run alone.
        left_s: Seconds of the deadline that are left, once it stands still.
        store: Where the run is kept; None keeps it in this object alone.
        breach_told: Whether observers know that a limit stopped the run.
        clock: When it started, on `perf_counter`.
    """

    setup: Setup
    info: RunInfo
    ledger: Ledger
    state: RunState
    context: BaseModel | None
    scope: anyio.CancelScope | None
    deadline_s: float | None
    tracer: Tracer | None = field(default_factory=telemetry.current_tracer)
    journal: Journal = field(default_factory=list)
    verdict: FlujoError | None = None
    values: Mapping[str, object] = field(default_factory=dict)
    step_values: Mapping[str, object] = field(default_factory=dict)
    workers: set[Worker] = field(default_factory=set)
    held: list[tuple[set[Worker], list[Due]]] = field(default_factory=list)
    output: object = None
    past: Past | None = None
    resumed: Resumed | None = None
    own_limits: UsageLimits | None = None
    store: RunStore | None = None
    left_s: float | None = None
    breach_told: bool = False
    clock: float = field(default_factory=perf_counter)
    _ledgers: dict[tuple[int, int], Ledger] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.hooks: Hooks = self.setup.hooks
        self.plain: bool = self.tracer is None and not self.hooks.table
        self.direct: bool = self.plain and self.store is None and type(self.setup.backend) is LocalBackend

    @property
    def run_input(self) -> object:
        """What the run was given."""
        return self.state.root.input

    @property
    def pauses(self) -> tuple[Pause, ...]:
        """The questions that wait for a human."""
        state, found = self.state, []
        for key, paused in state.pauses.items():
            frame, node = state.frames[key[0]], state.plan.nodes[key[1]]
            found.append(pause_of(paused.request, frame.prefix + node.name, len(state.known.get(key, ()))))
        return tuple(found)

    def ledger_of(self, frame: Frame, node: StepNode) -> Ledger:
        """The ledger a step reserves from: that of the pipeline around, or its own under it where it has limits."""
        limits, ledger = node.step.options.limits, self._ledger_around(frame)
        if limits is None:
            return ledger
        key = (frame.id, node.index)
        if key not in self._ledgers:
            self._ledgers[key] = Ledger(limits, ledger)
        return self._ledgers[key]

    def _ledger_around(self, frame: Frame) -> Ledger:
        """The ledger of the nearest frame with limits; a frame's own is made when it is first asked for."""
        bare: list[Frame] = []
        at: Frame | None = frame
        while at is not None and at.parent is not None and at.ledger is None:
            bare.append(at)
            at = at.parent
        ledger = self.ledger if at is None or at.ledger is None else at.ledger
        for one in reversed(bare):
            if one.scope.limits is not None:
                ledger = one.ledger = Ledger(one.scope.limits, ledger)
                if one.spent is not None:
                    ledger.spent.add(one.spent)
        return ledger

    def cancel(self, reason: str, by: str = "cancel()") -> None:
        """End the run: running steps are cancelled, the result is `aborted` with everything kept."""
        self.stop(RunAborted(reason, by))
        if self.scope is not None:
            self.scope.cancel()

    def stop(self, error: FlujoError, keep: RunContext | None = None) -> None:
        """Let nothing new start, and cancel the branches, but for the one of `keep`, which ends by itself.

        On a breach, a branch with an open lease may finish its call: it is paid for already.
        """
        if self.verdict is None:
            self.verdict = error
        spare = isinstance(error, UsageLimitExceeded)
        for worker in self.workers:
            ctx = worker.ctx
            if ctx is not None and ctx.metered is not None:
                ctx.metered.refuse(self.verdict)
            if ctx is None or not (ctx is keep or (spare and ctx.holds_lease)):
                worker.scope.cancel()

    def cancel_closed(self, due_before: int) -> None:
        """Cancel what still runs in frames that were closed; what became due by it waits until that has ended."""
        self.state.has_closed = False
        ending = {worker for worker in self.workers if worker.frame is not None and not worker.frame.is_open}
        for worker in ending:
            worker.scope.cancel()
        due = self.state.due
        if ending and len(due) > due_before:
            self.held.append((ending, [due.pop() for _ in range(len(due) - due_before)]))

    def release(self, worker: Worker) -> None:
        """A worker ended: what waited for the last of its kind is due now."""
        for ending, items in self.held:
            ending.discard(worker)
            if not ending:
                self.state.due.extend(reversed(items))
        self.held = [(ending, items) for ending, items in self.held if ending]

    async def back_off(self, retry: RetryPolicy, number: int, error: Exception, ctx: RunContext) -> None:
        """Tell that attempt `number` failed with `error` and is made again, and wait before it is."""
        delay = retry.delay_s(number, random.random(), error)
        kind = error.error_type if isinstance(error, StepFailed) else type(error).__name__
        payload = partial(OnRetry, self.info, ctx.step_path, number, kind, delay)
        await self.observe("on_retry", payload, ctx)
        await anyio.sleep(delay)

    # --- the journal ------------------------------------------------------------------------------------------------

    async def keep(self, entry: Entry) -> None:
        """Have it written where the run is kept, before anything follows from it; what cannot be kept is a failure."""
        if self.store is None:
            return
        row = entry_data(self.setup.plan, entry)
        if row.unwritten is not None:
            why = f"its output of type {row.unwritten} cannot be kept by the store"
            entry.outcome, entry.changes = Failure(StepFailed(entry.path, "NotSerialisable", why)), None
            row = entry_data(self.setup.plan, entry)
        with anyio.CancelScope(shield=True):  # it happened, so it is written even while the run is being cancelled
            await self.store.append(self.info.run_id, row)

    async def note_call(self, ctx: RunContext, key: str, value: JsonValue) -> None:
        """Journal what a tool gave, so that the step finds it where it runs again."""
        entry = Entry(*ctx.visit, Called(value, key))
        await self.keep(entry)
        self.journal.append(entry)
        advance(self.state, entry)

    # --- hooks ------------------------------------------------------------------------------------------------------

    async def observe(self, hook: str, payload: Callable[[], Event], keep: RunContext | None = None) -> None:
        """Tell the observers of `hook`, if there are any; one that asks for it ends the run."""
        if self.hooks.of(hook):
            abort = await self.hooks.observe(payload(), hook, self.values)
            if abort is not None:
                self.stop(abort, keep)

    async def guard(self, hook: str, payload: Callable[[], Event], ctx: RunContext | None = None) -> Deny | None:
        """Ask the guards of `hook`; returns a refusal that is meant for the model.

        Raises:
            GuardDenied: One denied, and the run ends; a step that catches it cannot undo it.
        """
        if not self.hooks.of(hook):
            return None
        denial = await self.hooks.guard(payload(), hook, self.values)
        if isinstance(denial, GuardDenied):
            await self._deny(denial, ctx)
            return None
        return denial

    async def _deny(self, denial: GuardDenied, ctx: RunContext | None) -> None:
        self.stop(denial, ctx)
        if ctx is not None:
            ctx.denial = ctx.denial or denial
        await self.observe("on_guard_denied", partial(OnGuardDenied, self.info, _path(ctx), denial), ctx)
        raise denial

    async def transform(self, hook: str, make: Callable[..., Event], value: T, hint: object, path: str) -> T:
        """Pass `value` through the transforms of `hook`; each result is checked against `hint`.

        Raises:
            StepFailed: One raised, or gave what does not fit.
        """
        if not self.hooks.of(hook):
            return value
        payload = make(value=value)
        problem = await self.hooks.transform(payload, hook, self.values, fitted(hint))
        if problem is not None:
            raise StepFailed(path, "TransformFault", problem)
        changed: T = payload.value  # type: ignore[attr-defined]
        return changed

    async def intend(self, act: Act, subject: object) -> None:
        """Have it written down that `act` is about to happen.

        Raises:
            GuardDenied: A required recorder could not.
        """
        act.intended = True
        if self.hooks.of("record_intent"):
            payload = RecordIntent(self.info, act.kind, act.record_id, _path(act.ctx), act.attempt, subject)
            failed = await self.hooks.record(payload, "record_intent", self.values)
            if failed is not None:
                await self._deny(failed, act.ctx)

    async def conclude(
        self, act: Act, error: BaseException | None, value: object, usage: Usage, *, paused: bool = False
    ) -> None:
        """Have it written down how `act` ended; does nothing when it never came to that.

        It happened, so it is recorded even while the run is being cancelled.
        """
        if act.intended and self.hooks.of("record_result"):
            name = error.error_type if isinstance(error, StepFailed) else type(error).__name__ if error else ""
            payload = RecordResult(
                self.info, act.kind, act.record_id, _path(act.ctx), act.attempt,
                "paused" if paused else status_of(error), value, name, usage, perf_counter() - act.started,
            )  # fmt: skip
            with anyio.CancelScope(shield=True):
                failed = await self.hooks.record(payload, "record_result", self.values)
            if failed is not None:
                self.stop(failed, act.ctx)


@dataclass(slots=True)
class Act:
    """What is recorded before and after it happens: a run, an attempt of a step, a call.

    Attributes:
        kind: Which of them.
        record_id: The same in its intent and its result.
        ctx: The attempt it belongs to; None for a run.
        attempt: Its number.
        intended: Whether it came so far that its start was recorded, if anybody records.
        started: When it started, on `perf_counter`.
    """

    kind: RecordKind
    record_id: str
    ctx: RunContext | None = None
    attempt: int = 1
    intended: bool = False
    started: float = field(default_factory=perf_counter)


def _path(ctx: RunContext | None) -> str:
    return "" if ctx is None else ctx.step_path


def status_of(error: BaseException | None) -> Literal["completed", "stopped", "aborted", "failed", "cancelled"]:
    """The word for an end with `error`."""
    if error is None:
        return "completed"
    if isinstance(error, UsageLimitExceeded):
        return "stopped"
    if isinstance(error, (GuardDenied, RunAborted)):
        return "aborted"
    return "failed" if isinstance(error, Exception) else "cancelled"
