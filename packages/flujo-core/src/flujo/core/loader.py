"""Find plugins, decide which may be imported, import them one by one, and check the API they were made for.

pluggy's own loader stops at the first plugin that fails and imports before anyone can object; ours does neither.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from .allowed import AllowList, canonical, refusal
from .errors import PluginError
from .foreign import attempt, text_of
from .scrubbing import scrub

PLUGIN_API_VERSION = "1.0"
"""Version of the hooks and payloads, apart from the package's own; a plugin names the one it was made for."""

GROUP = "flujo"


@dataclass(slots=True)
class Installed:
    """A plugin found in the environment.

    Attributes:
        distribution: Name of the distribution that brings it, in canonical form.
        version: Version of the distribution.
        name: Name of the entry point.
        target: Module that the entry point names.
        state: `blocked` by the allow-list (never imported), `found`, `loaded`, or `failed`.
        error: Why it is blocked, or failed.
        module: The imported module.
    """

    distribution: str
    version: str
    name: str
    target: str
    state: Literal["found", "blocked", "loaded", "failed"] = "found"
    error: str = ""
    module: ModuleType | None = None


def discover(allowed: AllowList | None = None) -> list[Installed]:
    """List installed plugins without importing any; those that `allowed` does not allow are blocked. None allows all.

    The distribution decides, by its name and version: an entry point may be called anything.
    """
    found = []
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.dist is None:
            continue
        plugin = Installed(canonical(point.dist.name), point.dist.version, point.name, point.module)
        plugin.error = refusal(allowed, plugin.distribution, plugin.version)
        if plugin.error:
            plugin.state = "blocked"
        found.append(plugin)
    return sorted(found, key=lambda plugin: (plugin.distribution, plugin.name))


def load(plugin: Installed) -> Installed:
    """Import a plugin that was found; a failure is kept in it, not raised. Blocked plugins are never imported."""
    if plugin.state == "found":
        plugin.module, error = attempt(_import, plugin.target)
        plugin.state = "loaded" if error is None else "failed"
        if error is not None:
            plugin.error = scrub(f"{type(error).__name__}: {text_of(error)}")
    return plugin


def _import(target: str) -> ModuleType:
    module = importlib.import_module(target)
    _check_api(module)
    return module


def _check_api(module: ModuleType) -> None:
    made_for = getattr(module, "flujo_api", None)
    if made_for != PLUGIN_API_VERSION:  # the first of its kind; a later one names here which earlier ones it serves
        why = f"it was made for plugin API {made_for or '(flujo_api is not set)'}, this is {PLUGIN_API_VERSION}"
        raise PluginError("plugin cannot be used", why, "Install a version of it that fits")


def instance(plugin: Installed, settings: Mapping[str, object]) -> object:
    """What acts for an installed plugin: its `Plugin`, built with its settings, or the module itself.

    Raises:
        PluginError: It is blocked, broken, or refuses its settings.
    """
    what = f"plugin {plugin.distribution!r} cannot be used"
    if plugin.state == "blocked":
        do = "Allow it where that is settled: FLUJO_PLUGINS, [tool.flujo] plugins, or allow_plugins of the policy"
        raise PluginError(what, plugin.error, do)
    if plugin.module is None:
        raise PluginError(what, plugin.error, f"Repair or update it: pip install -U {plugin.distribution}")
    factory = getattr(plugin.module, "Plugin", None)
    if factory is None:
        return plugin.module
    made, error = attempt(factory, **settings)
    if error is not None:
        do = f"Check its settings: [tool.flujo.plugins.{plugin.distribution}]"
        raise PluginError(what, f"{type(error).__name__}: {text_of(error)}", do) from error
    return made
