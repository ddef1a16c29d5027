"""What people see of runs, and what is recorded of what they decide: the same for pages and the API."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import anyio.to_thread
from pydantic import JsonValue
from pydantic_core import to_jsonable_python

from flujo.core import (
    ConfigurationError,
    EntryData,
    InputError,
    KeptRun,
    Pause,
    Receipt,
    ResumeConflict,
    ResumeError,
    Snapshot,
)
from flujo.hitl.listed import Decided, OpenPause, Page, RunRow
from flujo.hitl.protocol import HitlStore
from flujo.hitl.shown import Shown, misfit, printable, show

from .people import Person
from .problems import Refused, no_such_run

__all__ = ["Desk", "Question", "RunView", "StepLine"]

_MOST_OF_OUTPUT = 4000
"""Characters of what a step gave that a run's page shows; `flujo runs show RUN --json` gives all."""


@dataclass(frozen=True, slots=True)
class StepLine:
    """One line of what a run did.

    Attributes:
        path: The step.
        kind: What came of it.
        began_at: When, in UTC.
        duration_s: For how long.
        attempts: How often it was tried.
        cost_usd: What it cost.
        text: What it gave, or why not, as text; cut where it is long.
        is_cut: Whether it was.
    """

    path: str
    kind: str
    began_at: datetime
    duration_s: float
    attempts: int
    cost_usd: Decimal
    text: str
    is_cut: bool


@dataclass(frozen=True, slots=True)
class RunView:
    """A run, as somebody sees it.

    Attributes:
        snapshot: Where it stands, without payloads that are not shown.
        steps: What it did.
        decisions: How its questions were answered.
        cost_usd: What it cost so far.
        tokens: How many tokens it used so far.
        requests: How many requests.
        open: Its open questions that the person may answer.
        elsewhere: How many more are open, for others.
        is_cancel_requested: Whether somebody wants it to end.
    """

    snapshot: Snapshot
    steps: Sequence[StepLine]
    decisions: Sequence[Decided]
    cost_usd: Decimal
    tokens: int
    requests: int
    open: Sequence[Pause]
    elsewhere: int
    is_cancel_requested: bool

    @property
    def is_over(self) -> bool:
        """Whether nothing changes any more by itself."""
        return self.snapshot.status not in ("running", "paused")


@dataclass(frozen=True, slots=True)
class Question:
    """An open question, as it is shown; `decided` is what was recorded for it and waits for a worker."""

    snapshot: Snapshot
    pause: Pause
    shown: Shown
    schema: dict[str, Any] | None
    decided: Decided | None

    @property
    def is_late(self) -> bool:
        """Whether it can no longer be answered."""
        return self.pause.expires_at is not None and self.pause.expires_at < datetime.now(UTC)


