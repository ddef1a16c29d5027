"""Resources: what a run is given, and what Flujo opens and always closes. Injected by annotated parameters.

    class AppResources(Resources):
        db: AsyncEngine = Resource(open_pool, scope="app")
        secrets: SecretManager = Resource(VaultSecrets, scope="run")

A factory is an async or sync context manager, a class, or an async or plain function; its parameters may name other
resources of equal or wider scope by type. Scopes open what is needed in one go and close it in reverse order, whatever
happened in between.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import anyio

from .errors import ConfigurationError, ResourceError
from .scrub import scrub

__all__ = ["Resource", "ResourceScope", "ResourceSpec", "Resources", "Scope", "specs_of"]

Scope = Literal["app", "run", "step"]
_WIDTH: dict[str, int] = {"app": 0, "run": 1, "step": 2}

CLOSE_TIMEOUT_S = 30.0
"""Seconds a scope may take to close; closing is shielded from cancels, so it needs an end of its own."""


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

    def __init__(self, **given: object) -> None:
        declared = _declared(type(self))
        for name, value in given.items():
            if name not in declared:
                have = ", ".join(declared) or "none"
                raise ConfigurationError(f"{type(self).__name__} has no resource {name!r}", f"it declares: {have}")
            setattr(self, name, value)


def _declared(cls: type[Resources]) -> dict[str, object]:
    hints = get_type_hints(cls, include_extras=True)
    return {name: hint for name, hint in hints.items() if not name.startswith("_")}


def specs_of(resources: Resources | None) -> dict[str, ResourceSpec]:
    """Read what `resources` declares, in declared order.

    Raises:
        ConfigurationError: A field has neither recipe nor value, a factory takes what is not there or lives shorter.
    """
    if resources is None:
        return {}
    owner = type(resources).__name__
    specs: dict[str, ResourceSpec] = {}
    for name, hint in _declared(type(resources)).items():
        value = getattr(resources, name, None)
        if value is None:
            raise ConfigurationError(
                f"resource {name!r} of {owner} is missing", "it has neither a Resource(...) nor a value",
                f"Give it: {owner}({name}=...)",
            )  # fmt: skip
        recipe = value if isinstance(value, _Recipe) else None
        specs[name] = ResourceSpec(
            name, hint, recipe.scope if recipe else "app", recipe.factory if recipe else None,
            None if recipe else value, {},
        )  # fmt: skip
    return {name: _with_needs(spec, specs, owner) for name, spec in specs.items()}


def _with_needs(spec: ResourceSpec, specs: Mapping[str, ResourceSpec], owner: str) -> ResourceSpec:
    if spec.factory is None:
        return spec
    needs: dict[str, str] = {}
    for parameter, hint in _parameters(spec.factory).items():
        found = find_by_type(hint, parameter, specs)
        where = f"factory of resource {spec.name!r} of {owner}"
        if found is None or found.name == spec.name:
            raise ConfigurationError(f"{where} cannot be called", f"no resource fits its parameter {parameter!r}")
        if _WIDTH[found.scope] > _WIDTH[spec.scope]:
            why = f"{found.name!r} lives for a {found.scope}, {spec.name!r} for a {spec.scope}"
            raise ConfigurationError(f"{where} cannot be called", why, "Give both the same scope")
        needs[parameter] = found.name
    return ResourceSpec(spec.name, spec.type, spec.scope, spec.factory, spec.value, needs)


def _parameters(factory: Callable[..., object]) -> dict[str, object]:
    """Required parameters of a factory and their annotations."""
    target = factory.__init__ if inspect.isclass(factory) else factory
    try:
        signature = inspect.signature(factory)
        hints = get_type_hints(target)
    except (TypeError, ValueError, NameError):
        return {}  # a builtin or a callable without readable annotations takes nothing from us
    required = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: hints.get(name, object)
        for name, parameter in signature.parameters.items()
        if parameter.default is inspect.Parameter.empty and parameter.kind in required
    }


def find_by_type(hint: object, name: str, specs: Mapping[str, ResourceSpec]) -> ResourceSpec | None:
    """The resource of type `hint`; of several, the one called `name`."""
    fitting = [spec for spec in specs.values() if spec.type == hint or _is_subclass(spec.type, hint)]
    named = [spec for spec in fitting if spec.name == name]
    if named:
        return named[0]
    return fitting[0] if len(fitting) == 1 else None


def _is_subclass(one: object, other: object) -> bool:
    plain = not get_args(one) and not get_args(other) and get_origin(one) is None
    return plain and inspect.isclass(one) and inspect.isclass(other) and other is not object and issubclass(one, other)


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


class ResourceScope:
    """The open resources of one scope: entered in one task, closed in the same one.

    Args:
        specs: All resources by name.
        scope: Which of them this scope opens.
        wanted: Names that are needed, wider ones included; those of narrower scopes are left to their own.
        around: What the scopes around this one have open, by name.
    """

    def __init__(
        self, specs: Mapping[str, ResourceSpec], scope: Scope, wanted: Iterable[str], around: Mapping[str, object]
    ) -> None:
        self._specs = specs
        self._scope = scope
        self._wanted = frozenset(wanted)
        self._stack = AsyncExitStack()
        self.values: dict[str, object] = dict(around)

    async def __aenter__(self) -> ResourceScope:
        try:
            for name in self._order():
                await self._open(self._specs[name])
        except BaseException as error:  # whatever stopped the opening, what is open already must be closed
            await self.close(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(error)

    def _order(self) -> list[str]:
        """Needed names of this scope, each after what its factory takes."""
        order: list[str] = []

        def visit(name: str, path: tuple[str, ...]) -> None:
            if name in path:
                circle = " -> ".join((*path, name))
                raise ResourceError(f"resource {name!r} cannot be opened", f"factories need each other: {circle}")
            for needed in self._specs[name].needs.values():
                visit(needed, (*path, name))
            spec = self._specs[name]
            if name not in order and name not in self.values and _WIDTH[spec.scope] <= _WIDTH[self._scope]:
                order.append(name)

        for name in self._specs:
            if name in self._wanted:
                visit(name, ())
        return order

    async def _open(self, spec: ResourceSpec) -> None:
        if spec.factory is None:
            self.values[spec.name] = spec.value
            return
        arguments = {parameter: self.values[needed] for parameter, needed in spec.needs.items()}
        try:
            self.values[spec.name] = await self._enter(spec.factory(**arguments))
        except Exception as error:
            why = f"{type(error).__name__}: {scrub(str(error))}"
            raise ResourceError(f"resource {spec.name!r} failed to open", why) from error

    async def _enter(self, made: object) -> object:
        if hasattr(made, "__aenter__"):
            return await self._stack.enter_async_context(cast("Any", made))
        if hasattr(made, "__enter__"):
            return self._stack.enter_context(cast("Any", made))
        if inspect.isawaitable(made):
            return await made
        return made

    async def close(self, error: BaseException | None) -> None:
        """Close in reverse order, shielded from cancels; `error` is what the work inside ended with, if it did.

        Raises:
            ResourceError: One failed to close, or took too long. The others are closed all the same.
        """
        trace = None if error is None else error.__traceback__
        with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True) as limit:
            try:
                await self._stack.__aexit__(None if error is None else type(error), error, trace)
            except Exception as fault:
                if fault is error:
                    return  # a resource let the work's own error through: that is told already
                why = f"{type(fault).__name__}: {scrub(str(fault))}"
                raise ResourceError(f"a resource of scope {self._scope!r} failed to close", why) from fault
        if limit.cancelled_caught:
            why = f"closing took longer than {CLOSE_TIMEOUT_S:g} s"
            raise ResourceError(f"the resources of scope {self._scope!r} were not closed", why)
