"""The one typed facade over pluggy: it resolves every hook once, and nothing else calls or awaits an implementation."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, cast

import anyio
import anyio.to_thread
import pluggy

from . import hookspecs
from .callables import hints_of
from .errors import FlujoError, GuardDenied, PluginError, RunAborted
from .foreign import attempt, attempt_async, attempt_with
from .marks import hook_options
from .patience import NOTHING, Begun, begin, within
from .payloads import UNCHANGED, AbortPipeline, Allow, Deny, Event, RecordIntent, RecordResult
from .policy import Policy
from .resources import ResourceSpec, find_by_type
from .steps import suggestion

_log = logging.getLogger("flujo.core")

_PREFIXES = {"guard_": "guard", "transform_": "transform", "record_": "record", "register_": "register"}
HOOK_NAMES = tuple(
    name for name, value in vars(hookspecs).items() if inspect.isfunction(value) and hasattr(value, "flujo_spec")
)
Values = Mapping[str, object]
_OF_STEPS = ("pre_step_execution", "post_step_execution", "on_step_failure")


def tier_of(hook: str) -> str:
    """The tier of a hook, by its name."""
    return next((tier for prefix, tier in _PREFIXES.items() if hook.startswith(prefix)), "observe")


@dataclass(frozen=True, slots=True)
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
        is_bare: Whether it takes nothing but its payload, and runs where it is called.
    """

    plugin: str
    hook: str
    function: Callable[..., object]
    is_async: bool
    thread: bool
    resources: tuple[tuple[str, str], ...]
    required: bool
    is_bare: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_bare", not (self.resources or self.thread))

    def _bound(self, values: Values) -> Callable[..., object]:
        if not self.resources:
            return self.function
        return partial(self.function, **{parameter: values[name] for parameter, name in self.resources})

    def call_here(self, payload: Event, values: Values) -> object:
        """Call a plain function that wants no thread."""
        return self._bound(values)(payload)

    async def call(self, payload: Event, values: Values) -> object:
        """Call it with its payload and resources, wherever it wants to run."""
        function = self._bound(values)
        if self.is_async:
            return await cast("Any", function(payload))
        if self.thread:
            answer = await anyio.to_thread.run_sync(function, payload, abandon_on_cancel=True)
        else:
            answer = function(payload)
        return await answer if inspect.isawaitable(answer) else answer


@dataclass(slots=True)
class Hooks:
    """All acting implementations by hook name, in the order they are called."""

    policy: Policy
    table: dict[str, tuple[Implementation, ...]] = field(default_factory=dict)

    def of(self, hook: str) -> tuple[Implementation, ...]:
        """Implementations of `hook`; empty when nobody listens, so that no payload need be built."""
        return self.table.get(hook, ())

    @property
    def spare_steps(self) -> bool:
        """Whether nobody acts in steps: all only observe, and other moments than those of a step."""
        return self.spare_attempts and not any(hook in _OF_STEPS for hook in self.table)

    @property
    def spare_attempts(self) -> bool:
        """Whether nobody acts in the attempts of a step: all only observe, and other moments than its start."""
        return not any(tier_of(hook) != "observe" or hook == "pre_step_execution" for hook in self.table)

    async def guard(self, payload: Event, hook: str, values: Values) -> Deny | GuardDenied | None:
        """Ask every guard; returns the first denial, a `Deny(to_model=True)` only when no other guard denied."""
        denial: GuardDenied | None = None
        soft: Deny | None = None
        for implementation in self.of(hook):
            answer = await self._ask(implementation, payload, values)
            if isinstance(answer, Allow):
                continue
            if answer.to_model and hook == "guard_tool_call":
                soft = soft or answer
            else:
                denial = denial or GuardDenied(implementation.plugin, hook, answer.reason)
        return denial or soft

    async def _ask(self, implementation: Implementation, payload: Event, values: Values) -> Allow | Deny:
        started = perf_counter()
        answer: object = None
        error: Exception | None = None
        with anyio.move_on_after(self.policy.guard_timeout_s) as limit:
            answer, error = await attempt_async(implementation.call(payload, values))
        if error is not None:
            return Deny(f"the guard failed with {type(error).__name__}")
        if limit.cancelled_caught or perf_counter() - started > self.policy.guard_timeout_s:
            return Deny(f"the guard gave no answer in {self.policy.guard_timeout_s:g} s")
        if isinstance(answer, (Allow, Deny)):
            return answer
        return Deny(f"the guard answered {type(answer).__name__}, neither Allow nor Deny")

    async def transform(
        self, payload: Any, hook: str, values: Values, fit: Callable[[object], tuple[object, str | None]]
    ) -> str | None:
        """Pass `payload.value` through every transform; returns what went wrong, or None."""
        for implementation in self.of(hook):
            changed, error = await attempt_async(implementation.call(payload, values))
            if error is not None:
                return f"{hook} of plugin {implementation.plugin!r} failed with {_told(error)}"
            if changed is UNCHANGED:
                continue
            changed, problem = fit(changed)
            if problem is not None:
                return f"{hook} of plugin {implementation.plugin!r} gave a value that does not fit: {problem}"
            payload.value = changed
        return None

    async def record(self, payload: RecordIntent | RecordResult, hook: str, values: Values) -> GuardDenied | None:
        """Have it written down; returns the denial of the first required plugin that could not, or None."""
        failed: GuardDenied | None = None
        what = f"the {'start' if hook == 'record_intent' else 'end'} of this {payload.kind.replace('_', ' ')}"
        for implementation in self.of(hook):
            error = await _tell(implementation, payload, values, self.policy.recorder_timeout_s)
            if error is not None:
                self._count_fault(implementation, payload, error)
                if implementation.required:
                    why = f"{what} cannot be recorded: {_told(error)}"
                    failed = failed or GuardDenied(implementation.plugin, hook, why)
        return failed

    async def observe(self, payload: Event, hook: str, values: Values, *, quick: bool = False) -> RunAborted | None:
        """Tell every observer; returns the abort that one of them asked for, or None.

        `quick` says that asyncio runs, so that a timer need only be set for one that waits.
        """
        abort: RunAborted | None = None
        for one in self.of(hook):
            # Most take nothing but the payload and never wait: no coroutine is made around them, and no timer set.
            if one.is_bare and not one.is_async:
                answer, error = attempt_with(one.function, payload)
                if answer is not None:
                    error = await _ended(answer, self.policy.observer_timeout_s)
            elif one.is_bare and quick:
                begun, error = attempt_with(begin, cast("Any", one.function(payload)))
                if begun is not None and begun != NOTHING:
                    error = await _ended(begun, self.policy.observer_timeout_s)
            else:
                error = await _tell(one, payload, values, self.policy.observer_timeout_s)
            if error is not None:
                abort = self._abort_of(one, payload, error) or abort
        return abort

    def _abort_of(self, one: Implementation, payload: Event, error: Exception) -> RunAborted | None:
        """What an observer raised: it asks for an abort, or it has failed, and that is counted."""
        if isinstance(error, AbortPipeline):
            return RunAborted(error.reason, f"{one.hook} of plugin {one.plugin!r}")
        self._count_fault(one, payload, error)
        return None

    def _count_fault(self, implementation: Implementation, payload: Event, error: Exception) -> None:
        payload.run.count("plugin_faults", implementation.plugin)
        facts = (implementation.hook, implementation.plugin, type(error).__name__, payload.run.run_id)
        _log.warning("%s of plugin %r failed with %s in run %s", *facts)


