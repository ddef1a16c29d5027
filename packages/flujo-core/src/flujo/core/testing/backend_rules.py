"""The rules for an `ExecutionBackend`. Each runs steps through a `Flujo`, so that the backend gets real requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from pydantic import BaseModel

from flujo.core import (
    Capabilities,
    ExecutionBackend,
    Failure,
    Flujo,
    OutcomeData,
    PipelineResult,
    Step,
    StepExecutionRequest,
    StepFailed,
    StepOutcome,
    StepTask,
    StepTimeout,
    Success,
)
from flujo.core.execution import Sender, capabilities_of
from flujo.core.foreign import attempt_async
from flujo.core.wire import Code

from . import trial_steps as steps
from .verdict import demand

TOGETHER = 10
"""Steps that run at the same time in the rule about that."""


class _Noted:
    """A sender that notes what it makes."""

    def __init__(self, sender: Sender, tasks: list[StepTask]) -> None:
        self._sender = sender
        self._tasks = tasks

    def task(self, code: Code | None) -> StepTask:
        """See StepExecutionRequest.task."""
        self._tasks.append(self._sender.task(code))
        return self._tasks[-1]

    def outcome(self, data: OutcomeData | str | bytes) -> StepOutcome:
        """See StepExecutionRequest.outcome."""
        return self._sender.outcome(data)

    async def give(self, data: str | bytes) -> None:
        """See StepExecutionRequest.give."""
        await self._sender.give(data)


class Trial:
    """Stands between the engine and the backend under test for one rule, and notes what each attempt gave.

    Attributes:
        folder: An empty folder for marks.
        returned: What `execute_step` returned, in order of return.
        raised: What it raised instead.
        tasks: What left the process, where the backend is remote.
    """

    def __init__(self, backend: ExecutionBackend, folder: str) -> None:
        self.backend = backend
        self.capabilities: Capabilities = capabilities_of(backend)
        self.folder = folder
        self.returned: list[object] = []
        self.raised: list[BaseException] = []
        self.tasks: list[StepTask] = []

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        """Let the backend do it. What it may not do is noted and kept from the engine, which is not under test."""
        given: object = None
        error: BaseException | None = None
        if request.sender is not None:
            request.sender = _Noted(request.sender, self.tasks)
        try:
            given, error = await attempt_async(self.backend.execute_step(request))
        except anyio.get_cancelled_exc_class() as cancel:
            self.raised.append(cancel)
            raise
        except steps.Fatal as fatal:
            error = fatal
        if error is None:
            self.returned.append(given)
            if isinstance(given, StepOutcome):
                return given
        else:
            self.raised.append(error)
        name = type(given if error is None else error).__name__
        return StepOutcome(Failure(StepFailed(request.ctx.step_path, name, "given by the backend")))

    async def run(self, step: Step, value: object, context: BaseModel | None = None, **options: Any) -> PipelineResult:
        """Run one step; `options` are those of `Flujo`."""
        return await Flujo(step, backend=self, **options).run_async(value, context=context)

    async def outcome(self, step: Step, value: object, **options: Any) -> StepOutcome:
        """Run one step and give what the backend made of it."""
        await self.run(step, value, **options)
        demand(
            not self.raised, f"execute_step raised {self.raised!r} for step {step.name!r}, which the engine lets out"
        )
        last = self.returned[-1]
        demand(isinstance(last, StepOutcome), f"execute_step returned {type(last).__name__}, no StepOutcome")
        assert isinstance(last, StepOutcome)
        return last

    async def output(self, step: Step, value: object) -> object:
        """Run one step that must succeed, and give its output as the backend returned it."""
        outcome = (await self.outcome(step, value)).outcome
        demand(isinstance(outcome, Success), f"step {step.name!r} works, and the outcome is {outcome!r}")
        return outcome.output

    async def marked(self, word: str) -> None:
        """Wait until a step or resource left a mark."""
        while word not in steps.marks(self.folder):
            await anyio.sleep(0.005)

    async def comes_to_rest(self) -> bool:
        """Whether steps leave no marks any more within a moment: a worker far away hears of its end a while later."""
        for _ in range(4):
            if await self.is_still():
                return True
        return False

    async def is_still(self) -> bool:
        """Whether no step leaves marks any more."""
        before = len(steps.marks(self.folder))
        await anyio.sleep(0.15)
        return len(steps.marks(self.folder)) == before

    @property
    def resources(self) -> steps.TrialResources:
        """Resources with the folder of this trial."""
        return steps.TrialResources(place=steps.Place(self.folder))


# --- outcomes ---------------------------------------------------------------------------------------------------------


async def success(trial: Trial) -> None:
    """What a step returns is the output of a Success; async and sync steps alike."""
    for step in (steps.double, steps.double_in_thread):
        output = await trial.output(step, 21)
        demand(output == 42, f"step {step.name!r} returned 42, and the output is {output!r}")


async def failure_is_an_outcome(trial: Trial) -> None:
    """A step that raises gives a Failure with a StepFailed that names the step, the error's class and its text."""
    for step in (steps.fail, steps.fail_in_thread):
        outcome = (await trial.outcome(step, "the disk is full")).outcome
        demand(isinstance(outcome, Failure), f"step {step.name!r} raised, and the outcome is {outcome!r}")
        error = outcome.error
        demand(isinstance(error, StepFailed), f"the error is a {type(error).__name__}, no StepFailed")
        assert isinstance(error, StepFailed)
        facts = (error.step_path, error.error_type)
        demand(facts == (step.name, "ValueError"), f"step_path and error_type are {facts!r}")
        demand("the disk is full" in str(error), f"the error's text is lost: {error}")


