"""Resources: what a run is given, and what Flujo opens and always closes. Injected by annotated parameters.

    class AppResources(Resources):
        db: AsyncEngine = Resource(open_pool, scope="app")
        secrets: SecretManager = Resource(VaultSecrets, scope="run")

A factory is an async or sync context manager, a generator that yields once, a class, or an async or plain function; its
parameters may name other resources of equal or wider scope by type. What has an exit (`async with`, `with`) is entered
and its exit always called; what a function returns without one is only given, so a connection that has nothing but
`close()` wants `contextlib.closing` or a generator. Scopes open what is needed in one go and close it in reverse order,
whatever happened in between.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from graphlib import CycleError, TopologicalSorter
from types import TracebackType
from typing import Any, ClassVar, Literal, cast, get_origin

import anyio

from .assignable import assignable
from .callables import hints_of, local_names
from .errors import ConfigurationError, ResourceError
from .foreign import attempt, attempt_async, text_of

_log = logging.getLogger("flujo.core")

Scope = Literal["app", "run", "step"]
_WIDTH: dict[str, int] = {"app": 0, "run": 1, "step": 2}

CLOSE_TIMEOUT_S = 30.0
"""Seconds a resource may take to close; closing is shielded from cancels, so it needs an end of its own."""


@dataclass(frozen=True, slots=True)
class _Recipe:
    factory: Callable[..., object]
    scope: Scope


def Resource(factory: Callable[..., object], *, scope: Scope = "run") -> Any:
    """Declare a field of a `Resources` class. Returns Any so that the field's own type stands beside it.

    Args:
        factory: What opens it: a context manager function or class (closed by its exit), or a function.
        scope: `app` is opened once for a Flujo, `run` for each run, `step` for each attempt of a step.
    """
    if scope not in _WIDTH:
        raise ConfigurationError(f"scope={scope!r} cannot be used", "a resource lives for an app, a run or a step")
    if not callable(factory):
        why = f"{type(factory).__name__} cannot be called"
        raise ConfigurationError("Resource(...) cannot be used", why, "Give what opens it; a value needs no Resource")
    if inspect.isasyncgenfunction(factory):
        factory = asynccontextmanager(factory)
    elif inspect.isgeneratorfunction(factory):
        factory = contextmanager(factory)
    return _Recipe(factory, scope)


@dataclass(frozen=True, slots=True)
class ResourceSpec:
    """One resource of a `Resources` object, as compiled.

    Attributes:
        name: Name of the field.
        type: Annotated type of the field.
        scope: How long it lives; a value that was given lives as long as its owner keeps it.
        factory: What opens it; None for a value that was given.
        value: The value that was given.
        needs: Which other resources the factory takes, by parameter name.
    """

    name: str
    type: object
    scope: Scope
    factory: Callable[..., object] | None
    value: object
    needs: Mapping[str, str]


class Resources:
    """Base of the user's resources. Keyword arguments replace a recipe by a value, e.g. a fake in a test."""

    _hints: ClassVar[Mapping[str, object] | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._hints = None
        if "<locals>" in cls.__qualname__:  # what it names may be within reach only now
            # None where a name is not there yet: perhaps it is when it is used; if not, that says so
            cls._hints = attempt(hints_of, cls, local_names(cls.__qualname__))[0]

    def __init__(self, **given: object) -> None:
        known = declared(type(self))
        for name, value in given.items():
            if name not in known:
                have = ", ".join(known) or "none"
                raise ConfigurationError(f"{type(self).__name__} has no resource {name!r}", f"it declares: {have}")
            setattr(self, name, value)


def declared(cls: type[Resources]) -> dict[str, object]:
    """Annotated fields, those of base classes first."""
    try:
        hints = hints_of(cls) if cls._hints is None else cls._hints
    except NameError as error:
        why = f"its annotations name {error.name!r}, which is not there"
        do = "Import it at run time (not only under TYPE_CHECKING), or define it before the class"
        raise ConfigurationError(f"{cls.__name__} cannot be read", why, do) from error
    fields = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base).get("__annotations__", ()))
    return {
        name: hints[name]
        for name in fields
        if not name.startswith("_") and ClassVar not in (hints[name], get_origin(hints[name]))
    }


def specs_of(resources: Resources | None) -> dict[str, ResourceSpec]:
    """Read what `resources` declares, in an order in which it can be opened.

    Raises:
        ConfigurationError: A field has neither recipe nor value, or a factory takes what is not there, what lives
            shorter, or what needs the factory's own resource.
    """
    if resources is None:
        return {}
    if not isinstance(resources, Resources):
        why = "it must be an object of a class that derives from Resources"
        raise ConfigurationError("resources= cannot be used", why, "Give AppResources(), not the class or a dict")
    owner = type(resources).__name__
    specs: dict[str, ResourceSpec] = {}
    missing = object()
    for name, hint in declared(type(resources)).items():
        value = getattr(resources, name, missing)
        if value is missing:
            why = "it has neither a Resource(...) nor a value"
            raise ConfigurationError(f"resource {name!r} of {owner} is missing", why, f"Give it: {owner}({name}=...)")
        if isinstance(value, _Recipe):
            specs[name] = ResourceSpec(name, hint, value.scope, value.factory, None, {})
        else:
            specs[name] = ResourceSpec(name, hint, "app", None, value, {})
    return _in_order({name: _with_needs(spec, specs, owner) for name, spec in specs.items()}, owner)