class Desk:
    """What people do at the inbox.

    Args:
        store: Where runs are kept.
    """

    def __init__(self, store: HitlStore) -> None:
        self.store: HitlStore = store

    async def inbox(
        self, person: Person, pipeline: str | None = None, after: str | None = None, limit: int = 25
    ) -> Page[OpenPause]:
        """Questions that a person may answer, those of the oldest runs first."""
        if pipeline is not None and "\0" in pipeline:  # which a database refuses, and no name holds
            return Page([], None)
        only = {"pipeline": pipeline, "tenant": person.tenant, "after": after}
        with _typed():
            return await self.store.open_pauses(role=sorted(person.roles), limit=limit, **only)

    async def runs(
        self, person: Person, status: str | None = None, after: str | None = None, limit: int = 25
    ) -> Page[RunRow]:
        """Runs, the newest first; for operators."""
        if not person.is_operator:
            raise Refused(403, "The list of runs is not for you", "it needs the role 'operator'", "Look at your inbox")
        with _typed():
            return await self.store.runs(status=status, tenant=person.tenant, after=after, limit=limit)

    async def run(self, person: Person, run_id: str) -> RunView:
        """A run that a person may see."""
        kept, rows = await self._seen(person, run_id)
        snapshot = kept.snapshot
        used = [snapshot.checkpoint.usage, *(row.usage for row in kept.late if row.usage is not None)]
        decisions = await self.store.decisions(run_id)
        decided = {one.receipt.pause_id for one in decisions}
        asked = snapshot.pauses if snapshot.status != "aborted" else ()
        waiting = [pause for pause in asked if pause.id not in decided]
        mine = [pause for pause in waiting if person.may_answer(pause.roles)]
        return RunView(
            snapshot,
            [_line(row) for row in rows if row.path],
            decisions,
            sum((one.cost_usd for one in used), Decimal(0)),
            sum(one.total_tokens for one in used),
            sum(one.requests for one in used),
            mine,
            len(waiting) - len(mine),
            bool(await self.store.cancel_requested([run_id])),
        )

    async def length(self, run_id: str) -> tuple[int, str, int]:
        """What changes whenever a run does: cheaper than `run`, and for who was let see it before."""
        kept = await self.store.load(run_id)
        decisions = await self.store.decisions(run_id)
        return kept.length, kept.snapshot.status, len(decisions)

    async def question(self, person: Person, run_id: str, pause_id: str) -> Question:
        """An open question that a person may answer."""
        kept, rows = await self._seen(person, run_id)
        pause = _open(kept.snapshot, pause_id)
        if pause is None:
            await self._refuse_closed(person, run_id, pause_id, rows)
        assert pause is not None
        _check_role(person, pause)
        before = [one for one in await self.store.decisions(run_id) if one.receipt.pause_id == pause_id]
        schema = to_jsonable_python(pause.schema)
        return Question(kept.snapshot, pause, show(pause), schema, before[0] if before else None)

    async def decide(
        self, person: Person, run_id: str, pause_id: str, decision: JsonValue, *, digest: str, reason: str | None
    ) -> Receipt:
        """Record a decision. `digest` is that of what the person saw: of the page's text, or of the question itself.

        Raises:
            Refused: 409 where it was decided otherwise or is not what was shown, 410 where it is too late, 422 where it
                does not fit, 403 where it is for others.
        """
        kept, rows = await self._seen(person, run_id)
        pause = _open(kept.snapshot, pause_id)
        if pause is None:
            self._check_asked(person, run_id, pause_id, rows)
            shown_digest = digest
        else:
            _check_role(person, pause)
            _check_shown(pause, digest)
            _check_fit(pause, decision)
            shown_digest = pause.shown_digest
        _check_text(decision, reason)
        words = {"actor": person.name, "reason": reason or None}
        try:
            return await self.store.record_decision(run_id, pause_id, decision, shown_digest=shown_digest, **words)
        except ResumeConflict as error:
            do, receipt = "Look at the run: what was decided first counts", cast("Receipt", error.receipt)
            raise Refused(409, "This was decided before, in another way", "", do, receipt=receipt) from error
        except InputError as error:
            raise Refused(422, "The answer does not fit", error.why) from error
        except ResumeError as error:
            late = pause is not None and pause.expires_at is not None and pause.expires_at < datetime.now(UTC)
            raise Refused(410 if late else 409, "This cannot be answered any more", error.why) from error

    async def receipt(self, person: Person, run_id: str, pause_id: str) -> Decided:
        """How a question was answered."""
        await self._seen(person, run_id)
        found = [one for one in await self.store.decisions(run_id) if one.receipt.pause_id == pause_id]
        if not found:
            raise Refused(404, "This was not answered", f"run {run_id!r} has no decision on {pause_id!r}")
        return found[0]

    async def cancel(self, person: Person, run_id: str) -> None:
        """Ask that a run ends; for operators."""
        await self._seen(person, run_id)
        if not person.is_operator:
            raise Refused(403, "You may not end runs", "it needs the role 'operator'")
        try:
            await self.store.request_cancel(run_id)
        except ResumeError as error:
            raise Refused(409, "The run cannot be ended", error.why) from error

    # --- pieces -----------------------------------------------------------------------------------------------------

    async def _seen(self, person: Person, run_id: str) -> tuple[KeptRun, list[EntryData]]:
        """A run and its journal, where a person may see it: an operator, or who may answer something it asks."""
        if not run_id or len(run_id) > 1000 or not run_id.isprintable():
            raise no_such_run(run_id[:100])
        try:
            kept = await self.store.load(run_id)
        except ResumeError as error:
            raise no_such_run(run_id) from error
        if person.tenant is not None and kept.snapshot.tenant != person.tenant:
            raise no_such_run(run_id)
        rows = await anyio.to_thread.run_sync(kept.history)
        asked = [*(pause.roles for pause in kept.snapshot.pauses), *_roles(rows)]
        if not person.is_operator and not any(person.may_answer(roles) for roles in asked):
            raise no_such_run(run_id)
        return kept, rows

    def _check_asked(self, person: Person, run_id: str, pause_id: str, rows: Iterable[EntryData]) -> None:
        """Refuse who may not answer a question that is not open any more, or that there never was."""
        asked = [row for row in rows if row.kind == "paused" and pause_id.split("?")[0] == row.path]
        if not any(person.may_answer(roles) for roles in _roles(asked)):
            raise Refused(404, "There is no such question for you", f"run {run_id!r} does not ask {pause_id!r}")

    async def _refuse_closed(self, person: Person, run_id: str, pause_id: str, rows: Iterable[EntryData]) -> None:
        self._check_asked(person, run_id, pause_id, rows)
        receipt = await self.store.receipt(run_id, pause_id)
        if receipt is None:
            raise Refused(404, "This is not asked any more", f"run {run_id!r} does not wait for {pause_id!r}")
        raise Refused(409, "This was answered before", "", "Look at the run", receipt=receipt)


