"""Asking a human: what a step raises, and what a paused run shows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, JsonValue

from .check import adapter_of, json_adapter, no_json
from .errors import ConfigurationError
from .foreign import attempt
from .scrubbing import scrub


class PauseForHumanInput(Exception):
    """Raised by a step to pause the run; the decision becomes the step's output, and its body is not run again.

    Args:
        question: What the human is asked.
        schema: Type the decision must have: a model, or any type pydantic knows; None takes any JSON.
        payload: What the human must see to decide, as JSON.
        expires_at: When the question is no longer open; None is never.
        roles: Who may answer, in the words of whoever checks that; empty is anybody.
        on_expiry: The decision that counts when nobody answered in time, as JSON; None is none: then it is too late.

    Attributes:
        json_schema: JSON schema of the decision; None takes any JSON. It is kept where the type is not found again.

    Raises:
        ConfigurationError: The question is no text, the payload or schema no JSON, or the time has no zone.
    """

    def __init__(
        self,
        question: str,
        schema: object = None,
        *,
        payload: object = None,
        expires_at: datetime | None = None,
        roles: Collection[str] = (),
        on_expiry: JsonValue = None,
    ) -> None:
        what = "PauseForHumanInput cannot be raised"
        if not isinstance(question, str) or not question.strip():
            raise ConfigurationError(what, f"its question is {question!r}", "Give a text that a human can answer")
        if expires_at is not None and expires_at.tzinfo is None:
            raise ConfigurationError(what, "expires_at has no time zone", "Use datetime.now(UTC) + timedelta(...)")
        if on_expiry is not None and expires_at is None:
            raise ConfigurationError(what, "it has on_expiry and never expires", "Pass expires_at= too")
        if isinstance(roles, str) or not all(isinstance(one, str) and one.strip() and "," not in one for one in roles):
            raise ConfigurationError(what, f"its roles are {roles!r}", 'Give names without a comma: roles=["cfo"]')
        self.payload: JsonValue = _as_json(what, "payload", question, payload)
        self.on_expiry: JsonValue = _as_json(what, "on_expiry", question, on_expiry)
        self.question = question
        self.schema = schema
        self.expires_at = expires_at
        self.roles: Collection[str] = frozenset(roles)
        self.asked: bool = False
        self.json_schema: dict[str, Any] | None = None if schema is None else _schema_of(schema)
        super().__init__(question)


def _as_json(what: str, name: str, question: str, value: object) -> JsonValue:
    made, error = attempt(json_adapter().validate_python, value)
    if error is not None or (problem := no_json([question, made])):
        held = type(value).__name__ if error is not None else problem
        raise ConfigurationError(what, f"its {name} holds what is no JSON ({held})")
    return made


def _schema_of(hint: object) -> dict[str, Any]:
    """JSON schema of a decision, of its own for each question: who is shown it may change it."""
    text = attempt(_schema_text, hint)[0] or _schema_text.__wrapped__(hint)  # of a hint that cannot be hashed
    if text is None:
        what, why = f"schema={hint!r} of a question cannot be used", "pydantic knows no way to check it as JSON"
        raise ConfigurationError(what, why, "Use a model or plain types")
    schema: dict[str, Any] = json.loads(text)
    return schema


@lru_cache(maxsize=1024)
def _schema_text(hint: object) -> str | None:
    """JSON schema of a type, as JSON; None where it has none. Kept: pydantic takes 300 us to make one."""
    adapter = adapter_of(hint)
    return None if adapter is None else attempt(lambda: json.dumps(adapter.json_schema()))[0]


class Reconciled(BaseModel):
    """The answer of a human who looked what became of work that may happen at most once.

    Attributes:
        happened: Whether it did; if not, it is done again.
        output: What it gave, where it did: the output of the step, or the answer of the tool.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    happened: bool
    output: JsonValue = None


class Reconcile(PauseForHumanInput):
    """The question what became of work that may happen at most once: its process, or it, was stopped in the middle.

    Args:
        step_path: The step.
        key: A digest of the call of a tool; empty for the step itself.
        tool: Name of the tool.
    """

    def __init__(self, step_path: str, key: str, tool: str) -> None:
        self.key = key
        self.tool = tool
        work = f"step {step_path!r}" if not key else f"the call of tool {tool!r} in step {step_path!r}"
        super().__init__(
            f"{work} may happen at most once, and was stopped in the middle. Did it happen, and what did it give?",
            Reconciled,
            payload={"needs_reconcile": {"step_path": step_path, "tool": tool}},
        )


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
        roles: Who may answer, in the words of whoever checks that; empty is anybody.
        on_expiry: The decision that counts when nobody answered in time; None is none.
    """

    id: str
    step_path: str
    question: str
    schema: Mapping[str, Any] | None
    shown_digest: str
    expires_at: datetime | None = None
    token: str | None = None
    payload: JsonValue = None
    roles: frozenset[str] = frozenset()
    on_expiry: JsonValue = None

    def __repr__(self) -> str:
        """Shows no payload: it may be private."""
        return f"Pause(id={self.id!r}, step_path={self.step_path!r}, question={scrub(self.question)!r})"


class _Asked(Protocol):
    """What is asked, wherever it stands; see PauseForHumanInput."""

    @property
    def question(self) -> str: ...
    @property
    def payload(self) -> JsonValue: ...
    @property
    def expires_at(self) -> datetime | None: ...
    @property
    def roles(self) -> Collection[str]: ...
    @property
    def on_expiry(self) -> JsonValue: ...


def pause_of(request: PauseForHumanInput, step_path: str, number: int) -> Pause:
    """What a run shows of a request: `number` counts the questions that this visit of the step asked before."""
    return shown(request, request.json_schema, step_path, number)


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def shown(asked: _Asked, schema: Mapping[str, JsonValue] | None, step_path: str, number: int) -> Pause:
    """What is shown of a question, with the digest of it."""
    text = _canonical({"question": asked.question, "schema": schema, "payload": asked.payload})
    digest = hashlib.sha256(text.encode()).hexdigest()
    pause_id = f"{step_path}?{number}" if number else step_path
    more = (asked.expires_at, None, asked.payload, frozenset(asked.roles), asked.on_expiry)
    return Pause(pause_id, step_path, asked.question, schema, digest, *more)