async def one_attempt(trial: Trial) -> None:
    """One `execute_step` calls the step once: only the engine tries again, as it counts, waits, books and keeps."""
    for number, kind in enumerate(("first", "second"), 1):
        await trial.outcome(steps.fail_marked, trial.folder)
        calls = steps.marks(trial.folder).count("called")
        demand(calls == number, f"the step was called {calls} times after the {kind} attempt")


async def base_exception(trial: Trial) -> None:
    """A step that calls `sys.exit` has failed; what is no Exception and no cancel never counts as a success."""
    outcome = (await trial.outcome(steps.exit_program, 3)).outcome
    demand(isinstance(outcome, Failure), f"step 'exit_program' called sys.exit, and the outcome is {outcome!r}")
    result = await trial.run(steps.die, "the worker died")
    last = trial.returned[-1] if not trial.raised else None
    lost = isinstance(last, StepOutcome) and not isinstance(last.outcome, Failure)
    demand(result.status != "completed" and not lost, "a step ended with a BaseException, and that was lost")
    trial.raised.clear()
    output = await trial.output(steps.double, 21)
    demand(output == 42, "after a BaseException in a step the next step gets a wrong output")


async def update_changes(trial: Trial) -> None:
    """An `Update` gives its output, and its changes as `StepOutcome.changes`."""
    for step in (steps.note, steps.note_in_thread):
        done = await trial.outcome(step, "ring back", context_model=steps.Notes)
        demand(isinstance(done.outcome, Success), f"step {step.name!r} works, and the outcome is {done.outcome!r}")
        demand(done.outcome.output == 9, f"the output of Update(9, note=...) is {done.outcome.output!r}")
        demand(
            done.changes == {"note": "ring back"}, f"the changes of Update(9, note='ring back') are {done.changes!r}"
        )


async def large_outputs(trial: Trial) -> None:
    """Outputs of some megabytes arrive whole."""
    text, rows = await trial.output(steps.large_text, 4_000_000), await trial.output(steps.large_list, 50_000)
    demand(isinstance(text, str) and len(text) == 4_000_000, f"a text of 4,000,000 characters became {_size(text)}")
    demand(text == "0123456789abcdé\n" * 250_000, "a large text arrived changed")
    demand(isinstance(rows, list) and len(rows) == 50_000, f"a list of 50,000 became {_size(rows)}")
    demand(rows == [[number, -number] for number in range(50_000)], "a large list arrived changed")


def _size(value: object) -> str:
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, (str, list)) else type(value).__name__


# --- side by side -----------------------------------------------------------------------------------------------------


async def sync_steps_do_not_block(trial: Trial) -> None:
    """The event loop goes on while a sync step runs."""

    async def say_go() -> None:
        await trial.marked("started")
        steps.mark(trial.folder, "go")

    async with anyio.create_task_group() as group:
        group.start_soon(say_go)
        said = await trial.output(steps.wait_in_thread, trial.folder)
        group.cancel_scope.cancel()
    demand(said == "went on", "nothing else could run while a sync step waited: it blocked the event loop")


async def concurrent_steps_are_isolated(trial: Trial) -> None:
    """Steps at the same time keep their inputs, outputs, errors and context variables apart."""
    for step in (steps.keep_tag, steps.keep_tag_in_thread):
        flujo, results = Flujo(step, backend=trial), dict[int, PipelineResult]()

        async def run(number: int, flujo: Flujo = flujo, results: dict[int, PipelineResult] = results) -> None:
            results[number] = await flujo.run_async(number)

        async with anyio.create_task_group() as group:
            for number in range(TOGETHER):
                group.start_soon(run, number)
        demand(not trial.raised, f"execute_step raised {trial.raised!r}")
        for number, result in sorted(results.items()):
            given = f"step {step.name!r} number {number} of {TOGETHER} at the same time"
            if number % 5 == 4:
                demand(result.status == "failed", f"{given} failed, and its run is {result.status}")
                demand(str(number) in str(result.error), f"{given} has the error of another: {result.error}")
                continue
            demand(result.status == "completed", f"{given} ended with {result.error}")
            demand(result.output == [str(number)] * 2, f"{given} gave {result.output!r}: [input, its own variable]")