def _with_needs(spec: ResourceSpec, specs: Mapping[str, ResourceSpec], owner: str) -> ResourceSpec:
    if spec.factory is None:
        return spec
    needs: dict[str, str] = {}
    for parameter, hint in _parameters(spec.factory).items():
        found = find_by_type(hint, parameter, {name: other for name, other in specs.items() if name != spec.name})
        where = f"factory of resource {spec.name!r} of {owner}"
        if found is None:
            do = "Declare one, give the parameter a default, or wrap the factory: Resource(lambda: ...)"
            raise ConfigurationError(f"{where} cannot be called", f"no resource fits its parameter {parameter!r}", do)
        if _WIDTH[found.scope] > _WIDTH[spec.scope]:
            why = f"{found.name!r} lives for a {found.scope}, {spec.name!r} for a {spec.scope}"
            raise ConfigurationError(f"{where} cannot be called", why, "Give both the same scope")
        needs[parameter] = found.name
    return replace(spec, needs=needs)


def _in_order(specs: Mapping[str, ResourceSpec], owner: str) -> dict[str, ResourceSpec]:
    """The same, each after what its factory takes."""
    sorter = TopologicalSorter({name: spec.needs.values() for name, spec in specs.items()})
    try:
        return {name: specs[name] for name in sorter.static_order()}
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        what = f"resource {error.args[1][0]!r} of {owner} cannot be opened"
        raise ConfigurationError(what, f"factories need each other: {circle}", "Let one do without") from error


def _parameters(factory: Callable[..., object]) -> dict[str, object]:
    """Required parameters of a factory and their annotations; `Any` where they cannot be read."""
    signature = attempt(inspect.signature, factory)[0]
    if signature is None:
        return {}  # a builtin that does not tell takes nothing from us
    hints = attempt(hints_of, factory)[0] or {}  # without them its parameters are known by name
    required = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: hints.get(name, Any)
        for name, parameter in signature.parameters.items()
        if parameter.default is inspect.Parameter.empty and parameter.kind in required
    }


def find_by_type(hint: object, name: str, specs: Mapping[str, ResourceSpec]) -> ResourceSpec | None:
    """The resource of type `hint`; of several, and where there is no type to go by, the one called `name`."""
    if hint is Any or hint is object:
        return specs.get(name)
    fitting = {spec.name: spec for spec in specs.values() if assignable(spec.type, hint)}
    return fitting.get(name) or (next(iter(fitting.values())) if len(fitting) == 1 else None)


def widened(names: Iterable[str], specs: Mapping[str, ResourceSpec]) -> frozenset[str]:
    """`names` with everything their factories take, directly or not."""
    found: set[str] = set()
    open_names = list(names)
    while open_names:
        name = open_names.pop()
        if name not in found:
            found.add(name)
            open_names.extend(specs[name].needs.values())
    return frozenset(found)


Exit = Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], object]


@dataclass(slots=True)
class _Open:
    """An open resource that has an exit.

    Attributes:
        name: Name of the resource.
        exit: Its exit.
        shield: The cancel scope that was entered before it; None for a sync exit, which no cancel can interrupt.
        around: Leaves that cancel scope.
    """

    name: str
    exit: Exit
    shield: anyio.CancelScope | None
    around: ExitStack


