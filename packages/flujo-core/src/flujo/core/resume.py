"""Going on with a run that stood still: which question is answered, with what, and that this happens once."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import JsonValue, TypeAdapter

from .check import adapter_of, fitted
from .errors import AmbiguousPause, InputError, ResumeError
from .foreign import attempt
from .frames import RunState
from .journal import Entry
from .outcome import Answer, Failure, Success
from .pause import Pause, PauseForHumanInput, pause_of
from .plan import Plan, StepNode
from .restore import entry_of
from .result import StepRecord
from .schemas import type_of_schema, unfit
from .snapshot import EntryData, Receipt
from .store import refusal
from .values import unfit_claim


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision that fits its question.

    Attributes:
        pause: The question.
        value: The decision, of the type that was asked for.
        entry: What is journaled.
        digest: SHA-256 of it as canonical JSON.
    """

    pause: Pause
    value: object
    entry: Entry
    digest: str


CLAIMS_KEPT = 100_000
_claims: OrderedDict[tuple[str, int], Receipt] = OrderedDict()


def claim(run_id: str, position: int, pause_id: str, digest: str) -> None:
    """Let one of all resumes of a run from one place win, in this process; only a store can do so beyond it.

    Args:
        run_id: The run.
        position: Length of its journal where it stood.
        pause_id: The question that is answered.
        digest: Of the decision.

    Raises:
        AlreadyResumed: The question was answered before, in the same way.
        ResumeConflict: ... in another way.
        ResumeError: The run went on from there by another answer.
    """
    receipt = Receipt(run_id, pause_id, digest, datetime.now(UTC))
    before = _claims.setdefault((run_id, position), receipt)
    if len(_claims) > CLAIMS_KEPT:
        _claims.popitem(last=False)
    if before is not receipt:
        raise refusal(before, receipt)


def release(run_id: str, position: int) -> None:
    """Give a claim back whose resume came to nothing, so that it can be tried again."""
    _claims.pop((run_id, position), None)


def decide(plan: Plan, run_id: str, state: RunState, decision: object, pause: Pause | str | None) -> Decision:
    """Check a decision against the question that it answers.

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
    wanted = pause.id if isinstance(pause, Pause) else pause
    if wanted is None and len(open_) != 1:
        raise AmbiguousPause(run_id, list(open_))
    if wanted is not None and wanted not in open_:
        why = f"it does not wait for {wanted!r}; open are {', '.join(map(repr, open_)) or 'none'}"
        raise ResumeError(f"run {run_id!r} cannot be resumed", why)
    shown, key, request = open_[wanted] if wanted is not None else next(iter(open_.values()))
    if request.expires_at is not None and request.expires_at < datetime.now(UTC):
        why = f"{shown.id!r} expired at {request.expires_at.isoformat()}"
        raise ResumeError(f"run {run_id!r} cannot be resumed", why, "Start it anew")
    node = plan.nodes[key[1]]
    assert isinstance(node, StepNode)
    value = _fitted(decision, request, node, shown.id)
    data = _as_json(value, shown.id)
    outcome: Answer | Success | Failure = Answer(data, shown.shown_digest) if request.asked else Success(value)
    if not request.asked and (problem := unfit_claim(node, value)):
        raise InputError(f"decision for {shown.id!r} does not fit", problem)
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    now, path = datetime.now(UTC).timestamp(), "" if request.asked else shown.step_path
    entry = Entry(key[0], key[1], outcome, path, now)
    return Decision(shown, value, entry, hashlib.sha256(text.encode()).hexdigest())


def _fitted(decision: object, request: PauseForHumanInput, node: StepNode, pause_id: str) -> object:
    """The decision as the question wants it, and, where it becomes the output, as that is declared."""
    schema, asked = request.schema, request.json_schema
    if schema is None and asked is not None:
        schema = type_of_schema(node, asked)
        if schema is None and (problem := unfit(asked, _as_json(decision, pause_id), asked)):
            raise InputError(f"decision for {pause_id!r} does not fit", problem, "The question stays open")
    hints: Sequence[object] = [] if schema is None else [schema]
    if not request.asked:
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
    data, error = (None, TypeError()) if adapter is None else attempt(adapter.dump_python, value, mode="json")
    if error is None:
        data, error = attempt(TypeAdapter(JsonValue).validate_python, data)
    if error is not None:
        why = f"{type(value).__name__} cannot be written as JSON"
        raise InputError(f"decision for {pause_id!r} does not fit", why, "The question stays open")
    return data


# --- what a run did before ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PastRun:
    """What a run of this process did before it was resumed."""

    history: Callable[[], list[StepRecord]]
    journal: Callable[[], list[EntryData]]
    length: int

    def records(self) -> list[StepRecord]:
        """Its step records, in order."""
        return self.history()

    def rows(self) -> list[EntryData]:
        """Its journal, as data."""
        return self.journal()


@dataclass(frozen=True, slots=True)
class PastRows:
    """What a run did before, by its snapshot; read when it is first asked for."""

    plan: Plan
    journal: list[EntryData]

    @property
    def length(self) -> int:
        """Entries of its journal."""
        return len(self.journal)

    def records(self) -> list[StepRecord]:
        """Its step records, in order."""
        return [entry_of(self.plan, row).record() for row in self.journal if row.path]

    def rows(self) -> list[EntryData]:
        """Its journal, as data."""
        return self.journal


def merged(records: list[StepRecord]) -> list[StepRecord]:
    """The records of a run: of a visit that paused and was gone on with one only, with all that it used."""
    found: list[StepRecord] = []
    paused: dict[str, StepRecord] = {}
    for record in records:
        before = paused.pop(record.path, None)
        if before is not None:
            found.remove(before)
            record.usage.add(before.usage)
            record.attempts = max(record.attempts, before.attempts)
            record.started_at = before.started_at
        if record.status == "paused":
            paused[record.path] = record
        found.append(record)
    return found
