"""`flujo doctor`: what is installed, what is in force, and what is wrong."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import click
from opentelemetry import trace
from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider

from .exits import COMPLETED, FINDINGS
from .launcher import diagnose
from .options import debug_option, json_option, policy_file_option
from .policies import explained
from .settings import Settings, canonical, read_settings
from .survey import Survey, survey

__all__ = ["doctor"]

_BESIDE = ("pydantic", "pluggy", "anyio", "opentelemetry-api", "click", "rich")

_REACH = (
    "Guards, transforms and recorders see models and tools that a step calls through ctx.call_model and ctx.call_tool; "
    "a step that opens a client of its own is seen by step hooks only."
)

_EPILOG = """\b
Examples:
  flujo doctor
  flujo doctor --policy production.toml
  flujo doctor --json
"""


@click.command(epilog=_EPILOG)
@policy_file_option
@json_option
@debug_option
@click.pass_context
def doctor(ctx: click.Context, policy_file: Path | None, as_json: bool) -> None:
    """Look at this environment: versions, plugins, backends, allow-list, policy, telemetry, leftovers of the old flujo.

    Each rule of the policy is told with how it is held, and what it cannot see; each backend with what it can do, and
    what is missing before it can be used.

    Exit code: 0 all well, 1 something is wrong, 2 the settings cannot be read.
    """
    settings = read_settings()
    found = survey(settings, build=True, policy_file=policy_file)
    problems = [*_old_flujo(), *found.problems]
    files = [settings.source] if settings.policy else []
    policy = explained(found.policy, [path for path in (*files, policy_file) if path is not None])
    facts = {**_facts(settings), "policy": policy, "telemetry": _telemetry()}
    if as_json:
        backends = [asdict(backend) for backend in found.backends]
        facts = {**facts, "plugins": found.facts(), "backends": backends, "problems": problems}
        click.echo(json.dumps(facts, indent=2))
    else:
        lines = {"plugins": list(_plugin_lines(found)) or ["none installed"], "backends": list(_backend_lines(found))}
        _show({**facts, **lines}, problems)
    ctx.exit(FINDINGS if problems else COMPLETED)


def _facts(settings: Settings) -> Mapping[str, object]:
    allowed = (
        "every installed plugin"
        if settings.allowed is None
        else ", ".join(f"{n}{v}" for n, v in sorted(settings.allowed.items())) or "none"
    )
    origin = f" (from {settings.allowed_from})" if settings.allowed_from else ""
    return {
        "python": f"{platform.python_version()} ({platform.python_implementation()}, {platform.system()})",
        "environment": sys.prefix,
        "packages": list(_versions()),
        "settings": "none" if settings.source is None else str(settings.source),
        "backend": settings.backend or "where the file says",
        "allow-list": allowed + origin,
    }


def _versions() -> Iterable[str]:
    """Our packages first, then what they stand on."""
    versions = {canonical(dist.name): dist.version for dist in importlib.metadata.distributions() if dist.name}
    ours = sorted(name for name in versions if name == "flujo" or name.startswith("flujo-"))
    return (f"{name} {versions[name]}" for name in (*ours, *_BESIDE) if name in versions)


def _old_flujo() -> Iterable[str]:
    hidden = diagnose(find_spec("flujo"))
    if hidden is not None:
        yield " ".join(hidden.split())
    for dist in importlib.metadata.distributions(name="flujo"):
        if dist.version.startswith("0."):  # ours begins at 1; its list of files leaves out what is gone already
            where = Path(str(dist.locate_file("")))
            yield f"the old package flujo {dist.version} is installed in {where}: pip install -U 'flujo>=1'"


def _telemetry() -> str:
    """Whether spans go anywhere. Where they go is not printed: such an address may hold a key."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, (ProxyTracerProvider, NoOpTracerProvider)):
        return f"OpenTelemetry is configured ({type(provider).__name__})"
    if any(name.startswith("OTEL_") for name in os.environ):
        do = "run under opentelemetry-instrument, or configure one in the pipeline's file"
        return f"OTEL_ variables are set, but no tracer provider is configured, so no spans are made; {do}"
    return "OpenTelemetry is not configured; no spans are made"


def _plugin_lines(found: Survey) -> Iterable[str]:
    for plugin in found.plugins:
        state = "acts in every run here" if plugin.acts and plugin.state == "loaded" else plugin.state
        tiers = f" ({', '.join(plugin.tiers)})" if plugin.tiers else ""
        yield f"{plugin.name} {plugin.version}: {state}{tiers}" + (f": {plugin.error}" if plugin.error else "")


def _backend_lines(found: Survey) -> Iterable[str]:
    for one in found.backends:
        where = "in another process" if one.remote else "in this process"
        more = (("ships code as pickles", one.pickle), ("hands over chunks of streams", one.streams))
        able = [where, *(what for what, can in more if can), f"on {' and '.join(one.loops)}"]
        said = f"not set up here: {one.error}" if one.error else ", ".join(able)
        yield f"{one.name} ({one.distribution} {one.version}): {said}"


def _show(facts: Mapping[str, object], problems: list[str]) -> None:
    for name, value in facts.items():
        lines = value if isinstance(value, list) else [value]
        for number, line in enumerate(lines):
            click.echo(f"{name if not number else '':<12} {line}")
    click.echo(f"{'reach':<12} {_REACH}")
    if not problems:
        click.echo("nothing is wrong")
    for problem in problems:
        click.echo(f"PROBLEM: {problem}")
