"""The inbox as JSON: list, show, decide, cancel. Ids are free text, so they travel as parameters, not in the path."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, JsonValue
from pydantic_core import to_jsonable_python

from flujo.core import Receipt

from .access import Caller, Signed, access_of
from .desk import Desk

__all__ = ["Problem", "router"]


class Problem(BaseModel):
    """What was not done."""

    what: str = Field(description="What happened.")
    why: str = Field(description="The cause.")
    do: str = Field(description="The next act.")
    receipt: ReceiptOut | None = Field(None, description="How the question was answered, where it was.")


class ReceiptOut(BaseModel):
    """That a decision counts."""

    run_id: str
    pause_id: str
    digest: str = Field(description="SHA-256 of the decision as canonical JSON.")
    decided_at: datetime

    @classmethod
    def of(cls, receipt: Receipt) -> ReceiptOut:
        """Write one."""
        return cls(
            run_id=receipt.run_id, pause_id=receipt.pause_id, digest=receipt.digest, decided_at=receipt.decided_at
        )


class WaitingOut(BaseModel):
    """A question in the inbox."""

    run_id: str
    pause_id: str
    pipeline: str
    tenant: str | None
    question: str
    shown_digest: str
    expires_at: datetime | None
    roles: list[str]


class QuestionOut(BaseModel):
    """An open question, with what must be shown to whoever decides."""

    pause_id: str
    step_path: str
    question: str
    payload: JsonValue
    answer_schema: dict[str, Any] | None = Field(description="JSON schema of the answer; null takes any JSON.")
    shown_digest: str = Field(description="To be sent back with the decision.")
    expires_at: datetime | None
    roles: list[str]


class DecisionOut(BaseModel):
    """A decision that was taken."""

    receipt: ReceiptOut
    decision: JsonValue
    actor: str | None
    reason: str | None
    is_applied: bool = Field(description="Whether the run went on with it.")


class StepOut(BaseModel):
    """A step that ended."""

    path: str
    kind: str
    began_at: datetime
    duration_s: float
    attempts: int
    cost_usd: Decimal


class RunOut(BaseModel):
    """A run."""

    run_id: str
    pipeline: str
    status: str
    tenant: str | None
    actor: str | None
    cost_usd: Decimal
    tokens: int
    requests: int
    is_cancel_requested: bool
    open: list[QuestionOut]
    decisions: list[DecisionOut]
    steps: list[StepOut]


class RunLineOut(BaseModel):
    """A run in a list."""

    run_id: str
    pipeline: str
    status: str
    tenant: str | None
    actor: str | None
    began_at: datetime
    changed_at: datetime
    is_cancel_requested: bool


class InboxOut(BaseModel):
    """A part of the inbox; `next` is `after` of the part that follows."""

    items: list[WaitingOut]
    next: str | None


class RunsOut(BaseModel):
    """A part of the list of runs; `next` is `after` of the part that follows."""

    items: list[RunLineOut]
    next: str | None


class DecideIn(BaseModel, extra="forbid"):
    """A decision."""

    run_id: str
    pause_id: str
    decision: JsonValue
    shown_digest: str = Field(description="That of the question as it was shown.")
    reason: str | None = Field(None, max_length=10_000)


class CancelIn(BaseModel, extra="forbid"):
    """Which run should end."""

    run_id: str


class CancelOut(BaseModel):
    """That it was asked for."""

    run_id: str
    cancel_requested: Literal[True] = True


ReceiptOut.model_rebuild()
Problem.model_rebuild()

_SAID: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body cannot be read"},
    401: {"model": Problem, "description": "Nobody is signed in"},
    403: {"model": Problem, "description": "Not for this person"},
    404: {"model": Problem, "description": "Not there, or not for this person to see"},
    409: {"model": Problem, "description": "Decided otherwise before, or not what was shown"},
    410: {"model": Problem, "description": "Too late"},
    413: {"model": Problem, "description": "The body is too long"},
    422: {"model": Problem, "description": "It does not fit"},
    429: {"model": Problem, "description": "Too often"},
}
_READ: dict[int | str, dict[str, Any]] = {number: _SAID[number] for number in (401, 403, 404, 422)}

router: APIRouter = APIRouter(prefix="/api", tags=["inbox"])

After = Annotated[str | None, Query(pattern=r"^[0-9]{1,18}(:.*)?$", max_length=2000)]
Status = Literal["running", "completed", "failed", "paused", "stopped", "aborted"]
Limit = Annotated[int, Query(ge=1, le=1000)]


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


@router.get("/inbox", responses=_READ)
async def inbox(
    request: Request, person: Signed, pipeline: str | None = None, after: After = None, limit: Limit = 50
) -> InboxOut:
    """Questions that wait for an answer of yours, those of the oldest runs first."""
    page = await _desk(request).inbox(person, pipeline, after, limit)
    return InboxOut.model_validate(to_jsonable_python({"items": page.items, "next": page.next}))


@router.get("/runs", responses=_READ)
async def runs(
    request: Request, person: Signed, status: Status | None = None, after: After = None, limit: Limit = 50
) -> RunsOut:
    """Runs, the newest first; for operators."""
    page = await _desk(request).runs(person, status, after, limit)
    return RunsOut.model_validate(to_jsonable_python({"items": page.items, "next": page.next}))


@router.get("/run", responses=_READ)
async def run(request: Request, person: Signed, id: str) -> RunOut:
    """A run: how it stands, what it did and cost so far, what it asks, how it was answered."""
    view = await _desk(request).run(person, id)
    snapshot = view.snapshot
    asks = [{**to_jsonable_python(one), "pause_id": one.id, "answer_schema": one.schema} for one in view.open]
    facts = {name: getattr(view, name) for name in ("cost_usd", "tokens", "requests", "decisions", "steps")}
    names = {name: getattr(snapshot, name) for name in ("run_id", "pipeline", "status", "tenant", "actor")}
    more = {"open": asks, "is_cancel_requested": view.is_cancel_requested}
    return RunOut.model_validate(to_jsonable_python({**facts, **names, **more}))


@router.post("/decide", responses=_SAID)
async def decide(request: Request, person: Caller, body: DecideIn) -> ReceiptOut:
    """Record a decision; a worker goes on with the run.

    The first one counts: the same again gets its receipt (200), another a conflict (409) with the receipt of the first.
    """
    access_of(request).decisions.take(person.name)
    words = {"digest": body.shown_digest, "reason": body.reason}
    receipt = await _desk(request).decide(person, body.run_id, body.pause_id, body.decision, **words)  # type: ignore[arg-type]
    return ReceiptOut.of(receipt)


@router.post("/cancel", responses={number: _SAID[number] for number in (400, 401, 403, 404, 409, 413, 422, 429)})
async def cancel(request: Request, person: Caller, body: CancelIn) -> CancelOut:
    """Ask that a run ends; for operators. A worker ends it."""
    access_of(request).decisions.take(person.name)
    await _desk(request).cancel(person, body.run_id)
    return CancelOut(run_id=body.run_id)
