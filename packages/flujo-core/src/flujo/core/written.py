"""A run written as data: where it stands, and its journal. Each value is read back and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypedDict

from pydantic import JsonValue

from .codec import dump, dump_changes
from .errors import FlujoError, SnapshotError
from .flow import Map, Parallel
from .frames import UNSET, Frame, Part, Passed, RunState
from .journal import Entry
from .outcome import Answer, Begun, Called, Choice, Decided, Paused, Skipped, Spent, Success
from .pause import PauseForHumanInput
from .plan import FlowNode, Plan, StepNode
from .snapshot import (
    BegunData,
    Checkpoint,
    DecidedData,
    EntryData,
    FrameData,
    KnownData,
    PartData,
    PauseData,
    QuestionData,
)
from .usage import Usage


def checkpoint_of(state: RunState, usage: Usage, left_s: float | None, position: int = 0) -> Checkpoint:
    """Where a run stands. It costs what is live, not what was done.

    Raises:
        SnapshotError: A value that it needs cannot be written; it is named.
    """
    plan, root = state.plan, state.root
    frames = sorted(state.frames.values(), key=lambda frame: frame.id)
    return Checkpoint(
        input=dump(plan.input_type, root.input, "the run input"),
        context=None if root.context is None else dump(type(root.context), root.context, "the context"),
        next_frame=state.next_id,
        frames=[_frame(plan, frame) for frame in frames],
        pauses=[_pause(state, key, paused.request) for key, paused in state.pauses.items()],
        known=[KnownData(**_at(state, key), told=told) for key, told in state.known.items()],
        decided=[_decided(state, key, output) for key, output in state.decided.items()],
        begun=[BegunData(**_at(state, key), begun=begun) for key, begun in state.begun.items()],
        usage=replace(usage), left_s=left_s, position=position,  # a copy: the usage goes on growing
    )  # fmt: skip


def _pause(state: RunState, key: tuple[int, int], request: PauseForHumanInput) -> PauseData:
    return PauseData.of(request, **_at(state, key), number=len(state.known.get(key, ())))


def _decided(state: RunState, key: tuple[int, int], output: object) -> DecidedData:
    at = _at(state, key)
    return DecidedData(**at, output=dump(state.plan.nodes[key[1]].output_type, output, f"decision for {at['path']}"))


class _Place(TypedDict):
    frame: int
    node: int
    path: str


def _at(state: RunState, key: tuple[int, int]) -> _Place:
    return {"frame": key[0], "node": key[1], "path": state.frames[key[0]].prefix + state.plan.nodes[key[1]].name}


def _frame(plan: Plan, frame: Frame) -> FrameData:
    outputs: dict[int, JsonValue] = {}
    passed: list[int] = []
    for node in frame.scope.nodes:
        value = frame.outputs[node.place]
        if value is UNSET:
            continue
        if isinstance(value, Passed):
            passed.append(node.place)
            outputs[node.place] = dump(passed_type(node), value.value, f"input of step {node.path!r}")
        else:
            outputs[node.place] = dump(node.output_type, value, f"output of {node.path!r}")
    return FrameData(
        id=frame.id, parent=None if frame.parent is None else frame.parent.id,
        node=0 if frame.part is None else frame.part.node.place, slot=frame.slot, outputs=outputs, passed=passed,
        changes=_changes(plan, frame.changes, f"{frame.prefix}*"),
        parts=[_part(plan, part) for part in frame.parts.values()],
        spent=frame.spent if frame.ledger is None else frame.ledger.spent,
        spent_by={place: used for place, used in _spent_by(frame).items() if frame.outputs[place] is UNSET},
    )  # fmt: skip


def _spent_by(frame: Frame) -> dict[int, Usage]:
    return (frame.spent_by or {}) | {place: ledger.spent for place, ledger in (frame.ledgers or {}).items()}


def _part(plan: Plan, part: Part) -> PartData:
    node = part.node
    where = f"output of a body of {node.path!r}"
    ended = {slot: value for slot, value in enumerate(part.results) if value is not UNSET}
    failed = {slot: error for slot, error in ended.items() if isinstance(error, FlujoError) and collects(node)}
    results = {slot: dump(body_type(node, slot), one, where) for slot, one in ended.items() if slot not in failed}
    loops = node.kind == "loop" and part.ended > 0
    return PartData(
        place=node.place, ended=part.ended, next=part.next, asks=part.asks, results=results,
        failed={slot: dump(FlujoError, error, where) for slot, error in failed.items()},
        changes=_changes(plan, part.changes, node.path),
        output=dump(body_type(node, 0), part.output, where) if loops else None,
        context=dump(type(part.context), part.context, "the context") if loops and part.context is not None else None,
    )  # fmt: skip


def _changes(
    plan: Plan, changes: Mapping[int, tuple[Mapping[str, object], ...]], where: str
) -> dict[int, list[dict[str, JsonValue]]]:
    model = plan.context_model
    return {key: [dump_changes(model, one, where) for one in each] for key, each in changes.items()}


def collects(node: FlowNode) -> bool:
    """Whether errors of its bodies stand among what they gave."""
    return isinstance(node.flow, (Parallel, Map)) and node.flow.on_failure == "collect"


def passed_type(node: StepNode | FlowNode) -> object:
    """The type of what a skipped step hands on."""
    return node.passes if isinstance(node, StepNode) else Any


def body_type(node: FlowNode, slot: int) -> object:
    """The type of what a body gives."""
    several = isinstance(node.flow, Parallel) and not isinstance(node.flow, Map)
    return node.bodies[slot if several else 0].output_type


def entry_data(plan: Plan, entry: Entry) -> EntryData:
    """An entry of the journal as data; an output that cannot be written is left out, and its type named."""
    node, outcome = plan.nodes[entry.node], entry.outcome
    value: JsonValue = None
    kind = "success" if isinstance(outcome, Success) else type(outcome).__name__.lower()
    given = outcome.output if isinstance(outcome, (Success, Decided, Skipped)) else outcome.error
    unwritten, held = None, type(given).__name__
    try:
        if outcome.error is not None:
            value = dump(FlujoError, outcome.error, "error")
        elif isinstance(outcome, (Success, Decided)):
            value = dump(node.output_type, outcome.output, "output")
        elif isinstance(outcome, Skipped):
            value = dump(passed_type(node), outcome.output, "input")
        elif isinstance(outcome, Choice):
            value = outcome.value
        elif isinstance(outcome, Paused):
            value = QuestionData.of(outcome.request).model_dump(mode="json")
        elif isinstance(outcome, (Answer, Called)):
            value = [outcome.key, outcome.value]
        elif isinstance(outcome, Spent):
            value = [outcome.priced_by, outcome.is_lost]
        elif isinstance(outcome, Begun):
            value = [outcome.key, outcome.tool, outcome.is_over]
        held = "Update"
        changes = None if entry.changes is None else dump_changes(plan.context_model, entry.changes, entry.path)
    except SnapshotError:
        changes, unwritten = None, held
    return EntryData(
        frame=entry.frame, node=entry.node, kind=kind, path=entry.path, value=value,
        unwritten=unwritten, started_at=entry.started_at, duration_s=entry.duration_s, changes=changes,
        attempts=entry.attempts, usage=entry.usage, cached=entry.cached, cancelled=entry.cancelled,
        is_void=entry.is_void, mutation=entry.mutation,
    )  # fmt: skip
