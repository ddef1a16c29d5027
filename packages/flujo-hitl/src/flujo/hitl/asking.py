"""Steps that ask a human: for an input, or for an approval of what they are given."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter

from flujo.core import FlujoError, PauseForHumanInput, RunContext, Step

__all__ = ["Approval", "NotApproved", "approve", "human_input"]


class Approval(BaseModel):
    """The decision on something that waits for an approval."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    approved: bool
    reason: str = ""


class NotApproved(FlujoError):
    """A human did not approve; `reason` is what they said."""

    def __init__(self, step_path: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"step {step_path!r} was not approved", reason or "no reason was given")


def human_input(
    question: str,
    *,
    schema: object = None,
    of: object = Any,
    name: str = "human_input",
    roles: Collection[str] = (),
    expires_in_s: float | None = None,
    on_expiry: JsonValue = None,
) -> Step:
    """A step that asks a human and gives what they answer. What it is given is shown to them beside the question.

    Args:
        question: What is asked.
        schema: Type of the answer: a model, or any type pydantic knows; None takes any JSON.
        of: Type of what it is given.
        name: Name of the step.
        roles: Who may answer; empty is anybody.
        expires_in_s: Seconds after which it is too late to answer; None is never.
        on_expiry: The answer that counts then; None is none.
    """
    shown: TypeAdapter[Any] = TypeAdapter(of)  # type: ignore[arg-type]  # any type, a model most often

    async def human_input(value: Any) -> Any:
        raise PauseForHumanInput(
            question, schema, payload=shown.dump_python(value, mode="json"), expires_at=_until(expires_in_s),
            roles=roles, on_expiry=on_expiry,
        )  # fmt: skip

    human_input.__annotations__ = {"value": of, "return": Any if schema is None else schema}
    return Step(human_input, name=name, pauses=True)


def approve(
    question: str = "Approve this?",
    *,
    of: object = Any,
    name: str = "approve",
    roles: Collection[str] = (),
    expires_in_s: float | None = None,
    denies_on_expiry: bool = True,
) -> Step:
    """A step that hands on what it is given once a human approved it; else it fails with NotApproved.

    The human is shown exactly what is handed on; the decision is an Approval.

    Args:
        question: What is asked.
        of: Type of what it is given and hands on.
        name: Name of the step.
        roles: Who may decide; empty is anybody.
        expires_in_s: Seconds after which it is too late to decide; None is never.
        denies_on_expiry: Whether that counts as a denial; if not, the run just cannot be gone on with.
    """
    shown: TypeAdapter[Any] = TypeAdapter(of)  # type: ignore[arg-type]  # any type, a model most often
    denied: JsonValue = {"approved": False, "reason": "nobody decided in time"}
    on_expiry = denied if denies_on_expiry and expires_in_s is not None else None

    async def approve(value: Any, ctx: RunContext) -> Any:
        payload = shown.dump_python(value, mode="json")
        decision = await ctx.ask(
            question, Approval, payload=payload, expires_at=_until(expires_in_s), roles=roles, on_expiry=on_expiry
        )
        if not decision.approved:
            raise NotApproved(ctx.step_path, decision.reason)
        return value

    approve.__annotations__ = {"value": of, "ctx": RunContext, "return": of}
    return Step(approve, name=name, pauses=True)


def _until(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
