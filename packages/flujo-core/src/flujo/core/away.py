"""A step that runs elsewhere: what stands against it, and how one attempt of it leaves and comes back."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from pydantic import BaseModel, JsonValue

from .arriving import Arriving
from .assignable import type_name
from .backends import told
from .carved import ledger_of
from .check import no_json
from .codec import unkept
from .errors import (
    GuardDenied,
    NotSent,
    PluginError,
    StepFailed,
    StepTimeout,
    TaskRejected,
    UsageLimitExceeded,
    WorkerLost,
)
from .events import TOLD
from .execution import Capabilities, ExecutionBackend, StepExecutionRequest, StepOutcome, capabilities_of
from .foreign import attempt, attempt_async, text_of
from .frames import Frame
from .hooks import Hooks
from .imports import path_of, paths_of
from .logs import shown_as
from .outcome import Called, Failure, Success
from .payloads import Event, OnGuardDenied
from .plan import StepNode
from .policy import Policy
from .recipes import recipe_of
from .resources import Resources, ResourceSpec, widened
from .scrubbing import scrub
from .sender import Outgoing
from .streamstep import CTX, StreamStep
from .usage import Charge, Fit, Room, Usage, UsageLimits
from .wire import CodeRef, ContextData, LeaseData, OptionsData, PluginRef, StreamRef, lease_of

if TYPE_CHECKING:
    from .registry import Plugins
    from .running import Running

ACTS = (
    *("guard_step", "guard_model_call", "guard_tool_call"),
    *("transform_model_request", "transform_model_response", "transform_chunk"),
)
"""Hooks that act on a worker: `transform_chunk` on a model's answer. Those that change what a step itself takes and
gives, chunks too, act where its run is."""

GRACE_S = 1.0
"""Seconds that a worker may take to say that a step's time was up, before its attempt is cut off from here."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for all steps of a Flujo that leave: its policy, plugins, hooks and resources."""

    policy: Policy
    plugins: Plugins
    hooks: Hooks
    resources: Resources | None
    specs: Mapping[str, ResourceSpec]
    context_model: type[BaseModel] | None

    def fixed(self) -> dict[str, Any]:
        """What all their tasks say of it."""
        policy = policy_data(self.policy)
        return {
            "policy": policy,
            "policy_digest": digest_of(policy),
            "plugins": tuple(self._refs()) if self.plugins.acting else (),
            "tells": tuple(hook for hook in TOLD if self.hooks.of(hook)),
        }

    def _refs(self) -> Iterator[PluginRef]:
        versions = {one.distribution: one.version for one in self.plugins.installed}
        for name, _ in self.plugins.acting:
            acts = tuple(hook for hook in ACTS if any(one.plugin == name for one in self.hooks.of(hook)))
            yield PluginRef(
                name=name, version=versions.get(name, ""), acts=acts, settings=self._settings(name) if acts else None
            )

    def _settings(self, name: str) -> dict[str, Any] | None:
        """What a plugin was made with; None where that cannot travel: an object was given, or it holds a secret."""
        settings = self.plugins.named.get(name)
        is_plain = settings is not None and no_json(dict(settings)) is None
        return dict(settings) if settings is not None and is_plain and shown_as("", settings) == settings else None

    def refuse_local_only(self, name: str, backend: str) -> None:
        """Refuse steps that leave where a plugin works in the process of the run only.

        Raises:
            PluginError: One says `local_only`.
        """
        for plugin, found in self.plugins.acting:
            if getattr(found, "local_only", False):
                why = f"it works in the process of the run only, and step {name!r} runs on {backend}"
                do = "Run the step here: step(backend='local'), or do without the plugin"
                raise PluginError(f"plugin {plugin!r} cannot act", why, do)


def policy_data(policy: Policy) -> dict[str, JsonValue]:
    """A policy as JSON, always in the same order."""
    data: dict[str, Any] = policy.model_dump(mode="json", exclude={"max_limits"})  # it holds where the run is
    return {name: sorted(value) if isinstance(value, list) else value for name, value in data.items()}


