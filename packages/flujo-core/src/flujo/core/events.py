"""What a worker's hooks would have told recorders and observers, as JSON on its way to those of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import get_type_hints

from pydantic import JsonValue

from . import payloads
from .codec import dump, load
from .context import RunInfo
from .errors import SnapshotError
from .hooks import Implementation
from .messages import ModelRequest, ModelResponse, ToolCall, ToolResult
from .wire import EventData

TOLD: Mapping[str, type[payloads.Event]] = {
    "record_intent": payloads.RecordIntent,
    "record_result": payloads.RecordResult,
    "on_model_call": payloads.OnModelCall,
    "on_tool_call": payloads.OnToolCall,
    "on_retry": payloads.OnRetry,
    "on_guard_denied": payloads.OnGuardDenied,
}
"""Moments inside a step. What is told of the step itself is told where its run is."""


@cache
def _types(hook: str) -> dict[str, object]:
    cls = TOLD[hook]
    hints = get_type_hints(cls)
    found: dict[str, object] = {one.name: hints[one.name] for one in fields(cls) if one.name != "run"}
    # Inside a step only calls are recorded.
    precise = {"subject": ModelRequest | ToolCall, "value": ModelResponse | ToolResult | None}
    return {name: precise.get(name, hint) for name, hint in found.items()}


def written(hook: str, payload: payloads.Event) -> EventData:
    """A payload as JSON."""
    facts = {name: dump(hint, getattr(payload, name), name) for name, hint in _types(hook).items()}
    return EventData.model_construct(hook=hook, facts=facts)


def read(event: EventData, run: RunInfo, path: str) -> payloads.Event:
    """What `written` wrote, for the step at `path`.

    Raises:
        SnapshotError: It is nothing that happens inside this step.
    """
    facts: Mapping[str, JsonValue] = event.facts
    is_own = facts.get("step_path") == path and facts.get("kind", "model_call") in ("model_call", "tool_call")
    if event.hook not in TOLD or facts.keys() != _types(event.hook).keys() or not is_own:
        raise SnapshotError(f"event {event.hook!r} cannot be used", "it is nothing that happens inside this step")
    types = _types(event.hook)
    return TOLD[event.hook](run, **{name: load(types[name], value, name) for name, value in facts.items()})


def collector(hook: str, into: list[EventData]) -> Implementation:
    """What stands for the recorders and observers of `hook` on a worker."""

    def note(payload: payloads.Event) -> None:
        if getattr(payload, "kind", "") != "step":  # that is recorded where the run is
            into.append(written(hook, payload))

    return Implementation("worker", hook, note, is_async=False, thread=False, resources=(), required=False)