async def _tell(implementation: Implementation, payload: Event, values: Values, timeout_s: float) -> Exception | None:
    """Call who only listens; returns what went wrong, a `TimeoutError` where its time was up."""
    if not (implementation.is_async or implementation.thread):
        answer, error = attempt(implementation.call_here, payload, values)
    else:
        answer, error = await attempt_async(within(timeout_s, implementation.call(payload, values)))
    return error if answer is None else await _ended(answer, timeout_s)


async def _ended(answer: object, timeout_s: float) -> Exception | None:
    """What goes wrong with what is still to be awaited of an answer, if it is anything of the kind."""
    if isinstance(answer, Begun):
        answer, error = await attempt_async(answer.within(timeout_s))
        if error is not None:
            return error
    if inspect.isawaitable(answer):  # a plain function gives one where a decorator made it
        return (await attempt_async(within(timeout_s, _awaited(answer))))[1]
    return None


async def _awaited(answer: object) -> object:
    """What comes of an answer that has to be awaited, and of what that gives."""
    while inspect.isawaitable(answer):
        answer = await answer
    return answer


class _Adapter:
    """Stands for a plugin at pluggy's door: the same implementations, reduced to the one payload parameter.

    pluggy refuses parameters that the specification does not have; ours may name resources beside the payload.
    """


