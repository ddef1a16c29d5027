"""The one typed facade over pluggy: it resolves every hook once, into what `Hooks` calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping

import pluggy

from . import hookspecs
from .callables import hints_of
from .errors import PluginError
from .hooks import Implementation, tier_of
from .marks import hook_options
from .payloads import Event
from .resources import ResourceSpec, find_by_type
from .steps import suggestion

HOOK_NAMES = tuple(
    name for name, value in vars(hookspecs).items() if inspect.isfunction(value) and hasattr(value, "flujo_spec")
)


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
        # What only registers does nothing in a run, but for a price table that is given as an object.
        priced = not inspect.ismodule(plugin)
        acts = any(tier_of(hook) != "register" or (priced and hook == "register_price_books") for hook, _, _ in found)
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


def _label(function: Callable[..., object]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _observed(function: Callable[..., object]) -> list[str]:
    """Hooks that a plain callable observes, by the annotation of its first parameter."""
    what, names = f"hook {_label(function)!r}", _required(function) if callable(function) else []
    annotation = _hints(function, what).get(names[0]) if names else None
    observed = {"".join(map(str.capitalize, one.split("_"))): one for one in HOOK_NAMES if tier_of(one) == "observe"}
    if annotation is Event:
        return list(observed.values())
    name = getattr(annotation, "__name__", "")
    if name in observed:
        return [observed[name]]
    why = "its first parameter is not annotated with an observed payload"
    if name.startswith(("Guard", "Transform", "Record")):
        why = f"{name} is no observer's payload; only a plugin may guard, transform or record"
    raise PluginError(f"{what} cannot be used", why, f"Annotate it with Event or one of: {', '.join(observed)}")
