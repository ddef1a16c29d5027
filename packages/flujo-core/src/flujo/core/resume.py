"""Going on with a run that stood still: which question is answered, with what, and that this happens once."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import JsonValue

from .check import WRITTEN, adapter_of, fitted, no_json
from .codec import load
from .errors import AmbiguousPause, InputError, ResumeError, SnapshotError
from .foreign import attempt
from .frames import RunState
from .journal import Entry
from .kept import Past, Receipt, refusal
from .outcome import Answer, Begun, Called, Decided
from .pause import Pause, PauseForHumanInput, Reconcile, Reconciled, pause_of
from .plan import Plan, StepNode
from .result import StepRecord
from .schemas import type_of_schema, unfit
from .values import unfit_claim


@dataclass(frozen=True, slots=True, repr=False)
class Decision:
    """A decision that fits its question.

    Attributes:
        pause: The question.
        value: The decision, of the type that was asked for.
        entries: What is journaled.
        digest: See `decision_digest`.
    """

    pause: Pause
    value: object
    entries: tuple[Entry, ...]
    digest: str


CLAIMS_KEPT = 100_000
_claims: OrderedDict[tuple[str, int, float], Receipt] = OrderedDict()


def receipt_of(run_id: str, decided: Decision | None) -> Receipt:
    """Why a run goes on, now."""
    said = ("", "") if decided is None else (decided.pause.id, decided.digest)
    return Receipt(run_id, *said, datetime.now(UTC))


def claim(past: Past, receipt: Receipt) -> None:
    """Let one of all resumes of a run from one place win, in this process; only a store can do so beyond it.

    Args:
        past: What it did until it stood there.
        receipt: Why it goes on.

    Raises:
        AlreadyResumed: The question was answered before, in the same way.
        ResumeConflict: ... in another way.
        ResumeError: The run went on from there by another answer.
    """
    before = _claims.setdefault((receipt.run_id, past.length, past.began), receipt)
    if len(_claims) > CLAIMS_KEPT:
        _claims.popitem(last=False)
    if before is not receipt:
        raise refusal(before, receipt)


def receipt_here(run_id: str, pause_id: str | None) -> Receipt | None:
    """How a question of a run was answered in this process; the last one that was, where none is named."""
    said = (one for one in reversed(_claims.values()) if one.run_id == run_id and one.pause_id)
    return next((one for one in said if pause_id in (None, one.pause_id)), None)


def release(run_id: str, past: Past) -> None:
    """Give a claim back whose resume came to nothing, so that it can be tried again."""
    _claims.pop((run_id, past.length, past.began), None)


def decision_digest(decision: object) -> str:
    """SHA-256 of a decision as canonical JSON, by which two of them are told apart.

    Raises:
        InputError: It cannot be written as JSON.
    """
    text = json.dumps(_as_json(decision, "a question"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def decide(
    plan: Plan, run_id: str, state: RunState, decision: object, wanted: str | None, *, at: datetime | None = None
) -> Decision:
    """Check a decision against the question that it answers; `at` is when it was recorded, if that was before now.

    Raises:
        AmbiguousPause: Several are open and none was named.
        ResumeError: The one that was named is not open.
        InputError: The decision is not what was asked for; the question stays open.
    """
    open_: dict[str, tuple[Pause, tuple[int, int], PauseForHumanInput]] = {}
    for key, paused in state.pauses.items():
        frame, node = state.frames[key[0]], plan.nodes[key[1]]
        shown = pause_of(paused.request, frame.prefix + node.name, len(state.known.get(key, ())))
        open_[shown.id] = (shown, key, paused.request)
    if wanted is None and len(open_) != 1:
        raise AmbiguousPause(run_id, list(open_))
    if wanted is not None and wanted not in open_:
        why = f"it does not wait for {wanted!r}; open are {', '.join(map(repr, open_)) or 'none'}"
        raise ResumeError(f"run {run_id!r} cannot be resumed", why)
    shown, key, request = open_[wanted] if wanted is not None else next(iter(open_.values()))
    if request.expires_at is not None and request.expires_at < (at or datetime.now(UTC)):
        if decision is not None or request.on_expiry is None:
            why = f"{shown.id!r} expired at {request.expires_at.isoformat()}"
            do = "Resume it without a decision: what was declared for this counts"
            raise ResumeError(f"run {run_id!r} cannot be resumed", why, do if request.on_expiry else "Start it anew")
        decision = request.on_expiry
    node = plan.nodes[key[1]]
    assert isinstance(node, StepNode)
    value = _fitted(decision, request, node, shown.id)
    told, now = _told(value, request, node, shown), datetime.now(UTC).timestamp()
    entries = tuple(Entry(*key, one, started_at=now) for one in told)
    return Decision(shown, value, entries, decision_digest(decision))


Said = Decided | Answer | Called | Begun


def _told(value: object, request: PauseForHumanInput, node: StepNode, shown: Pause) -> list[Said]:
    if isinstance(request, Reconcile):
        return _reconciled(value, request, node, shown)
    if request.asked:
        return [Answer(_as_json(value, shown.id), shown.shown_digest)]
    if problem := unfit_claim(node, value):
        raise InputError(f"decision for {shown.id!r} does not fit", problem)
    return [Decided(value)]


def _reconciled(value: object, request: Reconcile, node: StepNode, shown: Pause) -> list[Said]:
    """What is known by the word of a human of work that may happen at most once."""
    assert isinstance(value, Reconciled)
    answer = Answer(value.model_dump(mode="json"), shown.shown_digest)
    if not value.happened:
        return [Begun(request.key, request.tool, is_over=True), answer]
    if request.key:
        return [Called({"content": value.output, "call_id": "", "is_error": False}, request.key), answer]
    output, error = attempt(load, node.output_type, value.output, f"output of {shown.step_path!r}")
    problem = unfit_claim(node, output) if error is None else error.why if isinstance(error, SnapshotError) else ""
    if error is not None or problem:
        raise InputError(f"decision for {shown.id!r} does not fit", problem or "", "Give the output of the step")
    return [Begun(request.key, request.tool, is_over=True), Decided(output)]


def _fitted(decision: object, request: PauseForHumanInput, node: StepNode, pause_id: str) -> object:
    """The decision as the question wants it, and, where it becomes the output, as that is declared."""
    schema, asked = request.schema, request.json_schema
    if schema is None and asked is not None:
        schema = type_of_schema(node, asked)
        if schema is None and (problem := unfit(asked, _as_json(decision, pause_id), asked)):
            raise InputError(f"decision for {pause_id!r} does not fit", problem, "The question stays open")
    hints: Sequence[object] = [] if schema is None else [schema]
    if not request.asked and not isinstance(request, Reconcile):
        hints = [*hints, node.output_type]
    for hint in hints:
        value, problem = fitted(hint)(decision)
        adapter = adapter_of(hint)
        if problem is not None and adapter is not None:  # a decision often comes as JSON: "approve" for an enum
            text, error = attempt(json.dumps, decision)
            made, error = (None, error) if text is None else attempt(adapter.validate_json, text, strict=True)
            value, problem = (made, None) if error is None else (decision, problem)
        if problem is not None:
            raise InputError(f"decision for {pause_id!r} does not fit", problem, "The question stays open")
        decision = value
    return decision


def _as_json(value: object, pause_id: str) -> JsonValue:
    adapter = adapter_of(type(value))
    text = None if adapter is None else attempt(adapter.dump_json, value, **WRITTEN)[0]
    data, error = attempt(json.loads, text or b"")
    if error is not None or no_json(data) is not None:
        why = f"{type(value).__name__} cannot be written as JSON"
        raise InputError(f"decision for {pause_id!r} does not fit", why, "The question stays open")
    return data


def merged(records: list[StepRecord]) -> list[StepRecord]:
    """The records of a run: of a visit that paused and was gone on with one only, with all that it used."""
    found: list[StepRecord] = []
    paused: dict[str, StepRecord] = {}
    for record in records:
        if before := paused.pop(record.path, None):
            found.remove(before)
            record.usage.add(before.usage)
            record.attempts = max(record.attempts, before.attempts)
            record.started_at = before.started_at
        if record.status == "paused":
            paused[record.path] = record
        found.append(record)
    return found
