"""Running a pipeline again over what was recorded: no step is called, every choice is made anew and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from pydantic import BaseModel

from .errors import SnapshotError
from .flow import Branch, Loop
from .foreign import attempt, attempt_async
from .frames import Frame, RunState
from .journal import Entry
from .mutating import after, take_over
from .outcome import Aborted, Begun, Called, Choice, Spent, Success
from .plan import FlowNode, Plan, StepNode
from .restore import entry_of
from .result import PipelineResult, StepRecord
from .resume import merged
from .schedule import advance, find_due, start
from .setup import Setup
from .snapshot import EntryData, Snapshot
from .values import final_context, result_of
from .work import Work


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where a replay first went another way than the run.

    Attributes:
        position: Place in the journal, from 0; its length where the run went on no further.
        path: The step or combinator.
        recorded: What the journal says.
        replayed: What the engine makes of it.
    """

    position: int
    path: str
    recorded: str
    replayed: str


@dataclass(frozen=True, slots=True)
class Replay:
    """A run that was played again.

    Attributes:
        result: The result that the engine makes of it, with the recorded usage; None where it went another way.
        divergence: Where it first went another way; None where it did not.
    """

    result: PipelineResult | None
    divergence: Divergence | None


@dataclass(frozen=True, slots=True)
class _Played:
    """Where the result of a replay comes from."""

    history: Callable[[], list[StepRecord]]
    snapshot: Callable[[], Snapshot]


async def replayed(setup: Setup, value: object, context: BaseModel | None, snapshot: Snapshot) -> Replay:
    """Play the journal of a snapshot again.

    Args:
        setup: What a run of the plan needs, as that is now.
        value: The run input.
        context: The context at the start.
        snapshot: The run.

    Raises:
        SnapshotError: Its journal does not fit the plan.
    """
    state = start(setup.plan, value, context)
    rows, position = [*_read(setup, snapshot)], -1
    for position, (row, entry, plan) in enumerate(rows):
        if entry.cancelled or entry.is_void or isinstance(entry.outcome, Aborted) or entry.frame not in state.frames:
            continue  # it was stopped, or no longer counted when it ended
        differs = await _difference(state, row, entry)
        if differs is not None:
            return Replay(None, Divergence(position, entry.path or state.plan.nodes[entry.node].path, *differs))
        if plan is not state.plan:
            take_over(state, plan, entry.node)
        advance(state, entry)
        if state.failure is not None:
            find_due(state)  # a run that went on after a failure did so by a resume
    return _ended(state, snapshot, [entry for _, entry, _ in rows])


def _read(setup: Setup, snapshot: Snapshot) -> Iterator[tuple[EntryData, Entry, Plan]]:
    """The journal, with the plan that stands after each entry."""
    stood = snapshot.journal[: snapshot.checkpoint.position]
    # A change that is no data began the pipeline that the run is known by: those until then led to that.
    changed = [(at, row.mutation) for at, row in enumerate(stood, 1) if row.mutation is not None]
    began = max((at for at, change in changed if not change.step), default=0)
    if [change for at, change in changed if at > began] != snapshot.mutations:
        why = "its journal does not have the changes that it stands with"
        raise SnapshotError(f"snapshot of run {snapshot.run_id!r} cannot be used", why, "Use it as it was kept")
    for at, row in enumerate(snapshot.journal):
        entry = entry_of(setup.plan, row)
        setup = after(setup, row) if at >= began else setup
        yield row, entry, setup.plan


async def _difference(state: RunState, row: EntryData, entry: Entry) -> tuple[str, str] | None:
    """What is recorded and what the engine makes of it, where these differ."""
    frame, node, outcome = state.frames[entry.frame], state.plan.nodes[entry.node], entry.outcome
    if node.scope != frame.scope.index:
        return type(outcome).__name__, "it does not stand there"
    if row.unwritten is not None:
        return f"an output of {row.unwritten}, which could not be written", "nothing to go on with"
    going_on = isinstance(outcome, (Begun, Called, Spent)) or (entry.frame, entry.node) in state.pauses
    if not going_on and not _is_due(state, frame, node):
        return type(outcome).__name__, "it is not due here"
    if isinstance(outcome, Choice) and isinstance(node, FlowNode):
        now = await _chosen(frame, node)
        return None if now == outcome.value else (_told(node, outcome.value), _told(node, now))
    classes = node.classes if isinstance(node, StepNode) else object
    if isinstance(outcome, Success) and not isinstance(outcome.output, classes):
        return "Success", f"{type(outcome.output).__name__} is no output of it"
    return None


def _ended(state: RunState, snapshot: Snapshot, entries: list[Entry]) -> Replay:
    finished = snapshot.status == "completed"
    if state.finished != finished and (finished or snapshot.status in ("failed", "paused")):  # others end at any time
        told = ["it did not complete", "it completed"]
        return Replay(None, Divergence(len(entries), state.plan.name, told[finished], told[state.finished]))
    output, error = attempt(result_of, state.root) if finished else (None, None)
    changed, fault = attempt(final_context, state.root)
    if error is not None or fault is not None:
        kind = type(error or fault).__name__
        return Replay(None, Divergence(len(entries), "output", f"it was {snapshot.status}", f"no output: {kind}"))
    records = merged([entry.record() for entry in entries if entry.path])
    stopped = [entry.outcome.error for entry in entries if entry.outcome.error is not None]
    ended_well = snapshot.status in ("completed", "paused")
    result = PipelineResult(
        snapshot.run_id, "aborted" if snapshot.status == "running" else snapshot.status, output, changed,
        snapshot.checkpoint.usage, None if ended_well or not stopped else stopped[-1], snapshot.counts, 0.0,
        snapshot.pauses if snapshot.status == "paused" else (), _Played(lambda: records, lambda: snapshot),
    )  # fmt: skip
    return Replay(result, None)


def _is_due(state: RunState, frame: Frame, node: StepNode | FlowNode) -> bool:
    for place, (other, what) in enumerate(state.due):
        if other is frame and what is node:
            del state.due[place]
            return True
    return False


async def _chosen(frame: Frame, node: FlowNode) -> int | None:
    part, flow = frame.parts[node.place], cast("Branch | Loop", node.flow)
    about = flow.on if isinstance(flow, Branch) else flow.until
    assert about is not None
    answer, error = await attempt_async(
        about.ask(part.value if isinstance(flow, Branch) else part.output, part.context)
    )
    return None if error is not None else attempt(Work.choice, flow, answer)[0]


def _told(node: FlowNode, choice: int | None) -> str:
    if choice is None:
        return "no answer"
    if isinstance(node.flow, Branch):
        return f"case {node.words[choice]!r}"
    return "the loop ends" if choice else "the loop goes on"
