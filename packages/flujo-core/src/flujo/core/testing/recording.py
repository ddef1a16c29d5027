"""A plugin that listens to everything, and can deny, raise or hang at one hook."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import TypeVar

import anyio

from flujo.core import UNCHANGED, Allow, ConfigurationError, Deny, Event, PipelineResult, StepRecord, hookimpl, tier_of
from flujo.core.foreign import attempt
from flujo.core.plugins import HOOK_NAMES

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One call of a hook. `payload` is a copy as of that moment; None for a `register_*` hook, which gets none."""

    hook: str
    payload: Event | None


class RecordingPlugin:
    """A plugin that implements every hook, notes each call, and lets everything pass as it is.

    For instance::

        plugin = RecordingPlugin(deny_at="guard_step")
        result = Flujo(pipeline, plugins=[plugin]).run("audit logs")
        assert result.status == "aborted"
        assert plugin.hooks[-1] == "on_run_end"

    Its methods are made from the list of hooks, so a new hook is there by itself.

    Args:
        deny_at: The guard that denies.
        raise_at: The hook that raises.
        hang_at: The hook that never answers.
        error: What is raised; `AbortPipeline(reason)` in an observer ends the run.

    Attributes:
        records: Every call of a hook, in order.
    """

    def __init__(
        self,
        *,
        deny_at: str | None = None,
        raise_at: str | None = None,
        hang_at: str | None = None,
        error: BaseException | type[BaseException] | None = None,
    ) -> None:
        for option, hook in (("deny_at", deny_at), ("raise_at", raise_at), ("hang_at", hang_at)):
            _check(option, hook)
        if error is not None and raise_at is None:
            raise ConfigurationError("error= cannot be used", "no hook raises it", "Say which does: raise_at='...'")
        self.records: list[Recorded] = []
        self._deny_at = deny_at
        self._raise_at = raise_at
        self._hang_at = hang_at
        self._error = error or RuntimeError(f"RecordingPlugin raises at {raise_at}")

    @property
    def hooks(self) -> list[str]:
        """Names of the hooks that were called, in order."""
        return [record.hook for record in self.records]

    def of(self, kind: type[E]) -> list[E]:
        """The payloads of exactly this class, in order: `plugin.of(OnRunEnd)`."""
        payloads = (record.payload for record in self.records)
        return [payload for payload in payloads if type(payload) is kind]

    def _note(self, hook: str, payload: Event | None) -> None:
        self.records.append(Recorded(hook, None if payload is None else _copied(payload)))
        if hook == self._raise_at:
            raise self._error

    async def _act(self, hook: str, payload: Event) -> object:
        self._note(hook, payload)
        if hook == self._hang_at:
            await anyio.sleep_forever()
        if hook == self._deny_at:
            return Deny(f"RecordingPlugin denies at {hook}")
        return _ANSWERS.get(tier_of(hook))


_ANSWERS: dict[str, object] = {"guard": Allow(), "transform": UNCHANGED}


def _check(option: str, hook: str | None) -> None:
    """Refuse a hook that is not there, or that cannot do what is asked of it."""
    if hook is None:
        return
    what = f"{option}={hook!r} cannot be used"
    if hook not in HOOK_NAMES:
        close = get_close_matches(hook, HOOK_NAMES, n=1)
        raise ConfigurationError(what, "there is no such hook", f"Did you mean {close[0]!r}?" if close else "")
    if option == "deny_at" and tier_of(hook) != "guard":
        raise ConfigurationError(what, "only a guard can deny", "Use raise_at, or name a guard_* hook")
    if option == "hang_at" and tier_of(hook) == "register":
        raise ConfigurationError(what, "it is called before there is an event loop, and would block the test")


def _copied(payload: Event) -> Event:
    twin = copy(payload)
    for field in fields(payload):
        setattr(twin, field.name, _deep(getattr(payload, field.name)))
    return twin


def _deep(value: object) -> object:
    """A deep copy, but for errors: a copy of one would lose its cause."""
    errors = [value] if isinstance(value, BaseException) else []
    if isinstance(value, (PipelineResult, StepRecord)):
        errors += [value.error] if value.error is not None else []
    if isinstance(value, PipelineResult):
        errors += [record.error for record in value.step_history if record.error is not None]
    twin, refusal = attempt(deepcopy, value, {id(error): error for error in errors})
    return value if refusal is not None else twin  # a value that cannot be copied is kept as it is


def _implementation(hook: str) -> Callable[..., object]:
    """The method for one hook."""

    async def called(self: RecordingPlugin, payload: Event) -> object:
        return await self._act(hook, payload)

    def registered(self: RecordingPlugin) -> tuple[()]:
        self._note(hook, None)
        return ()

    function: Callable[..., object] = registered if tier_of(hook) == "register" else called
    function.__name__ = hook
    function.__qualname__ = f"RecordingPlugin.{hook}"
    return hookimpl(function)


for _hook in HOOK_NAMES:
    setattr(RecordingPlugin, _hook, _implementation(_hook))
