"""Record and replay of model calls: tests that cost nothing, need no key, and fail when the pipeline asks otherwise."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, Token
from difflib import unified_diff
from functools import partial
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, get_args

from pydantic import JsonValue

from flujo.core import ConfigurationError, ModelRequest

from .cleaning import Cleaner, Redactor
from .errors import CassetteMismatch
from .tapefile import Call, read, write

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse

__all__ = ["Cassette"]

Mode = Literal["replay", "record", "auto"]

_DIFF_LINES = 40
"""Lines of a difference that are shown; a whole conversation would bury the message."""

ACTIVE: ContextVar[Cassette | None] = ContextVar("flujo_agent_cassette", default=None)


def replaying() -> bool:
    """Whether model calls are answered from a file here, so that no model is needed."""
    cassette = ACTIVE.get()
    return cassette is not None and not cassette.recording


class Cassette:
    """Model calls of agents, kept in a JSON file: `with Cassette("calls.json"): Flujo(pipeline).run(...)`.

    Inside the block every request of an agent to a model is recorded, or answered from the file. All else happens as
    always: transforms, guards, limits, records and tools. Each call of the file answers one equal request, in the order
    of the file; a request that no call is left for fails its step, and the block itself fails at its end when there was
    one, or when a call was not used. A request is equal when all that the model is sent is equal; only `max_tokens` is
    compared as the agent asked for it, not as a limit lowered it.

    What is masked in the file is masked in the run that records it, too, so that both runs see the same.

    Args:
        path: The file.
        mode: `replay` never asks a model; `record` asks and writes the file when the block ends without an error;
            `auto` records where the file does not exist, else replays.
        redact: Masks personal data in a text, for instance `Deidentifier().redact`. It must give the same text for the
            same text, and leave its own masks as they are. Secrets of a known form are masked anyway.

    Attributes:
        path: The file.
        recording: Whether models are asked.

    Raises:
        ConfigurationError: The mode is unknown; on entry, the file does not exist or is no cassette.
        CassetteMismatch: At the end of the block: the run asked for something else than the file holds.
    """

    def __init__(self, path: str | os.PathLike[str], *, mode: Mode = "replay", redact: Redactor | None = None) -> None:
        if mode not in get_args(Mode):
            raise ConfigurationError(f"mode={mode!r} cannot be used", f"it must be one of {get_args(Mode)}")
        self.path = Path(path)
        self.recording = mode == "record" or (mode == "auto" and not self.path.exists())
        self._cleaner = Cleaner(redact)
        self._calls: list[Call | None] = []
        self._used: set[int] = set()
        self._unexpected: list[str] = []
        self._lock = Lock()
        self._token: Token[Cassette | None] | None = None

    def __enter__(self) -> Self:
        if self._token is not None:
            what = f"cassette {str(self.path)!r} is in use already"
            raise ConfigurationError(what, "each `with` block needs a Cassette of its own")
        if not self.recording:
            self._calls = [*read(self.path)]
        self._token = ACTIVE.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._token is not None
        ACTIVE.reset(self._token)
        if error is not None:  # it says more than what follows from it, and half a recording would be a trap
            return
        if self.recording:
            write(self.path, [call for call in self._calls if call is not None])
            return
        unused = [call for at, call in enumerate(self._calls) if call is not None and at not in self._used]
        if unused or self._unexpected:
            raise _mismatch(self.path, self._unexpected, unused)

    async def answer(self, request: ModelRequest, ask: Callable[[], Awaitable[ModelResponse]]) -> ModelResponse:
        """Answer one request from the file, or by asking and taking it down.

        Raises:
            CassetteMismatch: It is not in the file, or not so often.
        """
        from . import taping  # here: imports pydantic-ai, which takes over a second; who asks a model has done so

        asked = taping.request_json(request, self._cleaner)
        if not self.recording:
            return taping.replayed(self._take(asked), request.model)
        with self._lock:  # in the order in which they were asked, whichever is answered first
            at = len(self._calls)
            self._calls.append(None)
        return await taping.taken_down(asked, ask, self._cleaner, partial(self._calls.__setitem__, at))

    def _take(self, asked: dict[str, JsonValue]) -> Call:
        with self._lock:
            for at, call in enumerate(self._calls):
                if call is not None and at not in self._used and call.request == asked:
                    self._used.add(at)
                    return call
            why = self._difference(asked)
            self._unexpected.append(why)
        what = f"cassette {str(self.path)!r} has no answer for a request to {asked['model']!r}"
        raise CassetteMismatch(what, why, 'When the change is meant, record again: mode="record"')

    def _difference(self, asked: dict[str, JsonValue]) -> str:
        """How a request differs from the next call that is left."""
        left = [call for at, call in enumerate(self._calls) if call is not None and at not in self._used]
        if not left:
            return f"all of its {len(self._calls)} calls are used"
        before, after = (json.dumps(one, indent=1, ensure_ascii=False).splitlines() for one in (left[0].request, asked))
        lines = list(unified_diff(before, after, "in the file", "asked for", lineterm="", n=2))
        more = [f"... {len(lines) - _DIFF_LINES} more lines"] if len(lines) > _DIFF_LINES else []
        return "\n".join(["it differs from the next call of the file:", *lines[:_DIFF_LINES], *more])


def _mismatch(path: Path, unexpected: list[str], unused: list[Call]) -> CassetteMismatch:
    what = f"cassette {str(path)!r}: {len(unexpected)} requests it has no answer for, {len(unused)} calls not used"
    models = sorted({str(call.request.get("model")) for call in unused})
    why = unexpected[0] if unexpected else f"the run did not make requests to {models} that the file holds"
    return CassetteMismatch(what, why, 'When the change is meant, record again: mode="record"')
