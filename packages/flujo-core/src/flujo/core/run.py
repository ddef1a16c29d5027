"""One run: asks `schedule` what is due, lets the backend do it, and keeps what was paid for, however it ends."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from functools import partial
from typing import Literal

import anyio

from . import payloads
from .errors import GuardDenied, ResourceError, RunAborted, SnapshotError, StepFailed
from .foreign import attempt, text_of
from .journal import Entry, as_entry
from .kept import Hold
from .once import once
from .outcome import Failure, status_of
from .pause import PauseForHumanInput
from .protocols import RunStore
from .resources import ResourceScope
from .result import PipelineResult, RunStatus, StepRecord
from .resume import merged
from .running import Act, Resumed
from .snapshot import Checkpoint, EntryData, LimitsData, Snapshot
from .streamcalls import StreamingCalls
from .values import final_context, given_by
from .work import Work
from .writer import Writer
from .written import checkpoint_of, entry_data


def last_began(entries: Iterable[Entry | EntryData]) -> float:
    """When the last step of some entries began, which come from the last to the first."""
    return next((entry.started_at for entry in entries if entry.started_at), 0.0)


class Run(Work):
    """One run of a plan, from its first hook to its result."""

    @once
    def calls(self) -> StreamingCalls:
        """The way to models and tools."""
        return StreamingCalls(self)

    def written(self, store: RunStore, hold: Hold, limit_s: float) -> Writer:
        """Have it written there while it goes on, and cancelled where the store is asked for that."""
        self.scope: anyio.CancelScope | None = self.scope or anyio.CancelScope()
        writer = Writer(store, hold, limit_s, self.stop)
        self.writer: Writer | None = writer
        hold.ends.append(partial(writer.here, partial(self.cancel, "cancelled on request", "its store")))
        return writer

    async def through(self, app: Mapping[str, object]) -> PipelineResult:
        """Run to the end, and give the result."""
        await self.execute(app)
        return self.result()

    def execute(self, app: Mapping[str, object]) -> Awaitable[None]:
        """Run to the end. Only a cancellation from outside is raised; everything else is in the result."""
        return self._inside(app) if self.scope is None else self._within(self.scope, app)

    # --- start and end ----------------------------------------------------------------------------------------------
    # Who has nothing to do around a piece of work hands it on: each await on the way costs every wake-up of a step, and
    # memory in every run.

    async def _within(self, scope: anyio.CancelScope, app: Mapping[str, object]) -> None:
        """Run within the deadline and the reach of `cancel`."""
        if self.deadline_s is not None:
            scope.deadline = anyio.current_time() + self.deadline_s
        with scope:
            await self._inside(app)
        self._note_time_left()
        if scope.cancelled_caught:
            self.cut()
        self.is_over: bool = True  # a cancel comes too late now

    def _note_time_left(self) -> None:
        """Note how much of the deadline is left, on the clock that it is on; a pause does not count."""
        if self.scope is not None and self.deadline_s is not None and not self.is_over:
            self.left_s: float | None = max(0.0, self.scope.deadline - anyio.current_time())

    def _inside(self, app: Mapping[str, object]) -> Awaitable[None]:
        """All that the run does, with what hooks need around it: its end is recorded while that is still open."""
        if self.setup.hook_resources:
            return self._with_hook_resources(app)
        self.values: Mapping[str, object] = app
        return self._with_resources() if self.plain and not self.resumed else self._whole()

    async def _with_hook_resources(self, app: Mapping[str, object]) -> None:
        try:
            async with ResourceScope(self.setup.specs, "run", self.setup.hook_resources, app) as scope:
                self.values = scope.values
                await self._whole()
        except ResourceError as error:
            self.stop(error)

    async def _whole(self) -> None:
        """Guard, record and announce the run, run its steps, record its end."""
        info, run_input = self.info, self.state.root.input
        act = Act("run", call=info.run_id)
        try:
            await self.guard("guard_run", lambda: payloads.GuardRun(info, run_input, self.ledger.tightest))
            await self.intend(act, run_input)
            seen = None if self.hooks.of("transform_step_input") else run_input
            if self.resumed is None:
                steps = len(self.setup.plan.steps)
                await self.observe("on_run_start", partial(payloads.OnRunStart, info, seen, steps))
            else:
                await self._tell_resumed(self.resumed, seen)
            await self._with_resources()
        except (GuardDenied, RunAborted):
            pass  # it is the verdict already
        except BaseException as stop:  # a cancel: the record gets its end, then it goes on up
            await self._end(act, self.verdict if self.cut() else stop)
            raise
        await self._end(act, self.verdict)

    async def _tell_resumed(self, decided: Resumed, seen: object) -> None:
        if decided.pause is not None:
            value = None if self.hooks.of("transform_step_output") else decided.value
            facts = (self.info, decided.pause.step_path, decided.pause, value)
            await self.observe("on_human_decision", partial(payloads.OnHumanDecision, *facts))
        await self.observe("on_run_resume", partial(payloads.OnRunResume, self.info, seen))

    async def _end(self, act: Act, error: BaseException | None) -> None:
        """Record and announce the end; a cancel or deadline meanwhile comes too late to change it."""
        self._note_time_left()
        self.is_over = True  # a cancel comes too late now
        if self.scope is not None:
            self.scope.deadline = math.inf
        if self.hooks.table:
            paused = error is None and self.status == "paused"
            with anyio.CancelScope(shield=True):
                value = self.output if error is None else None
                await self.conclude(act, error, value, self.spent, paused=paused)
                if paused:
                    await self.observe("on_run_pause", lambda: payloads.OnRunPause(self.info, self.pauses))
                await self.observe("on_run_end", lambda: payloads.OnRunEnd(self.info, self.result()))

    def _with_resources(self) -> Awaitable[None]:
        """Run the steps with their resources open; an unfinished run closes them as after an error."""
        if self.setup.run_resources:
            return self._with_run_resources()
        self.step_values: Mapping[str, object] = self.values
        return self.do() if self.plain and self.resumed is None and self.writer is None else self._drive()

    async def _with_run_resources(self) -> None:
        try:
            async with ResourceScope(self.setup.specs, "run", self.setup.run_resources, self.values) as scope:
                self.step_values = scope.values
                await self._drive()
                scope.cause = self.verdict
        except ResourceError as error:
            self.stop(error)

    async def _drive(self) -> None:
        """Run what is due until nothing is."""
        for entry in () if self.resumed is None else self.resumed.entries:
            self.note(entry)  # a store has them: a decision is written with the claim
        try:
            await self.do()
        except BaseException:  # a cancel: what steps wrote until then stays, that of the last ones too
            if self.writer is not None:
                await self.writer.settled()
            self.is_finished, self.context = True, attempt(final_context, self.state.root)[0] or self.context
            vars(self).pop("calls", None)  # as below
            raise
        self._finish()

    def _finish(self) -> None:
        """Take the output of a run whose steps all ended well, and the context as it stands; once."""
        self.is_finished: bool = True
        self._note_time_left()
        root = self.state.root
        context, error = (None, None) if root.context is None else attempt(final_context, root)
        if error is None:
            self.context = context
            if self.verdict is None and self.state.finished:
                output, error = given_by(root)
                self.output: object = output
        if error is not None:  # the user's own reducer failed, or a part of the output is not there
            self.stop(StepFailed("output", type(error).__name__, text_of(error)))

    def unkept(self) -> tuple[Entry, Failure] | None:
        """The end of a step that asked, where the run cannot be kept while it waits: it has failed."""
        self._note_time_left()
        error = attempt(lambda: self.checkpoint)[1] if self.state.pauses else None
        if error is None:
            return None
        visit, path = next(iter(self.state.pauses)), self.pauses[0].step_path
        why = str(error) if isinstance(error, SnapshotError) else type(error).__name__
        failure = Failure(StepFailed(path, "NotSerialisable", why))
        return Entry(*visit, failure, path, time.time()), failure

    @property
    def status(self) -> RunStatus:
        """How the run stands."""
        if self.verdict is None and not self.state.finished:
            return "paused"
        status = status_of(self.verdict)
        return "aborted" if status == "cancelled" else status

    def result(self) -> PipelineResult:
        """How it ended, once it has."""
        if not self.is_finished:
            self._finish()
        vars(self).pop("calls", None)  # they hold the run, and what stands in a circle waits for the collector
        self.is_over = True  # a cancel comes too late now
        value, status = self.output if self.verdict is None else None, self.status
        facts = (self.verdict, self.counts, time.perf_counter() - self.clock, self.pauses if status == "paused" else ())
        return PipelineResult(self.run_id, status, value, self.context, self.spent, *facts, self)

    # --- as data --------------------------------------------------------------------------------------------------

    @property
    def questions(self) -> dict[tuple[int, int], PauseForHumanInput]:
        """The open questions as they were asked, by frame and node."""
        return {key: paused.request for key, paused in self.state.pauses.items()}

    def entries(self, step: int = 1) -> Iterator[Entry]:
        """What it journaled since it was resumed, or the same from its end."""
        return (as_entry(self.setup.plan, ended) for ended in self.journal[::step])

    def history(self) -> list[StepRecord]:
        """One record per visit of a step, in the order they ended, those before a resume first."""
        before = [] if self.past is None else self.past.records()
        return merged([*before, *(entry.record() for entry in self.entries() if entry.path)])

    @property
    def length(self) -> int:
        """Entries of the whole journal, those before a resume included."""
        return len(self.journal) + (0 if self.past is None else self.past.length)

    def rows(self) -> list[EntryData]:
        """The whole journal as data."""
        before = [] if self.past is None else self.past.rows()
        return [*before, *(entry_data(self.setup.plan, entry) for entry in self.entries())]

    @property
    def checkpoint(self) -> Checkpoint:
        """Where it stands, once it stands still.

        Raises:
            SnapshotError: A value that it needs cannot be written.
        """
        if not hasattr(self, "_checkpoint") or self._checkpoint.position != self.length:  # the writer notes to the last
            self._checkpoint: Checkpoint = checkpoint_of(self.state, self.spent, self.left_s, self.length)
        return self._checkpoint

    def standing(self, status: Literal["running"] | None = None) -> Snapshot:
        """The run as data, without its journal: what it costs to go on with it."""
        info = self.info
        stand = self.checkpoint if status is None else checkpoint_of(self.state, self.spent, self.deadline_s)
        return Snapshot(
            run_id=info.run_id, pipeline=info.pipeline, fingerprint=info.fingerprint, status=status or self.status,
            actor=info.actor, tenant=info.tenant, tags=dict(info.tags), counts=info.counts,
            limits=LimitsData.of(self.own_limits), checkpoint=stand, trace=info.trace,
            mutations=[*row.changes] if (row := self.setup.row) else [],
        )  # fmt: skip

    def end(self) -> Snapshot | None:
        """Where it stands, to be kept; None of a run that was to go on and came to nothing: it stands where it did."""
        came_to_nothing = self.resumed is not None and self.resumed.entries and not self.journal
        return None if came_to_nothing else self.standing()

    def snapshot(self) -> Snapshot:
        """The whole run as data."""
        return self.standing().model_copy(update={"journal": self.rows()}).sealed()
