"""The other end of a remote backend: a worker runs tasks as the engine would, under the same plugins and policy."""

from __future__ import annotations

import os
import platform
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import anyio
from opentelemetry.context import attach, detach
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic import BaseModel

from .assignable import classes_of
from .attempt import Attempt, Changes
from .away import ACTS, digest_of
from .backends import LocalBackend
from .bind import Binding, bind
from .codec import dump, dump_changes, load, load_changes
from .context import RunContext, RunInfo
from .errors import FlujoError, InputError, PluginError, SnapshotError, StepFailed, StepTimeout, TaskRejected
from .events import collector
from .foreign import attempt, attempt_async, text_of
from .hooks import Hooks
from .imports import at, stages_at
from .keeper import Keeper
from .leaving import GiveChunk, leaving
from .ledger import Ledger
from .outcome import Aborted, Begun, Called, Failure, Outcome, Paused, Success, status_of
from .places import Places
from .plan import RUN_INPUT, Plan, Scope, Source, StepNode
from .policy import Policy
from .recipes import from_environment, made
from .registry import Plugins
from .resources import ResourceScope, specs_of, widened
from .retry import retry_after_s
from .run import Run
from .schedule import start
from .sender import ERRORS, TEXTS
from .setup import Setup
from .snapshot import QuestionData
from .steps import Step
from .streamstep import StreamStep
from .wire import CodeBlob, CodeRef, ErrorData, EventData, OutcomeData, StepTask, StreamRef, UsageData, WorkerFacts

_W3C = TraceContextTextMapPropagator()
_REMEMBERED = 256
"""How many steps a worker keeps ready."""

_NOTHING = UsageData()


@dataclass(frozen=True, slots=True)
class _Ready:
    """A step that is ready to be run, any number of times: what its runs share, and which resources they need."""

    node: StepNode
    setup: Setup
    needs: frozenset[str]