class ResourceScope:
    """The open resources of one scope.

    A resource may hold a task group or a cancel scope of its own between its entry and its exit (clients that read in
    the background do). Such scopes must nest, so the one that shields its exit is entered before it; it does nothing
    until then. This holds where the task that opens is the task that closes.

    Args:
        specs: All resources by name, each after what it needs.
        scope: Which of them this scope opens.
        wanted: Names that are needed, with all that these need; those of narrower scopes are left to their own.
        around: What the scopes around this one have open, by name.
        close_timeout_s: Seconds each resource may take to close.

    Attributes:
        values: What is open here and around, by name.
        cause: Why the work inside did not end well, for exits, where it raised nothing.
    """

    def __init__(
        self,
        specs: Mapping[str, ResourceSpec],
        scope: Scope,
        wanted: Iterable[str],
        around: Mapping[str, object],
        *,
        close_timeout_s: float = CLOSE_TIMEOUT_S,
    ) -> None:
        self._specs = specs
        self._scope = scope
        self._wanted = frozenset(wanted)
        self._close_timeout_s = close_timeout_s
        self._task = 0
        self._opened: list[_Open] = []
        self.values: dict[str, object] = dict(around)
        self.cause: BaseException | None = None

    async def __aenter__(self) -> ResourceScope:
        if not self._wanted:
            return self
        self._task = anyio.get_current_task().id
        try:
            for name, spec in self._specs.items():
                if name in self._wanted and name not in self.values and _WIDTH[spec.scope] <= _WIDTH[self._scope]:
                    await self._open(spec)
        except BaseException as error:  # whatever stopped the opening, what is open already must be closed
            await self.close(error)
            raise
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            await self.close(error or self.cause)
        except ResourceError as fault:
            if error is None:
                raise
            _log.warning("%s after %s", fault.what, type(error).__name__)  # what went wrong first is what is told

    async def _open(self, spec: ResourceSpec) -> None:
        if spec.factory is None:
            self.values[spec.name] = spec.value
            return
        value, error = await attempt_async(self._entered(spec))
        if error is not None:
            why = f"{type(error).__name__}: {text_of(error, self.values.values())}"
            raise ResourceError(f"resource {spec.name!r} failed to open", why) from error
        self.values[spec.name] = value

    async def _entered(self, spec: ResourceSpec) -> object:
        made = cast("Callable[..., object]", spec.factory)(**{p: self.values[name] for p, name in spec.needs.items()})
        if inspect.isawaitable(made) and not hasattr(made, "__aenter__"):
            made = await made
        kind: Any = type(made)
        is_async = hasattr(kind, "__aenter__")
        if not is_async and not hasattr(kind, "__enter__"):
            return made
        with ExitStack() as around:
            shield = around.enter_context(anyio.CancelScope()) if is_async else None
            if is_async:
                exit_, value = partial(kind.__aexit__, made), await kind.__aenter__(made)
            else:
                exit_, value = partial(kind.__exit__, made), kind.__enter__(made)
            self._opened.append(_Open(spec.name, exit_, shield, around.pop_all()))
        return value

    # --- closing ----------------------------------------------------------------------------------------------------

    async def close(self, error: BaseException | None) -> None:
        """Close in reverse order, shielded from cancels; `error` is what the work inside ended with, if it did.

        Raises:
            ResourceError: One failed to close, or took too long. The others are closed all the same.
        """
        faults: list[tuple[str, Exception | None]] = []
        stopped: BaseException | None = None
        while self._opened:
            item = self._opened.pop()
            try:
                fault, late = await self._close_one(item, error)
            except BaseException as stop:  # a cancel that no shield holds off: the others are closed all the same
                stopped = stop
                continue
            if late or (fault is not None and fault is not error):  # the work's own error is told already
                faults.append((item.name, None if late else fault))
        if stopped is not None:
            raise stopped
        if faults:
            self._raise(faults)

    async def _close_one(self, item: _Open, error: BaseException | None) -> tuple[Exception | None, bool]:
        """Call an exit; returns what it raised, and whether its time was up."""
        shield, around = item.shield, item.around
        if shield is None:
            return attempt(_exited, item.exit, error)[1], False
        if anyio.get_current_task().id != self._task:
            around = ExitStack()
            shield = around.enter_context(anyio.CancelScope())
        shield.shield = True
        shield.deadline = anyio.current_time() + self._close_timeout_s
        fault: Exception | None = None
        with around:
            _, fault = await attempt_async(cast("Awaitable[object]", _exited(item.exit, error)))
        return fault, shield.cancelled_caught

    @property
    def needs_loop(self) -> bool:
        """Whether something open has an exit that only its own event loop can run."""
        return any(item.shield is not None for item in self._opened)

    def close_without_loop(self) -> None:
        """Close, where nothing open needs the event loop, from whatever thread; faults are logged."""
        while self._opened:
            item = self._opened.pop()
            fault = attempt(_exited, item.exit, self.cause)[1]
            if fault is not None and fault is not self.cause:
                _log.warning("resource %r of an abandoned step failed to close: %s", item.name, type(fault).__name__)

    def _raise(self, faults: list[tuple[str, Exception | None]]) -> None:
        name, fault = faults[0]
        late = f"closing took longer than {self._close_timeout_s:g} s"
        why = late if fault is None else f"{type(fault).__name__}: {text_of(fault, self.values.values())}"
        others = f"; so did {', '.join(repr(other) for other, _ in faults[1:])}" if faults[1:] else ""
        what = f"resource {name!r} of scope {self._specs[name].scope!r} failed to close"
        raise ResourceError(what, f"{why}{others}") from fault


def _exited(exit_: Exit, error: BaseException | None) -> object:
    kind, trace = (None, None) if error is None else (type(error), error.__traceback__)
    return exit_(kind, error, trace)
