"""The acting implementations of hooks, and the only calls of them: each isolated, in its time, its fault counted."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from types import CoroutineType
from typing import Any, cast

import anyio
import anyio.to_thread

from .check import fitted
from .errors import FlujoError, GuardDenied, RunAborted, StepFailed
from .foreign import attempt, attempt_async, fault_of
from .messages import Frozen
from .patience import rest_within, within
from .payloads import UNCHANGED, AbortPipeline, Allow, Deny, Event, RecordIntent, RecordResult
from .policy import Policy

_log = logging.getLogger("flujo.core")

_AROUND_STEP = {"transform_step_input", "guard_step", "record_intent", "transform_step_output", "record_result"}
_PREFIXES = {"guard_": "guard", "transform_": "transform", "record_": "record", "register_": "register"}
Values = Mapping[str, object]
Telling = Awaitable[RunAborted | None]


def tier_of(hook: str) -> str:
    """The tier of a hook, by its name."""
    return next((tier for prefix, tier in _PREFIXES.items() if hook.startswith(prefix)), "observe")


@dataclass(frozen=True, slots=True, eq=False)
class Implementation:
    """One hook implementation, resolved.

    Attributes:
        plugin: Name of the plugin, for people.
        hook: Name of the hook.
        function: The function or bound method.
        is_async: Whether it is awaited.
        thread: Whether it runs in a worker thread.
        resources: Parameter and resource name of each injected resource.
        required: Whether the policy requires the plugin.
        is_direct: Whether calling its function with the payload is all there is to it, but for awaiting.
    """

    plugin: str
    hook: str
    function: Callable[..., object]
    is_async: bool
    thread: bool
    resources: tuple[tuple[str, str], ...]
    required: bool
    is_direct: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_direct", not (self.thread or self.resources))

    def begin(self, payload: Event, values: Values) -> tuple[object, Exception | None]:
        """Call it as far as that goes without waiting: its answer, which may be to be awaited, or its fault.

        Most never wait, and a coroutine, a cancel scope and a task switch for each would cost more than they do.
        """
        if not self.is_direct:
            return self.call(payload, values), None
        try:
            return self.function(payload), None
        except BaseException as raised:  # not by `attempt`, which costs more than most of them
            if (fault := fault_of(raised)) is None:
                raise
            return None, fault

    async def call(self, payload: Event, values: Values) -> object:
        """Call it with its payload and resources, wherever it wants to run."""
        function = partial(self.function, **{parameter: values[name] for parameter, name in self.resources})
        if self.is_async:
            return await cast("Any", function(payload))
        if self.thread:
            answer = await anyio.to_thread.run_sync(function, payload, abandon_on_cancel=True)
        else:
            answer = function(payload)
        return await _awaited(answer) if inspect.isawaitable(answer) else answer


@dataclass(slots=True)
class Hooks:
    """All acting implementations by hook name, in the order they are called.

    Attributes:
        policy: What they may and must do.
        table: The implementations.
        before_step: Those told before a step.
        after_step: Those told after a step that ended well.
        around_step: Whether anybody does more than observe steps.
        ends_step: Whether anybody changes or records what a step gave.
        inputs: Those that change an input of a step.
        guards: Those that may deny a step.
        outputs: Those that change what a step gave.
        records: Whether anybody records.
    """

    policy: Policy
    table: dict[str, tuple[Implementation, ...]] = field(default_factory=dict)
    before_step: tuple[Implementation, ...] = field(init=False)
    after_step: tuple[Implementation, ...] = field(init=False)
    inputs: tuple[Implementation, ...] = field(init=False)
    guards: tuple[Implementation, ...] = field(init=False)
    outputs: tuple[Implementation, ...] = field(init=False)
    around_step: bool = field(init=False)
    ends_step: bool = field(init=False)
    records: bool = field(init=False)

    def __post_init__(self) -> None:
        self.before_step, self.after_step = self.of("pre_step_execution"), self.of("post_step_execution")
        self.inputs, self.guards = self.of("transform_step_input"), self.of("guard_step")
        self.outputs, results = self.of("transform_step_output"), self.of("record_result")
        self.records, self.ends_step = bool(results or self.of("record_intent")), bool(results or self.outputs)
        self.around_step = not _AROUND_STEP.isdisjoint(self.table)

    def of(self, hook: str) -> tuple[Implementation, ...]:
        """Implementations of `hook`; empty when nobody listens, so that no payload need be built."""
        return self.table.get(hook, ())

    async def guard(self, payload: Event, hook: str, values: Values, eager: bool = False) -> Deny | GuardDenied | None:
        """Ask every guard; returns the first denial, a `Deny(to_model=True)` only when no other guard denied.

        Args:
            payload: What they are asked about.
            hook: Which guards.
            values: Open resources.
            eager: Whether this is known to be a task of asyncio.
        """
        denial: GuardDenied | None = None
        soft: Deny | None = None
        limit_s, now = self.policy.guard_timeout_s, perf_counter()
        for one in self.table.get(hook, ()):
            try:  # `begin`, for less
                answer, error = one.function(payload) if one.is_direct else one.call(payload, values), None
                if type(answer) is CoroutineType and one.is_async:
                    answer = await within(limit_s, answer, eager)
                elif type(answer) is not Allow and (work := _work_of(answer, one)) is not None:
                    answer = await within(limit_s, work, eager)
            except BaseException as raised:  # it may raise anything: that is a denial, but for a cancel
                answer, error = None, fault_of(raised)
                if error is None:
                    raise
            started, now = now, perf_counter()
            if now - started > limit_s:
                answer, error = Deny(f"the guard gave no answer in {limit_s:g} s"), None
            if type(answer) is Allow:
                continue
            said = attempt(_denial, answer, error)[0] or Deny("the guard gave an answer that cannot be read")
            if said.to_model and hook == "guard_tool_call":
                soft = soft or said
            else:
                denial = denial or GuardDenied(one.plugin, hook, said.reason)
        return denial or soft

    async def transform(self, payload: Any, hook: str, values: Values, hint: object) -> Any:
        """Pass `payload.value` through every transform, each checked against `hint`; gives what comes of it.

        Raises:
            StepFailed: One raised, or gave what does not fit.
            RunAborted: One asked for it.
        """
        value = payload.value
        for implementation in self.of(hook):
            payload.value = value  # only what a transform returns counts, since only that is checked
            changed, error = implementation.begin(payload, values)
            if changed is not UNCHANGED and (work := _work_of(changed, implementation)) is not None:
                changed, error = await attempt_async(work)
            if changed is UNCHANGED:
                continue
            if isinstance(error, AbortPipeline):
                raise RunAborted(error.reason, f"{hook} of plugin {implementation.plugin!r}")
            value, problem = fitted(hint)(changed) if error is None else (None, _told(error))
            if problem is None and issubclass(type(value), Frozen):
                problem = _unchecked(cast("Frozen", value))
            if problem is not None:
                did = "gave a value that does not fit:" if error is None else "failed with"
                why = f"{hook} of plugin {implementation.plugin!r} {did} {problem}"
                raise StepFailed(payload.step_path, "TransformFault", why)
        return value

    async def record(self, payload: RecordIntent | RecordResult, hook: str, values: Values) -> FlujoError | None:
        """Have it written down; returns the denial of the first required plugin that could not, or an abort, or None.

        What happened is recorded even while the run is being cancelled.
        """
        failed: FlujoError | None = None
        what = f"the {'start' if hook == 'record_intent' else 'end'} of this {payload.kind.replace('_', ' ')}"
        for implementation in self.of(hook):
            answer, error = implementation.begin(payload, values)
            if answer is not None and (work := _work_of(answer, implementation)) is not None:
                with anyio.CancelScope(shield=True) if hook == "record_result" else nullcontext():
                    error = (await attempt_async(within(self.policy.recorder_timeout_s, work)))[1]
            if error is not None:
                stop: FlujoError | None = self._abort_of(implementation, payload, error)
                if stop is None and implementation.required:
                    stop = GuardDenied(implementation.plugin, hook, f"{what} cannot be recorded: {_told(error)}")
                failed = failed or stop
        return failed

    def tell(
        self, observers: tuple[Implementation, ...], payload: Event, values: Values, eager: bool
    ) -> Telling | None:
        """Tell observers. Where that ends at once it gives nothing, else what tells the rest when it is awaited.

        Most observers never wait, so it is no coroutine: that would cost more than most observers do.

        Args:
            observers: Whom to tell.
            payload: What they are told.
            values: Open resources.
            eager: Whether an async one may be begun here and its time limit armed only where it waits: on asyncio.
        """
        if not eager:
            return self._tell_rest(observers, payload, values)
        for one in observers:
            if not one.is_direct:
                return self._tell_rest(observers[observers.index(one) :], payload, values)
            try:
                answer: Any = one.function(payload)
                if answer is None:
                    continue
                work: Any = answer if type(answer) is CoroutineType and one.is_async else _work_of(answer, one)
                # Where it does not wait this costs no exception, unlike `send`.
                for first in () if work is None else work.__await__():
                    begun = rest_within(self.policy.observer_timeout_s, first, work)
                    return self._tell_rest(observers[observers.index(one) :], payload, values, begun)
            except BaseException as raised:  # not by `attempt`, which costs more than most of them
                if (fault := fault_of(raised)) is None:
                    raise
                if abort := self._abort_of(one, payload, fault):
                    return self._tell_rest(observers[observers.index(one) + 1 :], payload, values, abort=abort)
        return None

    async def _tell_rest(
        self,
        observers: Iterable[Implementation],
        payload: Event,
        values: Values,
        begun: Awaitable[object] | None = None,
        abort: RunAborted | None = None,
    ) -> RunAborted | None:
        """Tell observers, the first of which has `begun`; returns the first abort that one of them asked for."""
        for one in observers:
            if begun is None:
                begun = within(self.policy.observer_timeout_s, one.call(payload, values))
            error, begun = (await attempt_async(begun))[1], None
            asked = None if error is None else self._abort_of(one, payload, error)
            abort = abort or asked
        return abort

    def _abort_of(self, implementation: Implementation, payload: Event, error: Exception) -> RunAborted | None:
        """The abort that an observer or recorder asked for; any other error is a fault of it, which is counted."""
        if isinstance(error, AbortPipeline):
            return RunAborted(error.reason, f"{implementation.hook} of plugin {implementation.plugin!r}")
        payload.run.count("plugin_faults", implementation.plugin)
        facts = (implementation.hook, implementation.plugin, type(error).__name__, payload.run.run_id)
        _log.warning("%s of plugin %r failed with %s in run %s", *facts)
        return None


def _denial(answer: object, error: Exception | None) -> Deny:
    """What a guard that did not allow denies with; what it gave may be of any kind, and fail where it is looked at."""
    if isinstance(answer, Deny):
        return Deny(str(answer.reason), bool(answer.to_model))
    if isinstance(error, AbortPipeline):
        return Deny(error.reason)
    did = f"answered {type(answer).__name__}, neither Allow nor Deny"
    return Deny(f"the guard {did if error is None else f'failed with {type(error).__name__}'}")


def _unchecked(value: Frozen) -> str | None:
    """What is wrong with a model, if anything is: nobody looks at what `model_copy(update=...)` puts into one."""
    data, error = attempt(value.model_dump, warnings=False, round_trip=True)
    return fitted(type(value))(data)[1] if error is None else _told(error)


def _work_of(answer: object, implementation: Implementation) -> Coroutine[Any, Any, object] | None:
    """What is still to be awaited of an answer, if it is anything of the kind."""
    if type(answer) is CoroutineType and (implementation.is_async or not implementation.is_direct):
        return answer
    # It may be of any kind, and raise where it is asked for its class.
    return _awaited(answer) if attempt(inspect.isawaitable, answer)[0] else None


async def _awaited(answer: object) -> object:
    """What comes of an answer that has to be awaited, and of what that gives."""
    while inspect.isawaitable(answer):
        answer = await answer
    return answer


def _told(error: Exception) -> str:
    """A fault of a plugin. Flujo's own errors never quote a value, so their text may be told; of others, the type."""
    return f"{type(error).__name__}: {error}" if isinstance(error, FlujoError) else type(error).__name__
