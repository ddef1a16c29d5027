"""Asking a human: what a step raises, and what a paused run shows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError

from .check import adapter_of
from .errors import ConfigurationError
from .scrubbing import scrub


class PauseForHumanInput(Exception):
    """Raised by a step to pause the run; the decision becomes the step's output, and its body is not run again.

    Args:
        question: What the human is asked.
        schema: Type the decision must have: a model, or any type pydantic knows; None takes any JSON.
        payload: What the human must see to decide, as JSON.
        expires_at: When the question is no longer open; None is never.

    Raises:
        ConfigurationError: The question is no text, the payload no JSON, or the time has no zone.
    """

    def __init__(
        self, question: str, schema: object = None, *, payload: object = None, expires_at: datetime | None = None
    ) -> None:
        what = "PauseForHumanInput cannot be raised"
        if not isinstance(question, str) or not question.strip():
            raise ConfigurationError(what, f"its question is {question!r}", "Give a text that a human can answer")
        if expires_at is not None and expires_at.tzinfo is None:
            raise ConfigurationError(what, "expires_at has no time zone", "Use datetime.now(UTC) + timedelta(...)")
        try:
            self.payload: JsonValue = _json().validate_python(payload)
        except ValidationError:
            raise ConfigurationError(what, f"its payload holds what is no JSON ({type(payload).__name__})") from None
        self.question = question
        self.schema = schema
        self.expires_at = expires_at
        self.asked: bool = False
        self.shown_schema: dict[str, Any] | None = None
        super().__init__(question)

    @property
    def json_schema(self) -> dict[str, Any] | None:
        """JSON schema of the decision; None takes any JSON. It is kept where the type itself was not found again."""
        if self.shown_schema is None and self.schema is not None:
            adapter = adapter_of(self.schema)
            if adapter is None:
                what = f"schema={self.schema!r} of a question cannot be used"
                raise ConfigurationError(what, "pydantic knows no way to check it", "Use a model or plain types")
            self.shown_schema = adapter.json_schema()
        return self.shown_schema


@cache
def _json() -> TypeAdapter[JsonValue]:
    return TypeAdapter(JsonValue)


@dataclass(frozen=True, slots=True)
class Pause:
    """A question that a paused run waits for.

    Attributes:
        id: Names it in `resume_async(..., pause=...)`; unique in the run.
        step_path: The step that asks.
        question: What is asked.
        schema: JSON schema of the decision; None takes any JSON.
        shown_digest: SHA-256 of what the human must be shown: question, schema and payload, as canonical JSON.
        expires_at: When it is no longer open; None is never.
        token: Signed single-use token; None without a store that signs.
        payload: What the human must see to decide.
    """

    id: str
    step_path: str
    question: str
    schema: Mapping[str, Any] | None
    shown_digest: str
    expires_at: datetime | None = None
    token: str | None = None
    payload: JsonValue = None

    def __repr__(self) -> str:
        """Shows no payload: it may be private."""
        return f"Pause(id={self.id!r}, step_path={self.step_path!r}, question={scrub(self.question)!r})"


def pause_of(request: PauseForHumanInput, step_path: str, number: int) -> Pause:
    """What a run shows of a request: `number` counts the questions that this visit of the step asked before."""
    return shown(request.question, request.json_schema, request.payload, request.expires_at, step_path, number)


def shown(
    question: str,
    schema: Mapping[str, JsonValue] | None,
    payload: JsonValue,
    expires_at: datetime | None,
    step_path: str,
    number: int,
) -> Pause:
    """What is shown of a question, with the digest of it."""
    text = json.dumps(
        {"question": question, "schema": schema, "payload": payload},
        sort_keys=True, separators=(",", ":"), ensure_ascii=False,
    )  # fmt: skip
    digest = hashlib.sha256(text.encode()).hexdigest()
    pause_id = f"{step_path}?{number}" if number else step_path
    return Pause(pause_id, step_path, question, schema, digest, expires_at, None, payload)
