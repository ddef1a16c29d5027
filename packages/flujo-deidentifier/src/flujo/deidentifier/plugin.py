"""The plugin: takes identifiers out of what users give a run and of what goes to a model.

Activate it by name (`--plugin flujo-deidentifier`, `[tool.flujo] use`, a policy) or as an object:

    Flujo(pipeline, plugins=[Plugin(profile="hipaa_safe_harbor")])

Redactions are counted in `run.counts["redactions"]`, by type; each text counts once per run. A text that cannot be
analysed raises, and the engine fails the step: nothing passes unseen.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

from anyio import to_thread

from flujo.core import (
    UNCHANGED,
    Command,
    ModelRequest,
    OnRunEnd,
    RunInfo,
    TransformChunk,
    TransformModelRequest,
    TransformStepInput,
    hookimpl,
)
from flujo.deidentifier.cache import RedactionCache
from flujo.deidentifier.deidentifier import Deidentifier, Redaction
from flujo.deidentifier.stream import HoldBack, fed
from flujo.deidentifier.values import redact_value

__all__ = ["Plugin", "flujo_api", "register_commands"]

flujo_api = "1.0"
_RUNS_REMEMBERED = 1_000
_HELD = "flujo-deidentifier"
"""Where the state of a stream stands."""


@hookimpl
def register_commands() -> Sequence[Command]:
    """`flujo pii ...`."""
    return [Command("pii", "Find personal data in files", "flujo.deidentifier.cli:pii")]


class Plugin:
    """De-identifies run inputs, model requests, and the chunks that streaming steps give their reader.

    Args:
        profile: As for `Deidentifier`.
        max_chars: As for `Deidentifier`.
        timeout_s: As for `Deidentifier`, in seconds.
        cache_chars: Characters of known texts kept in memory, so that equal texts are analysed once.
        hold_chars: How many characters of a stream are held back, as for `Deidentifier.redact_stream`.
        entities: As for `Deidentifier`: the only types that are looked for.

    Raises:
        ConfigurationError: A setting cannot be used.
    """

    def __init__(
        self,
        profile: str = "hipaa_safe_harbor",
        *,
        max_chars: int = 2_000_000,
        timeout_s: float = 120.0,
        cache_chars: int = 8_000_000,
        hold_chars: int = 64,
        entities: Collection[str] = (),
    ) -> None:
        self.deidentifier: Deidentifier = Deidentifier(
            profile, max_chars=max_chars, timeout_s=timeout_s, entities=entities
        )
        self.deidentifier.hold_back(hold_chars)  # refuses a number that cannot be used, before anything runs
        self._hold_chars = hold_chars
        self._cache = RedactionCache(cache_chars)
        self._counted: OrderedDict[str, set[int]] = OrderedDict()

    @hookimpl
    async def transform_step_input(self, payload: TransformStepInput) -> object:
        """Redacts what the user gave the run; values between steps come from redacted inputs and stay as they are."""
        return await self._clean(payload.run, payload.value) if payload.from_run_input else UNCHANGED

    @hookimpl
    async def transform_model_request(self, payload: TransformModelRequest) -> object:
        """Redacts the content and the tool arguments of every message; tool names, ids and definitions stay."""
        request = payload.value
        texts = [(m.content, [call.arguments for call in m.tool_calls]) for m in request.messages]
        cleaned = await self._clean(payload.run, texts)
        return UNCHANGED if cleaned is UNCHANGED else _with_texts(request, cleaned)

    @hookimpl
    async def transform_chunk(self, payload: TransformChunk) -> object:
        """Redacts what a streaming step gives its reader, which nobody can take back; text with a short hold-back."""
        if payload.surface != "step":
            return UNCHANGED
        value = payload.value
        if not isinstance(value, str):
            return await self._clean(payload.run, value)
        held = payload.state.setdefault(_HELD, None) or self.deidentifier.hold_back(self._hold_chars)
        assert isinstance(held, HoldBack)
        payload.state[_HELD] = held
        released = await fed(held.feed, value, held.pending)
        if payload.is_last:
            released += await fed(lambda _: held.finish(), "", held.pending)
        for entity, number in held.counts.items():
            payload.run.count("redactions", entity, number)
        held.counts.clear()
        return released

    @hookimpl
    def on_run_end(self, payload: OnRunEnd) -> None:
        """Forgets which texts of the run were counted."""
        self._counted.pop(payload.run.run_id, None)

    async def _clean(self, run: RunInfo, value: object) -> object:
        """The redacted value, or UNCHANGED; analysed in a worker thread, because a page of text takes 0.1 s."""
        seen: list[tuple[str, Redaction]] = []

        def redact(text: str) -> str:
            redaction = self._redaction(text)
            seen.append((text, redaction))
            return redaction.text

        cleaned = await to_thread.run_sync(redact_value, value, redact)
        for text, redaction in seen:
            self._count(run, text, redaction)
        return UNCHANGED if cleaned == value else cleaned

    def _redaction(self, text: str) -> Redaction:
        known = self._cache.get(text)
        if known is None:
            known = self.deidentifier.redaction(text)
            self._cache.put(text, known)
        return known

    def _count(self, run: RunInfo, text: str, redaction: Redaction) -> None:
        """A text that reaches three steps is one text, so it is counted once in its run."""
        if not redaction.counts:
            return
        counted = self._counted.setdefault(run.run_id, set())
        if hash(text) in counted:
            return
        counted.add(hash(text))
        for entity, number in redaction.counts.items():
            run.count("redactions", entity, number)
        while len(self._counted) > _RUNS_REMEMBERED:
            self._counted.popitem(last=False)


def _with_texts(request: ModelRequest, cleaned: object) -> ModelRequest:
    """`request` with the texts of its messages replaced; `cleaned` is shaped as `transform_model_request` made it."""
    if not isinstance(cleaned, list):  # it went in as a list and comes back as one
        raise TypeError("the texts of a request came back in another shape")
    messages = []
    for message, (content, arguments) in zip(request.messages, cleaned, strict=True):
        calls = tuple(
            call.model_copy(update={"arguments": new}) for call, new in zip(message.tool_calls, arguments, strict=True)
        )
        messages.append(message.model_copy(update={"content": content, "tool_calls": calls}))
    return request.model_copy(update={"messages": tuple(messages)})
