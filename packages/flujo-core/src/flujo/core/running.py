"""What a run and its attempts and calls share: who it is, what it may use, and how it is ended early."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from types import MappingProxyType
from typing import Any, NoReturn

import anyio
from pydantic import BaseModel

from . import telemetry
from .context import RunContext, RunInfo
from .errors import FlujoError, GuardDenied, RunAborted, StepFailed, UsageLimitExceeded
from .feed import Feed
from .foreign import attempt
from .frames import Due, Part, RunState, around
from .hooks import Hooks, Telling
from .journal import Entry, Journal
from .kept import Past, TokenFacts
from .ledger import Ledger
from .once import once
from .outcome import Begun, Called, Failure, Spent, status_of
from .pause import Pause, pause_of
from .payloads import (
    Deny,
    Event,
    OnGuardDenied,
    OnRetry,
    OnUsageWarning,
    RecordIntent,
    RecordKind,
    RecordResult,
    StepEvent,
)
from .protocols import TokenSigner
from .relay import YIELD_EVERY, Worker
from .retry import RetryPolicy
from .schedule import advance
from .scrubbing import secrets_in
from .setup import Setup
from .told import goes_on
from .usage import Usage, UsageLimits
from .writer import Writer
from .written import entry_data

Keep = RunContext | Worker | None
"""The attempt, or who works on a step, that is to end by itself where the run is ended."""


@dataclass(frozen=True, slots=True, repr=False)
class Resumed:
    """How a run came to go on: what was decided and is noted first, where anything was."""

    pause: Pause | None = None
    value: object = None
    entries: tuple[Entry, ...] = ()


class Running:
    """The shared part of a run.

    Attributes:
        run_id: Unique id of the run.
        counts: What plugins counted, as in its info.
        journal: What ended so far.
        plain: Whether nobody listens and nothing is watched.
        direct: Whether a bare step may be one call here: nothing is watched or kept.
        verdict: Why the run ends early; None while it does not.
        on_asyncio: Whether hooks are called in a task of asyncio, as far as is known.
        values: Open resources that hooks may take, by name.
        step_values: Open resources that steps may take, by name.
        scope: Where the run goes on, when it can be cancelled from here or has a deadline.
        deadline_s: Seconds the steps may take; None is unlimited.
        output: What the run gives, once all steps ended well.
        context: The user's context as the run left it.
        workers: Who works on several steps at once.
        closing: Workers whose steps were cancelled with their frame, and the combinator around that goes on.
        held: What is due once all of some of these have ended.
        past: What a resumed run did before, read on first use.
        resumed: How it came to go on; None of a run from its start.
        own_limits: Limits that were given to this run alone.
        left_s: Seconds of the deadline that are left, once it stands still.
        mark: Ends the ids of its records, so that those of each resume are others.
        writer: Writes it there while it goes on.
        feed: Where its reader is given chunks; None where nobody reads while it goes on.
        is_finished: Whether its output and context were taken.
        is_over: Whether it ended: what comes later does not change how.
        turns: How many more items may be done before the event loop is let run.
        breach_told: Whether observers know that a limit stopped the run.
        clock: When it started, on `perf_counter`.
    """

    # What most runs never change stands in the class: it costs no time when a run is made, and no memory in each.
    on_asyncio: bool = False
    values: Mapping[str, object] = MappingProxyType({})
    step_values: Mapping[str, object] = values
    workers: set[Worker] | frozenset[Worker] = frozenset()
    held: Sequence[tuple[set[Worker], list[Due]]] = ()
    output: object = None
    past: Past | None = None
    resumed: Resumed | None = None
    own_limits: UsageLimits | None = None
    mark: str = ""
    writer: Writer | None = None
    feed: Feed | None = None
    deadline_s: float | None = None
    left_s: float | None = None
    breach_told: bool = False
    counts: once[dict[str, dict[str, int]]] = once(lambda _: {})
    is_finished: bool = False
    is_over: bool = False
    _secrets: list[str] | None = None

    def __init__(
        self, setup: Setup, run_id: str, ledger: Ledger | None, state: RunState, scope: anyio.CancelScope | None
    ) -> None:
        self.setup: Setup = setup
        self.run_id: str = run_id
        self.state: RunState = state
        self.scope: anyio.CancelScope | None = scope
        self._ledger: Ledger | None = ledger
        self.journal: Journal = []
        self.verdict: FlujoError | None = None
        self.closing: dict[Worker, Part | None] | None = None
        self.turns: int = YIELD_EVERY
        self.context: BaseModel | None = state.root.context
        self.watch: telemetry.Watch | None = telemetry.current_watch()
        self.hooks: Hooks = setup.hooks
        untold, watched = self.watch is None, bool(setup.hooks.table)
        self.plain: bool = untold and not watched
        self.direct: bool = untold and setup.is_here
        if watched:
            self.on_asyncio = attempt(asyncio.current_task)[0] is not None
        self.clock: float = perf_counter()

    @once
    def info(self) -> RunInfo:
        """Which run this is, where nobody said more than that; most steps do not ask."""
        return RunInfo(self.run_id, self.setup.plan.name, self.setup.plan.fingerprint, counts=self.counts)

    @property
    def ledger(self) -> Ledger:
        """What it reserves from; made when it is first asked for, since most steps cost nothing."""
        if self._ledger is None:
            self._ledger = Ledger()
        return self._ledger

    @property
    def spent(self) -> Usage:
        """What it used so far."""
        return Usage() if self._ledger is None else self._ledger.spent

    @property
    def pauses(self) -> tuple[Pause, ...]:
        """The questions that wait for a human."""
        state, found = self.state, []
        for key, paused in state.pauses.items():
            frame, node = state.frames[key[0]], state.plan.nodes[key[1]]
            pause = pause_of(paused.request, frame.prefix + node.name, len(state.known.get(key, ())))
            found.append(pause if self.setup.signer is None else self._signed(pause, self.setup.signer))
        return tuple(found)

    def _signed(self, pause: Pause, signer: TokenSigner) -> Pause:
        bound = (pause.shown_digest, self.info.fingerprint, pause.expires_at, pause.roles)
        return replace(pause, token=signer.sign(TokenFacts(self.run_id, pause.id, *bound)))

    def cancel(self, reason: str, by: str = "cancel()") -> None:
        """End the run: running steps are cancelled, the result is `aborted` with everything kept. Later it is vain."""
        if not self.is_over:
            self.stop(RunAborted(reason, by))
            if self.scope is not None:
                self.scope.cancel()

    def cut(self) -> bool:
        """Say why the run was cancelled; whether that came from here, not from outside."""
        own = self.scope is not None and self.scope.cancel_called
        span = "its deadline of {:g} s" if self.resumed is None else "the {:g} s that it had left"
        late = (f"{span.format(self.deadline_s or 0)} passed", "deadline_s")
        # An error is made only where there is none yet: to look through its text for secrets costs more than a step.
        self.stop(self.verdict or RunAborted(*(late if own else ("cancelled from outside",))))
        return own

    def stop(self, error: FlujoError, keep: Keep = None) -> None:
        """Let nothing new start, and cancel the branches, but for `keep` or the one of that attempt: it ends by itself.

        On a breach, a branch with an open lease may finish its call: it is paid for already.
        """
        if self.is_over and keep is not None:
            return  # a call that a step left behind, and that came back after the end
        if self.verdict is None:
            self.hide_secrets(error)
            self.verdict = error
        spare = isinstance(error, UsageLimitExceeded)
        for worker in self.workers:
            ctx = worker.ctx
            if ctx is not None and ctx.metered is not None:
                ctx.metered.refuse(self.verdict)
            if worker is not keep and (ctx is None or not (ctx is keep or (spare and ctx.holds_lease))):
                worker.scope.cancel()

    def hold_back(self, due_before: int) -> None:
        """Cancel what still runs in frames that were closed. What became due by it waits until that has ended.

        So does what becomes due later, when what lost the frame ends.
        """
        closing = self.closing = self.closing or {}
        waits, due = set[Worker](), self.state.due
        if self.state.has_closed:
            self.state.has_closed = False
            for worker in self.workers:
                if worker.frame is not None and not worker.frame.is_open:
                    worker.scope.cancel()
                    waits.add(worker)
                    closing[worker] = around(worker.frame)
        for worker, part in closing.items():
            if part is not None and part.is_over:
                waits.add(worker)
                closing[worker] = around(part.frame)
        if waits and len(due) > due_before:
            self.held = [*self.held, (waits, self.state.taken_back(due_before))]

    def release(self, worker: Worker) -> None:
        """A worker ended: what waited for the last of its kind is due now."""
        if self.closing:
            self.closing.pop(worker, None)
        for ending, items in self.held:
            ending.discard(worker)
            if not ending:
                self.state.due.extend(reversed(items))
        if self.held:
            self.held = [(ending, items) for ending, items in self.held if ending]

    async def back_off(self, retry: RetryPolicy, number: int, error: Exception, ctx: RunContext) -> None:
        """Tell that attempt `number` failed with `error` and is made again, and wait before it is."""
        delay = retry.delay_s(number, random.random(), error)
        kind = error.error_type if isinstance(error, StepFailed) else type(error).__name__
        await self.observe("on_retry", partial(OnRetry, self.info, ctx.step_path, number, kind, delay), ctx)
        if self.verdict is None:
            await anyio.sleep(delay)

    def hide_secrets(self, error: FlujoError | None) -> None:
        """Take the secrets of the run input and of the first context out of an error's texts."""
        if error is not None:
            if self._secrets is None:
                self._secrets = attempt(secrets_in, (self.state.root.input, self.state.root.context))[0] or []
            error.hide(self._secrets)

    # --- the journal ------------------------------------------------------------------------------------------------

    def put(self, entry: Entry, then: Callable[[], object]) -> anyio.Event | None:
        """Have it written where the run is kept, and `then` called; at once where it is not, else wait for the event.

        What cannot be written is a failure.
        """
        self.hide_secrets(entry.outcome.error)
        if self.writer is None:
            then()
            return None
        row = entry_data(self.setup.plan, entry)
        if (kind := row.unwritten) is not None:
            fault = StepFailed(entry.path, "NotSerialisable", f"its output of type {kind} cannot be kept by the store")
            entry.outcome, entry.changes, entry.mutation = Failure(fault), None, None
            row = entry_data(self.setup.plan, entry)
        return self.writer.put(row, then)

    async def note_told(self, ctx: RunContext, told: Called | Begun) -> None:
        """Journal what a step's work did while it goes on, so that it is known where the step runs again."""
        # What a call did that the step left behind, and that came back after its end, is no part of the run.
        if ctx.is_over and (self.is_over or self.verdict is not None or not goes_on(self.state, ctx.visit)):
            return
        entry = Entry(*ctx.visit, told)
        if (kept := self.put(entry, partial(self.take, entry))) is not None:
            await kept.wait()

    def note_spent(self, ctx: RunContext, used: Usage, priced_by: str) -> None:
        """Have what was used kept, where the run is: its step may be cut off in the middle. From whatever thread."""
        if self.writer is not None and used != Usage():
            entry = Entry(*ctx.visit, Spent(priced_by), usage=used)
            self.writer.here(lambda: ctx.is_over or self.put(entry, partial(self.journal.append, entry)))

    def take(self, entry: Entry) -> None:
        """Add to the journal, and let the schedule go on."""
        self.journal.append(entry)
        advance(self.state, entry)

    # --- hooks ------------------------------------------------------------------------------------------------------

    async def observe(self, hook: str, payload: Callable[[], Event], keep: Keep = None) -> None:
        """Tell the observers of `hook`, if there are any; one that asks for it ends the run."""
        observers = self.hooks.of(hook)
        if observers or self.watch is not None:
            event = payload()
            if self.watch is not None:
                self.watch.tell(event)
            if (telling := self.hooks.tell(observers, event, self.values, self.on_asyncio)) is not None:
                await self.heed(telling, keep)

    async def heed(self, telling: Telling, keep: Keep) -> None:
        """Tell the rest of some observers; one that asks for it ends the run."""
        if (abort := await telling) is not None:
            self.stop(abort, keep)

    async def warn(self, ctx: RunContext) -> None:
        """Tell observers of limits that are nearly used up; of each once."""
        for limit, share in ctx.usage.warnings():
            await self.observe("on_usage_warning", partial(OnUsageWarning, self.info, limit, share), ctx)

    async def guard(self, hook: str, payload: Callable[[], Event], ctx: RunContext | None = None) -> Deny | None:
        """Ask the guards of `hook`; returns a refusal that is meant for the model.

        Raises:
            GuardDenied: One denied, and the run ends; a step that catches it cannot undo it.
        """
        if not self.hooks.of(hook):
            return None
        denial = await self.hooks.guard(payload(), hook, self.values)
        if isinstance(denial, GuardDenied):
            await self.deny(denial, "" if ctx is None else ctx.step_path, ctx)
        return denial

    async def deny(self, denial: FlujoError, path: str, keep: Keep) -> NoReturn:
        """End the run by a denial, which observers are told, or by an abort; it is raised."""
        self.stop(denial, keep)
        if isinstance(denial, GuardDenied):
            if isinstance(keep, RunContext):
                keep.denial = keep.denial or denial
            await self.observe("on_guard_denied", partial(OnGuardDenied, self.info, path, denial), keep)
        raise denial

    async def transform(self, payload: StepEvent, hook: str, hint: object, keep: Keep) -> Any:
        """Pass the value of a payload through the transforms of `hook`; one that asks for it ends the run."""
        try:
            return await self.hooks.transform(payload, hook, self.values, hint)
        except RunAborted as abort:
            self.stop(abort, keep)
            raise

    async def intend(self, act: Act, subject: object) -> None:
        """Have it written down that `act` is about to happen.

        Raises:
            GuardDenied: A required recorder could not.
            RunAborted: A recorder asked for it.
        """
        act.intended = True
        if "record_intent" in self.hooks.table:
            payload = RecordIntent(self.info, act.kind, act.name + self.mark, act.path, act.attempt, subject)
            if (failed := await self.hooks.record(payload, "record_intent", self.values)) is not None:
                await self.deny(failed, act.path, act.keep)

    async def conclude(
        self, act: Act, error: BaseException | None, value: object, usage: Usage, *, paused: bool = False
    ) -> None:
        """Have it written down how `act` ended; does nothing when it never came to that.

        It happened, so it is recorded even while the run is being cancelled.
        """
        intended, act.intended = act.intended, False
        if intended and "record_result" in self.hooks.table:
            name = error.error_type if isinstance(error, StepFailed) else type(error).__name__ if error else ""
            payload = RecordResult(
                self.info, act.kind, act.name + self.mark, act.path, act.attempt,
                "paused" if paused else status_of(error), value, name, usage, perf_counter() - act.started,
            )  # fmt: skip
            if (failed := await self.hooks.record(payload, "record_result", self.values)) is not None:
                self.stop(failed, act.keep)


@dataclass(slots=True)
class Act:
    """What is recorded before and after it happens: a run, an attempt of a step, a call.

    Attributes:
        kind: Which of them.
        path: Where the step stands; empty for a run.
        keep: The attempt it belongs to, or who works on it, where it is to end by itself; None for a run.
        attempt: Its number.
        call: What tells it from others of its kind; empty for a step, which its path and number do.
        intended: Whether its start was recorded, if anybody records, and its end was not.
        started: When it started, on `perf_counter`.
    """

    kind: RecordKind
    path: str = ""
    keep: Keep = None
    attempt: int = 1
    call: str = ""
    intended: bool = False
    started: float = field(default_factory=perf_counter)

    @property
    def name(self) -> str:
        """The same in its intent and its result."""
        return self.call or f"{self.path}@{self.attempt}"
