"""One run: asks `schedule` what is due, lets the backend do it, and keeps what was paid for, however it ends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from copy import copy
from functools import cached_property, partial
from typing import cast

import anyio

from . import payloads, telemetry
from .attempt import Attempt, Changes
from .calls import Calls
from .context import RunContext
from .errors import GuardDenied, ResourceError, RunAborted, StepFailed, UsageLimitExceeded
from .foreign import attempt, text_of
from .journal import Entry
from .outcome import Aborted, Failure, Outcome, StepStatus, Success
from .plan import PlanNode
from .resources import ResourceScope
from .result import PipelineResult, RunStatus, StepRecord
from .running import Act, Running, status_of
from .schedule import advance, final_context, result_of
from .usage import Usage

_STATUS: dict[type[Outcome], StepStatus] = {Success: "completed", Failure: "failed", Aborted: "aborted"}


class Run(Running):
    """One run of a plan, from its first hook to its result."""

    @cached_property
    def calls(self) -> Calls:
        """The way to models and tools."""
        return Calls(self)

    async def execute(self, app: Mapping[str, object]) -> PipelineResult:
        """Run to the end. Only a cancellation from outside is raised; everything else is in the result."""
        names = {telemetry.OPERATION: "invoke_workflow", telemetry.WORKFLOW: self.info.pipeline}
        attributes = {**names, telemetry.RUN_ID: self.info.run_id}
        with telemetry.span(self.tracer, f"invoke_workflow {self.info.pipeline}", attributes) as span:
            try:
                return await self._bounded(app)
            finally:
                telemetry.mark_usage(span, self.ledger.spent)
                telemetry.mark_budget(span, self.ledger, status_of(self.verdict))
                if self.verdict is not None:
                    telemetry.mark_error(span, type(self.verdict).__name__)

    # --- start and end ----------------------------------------------------------------------------------------------

    async def _bounded(self, app: Mapping[str, object]) -> PipelineResult:
        """Run within the deadline and the reach of `cancel`, where there is either."""
        if self.scope is None:
            await self._with_hook_resources(app)
            return self._result()
        if self.deadline_s is not None:
            self.scope.deadline = anyio.current_time() + self.deadline_s
        with self.scope:
            await self._with_hook_resources(app)
        if self.scope.cancelled_caught:
            self._cut()
        return self._result()

    def _cut(self) -> bool:
        """Say why the run was cancelled; whether that came from here, not from outside."""
        own = self.scope is not None and self.scope.cancel_called
        late = RunAborted(f"its deadline of {self.deadline_s or 0:g} s passed", "deadline_s")
        self.stop(late if own else RunAborted("cancelled from outside"))
        return own

    async def _with_hook_resources(self, app: Mapping[str, object]) -> None:
        """Open what hooks need around the whole run: its end is recorded while that is still open."""
        try:
            async with ResourceScope(self.setup.specs, "run", self.setup.hook_resources, app) as scope:
                self.values: Mapping[str, object] = scope.values
                await self._whole()
        except ResourceError as error:
            self.stop(error)

    async def _whole(self) -> None:
        """Guard, record and announce the run, run its steps, record its end."""
        info, run_input = self.info, self.state.run_input
        act = Act("run", info.run_id)
        try:
            await self.guard("guard_run", lambda: payloads.GuardRun(info, run_input, self.ledger.tightest))
            await self.intend(act, run_input)
            steps = len(self.setup.plan.nodes)
            await self.observe("on_run_start", partial(payloads.OnRunStart, info, run_input, steps))
            await self._with_resources()
        except GuardDenied:
            pass  # it is the verdict already
        except ResourceError as error:
            self.stop(error)
        except BaseException as stop:  # a cancel: the record gets its end, then it goes on up
            await self._end(act, self.verdict if self._cut() else stop)
            raise
        await self._end(act, self.verdict)

    async def _end(self, act: Act, error: BaseException | None) -> None:
        """Record and announce the end; a cancel or deadline meanwhile comes too late to change it."""
        if self.hooks.table:
            with anyio.CancelScope(shield=True):
                await self.conclude(act, error, self.output if error is None else None, self.ledger.spent)
                await self.observe("on_run_end", lambda: payloads.OnRunEnd(self.info, self._result()))

    async def _with_resources(self) -> None:
        """Run the steps with their resources open; an unfinished run closes them as after an error."""
        async with ResourceScope(self.setup.specs, "run", self.setup.run_resources, self.values) as scope:
            self.step_values: Mapping[str, object] = scope.values
            await self._drive()
            self._finish()
            scope.cause = self.verdict

    def _finish(self) -> None:
        """Take the output of a run whose steps all ended well, and the context as it stands."""
        context, error = attempt(final_context, self.state)
        if error is None:
            self.context = context
            if self.verdict is None:
                output, error = attempt(result_of, self.setup.plan, self.state)
                self.output: object = output
        if error is not None:  # the user's own reducer failed, or a part of the output is not there
            self.stop(StepFailed("output", type(error).__name__, text_of(error)))

    def _result(self) -> PipelineResult:
        value = self.output if self.verdict is None else None
        status, history = cast("RunStatus", status_of(self.verdict)), [entry.record for entry in self.journal]
        facts = (self.verdict, self.info.counts, time.perf_counter() - self.clock)
        return PipelineResult(self.info.run_id, status, value, self.context, history, self.ledger.spent, *facts)

    # --- steps ------------------------------------------------------------------------------------------------------

    async def _drive(self) -> None:
        """Run what is due until nothing is: a single due step in this task, several in a task group."""
        due = self.due
        while due and self.verdict is None:
            if len(due) > 1:
                await self._fan_out(due)
                return
            due = await self._step(due[0], None)

    async def _fan_out(self, due: list[int]) -> None:
        """Run due steps at the same time; each strand goes on with what its step made due."""
        async with anyio.create_task_group() as group:

            async def strand(index: int) -> None:
                with anyio.CancelScope() as scope:
                    self.strands[scope] = None
                    try:
                        following = await self._step(index, scope)
                        while following:
                            for other in following[1:]:
                                group.start_soon(strand, other)
                            following = await self._step(following[0], scope)
                    finally:
                        del self.strands[scope]

            for index in due:
                group.start_soon(strand, index)

    async def _step(self, index: int, strand: anyio.CancelScope | None) -> list[int]:
        """Run one step with all its attempts, journal its end, and return what is due then."""
        if self.verdict is not None:
            return []
        node = self.setup.plan.nodes[index]
        record = StepRecord(node.step.name, node.path, "cancelled", None, None, 0, time.time(), 0.0, Usage())
        clock = time.perf_counter()
        try:
            ctx, outcome, changes = await self._attempts(node, record, strand)
        except BaseException:  # a cancel: the journal keeps what was paid for, then it goes on up
            record.duration_s, record.error = time.perf_counter() - clock, self.verdict or RunAborted("cancelled")
            self.journal.append(Entry(index, Aborted(record.error), None, record))
            raise
        record.duration_s, record.status = time.perf_counter() - clock, _STATUS[type(outcome)]
        record.output, record.error = outcome.output, outcome.error
        entry = Entry(index, outcome, changes, record)
        self.journal.append(entry)
        if outcome.error is not None:
            self.stop(outcome.error, ctx)
            if isinstance(outcome, Failure):
                failure = partial(payloads.OnStepFailure, self.info, node.path, copy(record), outcome.error)
                await self.observe("on_step_failure", failure, ctx)
        elif not self.plain:
            who = (self.info, node.path)
            await self.observe("post_step_execution", lambda: payloads.PostStepExecution(*who, copy(record)), ctx)
        return advance(self.setup.plan, self.state, entry)

    async def _attempts(
        self, node: PlanNode, record: StepRecord, strand: anyio.CancelScope | None
    ) -> tuple[RunContext, Outcome, Changes]:
        """Try a step until it ends well or may not be tried again."""
        while True:
            record.attempts += 1
            trial = Attempt(self, self.calls, node, record.attempts)
            if strand is not None:
                self.strands[strand] = trial.ctx
            try:
                outcome, changes = await trial.execute()
            finally:
                trial.ctx.end()
                if trial.ctx.metered is not None:
                    self._book(trial.ctx, record.usage)
            if trial.ctx.metered is not None:
                await self._warn(node, trial.ctx)
            if not await self._again(node, outcome, trial):
                return trial.ctx, outcome, changes

    def _book(self, ctx: RunContext, usage: Usage) -> None:
        """Count what an attempt used, and stop the run where that broke a limit or a limit refused something."""
        meter = ctx.usage
        usage.add(meter.spent)
        breach = meter.breach or meter.exceeded()
        if breach is not None:
            self.stop(breach, ctx)

    async def _warn(self, node: PlanNode, ctx: RunContext) -> None:
        """Tell observers of limits that are nearly used up, and of one that stopped the run."""
        for limit, share in ctx.usage.warnings():
            await self.observe("on_usage_warning", partial(payloads.OnUsageWarning, self.info, limit, share), ctx)
        breach = self.verdict
        if isinstance(breach, UsageLimitExceeded) and not self.breach_told:
            self.breach_told = True
            await self.observe(
                "on_governor_breach", partial(payloads.OnGovernorBreach, self.info, node.path, breach), ctx
            )

    async def _again(self, node: PlanNode, outcome: Outcome, trial: Attempt) -> bool:
        """Whether a failed step is tried again; waits before it is."""
        retry = node.step.options.retry
        if retry is None or not isinstance(outcome, Failure) or self.verdict is not None:
            return False
        cause = outcome.error.__cause__
        error = cause if isinstance(cause, Exception) else outcome.error
        if not (retry.applies(error, trial.number) or retry.applies(outcome.error, trial.number)):
            return False
        await self.back_off(retry, trial.number, error, trial.ctx)
        return self.verdict is None