def resolve(
    plugins: Iterable[tuple[str, object]],
    callables: Iterable[Callable[..., object]],
    required: frozenset[str],
    specs: Mapping[str, ResourceSpec],
) -> dict[str, tuple[Implementation, ...]]:
    """Register plugins with pluggy and read back, for each hook, its implementations in call order.

    Args:
        plugins: Name and object of each acting plugin.
        callables: Observers given as plain functions, chosen by the annotation of their first parameter.
        required: Names of the plugins that the policy requires.
        specs: Resources that implementations may name.

    Raises:
        PluginError: One implements an unknown hook, wraps a hook, or wants a resource that is not there.
    """
    plugins, callables = list(plugins), list(callables)
    if not plugins and not callables:
        return {}
    manager = pluggy.PluginManager("flujo")
    manager.add_hookspecs(hookspecs)
    originals: dict[tuple[str, str], Callable[..., object]] = {}
    for number, (name, plugin) in enumerate(reversed(plugins)):  # pluggy calls the last registered first
        adapter, label = _Adapter(), f"{name}#{number}"
        found = _implementations(plugin)
        acts = any(tier_of(hook) != "register" for hook, _, _ in found)
        if not acts or inspect.isclass(plugin):
            why = "it is a class" if acts else "it has no method marked with @hookimpl that acts in a run"
            raise PluginError(f"plugin {name!r} cannot act", why, "Give the plugin's name, or an object with hooks")
        for hook, function, options in found:
            if hook not in HOOK_NAMES:
                why = f"there is no hook {hook!r}"
                raise PluginError(f"plugin {name!r} cannot act", why, suggestion(hook, HOOK_NAMES))
            originals[label, hook] = function
            setattr(adapter, hook, _marked(options))
        manager.register(adapter, label)
    manager.check_pending()
    table: dict[str, tuple[Implementation, ...]] = {}
    for hook in HOOK_NAMES:
        for impl in reversed(getattr(manager.hook, hook).get_hookimpls()):
            name, function = impl.plugin_name.rpartition("#")[0], originals[impl.plugin_name, hook]
            table[hook] = (*table.get(hook, ()), _implementation(name, hook, function, specs, name in required))
    for function in callables:
        for hook in _observed(function):
            table[hook] = (*table.get(hook, ()), _implementation(_label(function), hook, function, specs))
    return table


def _marked(options: Mapping[str, object]) -> Callable[[], None]:
    """What stands for an implementation at pluggy's door, which takes one with fewer parameters than specified."""

    def stand_in() -> None:
        return None

    setattr(stand_in, "flujo_impl", options)  # noqa: B010 - pluggy's own mark, which no type knows
    return stand_in


def _implementations(plugin: object) -> list[tuple[str, Callable[..., object], Mapping[str, object]]]:
    found: list[tuple[str, Callable[..., object], Mapping[str, object]]] = []
    for name in dir(plugin):
        function = inspect.getattr_static(plugin, name)
        function = function.__func__ if isinstance(function, (staticmethod, classmethod)) else function
        options = getattr(function, "flujo_impl", None)
        if not isinstance(options, dict):
            continue
        if options.get("wrapper") or options.get("hookwrapper"):
            what = f"{name} of plugin {type(plugin).__name__!r} cannot be used"
            raise PluginError(what, "a wrapper could skip a guard", "Use a guard, transform or observer instead")
        hook = options.get("specname") or name
        found.append((str(hook), getattr(plugin, name), options))
    return found


def _implementation(
    plugin: str, hook: str, function: Callable[..., object], specs: Mapping[str, ResourceSpec], required: bool = False
) -> Implementation:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise PluginError(f"{hook} of plugin {plugin!r} cannot be called", "it has a yield, so nothing in it would run")
    resources = []
    wanted = _required(function)[1:]
    hints = _hints(function, f"{hook} of plugin {plugin!r}") if wanted else {}
    for name in wanted:
        found = find_by_type(hints.get(name, object), name, specs)
        if found is None or found.scope == "step":
            why = f"no resource of scope app or run fits its parameter {name!r}"
            raise PluginError(f"{hook} of plugin {plugin!r} cannot be called", why, "Pass resources= that has it")
        resources.append((name, found.name))
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values()):
        there = {name for name, _ in resources}
        resources += [(name, name) for name, spec in specs.items() if spec.scope != "step" and name not in there]
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
    thread = hook_options(function)["thread"] and not is_async
    return Implementation(plugin, hook, function, is_async, thread, tuple(resources), required)


def _required(function: Callable[..., object]) -> list[str]:
    """Names of the parameters that must be given; the payload is the first."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]


def _hints(function: Callable[..., object], what: str) -> dict[str, object]:
    """Annotations of an implementation."""
    try:
        return hints_of(function)
    except NameError as error:
        do = "Define or import what the annotation names at the top of its module"
        raise PluginError(f"{what} cannot be used", f"its annotation cannot be read ({error})", do) from error


def _told(error: Exception) -> str:
    """A fault of a plugin. Flujo's own errors never quote a value, so their text may be told; of others, the type."""
    return f"{type(error).__name__}: {error}" if isinstance(error, FlujoError) else type(error).__name__


def _label(function: Callable[..., object]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _observed(function: Callable[..., object]) -> list[str]:
    """Hooks that a plain callable observes, by the annotation of its first parameter."""
    what = f"hook {_label(function)!r} cannot be used"
    names = _required(function)
    annotation = _hints(function, f"hook {_label(function)!r}").get(names[0]) if names else None
    moments = [hook for hook in HOOK_NAMES if tier_of(hook) == "observe"]
    observed = {"".join(map(str.capitalize, hook.split("_"))): hook for hook in moments}
    if annotation is Event:
        return list(observed.values())
    name = getattr(annotation, "__name__", "")
    if name in observed:
        return [observed[name]]
    why = "its first parameter is not annotated with an observed payload"
    if name.startswith(("Guard", "Transform", "Record")):
        why = f"{name} is no observer's payload; only a plugin may guard, transform or record"
    raise PluginError(what, why, f"Annotate it with Event or one of: {', '.join(observed)}")
