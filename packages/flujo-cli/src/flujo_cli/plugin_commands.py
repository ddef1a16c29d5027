"""Sub-commands that plugins bring: found without importing what is not asked for."""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from .problems import Problem, note
from .settings import Settings, canonical, read_settings

if TYPE_CHECKING:
    from flujo.core import Command

__all__ = ["KNOWN", "find", "listed"]


@dataclass(frozen=True, slots=True)
class Known:
    """A command of one of our own packages: listed without importing it."""

    distribution: str
    help: str


KNOWN = {
    "audit": Known("flujo-audit", "Check and read audit logs."),
    "chat": Known("flujo-agent", "Talk with a model, under limits; goes on later where a store keeps it."),
    "eval": Known("flujo-agent", "Score a pipeline on a dataset, and compare with a saved run."),
    "hitl": Known("flujo-hitl", "Answer what runs ask in a browser, or by a JSON API."),
    "lambda": Known("flujo-backend-lambda", "Build, deploy and ask AWS Lambda workers."),
    "pii": Known("flujo-deidentifier", "Find personal data in files."),
    "runs": Known("flujo-hitl", "Look at stored runs, answer what they ask, go on with them."),
    "solve": Known("flujo-agent", "Let a recipe solve a task: made, checked, made again, under limits."),
}

OURS = {"flujo-backend-ray", *(known.distribution for known in KNOWN.values())}
"""Our own packages; one has no command."""


def listed() -> list[tuple[str, str]]:
    """Name and help of every plugin's command. Our own packages are not imported for it; others have to be.

    Never raises: the help must work where a plugin or the settings are broken. It says so in a line.
    """
    try:
        settings = read_settings()
    except Problem as problem:
        note(f"{problem.what}: {problem.why}")
        settings = Settings()
    installed = _installed(settings)
    rows = [(word, known.help) for word, known in KNOWN.items() if known.distribution in installed]
    found: list[tuple[str, Command]] = []
    if others := installed - OURS:
        from flujo.core import FlujoError  # takes over 50 ms, and only where a plugin must be asked

        try:
            found = _commands(others, settings)
        except FlujoError as error:  # without the policy nobody knows which of them may be imported
            note(f"{error.what}: {error.why}")
    return sorted([*rows, *((command.name, command.help) for _, command in found if command.name not in KNOWN)])


def find(word: str) -> click.Command | None:
    """The click command behind a word; None when no plugin has it.

    Raises:
        Problem: Its package is missing or not allowed, or it cannot be loaded.
    """
    settings = read_settings()
    installed = _installed(settings)
    known = KNOWN.get(word)
    if known is not None and known.distribution not in installed:
        _refuse(word, known.distribution, settings)
    for distribution, command in _commands({known.distribution} if known is not None else installed, settings):
        if command.name == word:
            return _load(distribution, command)
    return None


def _installed(settings: Settings) -> set[str]:
    """Distributions that offer plugins and may be imported."""
    points = importlib.metadata.entry_points(group="flujo")
    names = {canonical(point.dist.name) for point in points if point.dist is not None}
    return names if settings.allowed is None else names & settings.allowed.keys()


def _refuse(word: str, distribution: str, settings: Settings) -> None:
    what = f"command {word!r} needs the package {distribution}"
    if settings.allowed is not None and distribution not in settings.allowed:
        raise Problem(what, f"the allow-list in {settings.allowed_from} does not name it", "Add it there")
    raise Problem(what, "it is not installed", f"pip install {distribution}")


def _commands(distributions: set[str], settings: Settings) -> list[tuple[str, Command]]:
    """What these distributions register, one by one: a broken one is named in a line and stops no other."""
    if not distributions:
        return []
    from flujo.core import PluginError, Plugins  # over 50 ms, and only where a plugin must be asked

    from .prepare import policy_of  # as above

    found: list[tuple[str, Command]] = []
    policy = policy_of(settings, None, ())
    for name in sorted(distributions):
        versions = "" if settings.allowed is None else settings.allowed[name]
        plugins = Plugins(allowed=[f"{name}{versions}"], policy=policy)
        try:
            found += plugins.commands()
        except PluginError as error:
            note(f"{error.what}: {_one_line(error.why)}")
        for plugin in plugins.installed:
            if plugin.state == "blocked" and plugin.distribution == name:
                note(f"plugin {name!r} is not used: {plugin.error}")
            if plugin.state == "failed":
                note(f"plugin {plugin.distribution!r} failed to load: {_one_line(plugin.error)}")
    return found


def _load(distribution: str, command: Command) -> click.Command:
    module, _, attribute = command.target.partition(":")
    try:
        loaded = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # foreign code at import: whatever it raised, the user learns which package to repair
        why = f"{type(error).__name__}: {_one_line(str(error))}"
        do = f"Repair it: pip install -U '{distribution}[cli]'"
        raise Problem(f"command {command.name!r} of {distribution} cannot be loaded", why, do) from error
    if not isinstance(loaded, click.Command):
        why = f"{command.target} is a {type(loaded).__name__}, no click command"
        raise Problem(f"command {command.name!r} of {distribution} cannot be used", why, "Tell its author")
    return loaded


def _one_line(text: str) -> str:
    from flujo.core import scrub  # loaded already where a plugin was asked

    return " ".join(scrub(text).split())
