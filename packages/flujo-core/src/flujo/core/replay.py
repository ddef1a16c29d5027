"""Running a pipeline again over what was recorded: no step is called, every choice is made anew and compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from pydantic import BaseModel

from .flow import Branch, Loop
from .foreign import attempt, attempt_async
from .frames import Frame, RunState
from .journal import Entry
from .outcome import Aborted, Choice, Paused, Success
from .plan import FlowNode, Plan, StepNode
from .schedule import advance, find_due, result_of, start
from .snapshot import EntryData
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
        result: What it gives; None where it does not end well.
        divergence: Where it first went another way; None where it did not.
    """

    result: object
    divergence: Divergence | None


async def replayed(
    plan: Plan, value: object, context: BaseModel | None, rows: Iterable[tuple[EntryData, Entry]], finished: bool
) -> Replay:
    """Play a journal again.

    Args:
        plan: The plan, as it is now.
        value: The run input.
        context: The context at the start.
        rows: The journal, as data and read.
        finished: Whether the run completed.
    """
    state = start(plan, value, context)
    position = -1
    for position, (row, entry) in enumerate(rows):
        if entry.cancelled or isinstance(entry.outcome, Aborted):
            continue
        frame = state.frames.get(entry.frame)
        node = plan.nodes[entry.node]
        path = entry.path or node.path
        if row.unwritten is not None:
            told = f"an output of {row.unwritten}, which could not be written"
            return Replay(None, Divergence(position, path, told, "nothing to go on with"))
        answered = (entry.frame, entry.node) in state.pauses
        if frame is None:
            continue  # it no longer counted when it ended
        if not answered and not _is_due(state, frame, node):
            return Replay(None, Divergence(position, path, f"{type(entry.outcome).__name__}", "it is not due here"))
        if isinstance(entry.outcome, Choice) and isinstance(node, FlowNode):
            now = await _chosen(frame, node)
            if now != entry.outcome.value:
                return Replay(None, Divergence(position, path, _told(node, entry.outcome.value), _told(node, now)))
        elif isinstance(node, StepNode) and isinstance(entry.outcome, Success) and node.output_classes is not None:
            if not isinstance(entry.outcome.output, node.output_classes):
                now_told = f"{type(entry.outcome.output).__name__} is no output of it"
                return Replay(None, Divergence(position, path, "success", now_told))
        advance(state, entry)
        if not isinstance(entry.outcome, Paused) and state.failure is not None:
            find_due(state)  # a run that went on after a failure did so by a resume
    return _ended(state, position + 1, finished)


def _ended(state: RunState, position: int, finished: bool) -> Replay:
    if state.finished != finished:
        told = ["it did not complete", "it completed"]
        return Replay(None, Divergence(position, state.plan.name, told[finished], told[state.finished]))
    if not state.finished:
        return Replay(None, None)
    output, error = attempt(result_of, state.root)
    if error is not None:
        return Replay(None, Divergence(position, "output", "it completed", f"no output: {type(error).__name__}"))
    return Replay(output, None)


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
    return None if error is not None else Work.choice(flow, answer)


def _told(node: FlowNode, choice: int | None) -> str:
    if choice is None:
        return "no answer"
    if isinstance(node.flow, Branch):
        return f"case {node.words[choice]!r}"
    return "the loop ends" if choice else "the loop goes on"
