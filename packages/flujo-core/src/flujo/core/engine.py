"""`Flujo`: a pipeline with everything it needs to run."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial, reduce
from typing import Any, Unpack

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal
from pydantic import BaseModel

from .away import Terms
from .budgets import Limits, checked, ledger_under
from .check import fitted, words_of
from .compile import compile_plan
from .context import RunInfo
from .errors import AlreadyResumed, ConfigurationError, InputError, LoopRunning, RunExists, StillRunning
from .foreign import attempt_async, text_of
from .found import continued, decide_on, find
from .handle import RunHandle
from .hooks import Hooks
from .kept import Hold, Past, Receipt
from .migrations import accepted_fingerprints
from .mutating import again
from .mutation import Mutations, experiments
from .options import ResumeOptions, RunOptions, context_of
from .pipeline import Pipeline, PipelineLike, as_pipeline
from .places import Backends
from .plan import Plan
from .policy import Policy, held
from .protocols import RunStore
from .registry import Plugins
from .replay import Replay, replayed
from .resources import Resources, ResourceScope, specs_of
from .restore import restored
from .result import PipelineResult
from .resume import claim, receipt_of, release
from .run import Run
from .running import Resumed
from .schedule import start
from .setup import Setup, equipped
from .snapshot import Snapshot
from .streams import Prepared, StreamOpening
from .usage import UsageLimits
from .wakeup import loop_is_running
from .writer import created, taken
from .written import entry_data

_log = logging.getLogger("flujo.core")


Target = PipelineResult | Snapshot | str
"""A run to go on with: its result, a snapshot of it, or its id where a store keeps it."""


class Flujo:
    """A pipeline, ready to run: reusable, and safe to run many times at once.

    Resources of app scope live as long as `async with Flujo(...)` (or `with Flujo(...)` for several sync runs), which
    waits at its end for runs that `start` began, and cancels them after an error. Without it they live for one run.

    Args:
        pipeline: What to run.
        resources: What steps and hooks may be given.
        context_model: Frozen pydantic model of the user's context.
        limits: Limits of each run, or a `Budget` that several runs share.
        backend: Where steps run: a backend or its name, or several by the names that steps give, and `default`.
        plugins: Which plugins act: distribution names, or plugin objects, or a `Plugins`.
        policy: What is demanded of every run, e.g. plugins that must act.
        hooks: Observers as plain callables, chosen by the annotation of their first parameter.
        experimental: What to switch on that may change with any release: `{"mutation"}`, see PipelineMutation.

    Attributes:
        plan: The compiled pipeline.
        plugins: The plugins, acting and installed ones.
        hooks: All that act, by hook, in the order in which they are called.
        given: What it was made with, but for plugins and policy, to make another like it: `Flujo(**flujo.given)`.

    Raises:
        PipelineError: The pipeline cannot work.
        PluginError: A plugin that was named or required is missing, blocked or broken.
    """

    def __init__(
        self,
        pipeline: PipelineLike,
        *,
        resources: Resources | None = None,
        context_model: type[BaseModel] | None = None,
        limits: Limits = None,
        backend: Backends = None,
        store: RunStore | str | None = None,
        plugins: Iterable[object] | Plugins | None = None,
        policy: Policy | None = None,
        hooks: Iterable[Callable[..., object]] = (),
        experimental: Iterable[str] = (),
    ) -> None:
        self.policy: Policy = held(policy)
        self.observers: tuple[Callable[..., object], ...] = tuple(hooks)
        self.given: Mapping[str, Any] = {
            "pipeline": pipeline, "resources": resources, "context_model": context_model, "backend": backend,
            "store": store, "limits": limits, "hooks": self.observers, "experimental": experiments(experimental),
        }  # fmt: skip
        compiled = partial(compile_plan, resources=resources, context_model=context_model, kept=store is not None)
        self.plan: Plan = compiled(pipeline)
        self.limits: Limits = checked(limits, self.policy.max_limits, self.plan.asked_limits)
        self.plugins: Plugins = plugins if isinstance(plugins, Plugins) else Plugins(plugins or (), policy=policy)
        self.plugins.hold_to(self.policy)
        self.store: RunStore | None = self.plugins.store_of(store) if isinstance(store, str) else store
        specs = specs_of(resources)
        self.hooks: Hooks = self.plugins.hooks(self.policy, self.observers, specs)
        terms = Terms(self.policy, self.plugins, self.hooks, resources, specs, context_model)
        keeping = (store is not None, None if self.store is None else self.store.signer)
        self._equip: Callable[[Plan], Setup] = partial(equipped, backend, terms, *keeping)
        self._setup = self._equip(self.plan)
        if self.given["experimental"]:
            self._setup.row = Mutations(as_pipeline(pipeline), len(self.plan.nodes), partial(self._changed, compiled))
        self._fit_input = fitted(self.plan.input_type)
        self._active: set[str] = set()
        self._handles: set[RunHandle] = set()
        self._app: ResourceScope | None = None
        self._portal: BlockingPortal | None = None
        self._exits = ExitStack()

    def _changed(self, compiled: Callable[[Pipeline], Plan], pipeline: Pipeline) -> Setup:
        """What a run goes on with whose pipeline a step changed, so that it can work, within the policy."""
        plan = compiled(pipeline)
        checked(self.limits, self.policy.max_limits, plan.asked_limits)
        return self._equip(plan)  # its cache is its own: it keeps by places in the plan

    # --- running ----------------------------------------------------------------------------------------------------

    async def run_async(self, input: object = None, **options: Unpack[RunOptions]) -> PipelineResult:
        """Run the pipeline.

        Args:
            input: The run input.
            **options: See RunOptions.

        Returns:
            The result; a limit, an abort or a failed step is a result too, with everything paid for kept.

        Raises:
            InputError: The input or the context does not fit; nothing ran.
            RunExists: `run_id` is in use.
        """
        run = self._prepare(input, None, options)
        if self.store is not None or run.watch is not None:
            return await self._execute(run)
        del options  # a dict that every waiting run would hold
        self._enter(run)
        try:  # not by `_execute`: each await on the way costs every wake-up of a step, and memory in every run
            await run.execute({} if self._app is None else self._app.values)
        finally:
            self._active.discard(run.run_id)
        return run.result()

    def run(self, input: object = None, **options: Unpack[RunOptions]) -> PipelineResult:
        """Run the pipeline from sync code; takes what `run_async` takes.

        Raises:
            LoopRunning: An event loop is running here; use `run_async`.
        """
        if loop_is_running():
            raise LoopRunning("Flujo.run", "await flujo.run_async(...)")
        call = partial(self.run_async, input, **options)
        return anyio.run(call) if self._portal is None else self._portal.call(call)

    def start(self, input: object = None, **options: Unpack[RunOptions]) -> RunHandle:
        """Start the pipeline in the running event loop and return at once; takes what `run_async` takes.

        Returns:
            A handle to wait for the result, or to cancel the run.
        """
        run = self._prepare(input, anyio.CancelScope(), options)
        handle = RunHandle(run, partial(self._execute, run), self._handles.discard)
        self._handles.add(handle)
        return handle

    def stream_async(self, input: object = None, **options: Unpack[RunOptions]) -> StreamOpening:
        """Run the pipeline and read it while it goes on: `async with flujo.stream_async(x) as stream`, see RunStream.

        It takes what `run_async` takes, and raises what that raises on entering.
        """

        async def prepared() -> Prepared:
            run = self._prepare(input, None, options)
            return run, partial(self._execute, run)

        return StreamOpening(prepared, self._handles)

    def _prepare(self, value: object, scope: anyio.CancelScope | None, options: RunOptions) -> Run:
        plan, limits, deadline_s = self.plan, options.get("limits"), _deadline(options)
        if options and (unknown := options.keys() - RunOptions.__annotations__.keys()):
            raise TypeError(f"a run has no option {', '.join(sorted(unknown))}; see RunOptions")
        value, problem = self._fit_input(value)
        if problem is not None:
            raise InputError(f"input of pipeline {plan.name!r} does not fit", problem)
        scope = scope or (None if deadline_s is None else anyio.CancelScope())
        run_id, context = options.get("run_id") or os.urandom(16).hex(), options.get("context")
        context = context_of(plan.context_model, context)
        ledger = ledger_under(limits, self.limits, plan.limits, self.policy.max_limits)
        run = Run(self._setup, run_id, ledger, start(plan, value, context), scope)
        if options:
            run.info = RunInfo(run_id, plan.name, plan.fingerprint, *words_of(options), run.counts)
            run.deadline_s, run.own_limits = deadline_s, limits if isinstance(limits, UsageLimits) else None
        return run

    # --- going on ---------------------------------------------------------------------------------------------------

    async def resume_async(
        self, target: Target, decision: object = None, **options: Unpack[ResumeOptions]
    ) -> PipelineResult:
        """Go on with a run that paused, failed, or was stopped by a limit. What ended well is not done again.

        A run's id means the run as it stands, not as the caller saw it: an answer with an id alone that is sent again
        when the run asks its next question answers that. Where it may be sent twice, say `pause=`, or give a token or
        the result: each names its question, and the second time raises AlreadyResumed or ResumeConflict.

        Args:
            target: Its result, a snapshot of it, or its id where a store keeps it.
            decision: The answer to a question; it must be what the question's schema asks for.
            **options: See ResumeOptions.

        Raises:
            SnapshotError: The snapshot is damaged, or of another pipeline.
            InputError: The decision is not what was asked for; the question stays open.
            ResumeError: The run is not one to go on with, went on before, or is not told what to do; see its leaves.
        """
        _, execute = await self._going_on(target, decision, options)
        return await execute()

    def resume_stream_async(
        self, target: Target, decision: object = None, **options: Unpack[ResumeOptions]
    ) -> StreamOpening:
        """Go on with a run, and read it: `async with flujo.resume_stream_async(result, "yes") as stream`.

        It takes what `resume_async` takes, and raises what that raises, on entering or in the place of the result. Text
        that a reader was given of a step before it paused is not given again, as far as the step says the same.
        """
        return StreamOpening(partial(self._going_on, target, decision, options), self._handles)

    async def _going_on(self, target: Target, decision: object, options: ResumeOptions) -> Prepared:
        if unknown := options.keys() - ResumeOptions.__annotations__.keys():
            raise TypeError(f"a resume has no option {', '.join(sorted(unknown))}; see ResumeOptions")
        limits, retry, deadline_s = options.get("limits"), options.get("retry", False), _deadline(options)
        found = await find(self._setup, target, options.get("pause"), self.store)
        run = continued(self._setup, found, limits, self.limits)
        if deadline_s is not None:
            run.deadline_s, run.scope = deadline_s, anyio.CancelScope()
        decided, receipt = await decide_on(run, found, self.store, decision, again=retry or limits is not None)
        now = receipt_of(run.run_id, decided)
        if self.store is None:
            claim(found.past, now)
        if run.run_id in self._active:
            release(run.run_id, found.past)
            raise StillRunning(run.run_id) if receipt is None else AlreadyResumed(receipt)
        if decided is not None:
            lost = () if run.resumed is None else run.resumed.entries
            run.resumed = Resumed(decided.pause, decided.value, (*lost, *decided.entries))
        if self.store is None:
            return run, partial(self._execute, run)
        return run, partial(self._execute, run, partial(self._claimed, self.store, run, found.past, now, receipt))

    async def _claimed(self, store: RunStore, run: Run, past: Past, now: Receipt, receipt: Receipt | None) -> Hold:
        """The right to go on with a run that the store keeps; `receipt` is that of its decision, if it has one."""
        assert run.resumed is not None
        rows = [entry_data(run.setup.plan, entry) for entry in run.resumed.entries]
        if lost := next((row.unwritten for row in rows if row.unwritten is not None), None):
            why = f"its type {lost} cannot be kept by the store"
            raise InputError(f"decision for {now.pause_id!r} does not fit", why, "The question stays open")
        try:
            claiming = store.claim(past.length, past.stood, now, rows)
            return await taken(claiming, self.policy.write_timeout_s, store.release)
        except StillRunning:
            if receipt is None:
                raise
            raise AlreadyResumed(receipt) from None

    async def recover_async(self) -> list[PipelineResult]:
        """Go on with the runs of this pipeline in the store whose process went away, one after another.

        What may happen at most once and was stopped in the middle is put to a human: such a run ends paused. One that
        cannot go on, as what is kept of it is damaged, is logged and left as it is.

        Raises:
            ConfigurationError: There is no store.
        """
        if self.store is None:
            raise ConfigurationError("runs cannot be recovered", "this Flujo has no store", "Pass store=")
        results: list[PipelineResult] = []
        known = accepted_fingerprints(self.plan.fingerprint)
        for run_id in [run_id for one in known for run_id in await self.store.orphans(one)]:
            result, error = await attempt_async(self.resume_async(run_id, retry=True))
            if result is not None:
                results.append(result)
            elif not isinstance(error, StillRunning):  # else somebody was quicker
                _log.warning("run %r could not be recovered: %s", run_id, text_of(error or ValueError()))
        return results

    async def replay_async(self, target: Target) -> Replay:
        """Run the engine again over what was recorded: no step is called, every branch and loop is asked anew.

        Args:
            target: A result, a snapshot, or the id of a run where a store keeps it.

        Returns:
            What it gives, and where it first went another way than the run did.

        Raises:
            SnapshotError: The snapshot is damaged, or of another pipeline.
        """
        found = await find(self._setup, target, None, self.store)
        snapshot = found.snapshot.model_copy(update={"journal": found.past.rows()})
        root = restored(reduce(again, snapshot.mutations, self._setup).plan, snapshot.checkpoint).root
        return await replayed(self._setup, root.input, root.context, snapshot)

    def _execute(self, run: Run, claimed: Callable[[], Awaitable[Hold]] | None = None) -> Awaitable[PipelineResult]:
        work = self._alone(run, claimed)
        return work if run.watch is None else run.watch.run(run, work)

    async def _alone(self, run: Run, claimed: Callable[[], Awaitable[Hold]] | None) -> PipelineResult:
        self._enter(run)
        try:
            app = {} if self._app is None else self._app.values
            if self.store is None:
                return await run.through(app)
            limit_s = self.policy.write_timeout_s
            taking = claimed() if claimed else created(self.store, run.standing("running"), limit_s)
            return await run.written(self.store, await taking, limit_s).around(partial(run.through, app), run.end)
        finally:
            self._active.discard(run.run_id)
            if run.past is not None and not run.journal:
                release(run.run_id, run.past)

    def _enter(self, run: Run) -> None:
        if run.run_id in self._active:
            raise RunExists(run.run_id)
        self._active.add(run.run_id)

    # --- app scope --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Flujo:
        if self._app is not None:
            raise ConfigurationError("Flujo cannot be entered", "it is open already")
        names = self._setup.hook_resources | self._setup.run_resources
        scope = ResourceScope(self._setup.specs, "app", names, {})
        await scope.__aenter__()
        self._app = scope
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        scope, self._app = self._app, None
        if scope is not None:
            with anyio.CancelScope(shield=True):
                while self._handles:  # a run may start another meanwhile
                    handle = next(iter(self._handles))
                    if error is not None:
                        handle.cancel("its Flujo was closed after an error")
                    await handle.done.wait()
            await scope.close(error)

    async def aclose(self) -> None:
        """Wait for the runs that `start` began and close the resources of app scope, if these are open."""
        await self.__aexit__(None, None, None)

    def __enter__(self) -> Flujo:
        """Open an event loop in a thread of its own, and the resources of app scope in it, for several sync runs."""
        if loop_is_running():
            raise LoopRunning("with Flujo(...)", "async with Flujo(...)")
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            stack.enter_context(portal.wrap_async_context_manager(self))
            self._portal, self._exits = portal, stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._portal = None
        self._exits.__exit__(*error)


def _deadline(options: RunOptions | ResumeOptions) -> float | None:
    seconds = options.get("deadline_s")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0):
        raise ConfigurationError(f"deadline_s={seconds!r} cannot be used", "it must be above 0 seconds")
    return seconds
