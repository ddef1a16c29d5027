"""What plugins are there, what they implement, and what is wrong with them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from flujo.core import (
    BackendFactory,
    Capabilities,
    Command,
    Flujo,
    FlujoError,
    Installed,
    LocalBackend,
    PluginError,
    Plugins,
    Policy,
    Step,
    capabilities_of,
    scrub,
    tier_of,
)

from .prepare import allowed_by, policy_of
from .settings import Settings

__all__ = ["Survey", "survey", "trial_of"]

_CORE = "flujo-core"
_UNMADE = (FlujoError, ImportError, OSError, RuntimeError, ValueError)
"""What the making of a backend may raise: its library, a file, or a setting is not there or no good."""
_TIERS = ("guard", "transform", "record", "observe", "register")


@dataclass(frozen=True, slots=True)
class PluginFacts:
    """One installed plugin.

    Attributes:
        name: Its distribution.
        version: The distribution's version.
        state: `loaded`, `blocked` by the allow-list, or `failed`.
        acts: Whether it acts in every run here.
        tiers: What it may do: guard, transform, record, observe, register.
        hooks: What it implements.
        source: The entry point, `name = module`.
        error: Why it failed.
    """

    name: str
    version: str
    state: str
    acts: bool
    tiers: tuple[str, ...]
    hooks: tuple[str, ...]
    source: str
    error: str


@dataclass(frozen=True, slots=True)
class BackendFacts:
    """A place where steps can run.

    Attributes:
        name: What `--backend`, `[tool.flujo] backend` and `step(backend=...)` call it.
        distribution: What brings it.
        version: The distribution's version.
        remote: Whether steps run in another process there.
        pickle: Whether it ships code that no import path leads to.
        max_payload: Most bytes of a task; None is no limit.
        loops: Event loops that it can be used from.
        streams: Whether the chunks of a streaming step come from there while it goes on.
        error: Why it cannot be used here.
    """

    name: str
    distribution: str
    version: str
    remote: bool = False
    pickle: bool = False
    max_payload: int | None = None
    loops: tuple[str, ...] = ()
    streams: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """All plugins and backends, the policy in force, and every problem with them in a sentence."""

    plugins: tuple[PluginFacts, ...]
    backends: tuple[BackendFacts, ...]
    policy: Policy
    problems: tuple[str, ...]

    def facts(self) -> list[dict[str, object]]:
        """The plugins as plain data."""
        return [asdict(plugin) for plugin in self.plugins]


def survey(settings: Settings, *, build: bool, policy_file: Path | None = None) -> Survey:
    """Import every allowed plugin and look at it.

    Args:
        settings: What holds here.
        build: Whether the plugins that act are built with their settings, too, as for a run.
        policy_file: A policy on top of that of the settings.

    Raises:
        FlujoError: The policy cannot be read.
    """
    policy = policy_of(settings, policy_file, ())
    acting = list(dict.fromkeys([*settings.use, *sorted(policy.require)]))
    plugins = Plugins(allowed=allowed_by(settings), policy=policy)
    problems = []
    factories: list[tuple[str, BackendFactory]] = [(_CORE, BackendFactory("local", LocalBackend))]
    try:
        plugins.registered("register_commands", Command)  # imports every allowed one
        factories += plugins.registered("register_backends", BackendFactory)
    except PluginError as error:
        problems.append(_sentence(error))
    found = tuple(_facts(plugin, plugin.distribution in acting) for plugin in plugins.installed)
    problems += [
        f"plugin {plugin.name!r} failed to load: {plugin.error}" for plugin in found if plugin.state == "failed"
    ]
    problems += _missing(acting, found)
    if build and not problems:
        problems += _trial(settings, policy)
    versions = {_CORE: version(_CORE), **{plugin.name: plugin.version for plugin in found}}
    backends = tuple(_backend(factory, name, versions[name]) for name, factory in factories)
    if settings.backend and settings.backend not in [one.name for one in backends]:
        problems.append(f"backend {settings.backend!r} of {settings.source} is not known: nothing installed brings it")
    return Survey(found, backends, policy, tuple(problems))


def _backend(factory: BackendFactory, distribution: str, version: str) -> BackendFacts:
    """What a backend says of itself; to make it starts nothing."""
    try:
        able: Capabilities = capabilities_of(factory.open())
    except _UNMADE as error:
        said = _sentence(error) if isinstance(error, FlujoError) else f"{type(error).__name__}: {_sentence(error)}"
        return BackendFacts(factory.name, distribution, version, error=said)
    can = (able.remote, able.pickle, able.max_payload, able.loops, able.streams)
    return BackendFacts(factory.name, distribution, version, *can)


def _facts(plugin: Installed, acts: bool) -> PluginFacts:
    hooks = sorted(_hooks(plugin.module)) if plugin.module is not None else []
    tiers = {tier_of(hook) for hook in hooks}
    return PluginFacts(
        name=plugin.distribution,
        version=plugin.version,
        state=plugin.state,
        acts=acts,
        tiers=tuple(tier for tier in _TIERS if tier in tiers),
        hooks=tuple(hooks),
        source=f"{plugin.name} = {plugin.target}",
        error=" ".join(scrub(plugin.error).split()),
    )


def _hooks(module: ModuleType) -> Iterable[str]:
    """Names of the hooks a plugin's module and its class `Plugin` implement, by the mark of `@hookimpl`."""
    for holder in (module, getattr(module, "Plugin", None)):
        for name in dir(holder):
            options = getattr(inspect.getattr_static(holder, name), "flujo_impl", None)
            if isinstance(options, dict):
                yield options.get("specname") or name


def _missing(acting: Iterable[str], found: Iterable[PluginFacts]) -> Iterable[str]:
    there = {plugin.name: plugin for plugin in found}
    for name in acting:
        if name not in there:
            yield f"plugin {name!r} is to act and not installed: pip install {name}"
        elif there[name].state == "blocked":
            yield f"plugin {name!r} is to act and not allowed: {there[name].error}"


def _trial(settings: Settings, policy: Policy) -> Iterable[str]:
    """Build what a run would build, and run nothing."""
    try:
        trial_of(settings, policy)
    except FlujoError as error:
        yield _sentence(error)


def trial_of(settings: Settings, policy: Policy) -> Flujo:
    """A Flujo of a step that does nothing, with all that acts here.

    Raises:
        FlujoError: Something of it cannot act.
    """
    plugins = Plugins(settings.use, allowed=allowed_by(settings), settings=settings.plugins, policy=policy)
    return Flujo(Step(_nothing, name="nothing"), plugins=plugins, policy=policy)


def _nothing() -> None: ...


def _sentence(error: Exception) -> str:
    return " ".join(scrub(str(error)).split())
