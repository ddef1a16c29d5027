"""A run that is to go on, as it is found: in a result, in a snapshot, or in a store by its id or a token."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

import anyio

from .budgets import Budget, Limits, carry, ledger_under
from .carved import book
from .context import RunInfo
from .errors import AmbiguousPause, ResumeError, SnapshotError
from .foreign import attempt
from .frames import Frame, RunState
from .journal import Entry
from .kept import KeptRun, Past, Receipt, moved_on, refusal
from .ledger import Ledger
from .migrations import migrated
from .mutating import after, again, take_over
from .outcome import Failure, Spent
from .pause import Pause, PauseForHumanInput
from .plan import Plan, StepNode
from .protocols import RunStore
from .restore import check_snapshot, entry_of, past_record, restored
from .result import PipelineResult, StepRecord
from .resume import Decision, decide, decision_digest, receipt_here
from .run import Run, last_began
from .running import Resumed
from .schedule import advance, find_due
from .setup import Setup
from .snapshot import EntryData, Snapshot
from .usage import Usage, UsageLimits
from .values import Node


@dataclass(frozen=True, slots=True)
class Found:
    """A run that is to go on.

    Attributes:
        snapshot: Where it stood.
        past: What it did before.
        late: What it did after it stood there, before its process went away.
        asked: The open questions themselves, where the run is of this process.
        pause_id: Which question is to be answered, where that is said.
        shown_digest: What the question must show that is to be answered, where a token or a Pause says so.
        shown: The questions that a result of it shows from which the run went on since; None where it stands there.
    """

    snapshot: Snapshot
    past: Past
    late: Sequence[EntryData] = ()
    asked: Mapping[tuple[int, int], PauseForHumanInput] = field(default_factory=dict)
    pause_id: str | None = None
    shown_digest: str | None = None
    shown: Sequence[str] | None = None

    @property
    def is_orphan(self) -> bool:
        """Whether it neither ended nor stands still: its process went away."""
        return self.snapshot.status == "running"


async def find(
    setup: Setup, target: PipelineResult | Snapshot | str, pause: Pause | str | None, store: RunStore | None
) -> Found:
    """Find a run that is to go on.

    Raises:
        SnapshotError: It is damaged, or of another pipeline.
        ResumeError: It is not known, or the target is nothing to go on with.
    """
    plan, wanted = setup.plan, pause.id if isinstance(pause, Pause) else pause
    origin = target.origin if isinstance(target, PipelineResult) else None
    if isinstance(target, PipelineResult) and not isinstance(origin, Run):
        target = target.snapshot()  # what a replay gave
    if isinstance(origin, Run) and store is not None and origin.setup.is_kept:
        kept = await store.load(origin.run_id)
        shown = None if kept.length == origin.length else [pause.id for pause in origin.pauses]
        found = replace(_of_kept(setup, kept, wanted), asked={} if shown else origin.questions, shown=shown)
    elif isinstance(origin, Run):
        standing = origin.standing()
        began = last_began(origin.entries(-1)) or (0.0 if origin.past is None else origin.past.began)
        past = Past(origin.history, origin.rows, origin.length, standing.status, began)
        found = Found(standing, past, (), origin.questions, wanted)
    elif isinstance(target, Snapshot):
        if target.digest:  # one that came as a dict was not checked before; what never left its process has none
            target.check_digest()
        rows, position = target.journal, target.checkpoint.position
        began = last_began(reversed(rows))
        found = Found(target, _past(setup, lambda: rows, len(rows), target.status, began), rows[position:], {}, wanted)
    elif isinstance(target, str) and store is not None:
        token = None if store.signer is None else store.signer.open(target)
        kept = await store.load(target if token is None else token.run_id)
        found = _of_kept(setup, kept, wanted if token is None else token.pause_id)
        found = found if token is None else replace(found, shown_digest=token.shown_digest)
    else:
        what, do = f"a {type(target).__name__} cannot be resumed", "Give the run's result; ids and tokens need a store"
        raise ResumeError(what, "it is no PipelineResult and no Snapshot", do)
    if isinstance(pause, Pause):
        found = replace(found, shown_digest=pause.shown_digest)
    snapshot, late = migrated(plan, found.snapshot, found.late)
    if snapshot is not found.snapshot:
        found = replace(found, snapshot=snapshot, late=late, asked={})  # of the pipeline as it was
    check_snapshot(plan, found.snapshot)
    return found


def _of_kept(setup: Setup, kept: KeptRun, pause_id: str | None) -> Found:
    past = _past(setup, kept.history, kept.length, kept.snapshot.status)
    return Found(kept.snapshot, past, kept.late, {}, pause_id)


def _past(
    setup: Setup, journal: Callable[[], Sequence[EntryData]], length: int, stood: str, began: float = 0.0
) -> Past:
    """What a run did by its journal, which is read when somebody asks."""

    def rows() -> list[EntryData]:
        return list(journal()[:length])

    return Past(lambda: _records(setup, rows()), rows, length, stood, began)


def _records(setup: Setup, rows: Sequence[EntryData]) -> list[StepRecord]:
    """A journal for people, each entry as it was under the plan of then."""
    found: list[StepRecord] = []
    for row in rows:
        found += [past_record(setup.plan, row)] if row.path else ()
        setup = attempt(after, setup, row)[0] or setup  # where it cannot be made again, as it was written
    return found


def continued(setup: Setup, found: Found, limits: Limits, owner: Limits) -> Run:
    """The run that was found, ready to go on.

    Args:
        setup: What all runs of its Flujo share that were not changed.
        found: The run.
        limits: Limits instead of all that it had, but for a Budget of the Flujo; None keeps them.
        owner: Limits of the Flujo.

    Raises:
        SnapshotError: It does not fit the plan.
    """
    snapshot, stand, use = found.snapshot, found.snapshot.checkpoint, _Use(replace(found.snapshot.checkpoint.usage))
    setup = reduce(again, snapshot.mutations, setup)
    state = restored(setup.plan, stand, found.asked)
    frames = dict(state.frames)  # those that are closed on the way too: what was cancelled in them used something
    for row in found.late:  # what ended after that place was kept, before its process was gone
        entry, first = entry_of(setup.plan, row), state.next_id
        use.count(frames.get(entry.frame), setup.plan.nodes[entry.node], entry)
        setup = after(setup, row)
        _, error = attempt(_take, state, entry, setup.plan)
        frames |= {id: state.frames[id] for id in range(first, state.next_id) if id in state.frames}
        if error is not None:
            why = f"its journal does not fit where it stands ({type(error).__name__})"
            raise SnapshotError(f"snapshot of run {snapshot.run_id!r} cannot be used", why, "Use it as it was kept")
    plan, lost = setup.plan, use.lost(frames, setup.plan)
    find_due(state)
    mine = None if snapshot.limits is None else snapshot.limits.limits()
    given, own = (mine, owner) if limits is None else (limits, owner if isinstance(owner, Budget) else None)
    ledger = ledger_under(given, own, plan.limits, setup.hooks.policy.max_limits) or Ledger()
    carry(ledger, use.total)
    if limits is None:
        ledger.warnings()  # told before
    words = (snapshot.actor, snapshot.tenant, snapshot.tags, {k: dict(v) for k, v in snapshot.counts.items()})
    info = RunInfo(snapshot.run_id, plan.name, snapshot.fingerprint, *words, snapshot.trace)
    for source in use.priced_by:
        info.count("priced_by", source)
    run = Run(setup, info.run_id, ledger, state, None if stand.left_s is None else anyio.CancelScope())
    run.info, run.counts, run.mark = info, info.counts, f"~{secrets.token_hex(4)}"
    run.deadline_s, run.past, run.resumed = stand.left_s, found.past, Resumed(entries=lost)
    run.own_limits = limits if isinstance(limits, UsageLimits) else mine
    return run


class _Use:
    """What a run used until its process went away."""

    def __init__(self, total: Usage) -> None:
        self.total: Usage = total
        self.priced_by: list[str] = []
        self._open: dict[tuple[int, int], Usage] = {}

    def count(self, frame: Frame | None, node: Node, entry: Entry) -> None:
        """Count an entry, and what its step used before it."""
        visit, spent = (entry.frame, entry.node), entry.outcome
        if entry.usage is None or frame is None or not isinstance(node, StepNode):
            return
        if isinstance(spent, Spent) and spent.priced_by:
            self.priced_by.append(spent.priced_by)
        if isinstance(spent, Spent) and not spent.is_lost:
            self._open.setdefault(visit, Usage()).add(entry.usage)  # the end of its step counts that in
            return
        self._open.pop(visit, None)
        self.total.add(entry.usage)
        book(frame, node, entry.usage)

    def lost(self, frames: Mapping[int, Frame], plan: Plan) -> tuple[Entry, ...]:
        """Count what was used by steps that have no end; the entries say that it counts for itself."""
        found = tuple(Entry(*visit, Spent(is_lost=True), usage=used) for visit, used in self._open.items())
        for entry in found:
            self.count(frames[entry.frame], plan.nodes[entry.node], entry)
        return found


def _take(state: RunState, entry: Entry, plan: Plan) -> None:
    """Let the schedule go on, with the plan of from then on; what failed and may happen at most once is no more done
    again than what was cut off.
    """
    visit = (entry.frame, entry.node)
    begun = dict(state.begun.get(visit, {}))
    if plan is not state.plan:
        take_over(state, plan, entry.node)
    advance(state, entry)
    if begun and isinstance(entry.outcome, Failure) and entry.frame in state.frames:
        state.begun[visit] = begun


def _meant(run_id: str, shown: Sequence[str]) -> str:
    """The question that an answer to an older result is for: one that it shows, never one that came since."""
    if len(shown) != 1:
        raise AmbiguousPause(run_id, shown) if shown else moved_on(run_id)
    return shown[0]


async def decide_on(
    run: Run, found: Found, store: RunStore | None, decision: object, *, again: bool
) -> tuple[Decision | None, Receipt | None]:
    """The decision, checked; none where a run goes on without one, or with one that was kept: that has a receipt.

    Raises:
        ResumeError: The run is not one to go on with, or is not told what to do; see its leaves.
        InputError: The decision is not what was asked for; the question stays open.
    """
    run_id, wanted = found.snapshot.run_id, found.pause_id
    open_ = {pause.id: pause for pause in run.pauses if again or found.snapshot.status != "aborted"}
    if found.shown_digest is not None and wanted in open_ and open_[wanted].shown_digest != found.shown_digest:
        why = "what was shown is not what it asks now"
        raise ResumeError(f"run {run_id!r} cannot be resumed", why, "Show the question anew")
    goes_on = again or found.is_orphan
    if wanted is None and found.shown is not None and (decision is not None or (open_ and not goes_on)):
        wanted = _meant(run_id, found.shown)
    answers = decision is not None or wanted is not None
    if answers and not (open_ if wanted is None else wanted in open_):
        receipt = receipt_here(run_id, wanted) if store is None else await store.receipt(run_id, wanted)
        now = None if receipt is None else replace(receipt, digest=decision_digest(decision))
        if receipt is not None and receipt == now and found.is_orphan:
            return None, receipt  # it counts, and the process that was to go on with it is gone
        if receipt is not None and now is not None:
            raise refusal(receipt, now)
    if found.snapshot.status == "completed":
        raise ResumeError(f"run {run_id!r} cannot be resumed", "it has completed", "Read its output")
    if open_ and (answers or not goes_on):
        may_be_late = store is not None and wanted in open_ and open_[wanted].expires_at is not None
        kept = await store.receipt(run_id, wanted) if store is not None and may_be_late else None
        at = None if kept is None else kept.decided_at  # what was recorded in time counts, however late it is applied
        return decide(run.setup.plan, run_id, run.state, decision, wanted, at=at), None
    if not goes_on:
        do = "Pass retry=True to run again what did not end well, or limits= to raise a limit"
        raise ResumeError(f"run {run_id!r} cannot be resumed", f"it is {found.snapshot.status} and asks nothing", do)
    return None, None
