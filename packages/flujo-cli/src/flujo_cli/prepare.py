"""From a user's file, the settings and the options to a Flujo that is ready to run."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any, TypedDict

from flujo.core import ConfigurationError, Flujo, PipelineLike, Plugins, Policy, RunStore, UsageLimits

from .logs import clean_logs
from .problems import Problem
from .settings import VARIABLE, Settings, canonical, read_settings
from .target import DEFAULT_NAME, Target, load_target

__all__ = [
    "PolicyOptions",
    "allowed_by",
    "build",
    "enforce_allow_list",
    "limits_of",
    "policy_of",
    "prepare",
    "store_of",
]

Observers = Iterable[Callable[..., object]]


class PolicyOptions(TypedDict):
    """The options of `options.policy_options`."""

    plugin: tuple[str, ...]
    require: tuple[str, ...]
    policy_file: Path | None


def prepare(
    spec: str | PipelineLike,
    options: PolicyOptions,
    hooks: Observers = (),
    *,
    store: str | None = None,
    keeps: bool = False,
    backend: str | None = None,
    experimental: Collection[str] = (),
) -> tuple[Target, Flujo]:
    """Load FILE[:NAME] under the settings that hold here, and build its Flujo.

    Args:
        spec: FILE[:NAME], or the pipeline that a command made itself.
        options: The options about plugins and the policy.
        hooks: Observers.
        store: URL of a store; None takes FLUJO_STORE, or that of the settings.
        keeps: Whether runs are kept there at all.
        backend: Where steps run that do not say it themselves; None takes that of the settings, else where the file
            says. A pipeline that a command made itself runs here: nothing could import its steps elsewhere.
        experimental: What may change with any release, and is switched on.

    Raises:
        Problem: The file, the settings or an option cannot be used.
        FlujoError: The pipeline cannot work, or a plugin that must act cannot.
    """
    settings = read_settings()
    policy = policy_of(settings, options["policy_file"], options["require"])
    enforce_allow_list(settings, policy)
    if isinstance(spec, str):
        target, backend = load_target(spec), backend or settings.backend or None
    else:
        clean_logs()
        target = Target(DEFAULT_NAME, "", spec)
    use = [*settings.use, *(canonical(name) for name in options["plugin"])]
    where = _url_of(store, settings) if keeps else None
    wanted = {"store": where, "backend": backend, "experimental": experimental or None}
    return target, build(target, settings, use, policy, hooks, wanted)


def store_of(url: str | None) -> RunStore:
    """The store of a URL, or the one that the environment or the settings name.

    Raises:
        Problem: None is named, or the settings cannot be used.
        FlujoError: It cannot be opened.
    """
    settings = read_settings()
    policy = policy_of(settings, None, ())
    enforce_allow_list(settings, policy)
    where = _url_of(url, settings)
    if where is None:
        do = "Pass --store sqlite:///runs.db, set FLUJO_STORE, or write store = ... under [tool.flujo]"
        raise Problem("there is no store to look at", "none is named", do)
    return Plugins(allowed=allowed_by(settings), policy=policy).store_of(where)


def _url_of(given: str | None, settings: Settings) -> str | None:
    return given or os.environ.get("FLUJO_STORE") or settings.store or None


def enforce_allow_list(settings: Settings, policy: Policy) -> None:
    """Let the allow-list hold for plugins that the user's own code names, too: core reads it from the environment."""
    allowed = Plugins(allowed=allowed_by(settings), policy=policy).allowed
    if allowed is not None:
        os.environ[VARIABLE] = ",".join(f"{name}{allowed[name]}" for name in sorted(allowed))


def allowed_by(settings: Settings) -> list[str] | None:
    """The allow-list of the settings, as core takes it."""
    if settings.allowed is None:
        return None
    return [f"{name}{versions}" for name, versions in settings.allowed.items()]


def policy_of(settings: Settings, file: Path | None, require: Collection[str]) -> Policy:
    """What `[tool.flujo.policy]`, a policy file and `--require` demand together.

    Raises:
        ConfigurationError: A file has an unknown or unusable entry.
    """
    files = [settings.source] if settings.policy else []
    stated = [Policy.load(path) for path in (*files, file) if path is not None]
    # Not joined with a default policy: that would cap a time which somebody chose to be longer.
    policy = reduce(Policy.joined, stated) if stated else Policy()
    return policy.model_copy(update={"require": policy.require | set(map(canonical, require))})


def build(
    target: Target,
    settings: Settings,
    use: Iterable[str],
    policy: Policy,
    hooks: Observers,
    wanted: Mapping[str, object],
) -> Flujo:
    """A Flujo of what was found. One that the file built itself keeps all it has, and gets the rest on top."""
    found = target.found
    given: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    if not isinstance(found, Flujo):
        plugins = Plugins(use, allowed=allowed_by(settings), settings=settings.plugins, policy=policy)
        return Flujo(found, plugins=plugins, policy=policy, hooks=hooks, **given)
    there = _acting(found)
    more = [name for name in use if name not in there]
    plugins = Plugins(more, allowed=allowed_by(settings), settings=settings.plugins, policy=policy)
    plugins.hold_to(policy.model_copy(update={"require": policy.require - there}))
    here = {name for name, _ in plugins.acting}
    plugins.acting = [item for item in found.plugins.acting if item[0] not in here] + plugins.acting
    plugins.named = {**found.plugins.named, **plugins.named}
    return _extended(found, plugins, policy, hooks, given)


def _extended(flujo: Flujo, plugins: Plugins, policy: Policy, hooks: Observers, given: Mapping[str, Any]) -> Flujo:
    """A Flujo like this one with these plugins and more observers, held to a second policy as well."""
    before: Any = flujo.given["backend"]
    together: dict[str, Any] = {
        "plugins": plugins,
        "policy": flujo.policy.joined(policy),
        "hooks": [*flujo.observers, *hooks],
    }
    if "backend" in given and isinstance(before, Mapping):  # what steps name stays as it is
        together["backend"] = {**before, "default": given["backend"]}
    made: Flujo = Flujo(**{**flujo.given, **given, **together})
    _check_codec(flujo.store, made.store)
    return made


def _check_codec(own: RunStore | None, store: RunStore | None) -> None:
    """Refuse to write as it is what the file has encrypted; a store need not have the attribute."""
    if getattr(own, "codec", None) is not None and getattr(store, "codec", None) is None:
        why = "the store that stands in the file has a codec, and the one that is named instead has none"
        do = "Name the codec: FLUJO_CODEC=module:object; or take --store, FLUJO_STORE or [tool.flujo] store away"
        raise Problem("what runs keep would not be encrypted", why, do)


def _acting(flujo: Flujo) -> set[str]:
    """Distributions whose plugins act in a Flujo."""
    return {name for name, _ in flujo.plugins.acting}


def limits_of(max_usd: str | None, max_tokens: int | None, max_requests: int | None) -> UsageLimits:
    """The limits of a command.

    Raises:
        Problem: One is no amount; it is called by its option.
    """
    for option, field, value in (
        ("--max-usd", "total_cost_usd_limit", max_usd),
        ("--max-tokens", "total_tokens_limit", max_tokens),
        ("--max-requests", "requests_limit", max_requests),
    ):
        try:
            UsageLimits(**{field: value})  # type: ignore[arg-type]  # which field takes which type, the table knows
        except ConfigurationError as error:
            raise Problem(
                f"{option} {value} cannot be used", error.why, "Give 0 or more, e.g. --max-usd 0.50"
            ) from error
    return UsageLimits(max_usd, max_tokens, max_requests)