class _typed:
    """Turns a place in a list, or a filter, that cannot be used into an answer."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ConfigurationError):
            raise Refused(422, error.what, error.why, error.do) from error


def _open(snapshot: Snapshot, pause_id: str) -> Pause | None:
    if snapshot.status == "aborted":
        return None
    return next((pause for pause in snapshot.pauses if pause.id == pause_id), None)


def _roles(rows: Iterable[EntryData]) -> Iterator[list[str]]:
    for row in rows:
        if row.kind == "paused" and isinstance(row.value, dict):
            roles = row.value.get("roles")
            yield [str(role) for role in roles] if isinstance(roles, list) else []


def _check_role(person: Person, pause: Pause) -> None:
    if not person.may_answer(pause.roles):
        raise Refused(403, "This is not for you to answer", f"it is for {', '.join(sorted(pause.roles))}")


def _check_shown(pause: Pause, digest: str) -> None:
    shown = show(pause)
    if digest not in (shown.digest, pause.shown_digest):
        raise Refused(409, "What you saw is not what it asks now", "it asks anew, or otherwise", "Look at it again")
    if not shown.is_whole:
        raise Refused(409, "This cannot be decided here", "it is too long to be shown whole")


def _check_fit(pause: Pause, decision: JsonValue) -> None:
    if problem := misfit(pause, decision):
        raise Refused(422, "The answer does not fit", problem, "See what an answer must be")


def _check_text(decision: JsonValue, reason: str | None) -> None:
    """Refuse what cannot be written: numbers that are none, halves of characters, a NUL that databases refuse."""
    try:
        text = json.dumps([decision, reason], ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, RecursionError) as error:
        raise Refused(422, "The answer does not fit", "it holds what cannot be written as JSON") from error
    if "\\u0000" in text.replace("\\\\", ""):  # else somebody typed these six characters
        raise Refused(422, "The answer does not fit", "it holds a NUL character")


def _line(row: EntryData) -> StepLine:
    value = row.value
    if row.kind == "paused" and isinstance(value, dict):
        value = value.get("question")
    if value is None:
        text = "" if row.unwritten is None else f"(a {row.unwritten}, which is not kept)"
    else:
        text = _text(value)
    cost = row.usage.cost_usd if row.usage is not None else Decimal(0)
    began = datetime.fromtimestamp(row.started_at, UTC)
    facts = (row.path, row.kind, began, row.duration_s, row.attempts, cost)
    return StepLine(*facts, text[:_MOST_OF_OUTPUT], len(text) > _MOST_OF_OUTPUT)


def _text(value: JsonValue) -> str:
    if isinstance(value, str):
        return printable(value, keep="\n")
    return printable(json.dumps(value, ensure_ascii=False, indent=2), keep="\n")
