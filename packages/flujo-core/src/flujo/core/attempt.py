"""One attempt of a step: its inputs, the hooks around it, its resources, its output."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Mapping

import anyio
from pydantic import BaseModel

from . import signals
from .backends import LocalBackend
from .carved import ledger_of
from .context import CallGate, RunContext
from .errors import FlujoError, GuardDenied, ResourceError, RunAborted, StepFailed, StepTimeout, WorkerLost
from .execution import ExecutionBackend, StepExecutionRequest, StepOutcome
from .foreign import attempt, attempt_async, text_of
from .frames import Frame
from .keeper import Keeper
from .mutating import agreed
from .outcome import Aborted, Begun, Failure, Mutated, Outcome, Paused, Skipped, Success
from .payloads import GuardStep, PreStepExecution, TransformStepInput, TransformStepOutput
from .places import settled
from .plan import RUN_INPUT, StepNode
from .resources import ResourceScope
from .running import Act, Running
from .signatures import Question
from .telemetry import Watch, carrier
from .told import attempts_before
from .values import context_at, inputs_of, unfit_claim

Changes = Mapping[str, object] | None


class Attempt:
    """One attempt of one visit of a step.

    Args:
        run: The run.
        gate: The way to models and tools.
        frame: Where the step stands.
        node: The step.
        number: Number of this attempt, from 1.
        feedback: What validators said to the attempts before.

    Attributes:
        cached: Whether the output came from the cache.
        feedback: What validators said to this one.
        unready: What keeps the backend of a remote step from being used.
    """

    __slots__ = ("_fresh", "cached", "ctx", "feedback", "frame", "node", "number", "path", "run", "unready")

    def __init__(
        self, run: Running, gate: CallGate, frame: Frame, node: StepNode, number: int, feedback: tuple[str, ...] = ()
    ) -> None:
        self.run: Running = run
        self.frame: Frame = frame
        self.node: StepNode = node
        self.number: int = number
        self.path: str = frame.prefix + node.name
        self.cached: bool = False
        self.feedback: tuple[str, ...] = ()
        self.unready: Exception | None = None
        self._fresh: tuple[str, object, Changes] | None = None
        timeout = node.step.options.timeout_s
        deadline = run.scope.deadline if run.deadline_s is not None and run.scope is not None else None
        if timeout is not None:
            deadline = min(anyio.current_time() + timeout, math.inf if deadline is None else deadline)
        ledger = ledger_of(run, frame, node)
        self.ctx: RunContext = RunContext(run.info, self.path, number, deadline, ledger, gate, feedback=feedback)
        self.ctx.visit = (frame.id, node.index)
        if run.state.known:
            self.ctx.told(run.state.known.get(self.ctx.visit, ()))

    def execute(self) -> Awaitable[tuple[Outcome, Changes]]:
        """Run it; only a cancellation is raised."""
        return self.work() if self.run.watch is None else self._watched(self.run.watch)

    async def _watched(self, watch: Watch) -> tuple[Outcome, Changes]:
        with watch.step(self.ctx, self.node.step.name) as piece:
            outcome, changes = await self.work()
            piece.fail(outcome.error)
            piece.note({signals.IS_CACHED: self.cached or None})
            if self.ctx.metered is not None:
                piece.use(self.ctx.spent)
            return outcome, changes

    async def work(self) -> tuple[Outcome, Changes]:
        """Transform, guard, record and announce the attempt around its work, where somebody acts."""
        run, hooks = self.run, self.run.hooks
        act = Act("step", self.path, self.ctx, self.number) if hooks.around_step or hooks.before_step else None
        outcome: Outcome
        changes: Changes = None
        try:
            outcome, changes = self._decided() or await self._admitted(act)
            if self.ctx.emitted is not None:
                await self.ctx.emitted.let_go()
            if self.ctx.denial is not None:
                raise self.ctx.denial
            if act is not None and hooks.outputs and isinstance(outcome, Success):
                outcome.output = await changed(run, act, self.node, outcome.output)
            if isinstance(outcome, Success):
                outcome, changes = await self._finished(outcome, changes)
        except (GuardDenied, RunAborted) as error:
            outcome = Aborted(error)
        except Exception as error:  # a reducer of the user's, for one: no reason to lose what was paid for
            outcome = Failure(error if isinstance(error, StepFailed) else StepFailed.by(self.path, error))
        except BaseException as stop:  # a cancel: each intent gets its result
            if act is not None:
                await run.conclude(act, stop, None, self.ctx.spent)
            raise
        if act is not None:
            await run.conclude(act, outcome.error, outcome.output, self.ctx.spent, paused=isinstance(outcome, Paused))
        return outcome, changes

    def _decided(self) -> tuple[Outcome, Changes] | None:
        """What a human decided for this step, if that has not been used; after a refusal it is asked anew."""
        state, visit = self.run.state, self.ctx.visit
        is_new = visit in state.decided and self.number == attempts_before(state, visit)[0] + 1
        return (Success(state.decided[visit]), None) if is_new else None

    async def _admitted(self, act: Act | None) -> tuple[Outcome, Changes]:
        """Do the work, once transforms, guards, recorders and observers had their turn."""
        run, inputs = self.run, self._inputs()
        if act is not None:
            await admit(run, act, self.node, inputs)
        return await (self._invoke(inputs) if self.node.step.options.cache else self._executed(inputs))

    # --- inputs and hooks -------------------------------------------------------------------------------------------

    def _inputs(self) -> dict[str, object]:
        inputs, lost = attempt(inputs_of, self.frame, self.node)
        if inputs is None:
            raise missing(self.path, lost)
        for parameter, origin, fit in self.node.checks:
            inputs[parameter], problem = fit(inputs[parameter])
            if problem is not None:
                why = f"input {parameter!r}, taken from {origin}, does not fit: {problem}"
                raise StepFailed(self.path, "InputMismatch", why)
        return inputs

    # --- the work ---------------------------------------------------------------------------------------------------

    async def _invoke(self, inputs: Mapping[str, object]) -> tuple[Outcome, Changes]:
        """Do the work, or find that it was done before."""
        cache = self.run.setup.cache
        key = cache.key(self.node, inputs, self._context())
        # An attempt that follows another looks no more: what it would find may be what was refused.
        kept = cache.find(key) if key is not None and self.number == 1 else None
        if kept is not None:
            self.cached = True
            return Success(kept[0]), kept[1]
        outcome, changes = await self._executed(inputs)
        if key is not None and type(outcome) is Success:  # a hit would not change the pipeline
            self._fresh = (key, outcome.output, changes)
        return outcome, changes

    async def _executed(self, inputs: Mapping[str, object]) -> tuple[Outcome, Changes]:
        node, timeout_s = self.node, self.node.step.options.timeout_s
        if node.step.options.effect == "at_most_once":
            await self.run.note_told(self.ctx, Begun())
            if self.run.verdict is not None:
                await self.run.note_told(self.ctx, Begun(is_over=True))
                return Aborted(self.run.verdict), None
        request = StepExecutionRequest(node.step, inputs, timeout_s, self.ctx, unready=self.unready)
        try:
            done = await self._placed(request)
        except ResourceError as error:
            return Failure(error), None
        except FlujoError:
            raise
        except Exception as error:  # who made the backend may raise anything
            return Failure(WorkerLost(self.path, error)), None
        if done is None:
            late, still = timeout_s or 0.0, request.thread is not None
            return Failure(StepTimeout(self.path, late, abandoned=still, partial=self.ctx.partial)), None
        if self.ctx.pending is not None:  # whatever the step made of it
            return Paused(self.ctx.pending), None
        return settled(node, self.path, done, self.run.setup.plan.context_model)

    async def _placed(self, request: StepExecutionRequest) -> StepOutcome | None:
        """Run it where its step has its place; None where its time was up."""
        node, timeout_s, places = self.node, request.timeout_s, self.run.setup.places
        backend = places.chosen.get(node.index, places.default) if places.chosen else places.default
        if self.run.watch is not None and not isinstance(backend, LocalBackend):
            request.trace = carrier()
        if node.index in places.away:
            context = self._context() if node.step.options.reads or node.step.options.writes else None
            return await places.away[node.index].execute(self.run, request, self.frame, context)
        elif timeout_s is not None:
            with anyio.move_on_after(timeout_s) as limit:
                return await self._work(backend, request, limit)
        else:
            return await (self._work(backend, request, None) if node.binding.injects else backend.execute_step(request))
        return None

    async def _work(
        self, backend: ExecutionBackend, request: StepExecutionRequest, limit: anyio.CancelScope | None
    ) -> StepOutcome:
        """Run it on the backend, with what lives for one attempt; an abandoned thread keeps that until it returns."""
        run, node = self.run, self.node
        if (wanted := run.setup.step_resources.get(node.index)) is None:
            if node.binding.injects:
                request.arguments = self._arguments(request.arguments, run.step_values)
            return await backend.execute_step(request)
        scope = ResourceScope(run.setup.specs, "step", wanted, run.step_values)
        keeper = Keeper(scope) if node.step.needs_thread else None
        await (keeper or scope).__aenter__()
        error: BaseException | None = None
        try:
            request.arguments = self._arguments(request.arguments, scope.values)
            done = await backend.execute_step(request)
            if isinstance(done.outcome, Failure):
                error = done.outcome.error.__cause__ or done.outcome.error
        except BaseException as raised:  # a cancel: close as after any error, then it goes on up
            error = TimeoutError() if limit is not None and limit.cancel_called else raised
            raise
        finally:
            scope.cause = error
            if keeper is None or request.thread is None or not request.thread.on_return(keeper.release):
                await (keeper or scope).__aexit__(None, error, None)  # a cancel goes on up, whatever closing raises
        return done

    async def _finished(self, outcome: Success, changes: Changes) -> tuple[Outcome, Changes]:
        """The outcome; a failure where validators, or what a follower takes of its output, say so."""
        for validator in self.node.step.options.validators:
            said, error = await attempt_async(validator.ask(outcome.output, self._context()))
            if error is not None:
                text = text_of(error, (outcome.output, self.frame.context))
                failed = StepFailed(self.path, type(error).__name__, f"a validator raised: {text}")
                failed.__cause__ = error
                return Failure(failed), None
            if said is not None and said is not True:
                self.feedback = (*self.feedback, said if isinstance(said, str) else f"{validator.name} said no")
        if self.feedback:
            return Failure(StepFailed(self.path, "ValidationFailed", "; ".join(self.feedback))), None
        if (problem := unfit_claim(self.node, outcome.output)) is not None:
            return Failure(StepFailed(self.path, "OutputMismatch", problem)), None
        if self._fresh is not None:
            self.run.setup.cache.keep(*self._fresh)
        if isinstance(outcome, Mutated):
            outcome = await agreed(self.run, self.ctx.visit, self.path, outcome, self.ctx)
        return outcome, changes

    def _arguments(self, inputs: Mapping[str, object], values: Mapping[str, object]) -> dict[str, object]:
        binding = self.node.binding
        arguments = dict(inputs)
        for name in binding.resources:
            arguments[name] = values[name]
        if binding.ctx_parameter is not None:
            arguments[binding.ctx_parameter] = self.ctx
        if binding.context_parameter is not None:
            arguments[binding.context_parameter] = self._context()
        if binding.all_resources_parameter is not None:
            arguments[binding.all_resources_parameter] = self.run.setup.resources_view(values)
        return arguments

    def _context(self) -> BaseModel | None:
        if self.frame.context is None:
            return None
        context, error = attempt(context_at, self.frame, self.node)
        if error is not None:  # the user's own reducer failed
            raise StepFailed.by(self.path, error) from error
        return context


async def admit(run: Running, act: Act, node: StepNode, inputs: dict[str, object]) -> None:
    """Let transforms, guards, recorders and observers have their turn before a step's work.

    Each gets inputs of its own: who looks on cannot change what the step is given.

    Raises:
        GuardDenied, StepFailed, RunAborted: One denied, a transform failed, or an observer ended the run.
    """
    hooks = run.hooks
    if hooks.inputs:
        for source in node.sources:
            name, from_run_input = source.parameter, source.node == RUN_INPUT
            given = TransformStepInput(run.info, act.path, name, inputs[name], from_run_input)
            inputs[name] = await hooks.transform(given, "transform_step_input", run.values, source.type)
    if hooks.guards:
        guarded = object.__new__(GuardStep)  # to call the class costs twice as much
        guarded.run, guarded.step_path, guarded.name = run.info, act.path, node.step.name
        guarded.attempt, guarded.inputs = act.attempt, inputs.copy()
        denial = await hooks.guard(guarded, "guard_step", run.values, run.on_asyncio)
        if denial is not None and isinstance(denial, GuardDenied):
            await run.deny(denial, act.path, act.keep)
    if hooks.records:
        await run.intend(act, dict(inputs))
    if hooks.before_step:
        begun = PreStepExecution(run.info, act.path, node.step.name, act.attempt, dict(inputs))
        await run.observe("pre_step_execution", lambda: begun, act.keep)
    if isinstance(run.verdict, RunAborted):
        raise run.verdict


async def unwanted(when: Question, frame: Frame, node: StepNode, path: str) -> Outcome | None:
    """How a step ends that is not to run; None where it is."""
    inputs, lost = attempt(inputs_of, frame, node)
    if inputs is None:
        return Failure(missing(path, lost))
    value = next(iter(inputs.values())) if len(inputs) == 1 else inputs
    context, error = attempt(context_at, frame, node)  # a reducer is the user's
    if error is not None:
        return Failure(StepFailed.by(path, error, (value, frame.context)))
    wanted, error = await attempt_async(when.ask(value, context))
    if error is None:
        wanted, error = attempt(bool, wanted)
    if error is not None:
        return Failure(StepFailed.by(path, error, (value, context), f"Mend `when=` of {path!r}"))
    return None if wanted else Skipped(value)


def changed(run: Running, act: Act, node: StepNode, output: object) -> Awaitable[object]:
    """What transforms make of what a step gave; StepFailed is raised where one cannot."""
    given = object.__new__(TransformStepOutput)  # as above
    given.run, given.step_path, given.value = run.info, act.path, output
    return run.hooks.transform(given, "transform_step_output", run.values, node.output_type)


def missing(path: str, error: Exception | None) -> StepFailed:
    """What a step fails with where a part of its input is not there."""
    failed = StepFailed(path, "InputMissing", f"a part of its input is missing ({type(error).__name__}: {error})")
    failed.__cause__ = error
    return failed