class Worker:
    """Runs tasks, any number at a time, on asyncio or trio. Resources of app scope live as long as it does.

    Args:
        plugins: Plugin objects, for those that a run was given as objects: an object does not travel.
        policy: What is demanded here, beside the policy of each run.
        unpack: Makes the step's code of what a backend packed; None refuses such tasks.
        secret: Finds a secret by its name; the environment's variables when left out.
        engine: What it calls itself in `WorkerFacts`.
    """

    def __init__(
        self,
        *,
        plugins: Iterable[object] = (),
        policy: Policy | None = None,
        unpack: Callable[[CodeBlob], object] | None = None,
        secret: Callable[[str], str] | None = None,
        engine: str = "worker",
    ) -> None:
        self._given = Plugins(plugins)
        self._policy = policy or Policy()
        self._unpack = unpack
        self._secret = secret or from_environment
        self._ready: OrderedDict[object, _Ready] = OrderedDict()
        self._apps: dict[str, dict[str, object]] = {}
        self._opening = anyio.Lock()
        self._exits = AsyncExitStack()
        name = f"{platform.node()}:{os.getpid()}"
        self._facts = WorkerFacts(engine=engine, worker=name, python=platform.python_version())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the resources of app scope."""
        self._apps.clear()
        await self._exits.aclose()

    async def execute(self, data: str | bytes, give: GiveChunk | None = None) -> str:
        """As `execute_task`, with JSON on both sides; a task that cannot be read gives an outcome that says so."""
        try:
            task = StepTask.read(data)
        except InputError as error:
            refused = _error(TaskRejected("E_SHAPE", error.why))
            return OutcomeData(task_id="", status="aborted", error=refused, usage=UsageData()).model_dump_json()
        return (await self.execute_task(task, give)).model_dump_json()

    async def execute_task(self, task: StepTask, give: GiveChunk | None = None) -> OutcomeData:
        """Run one attempt. Whatever goes wrong is in what it returns; only a cancellation is raised.

        Args:
            task: The task.
            give: Sends each chunk of a task that `is_stream`; without it such a task is refused.
        """
        began = perf_counter()
        token = attach(_W3C.extract(task.trace)) if task.trace else None
        try:
            answer = await self._answer(task, give)
        finally:
            if token is not None:
                detach(token)
        facts = self._facts.model_copy(update={"duration_s": perf_counter() - began})
        return answer.model_copy(update={"worker": facts})

    async def _answer(self, task: StepTask, give: GiveChunk | None) -> OutcomeData:
        try:
            ready = self._prepared(task)
            run = _run(task, ready, events := list[EventData]())
            if task.is_stream:
                run.calls = leaving(run, task, give)
        except TaskRejected as error:
            return OutcomeData(task_id=task.id, status="aborted", error=_error(error), usage=_NOTHING)
        done, fault = await attempt_async(self._worked(task, ready, run))
        return _written(task, run, done or (Failure(_failure(task, fault)), None), events)

    async def _worked(self, task: StepTask, ready: _Ready, run: Run) -> tuple[Outcome, Changes]:
        """Do it, with its resources open and within its deadline."""
        trial: Attempt | None = None
        try:
            with run.scope or anyio.CancelScope() as scope:
                app = await self._app(task, ready)
                async with ResourceScope(ready.setup.specs, "run", ready.needs, app) as opened:
                    run.values = run.step_values = opened.values
                    trial = Attempt(run, run.calls, run.state.root, ready.node, task.attempt, task.feedback)
                    outcome, changes = await trial.work()
                    opened.cause = outcome.error
        finally:
            if trial is not None:
                trial.ctx.end()  # what it left open counts in full
        if scope.cancelled_caught:
            return Failure(StepTimeout(task.path, run.deadline_s or 0.0)), None
        if run.verdict is not None and isinstance(outcome, Success):  # a step cannot undo it by catching it
            outcome = (Failure if status_of(run.verdict) == "stopped" else Aborted)(run.verdict)
        return outcome, changes

    async def _app(self, task: StepTask, ready: _Ready) -> Mapping[str, object]:
        """What is open of app scope; it is opened when it is first needed."""
        names = [name for name in ready.needs if ready.setup.specs[name].scope == "app"]
        if not names or task.resources is None:
            return {}
        async with self._opening:
            there = self._apps.setdefault(task.resources.model_dump_json(), {})
            if not there.keys() >= set(names):
                keeper = Keeper(ResourceScope(ready.setup.specs, "app", names, there))  # no task's end is its end
                there.update((await self._exits.enter_async_context(keeper)).values)
        return there

    # --- getting ready ----------------------------------------------------------------------------------------------

    def _prepared(self, task: StepTask) -> _Ready:
        """The step of a task, from what was made ready before where it is the same."""
        model = None if task.context is None else task.context.model
        parts = [*task.plugins, *([] if task.resources is None else [task.resources])]
        key = (task.code, task.name, task.options, model, task.policy_digest, *[one.model_dump_json() for one in parts])
        ready = self._ready.get(key)
        if ready is None:
            made, fault = attempt(self._made_ready, task)
            if made is None:
                raise _refusal(fault)
            ready = self._ready[key] = made
            if len(self._ready) > _REMEMBERED:
                self._ready.popitem(last=False)
        return ready

    def _made_ready(self, task: StepTask) -> _Ready:
        policy = self._held_policy(task)
        resources = None if task.resources is None else made(task.resources, self._secret)
        specs = specs_of(resources)
        plugins = self._plugins(task, policy)
        table = {hook: found for hook, found in plugins.hooks(policy, (), specs).table.items() if hook in ACTS}
        model = None if task.context is None else at(task.context.model)
        if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise TaskRejected("E_CODE", "its context model is no pydantic model")
        step = self._step(task)
        binding = bind(step, specs, None if resources is None else type(resources), model)
        if task.is_stream:
            binding = replace(binding, output=int)  # how many chunks left
        node = _node(task, step, binding)
        by_hooks = {name for found in table.values() for one in found for _, name in one.resources}
        needs = widened(node.needs(specs) | by_hooks, specs)
        whole = Source("", 0, (), Any, 0)
        plan = Plan(task.run.pipeline, (Scope(0, (node,), whole, Any, binding.output, "", True, None),), model)
        by_step = {0: needs} if any(specs[name].scope == "step" for name in needs) else {}
        hooks, here = Hooks(policy, table), Places(LocalBackend(), {}, {})
        scopes = (specs, frozenset[str](), needs, by_step, resources)
        return _Ready(node, Setup(plan, hooks, here, plugins.price_of, *scopes), needs)

    def _held_policy(self, task: StepTask) -> Policy:
        """The policy of the run and of this worker together."""
        if digest_of(task.policy) != task.policy_digest:
            raise TaskRejected("E_POLICY", "the policy is not the one that its digest is of")
        policy, error = attempt(Policy.model_validate, task.policy)
        if policy is None or error is not None:
            raise TaskRejected("E_POLICY", "the policy cannot be read by this version")
        missing = self._policy.require - {one.name for one in task.plugins}
        if missing:
            raise TaskRejected("E_POLICY", f"this worker requires {', '.join(sorted(missing))}, which does not act")
        return policy.joined(self._policy)

    def _plugins(self, task: StepTask, policy: Policy) -> Plugins:
        """The plugins of the run, as far as they act in it here."""
        given = dict(self._given.acting)
        there = {one.distribution: one for one in self._given.installed} if task.plugins else {}
        use: list[object] = []
        for one in task.plugins:
            found = there.get(one.name)
            if one.version and (found is None or found.version != one.version or found.state == "blocked"):
                here = "none" if found is None else f"{found.version}{' (blocked)' if found.state == 'blocked' else ''}"
                raise TaskRejected("E_POLICY", f"plugin {one.name!r} acts in version {one.version}, here is {here}")
            if not one.acts:
                continue
            if one.settings is None and one.name not in given:
                why = f"plugin {one.name!r} was given as an object, or with secrets, and does not travel"
                raise TaskRejected("E_POLICY", f"{why}: give this worker one: Worker(plugins=[...])")
            use.append(given[one.name] if one.settings is None else one.name)
        settings = {one.name: one.settings for one in task.plugins if one.settings is not None}
        plugins, error = attempt(Plugins, use, settings=settings, policy=policy)
        if plugins is None:
            raise TaskRejected("E_POLICY", text_of(error or ValueError()))
        return plugins

    def _step(self, task: StepTask) -> Step:
        options = task.options
        held: dict[str, Any] = {"name": task.name, "timeout_s": options.timeout_s, "reads": options.reads}
        if isinstance(task.code, StreamRef):
            return StreamStep(stages_at(task.code.refs), **held)
        return Step(self._code(task), writes=options.writes, inline=options.inline, **held)

    def _code(self, task: StepTask) -> object:
        if isinstance(task.code, CodeRef):
            return at(task.code.ref)
        if self._unpack is None or not isinstance(task.code, CodeBlob):
            raise TaskRejected("E_CODE", "this worker takes code by import path only")
        return self._unpack(task.code)


class _Visit(Run):
    """The run that an attempt belongs to here. It keeps no journal, so nothing may begin in it that is asked for later.

    Attributes:
        may_begin: Whether its step happens at most once as a whole, which was journaled before it was sent.
    """

    may_begin: bool = False

    async def note_told(self, ctx: RunContext, told: Called | Begun) -> None:
        """See Running."""
        if isinstance(told, Begun) and not told.is_over and not self.may_begin:
            why = f"its call of tool {told.tool!r} may happen at most once, which nobody could know if this worker died"
            do = "Make the whole step at_most_once, or run it here: step(backend='local')"
            raise StepFailed(ctx.step_path, "NotRemote", why, do)
        await super().note_told(ctx, told)


def _refusal(error: Exception | None) -> TaskRejected:
    if isinstance(error, TaskRejected):
        return error
    why = f"{type(error).__name__}: {text_of(error or ValueError())}"
    return TaskRejected("E_POLICY" if isinstance(error, PluginError) else "E_CODE", why)


# --- parts of a task --------------------------------------------------------------------------------------------------


def _run(task: StepTask, ready: _Ready, events: list[EventData]) -> _Visit:
    """The one-step run that an attempt belongs to here."""
    setup, data, limits = ready.setup, task.run, task.lease.limits
    if task.tells:
        heard = {hook: (collector(hook, events),) for hook in task.tells}
        setup = replace(setup, hooks=Hooks(setup.hooks.policy, {**setup.hooks.table, **heard}))
    left = None if task.deadline is None else max(0.0, task.deadline - time.time())
    scope = None if left is None else anyio.CancelScope(deadline=anyio.current_time() + left)
    state = start(setup.plan, _inputs(task, ready), _context(task, ready))
    run = _Visit(setup, data.run_id, None if limits.unlimited else Ledger(limits), state, scope)
    words = (data.actor, data.tenant, dict(data.tags), run.counts)
    run.info = RunInfo(data.run_id, data.pipeline, data.fingerprint, *words)
    run.deadline_s, run.mark, run.may_begin = left, task.mark, task.options.effect == "at_most_once"
    run.state.root.start = task.path.removesuffix(ready.node.name)
    if task.told:
        state.has_words, state.known[0, 0] = True, list(task.told)
    return run


def _node(task: StepTask, step: Step, binding: Binding) -> StepNode:
    """The step alone in a plan of its own: its inputs are the run input, by name."""
    sources = tuple(
        Source(name, RUN_INPUT, (name,), hint) for name, hint in binding.inputs.items() if name in task.inputs
    )
    facts = (0, 0, 0, task.name, task.name, binding, sources, (), (), 0, frozenset(task.options.writes), (), ())
    return StepNode(*facts, False, step, classes_of(binding.output) or (object,), Any, None, RUN_INPUT, None)


def _inputs(task: StepTask, ready: _Ready) -> dict[str, object]:
    types = {source.parameter: source.type for source in ready.node.sources}
    try:
        if task.inputs.keys() != types.keys():
            raise SnapshotError("its inputs do not fit", f"the step takes {', '.join(types) or 'none'}")
        return {name: load(types[name], value, f"input {name!r}", strict=True) for name, value in task.inputs.items()}
    except SnapshotError as error:
        raise TaskRejected("E_SHAPE", f"{error.what}: {error.why}") from None


def _context(task: StepTask, ready: _Ready) -> BaseModel | None:
    """The context with the declared fields and no others: to read another one raises AttributeError."""
    model = ready.setup.plan.context_model
    if task.context is None or model is None:
        return None
    try:
        fields = load_changes(model, task.context.fields, "the task")
    except SnapshotError as error:
        raise TaskRejected("E_SHAPE", f"{error.what}: {error.why}") from None
    context = model.model_construct(_fields_set=set(fields))
    context.__dict__.clear()
    context.__dict__.update(fields)
    return context


def _failure(task: StepTask, error: Exception | None) -> FlujoError:
    if isinstance(error, FlujoError) and _kind(error):
        return error
    return StepFailed.by(task.path, error or RuntimeError("nothing came of it"))


def _kind(error: FlujoError) -> str:
    """Its own class, or the nearest of those above it that travel."""
    return next((cls.__name__ for cls in type(error).__mro__ if cls.__name__ in ERRORS), "")


def _error(error: FlujoError) -> ErrorData:
    """An error in texts, with the classes of what the step raised."""
    kind, cause, data = _kind(error), error.__cause__, vars(error)
    facts = {name: kind_(data[name]) for name, kind_ in {**TEXTS, **ERRORS[kind]}.items()}
    classes = () if cause is None else tuple(f"{cls.__module__}:{cls.__qualname__}" for cls in type(cause).__mro__)
    return ErrorData(kind=kind, facts=facts, classes=classes, retry_after_s=attempt(retry_after_s, error)[0])


def _written(task: StepTask, run: Run, ended: tuple[Outcome, Changes], events: list[EventData]) -> OutcomeData:
    """How an attempt ended, as JSON. It is made of what was just written by pydantic, and so not validated again."""
    (outcome, changes), plan, spent = ended, run.setup.plan, run.spent
    run.hide_secrets(outcome.error)
    said = (entry.outcome for entry in run.entries())
    facts: dict[str, Any] = {
        "task_id": task.id, "output": None, "error": None, "question": None, "changes": None, "events": tuple(events),
        "usage": UsageData.of(spent) if spent.requests or spent.cost_usd or spent.total_tokens else _NOTHING,
        "told": tuple((one.key, one.value) for one in said if isinstance(one, Called)), "counts": run.info.counts,
        "worker": None,
    }  # fmt: skip
    try:
        if isinstance(outcome, Success):
            facts["output"] = dump(plan.steps[0].output_type, outcome.output, "its output")
            facts["changes"] = dump_changes(plan.context_model, changes, task.path) if changes else None
            return OutcomeData.model_construct(**_FORM, status="success", **facts)
    except SnapshotError as error:
        outcome = Failure(StepFailed(task.path, "NotSerialisable", f"{error.what}: {error.why}"))
    if isinstance(outcome, Paused):
        facts["question"] = QuestionData.of(outcome.request)
        return OutcomeData.model_construct(**_FORM, status="paused", **facts)
    assert isinstance(outcome, (Failure, Aborted))
    facts["error"] = _error(outcome.error)
    status = "aborted" if isinstance(outcome, Aborted) else "failure"
    return OutcomeData.model_construct(**_FORM, status=status, **facts)


_FORM: Mapping[str, Any] = {"format": "flujo-outcome", "version": 1}