def digest_of(policy: Mapping[str, JsonValue]) -> str:
    """SHA-256 of a policy that was written as JSON."""
    return hashlib.sha256(json.dumps(policy, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Away:
    """A step that runs elsewhere.

    Args:
        node: The step.
        backend: Where it runs.
        terms: What holds for it.

    Attributes:
        problems: What stands against it, one sentence each.
    """

    def __init__(self, node: StepNode, backend: ExecutionBackend, terms: Terms) -> None:
        self.node = node
        self.backend = backend
        self.able: Capabilities = capabilities_of(backend)
        self.problems: list[str] = []
        step, binding = node.step, node.binding
        self.who: str = f"step {node.path!r} runs on {type(backend).__name__}, but"
        terms.refuse_local_only(node.path, type(backend).__name__)
        gives = ("chunks", step.chunk) if isinstance(step, StreamStep) else ("output", binding.output)
        for what, hint in [(f"input {s.parameter!r}", s.type) for s in node.sources] + [gives]:
            if why := unkept(hint):
                self.problems.append(f"{self.who} its {what}, {type_name(hint)}, cannot travel: {why}")
        options = step.options
        self._fixed: dict[str, Any] = terms.fixed() | {
            "name": node.name,
            "code": self._code(),
            "options": OptionsData(
                timeout_s=options.timeout_s, effect=options.effect, inline=options.inline,
                reads=options.reads, writes=options.writes,
            ),
            "context": self._context(terms.context_model),
            "resources": self._recipe(terms),
        }  # fmt: skip

    def _code(self) -> CodeRef | StreamRef | None:
        step = self.node.step
        if not isinstance(step, StreamStep):
            ref = path_of(step.target)
            if ref is None and not self.able.pickle:
                self.problems.append(
                    f"{self.who} nothing can import its code elsewhere; move it to the top of a module"
                )
            return None if ref is None else CodeRef(ref=ref)
        refs = paths_of(step)
        if not self.able.streams:
            why = "it is a stream, and no chunks come from there; leave backend= out, and it runs here"
            self.problems.append(f"{self.who} {why}")
        elif refs is None:
            why = "nothing can import all its stages elsewhere; move them, buffer() too, to the top of a module"
            self.problems.append(f"{self.who} {why}")
        return None if refs is None else StreamRef(refs=refs)

    def _context(self, model: type[BaseModel] | None) -> ContextData | None:
        options = self.node.step.options
        if model is None or not (self.node.binding.context_parameter or options.reads or options.writes):
            return None
        if self.node.binding.context_parameter and not options.reads:
            self.problems.append(f"{self.who} takes the context and says not what of it travels: step(reads=(...))")
        for name in {*options.reads, *options.writes} & model.model_fields.keys():
            if why := unkept(model.model_fields[name].annotation):
                self.problems.append(f"{self.who} context field {name!r} cannot travel: {why}")
        ref = path_of(model)
        if ref is None:
            self.problems.append(f"{self.who} the context model cannot be imported; move it to the top of a module")
        return None if ref is None else ContextData(model=ref)

    def _recipe(self, terms: Terms) -> object:
        by_hooks = {name for hook in ACTS for one in terms.hooks.of(hook) for _, name in one.resources}
        names = widened(self.node.needs(terms.specs) | by_hooks, terms.specs)
        if not names or terms.resources is None:
            return None
        recipe, problems = recipe_of(terms.resources, terms.specs, names)
        self.problems += [f"{self.who} {problem}" for problem in problems]
        return recipe

    # --- one attempt ------------------------------------------------------------------------------------------------

    async def ready(self) -> Exception | None:
        """Let its backend make itself ready, before the time of an attempt begins; what it raised comes back."""
        if self.able.prepare is None:
            return None
        getting, error = attempt(self.able.prepare)
        return error if getting is None else (await attempt_async(getting))[1]

    async def execute(
        self, run: Running, request: StepExecutionRequest, frame: Frame, context: BaseModel | None
    ) -> StepOutcome:
        """Run one attempt there: reserve what it may use, send it, settle, and tell here what happened there.

        One whose time is up is cut off, and nobody knows then what it used.
        """
        seconds = request.timeout_s
        with anyio.move_on_after(math.inf if seconds is None else seconds + GRACE_S):
            done = await self._held(run, request, frame, context)
            await tell(run, request, done)
            return done
        assert seconds is not None
        ctx = request.ctx
        late = StepTimeout(ctx.step_path, seconds, abandoned=request.thread is not None, partial=ctx.partial)
        if (unready := request.unready) is not None:
            late.__cause__ = unready
            late.why = scrub(f"{late.why}; its backend was not ready: {type(unready).__name__}: {text_of(unready)}")
        return StepOutcome(Failure(late))

    async def _held(
        self, run: Running, request: StepExecutionRequest, frame: Frame, context: BaseModel | None
    ) -> StepOutcome:
        """Reserve what it may use, send it, and settle.

        A step without a RunContext can use nothing that is metered, so nothing is reserved for it.
        """
        if self.node.binding.ctx_parameter in (None, CTX):
            done = await self._worked(run, request, context, LeaseData())
        else:
            meter, limits = request.ctx.usage, ledger_of(run, frame, self.node).tightest
            try:
                async with meter.reserve_fitting(self._fit(limits)) as lease:
                    done = await self._worked(run, request, context, lease_of(lease.charge, limits))
                    if done.usage is not None:
                        lease.close(done.usage)
            except UsageLimitExceeded as error:
                return StepOutcome(Failure(error))
            if isinstance(done.outcome, Failure) and isinstance(done.outcome.error, UsageLimitExceeded):
                meter.breach = meter.breach or done.outcome.error
        return done

    async def _worked(
        self, run: Running, request: StepExecutionRequest, context: BaseModel | None, lease: LeaseData
    ) -> StepOutcome:
        """Send it. The chunks of a stream go the way of those that are made here, and make what those make."""
        step = self.node.step
        if not isinstance(step, StreamStep):
            return await self._sent(run, request, context, lease)
        arriving = Arriving(step.chunk)

        async def send() -> None:
            arriving.end(await self._sent(run, request, context, lease, arriving))

        async with anyio.create_task_group() as group:
            group.start_soon(send)
            chunks = (arriving.chunks(),)
            value, error = await attempt_async(request.ctx.deliver(step, chunks, step.fold()))
            group.cancel_scope.cancel()  # it goes on there where a transform of its chunks failed, for one
        done = arriving.done or StepOutcome(Success(None))
        if isinstance(done.outcome, Success):
            done.outcome = told(value, error, request.ctx.step_path, {}).outcome
        return done

    async def _sent(
        self,
        run: Running,
        request: StepExecutionRequest,
        context: BaseModel | None,
        lease: LeaseData,
        arriving: Arriving | None = None,
    ) -> StepOutcome:
        ctx = request.ctx
        mark = f"@{ctx.step_path}@{ctx.attempt}{run.mark}"
        known = run.state.known.get(ctx.visit, ()) if run.state.known else ()
        end = run.scope.deadline if run.deadline_s is not None and run.scope is not None else None
        sender = Outgoing(self.node, self._fixed, request, context, lease, mark, known, end, self.able.max_payload)
        request.sender, sender.arriving = sender, arriving
        done, error = await attempt_async(self.backend.execute_step(request))
        if error is None:
            return sender.believed(done)
        own = error if isinstance(error, (StepFailed, UsageLimitExceeded, GuardDenied)) else None
        unused = not sender.has_left or isinstance(error, (NotSent, GuardDenied))
        failed = own or (StepFailed.by if unused else WorkerLost)(ctx.step_path, error)
        return StepOutcome(Failure(failed), usage=Usage() if unused else None)

    def _fit(self, limits: UsageLimits | None) -> Fit:
        """What an attempt takes of the room: what `lease=` says, else all that is left to it."""
        asked, held = self.node.step.options.lease or UsageLimits(), limits or UsageLimits()
        want = (asked.cost, asked.total_tokens_limit, asked.requests_limit)
        most = (held.cost, held.total_tokens_limit, held.requests_limit)

        def fit(room: Room) -> Charge | None:
            taken: list[Any] = []
            for wish, left, limit in zip(want, room, most, strict=True):
                # A limit of 0 lets free work pass; where others hold all that there is, it waits for them.
                if left is not None and (left < (wish or 0) or (wish is None and not left and limit)):
                    return None
                taken.append((left or 0) if wish is None else wish)
            return Charge(*taken)

        return fit


async def tell(run: Running, request: StepExecutionRequest, done: StepOutcome) -> None:
    """Tell recorders, observers and the journal, in order, what happened on a worker, before its end is journaled."""
    ctx = request.ctx
    for kind, labels in (done.counts or {}).items():
        for label, number in labels.items():
            run.info.count(kind, label, number)
    if done.worker is not None:
        run.info.count("executed_by", done.worker.engine)
    if isinstance(done.outcome, Failure) and isinstance(done.outcome.error, TaskRejected):  # no hook there saw it
        await run.observe("on_guard_denied", partial(OnGuardDenied, run.info, ctx.step_path, done.outcome.error), ctx)
    for key, value in done.told:
        await run.note_told(ctx, Called(value, key))  # type: ignore[arg-type]
    for hook, payload in done.events:
        if not hook.startswith("record_"):
            await run.observe(hook, partial(_same, payload), ctx)
            continue
        failed = await run.hooks.record(payload, hook, run.values)  # type: ignore[arg-type]
        if failed is not None:
            run.stop(failed, ctx)
            ctx.denial = ctx.denial or (failed if isinstance(failed, GuardDenied) else None)


def _same(payload: Event) -> Event:
    return payload