async def context_variables(trial: Trial) -> None:
    """A step sees the context variables of who runs it; of a remote backend this is not asked."""
    token = steps.TAG.set("the caller's")
    try:
        for step in (steps.read_tag, steps.read_tag_in_thread):
            seen = await trial.output(step, "")
            demand(seen == "the caller's", f"step {step.name!r} sees {seen!r}, not the value its caller set")
    finally:
        steps.TAG.reset(token)


# --- ends from outside ------------------------------------------------------------------------------------------------


async def cancellation_is_raised(trial: Trial) -> None:
    """A cancel is raised by `execute_step`, never turned into an outcome."""
    await _cancelled(trial)
    gave = f"execute_step returned {trial.returned!r} and raised {trial.raised!r}"
    demand(not trial.returned, f"a running step was cancelled, and {gave}")
    demand(len(trial.raised) == 1, f"a running step was cancelled, and {gave}")
    demand(isinstance(trial.raised[0], anyio.get_cancelled_exc_class()), f"a cancel became {trial.raised[0]!r}")


async def cancelled_step_has_ended(trial: Trial) -> None:
    """When `execute_step` is over after a cancel, so is the step: what it used is closed after it, not before."""
    await _cancelled(trial)
    left = steps.marks(trial.folder)
    demand("started" in left, "the step never started")
    demand(await trial.is_still(), "the step goes on after its attempt was cancelled")
    went = list(dict.fromkeys(left))
    demand(went == ["opened", "started", "beat", "closed"], f"a cancelled step and its resource went {went}")
    demand(left[-1] == "closed", "its resource was closed while the step went on")


async def _cancelled(trial: Trial) -> None:
    """Cancel a step that runs, from outside of its run."""
    async with anyio.create_task_group() as group:

        async def run() -> None:
            await trial.run(steps.sleep_holding, trial.folder, resources=trial.resources)
            group.cancel_scope.cancel()  # over, without a cancel: nobody need wait for its start

        group.start_soon(run)
        await trial.marked("beat")
        group.cancel_scope.cancel()


async def timeout_ends_a_step(trial: Trial) -> None:
    """An async step whose time is up is cancelled, and the run says so."""
    result = await trial.run(Step(steps.sleep_marked, timeout_s=0.2), trial.folder)
    demand(isinstance(result.error, StepTimeout), f"a step had 0.2 s, and its run ended with {result.error!r}")
    demand(await trial.comes_to_rest(), "the step goes on after its time was up")


async def timeout_leaves_a_thread(trial: Trial) -> None:
    """Nobody waits for a sync step whose time is up; while its thread runs it counts as abandoned and keeps its
    resources (`request.thread`)."""
    result = await trial.run(Step(steps.wait_holding_in_thread, timeout_s=0.3), trial.folder, resources=trial.resources)
    left, error = steps.marks(trial.folder), result.error
    steps.mark(trial.folder, "go")
    demand(isinstance(error, StepTimeout), f"a sync step had 0.3 s, and its run ended with {error!r}")
    assert isinstance(error, StepTimeout)
    if "started" not in left:  # no thread was free in time, and none may begin it now
        return
    demand("ended" not in left, "the run waited for a thread whose time was up")
    if not error.abandoned:  # then it was ended with its process, and does not see that it may go on
        await anyio.sleep(0.2)
        still = "ended" in steps.marks(trial.folder)
        demand(not still, "its thread still ran, and the timeout does not say `abandoned`: set request.thread")
        return
    demand("closed" not in left, "its resource was closed while its thread still runs: see RunningThread.on_return")
    await trial.marked("closed")
    left = steps.marks(trial.folder)
    demand(left.index("ended") < left.index("closed"), f"its resource was closed before its thread was over: {left}")


BackendRule = Callable[[Trial], Awaitable[None]]

BACKEND_RULES: tuple[BackendRule, ...] = (
    success,
    failure_is_an_outcome,
    one_attempt,
    base_exception,
    update_changes,
    large_outputs,
    sync_steps_do_not_block,
    concurrent_steps_are_isolated,
    context_variables,
    cancellation_is_raised,
    cancelled_step_has_ended,
    timeout_ends_a_step,
    timeout_leaves_a_thread,
)
