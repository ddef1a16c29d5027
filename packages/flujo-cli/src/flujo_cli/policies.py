"""The policy in force, in words: each rule, and what it rests on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from flujo.core import NamedLimit, Policy, UsageLimits

__all__ = ["explained"]

_CALLS = "a step that opens a client of its own is not seen"


def explained(policy: Policy, files: Iterable[Path]) -> list[str]:
    """A line for each rule: what it says, how it is held, and what it cannot see."""
    sources = ", ".join(map(str, files))
    lines = [f"from {sources}" if sources else "none is set; the defaults hold"]
    if policy.require:
        how = "nothing runs unless their plugins are installed, allowed, loaded and acting"
        lines.append(f"require {_listed(policy.require)}: {how}")
    else:
        lines.append("require: no plugin; a run without any is let through")
    if policy.allow_plugins is not None:
        how = "decided before import, by name and version of the distribution as its installer wrote them down"
        lines.append(f"allow_plugins {_listed(policy.allow_plugins)}: {how}; its files are not checked")
    if policy.allow_models is not None:
        how = "checked before every attempt of ctx.call_model, after all transforms"
        lines.append(f"allow_models {_listed(policy.allow_models)}: {how}; {_CALLS}")
    provider = "on" if policy.allow_provider_tools else "off"
    how = "rests on agents that say which tools a request has, as flujo-agent's do"
    lines.append(f"allow_provider_tools {provider}: {how}")
    if policy.max_limits is not None:
        how = "holds for each run beside its own limits; who asks for more is refused"
        lines.append(f"max_limits {_amounts(policy.max_limits)}: {how}; it counts what steps reserve or record")
    for name, limit in sorted(policy.named_limits.items()):
        how = "counted in each process, over all its runs and threads; who comes first is served first"
        lines.append(f"named_limits {name} {_named(limit)}: {how}")
    lines.append(
        f"guard_timeout_s {policy.guard_timeout_s:g}: a guard that waits longer is cancelled and denies; "
        "a sync one that overruns denies when it returns"
    )
    times = f"observer {policy.observer_timeout_s:g}, recorder {policy.recorder_timeout_s:g}"
    lines.append(f"other times, in seconds: {times}, write to a store {policy.write_timeout_s:g}")
    return lines


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none at all"


def _named(limit: NamedLimit) -> str:
    words = {"concurrency": "at a time", "requests_per_minute": "a minute", "tokens_per_minute": "tokens a minute"}
    amounts = limit.model_dump(exclude_none=True)
    return ", ".join(f"{amounts[name]} {word}" for name, word in words.items() if name in amounts) or "nothing"


def _amounts(limits: UsageLimits) -> str:
    amounts = ((limits.cost, "USD"), (limits.total_tokens_limit, "tokens"), (limits.requests_limit, "requests"))
    return ", ".join(f"{amount} {unit}" for amount, unit in amounts if amount is not None) or "nothing"
