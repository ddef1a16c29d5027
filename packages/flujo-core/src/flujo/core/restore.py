"""A run's state from a snapshot, every value checked; nothing of it is used where anything does not fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NoReturn

from pydantic import BaseModel, JsonValue

from .codec import load, load_changes
from .errors import FlujoError, SnapshotError, StepFailed
from .foreign import attempt, text_of
from .frames import UNSET, Changes, Frame, Part, Passed, RunState
from .journal import Entry
from .outcome import Aborted, Answer, Begun, Called, Choice, Decided, Failure, Outcome, Paused, Skipped, Spent, Success
from .pause import PauseForHumanInput
from .plan import FlowNode, Plan, StepNode
from .result import StepRecord
from .schedule import find_due
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
    Snapshot,
    check_form,
)
from .values import context_at, flow_input
from .written import body_type, collects, passed_type

_DO = "Use the snapshot that the run's result gave, whole"


def check_snapshot(plan: Plan, snapshot: Snapshot) -> None:
    """Refuse what is not a snapshot of this plan.

    Raises:
        SnapshotError: It is foreign, of a later version, or of another pipeline.
    """
    check_form(snapshot.format, snapshot.version)
    if snapshot.fingerprint != plan.fingerprint:
        why = f"it is of pipeline {snapshot.pipeline!r} as it was then, and {plan.name!r} is another or has changed"
        do = f"Resume it with the pipeline that it was made with, or migrate({snapshot.fingerprint!r}, ...)"
        raise SnapshotError(f"snapshot of run {snapshot.run_id!r} cannot be used", why + _gone(plan, snapshot), do)
    position, length = snapshot.checkpoint.position, len(snapshot.journal)
    if snapshot.journal and not (0 <= position <= length if snapshot.status == "running" else position == length):
        _unfit(f"it stands at entry {position} of a journal of {length}")


def _gone(plan: Plan, snapshot: Snapshot) -> str:
    """The steps that a run did or waits for, and that are not there any more."""
    paths = [*(one.path for one in snapshot.checkpoint.pauses), *(row.path for row in snapshot.journal)]
    known = {node.path for node in plan.nodes} | {""}
    gone = dict.fromkeys(path for path in (re.sub(r"#\d+|\[\d+\]", "", path) for path in paths) if path not in known)
    return f": it has no {', '.join(map(repr, gone))}" if gone else ""


def restored(
    plan: Plan, checkpoint: Checkpoint, asked: Mapping[tuple[int, int], PauseForHumanInput] | None = None
) -> RunState:
    """The state that `checkpoint_of` wrote, with all that is due.

    Args:
        plan: The plan.
        checkpoint: What was written.
        asked: The open questions themselves, where the run is of this process.

    Raises:
        SnapshotError: Something in it does not fit the plan.
    """
    return _Restorer(plan, checkpoint, asked or {}).state()


def _unfit(why: str) -> NoReturn:
    raise SnapshotError("snapshot cannot be used", why, _DO)


class _Restorer:
    def __init__(self, plan: Plan, data: Checkpoint, asked: Mapping[tuple[int, int], PauseForHumanInput]) -> None:
        self.asked = asked
        self.plan = plan
        self.data = data
        self.model = plan.context_model

    def state(self) -> RunState:
        plan, data = self.plan, self.data
        value = load(plan.input_type, data.input, "the run input")
        context = self._context(data.context)
        if not data.frames or data.frames[0].id != 0 or data.frames[0].parent is not None:
            _unfit("its first frame is not that of the whole pipeline")
        root = Frame(0, plan.root, None, 0, value, context)
        self.live = RunState(plan, root, data.next_frame)
        for one in data.frames:
            self._fill(root if one.id == 0 else self._body(one), one)
        self._check_bodies()
        if data.pauses or data.known or data.decided or data.begun:
            self.live.has_words = True
        for pause in data.pauses:
            self._pause(pause)
        for known in data.known:
            frame, node = self._visit(known)
            self.live.known[frame.id, node.index] = list(known.told)
        for decided in data.decided:
            frame, node = self._visit(decided)
            where = f"decision for {node.path!r}"
            self.live.decided[frame.id, node.index] = load(node.output_type, decided.output, where)
        for begun in data.begun:
            frame, node = self._visit(begun)
            self.live.begun[frame.id, node.index] = dict(begun.begun)
        find_due(self.live)
        return self.live

    def _context(self, data: JsonValue) -> BaseModel | None:
        if self.model is None or data is None:
            if (self.model is None) != (data is None):
                _unfit("it has a context where the pipeline has none, or none where it has one")
            return None
        context = load(self.model, data, "the context")
        return context if isinstance(context, self.model) else _unfit("its context is no context of the pipeline")

    # --- frames ---------------------------------------------------------------------------------------------------

    def _body(self, data: FrameData) -> Frame:
        parent = self.live.frames.get(-1 if data.parent is None else data.parent)
        part = None if parent is None else parent.parts.get(data.node)
        if part is None or data.id in self.live.frames or not 0 < data.id < self.data.next_frame:
            _unfit(f"frame {data.id} stands in no combinator that has begun")
        kind, slot = part.node.kind, data.slot
        most = part.ended + 1 if kind == "loop" else part.total if part.results else len(part.node.bodies)
        least = part.ended + 1 if kind == "loop" else 0
        if not least <= slot <= (most if kind == "loop" else most - 1) or slot in part.bodies or part.asks:
            _unfit(f"frame {data.id} is body {slot} of {part.node.path!r}, which is not open")
        several = kind in ("parallel", "branch", "fallback")
        value = part.value[slot] if kind == "map" else part.value  # type: ignore[index]
        frame = Frame(data.id, part.node.bodies[slot if several else 0], part, slot, value, part.context)
        self.live.frames[data.id] = frame
        part.bodies[slot] = frame
        return frame

    def _fill(self, frame: Frame, data: FrameData) -> None:
        nodes = frame.scope.nodes
        if not all(0 <= place < len(nodes) for place in (*data.outputs, *data.passed, *data.changes, *data.spent_by)):
            _unfit(f"frame {data.id} names nodes that the pipeline does not have")
        for node in nodes:  # each after those it depends on
            if frame.waiting:
                frame.waiting[node.place] = sum(frame.outputs[place] is UNSET for place in node.predecessors)
            if node.place not in data.outputs:
                continue
            if frame.waits(node):
                _unfit(f"{node.path!r} ended before what it depends on")
            if node.place in data.passed:
                value = load(passed_type(node), data.outputs[node.place], f"input of {node.path!r}")
                frame.outputs[node.place] = Passed(value)
            else:
                frame.outputs[node.place] = load(node.output_type, data.outputs[node.place], f"output of {node.path!r}")
            frame.left -= 1
        frame.changes = self._changes(data.changes, f"frame {data.id}")
        frame.spent = data.spent
        frame.spent_by = dict(data.spent_by) or None
        for part in data.parts:
            self._part(frame, part)

    def _part(self, frame: Frame, data: PartData) -> None:
        node = frame.scope.nodes[data.place] if 0 <= data.place < len(frame.scope.nodes) else None
        begun = node is not None and not frame.waits(node) and frame.outputs[node.place] is UNSET
        if not isinstance(node, FlowNode) or not begun:
            _unfit(f"frame {frame.id} has begun what is no combinator, or cannot have begun")
        value, problem = flow_input(frame, node)
        context, error = attempt(context_at, frame, node)
        if problem is not None or error is not None:
            _unfit(f"the input of {node.path!r} cannot be made: {problem or text_of(error or ValueError())}")
        part = frame.parts[node.place] = Part(node, frame, value, context)
        part.ended, part.next, part.asks = data.ended, data.next, data.asks
        part.changes = self._changes(data.changes, node.path)
        where = f"output of a body of {node.path!r}"
        if node.kind in ("map", "parallel"):
            part.total = len(value) if node.kind == "map" else len(node.bodies)  # type: ignore[arg-type]
            known = data.results.keys() | data.failed.keys()
            if (
                not all(0 <= slot < part.total for slot in known)
                or data.ended != len(known)
                or (data.failed and not collects(node))
            ):
                _unfit(f"{node.path!r} has results that do not belong to it")
            results = {slot: load(body_type(node, slot), one, where) for slot, one in data.results.items()}
            results |= {slot: _error(one, where) for slot, one in data.failed.items()}
            part.results = [results.get(slot, UNSET) for slot in range(part.total)]
        if node.kind == "loop" and data.ended:
            part.output = part.value = load(body_type(node, 0), data.output, where)
            part.context = self._context(data.context)

    def _changes(self, data: Mapping[int, list[dict[str, JsonValue]]], where: str) -> dict[int, Changes]:
        return {key: tuple(load_changes(self.model, one, where) for one in each) for key, each in data.items()}

    def _check_bodies(self) -> None:
        """Refuse a combinator that could never end: it neither asks nor has a body that is open or still to come."""
        for frame in self.live.frames.values():
            for part in frame.parts.values():
                if part.results:
                    there = {*part.bodies, *(s for s, value in enumerate(part.results) if value is not UNSET)}
                    stuck = there != set(range(part.next)) or len(there) < len(part.bodies)
                else:
                    stuck = not part.asks and len(part.bodies) != 1
                if stuck:
                    _unfit(f"{part.node.path!r} has begun, but what it runs is missing")

    # --- pauses ---------------------------------------------------------------------------------------------------

    def _visit(self, data: PauseData | KnownData | BegunData | DecidedData) -> tuple[Frame, StepNode]:
        frame = self.live.frames.get(data.frame)
        node = self.plan.nodes[data.node] if 0 <= data.node < len(self.plan.nodes) else None
        mine = frame is not None and isinstance(node, StepNode) and frame.scope.index == node.scope
        if frame is None or not isinstance(node, StepNode) or not mine or frame.outputs[node.place] is not UNSET:
            _unfit(f"it waits in node {data.node} of frame {data.frame}, which does not wait")
        if data.path != frame.prefix + node.name:  # else a migration could put an answer where nobody gave it
            _unfit(f"what {data.path!r} asked or was told stands in {frame.prefix + node.name!r}")
        return frame, node

    def _pause(self, data: PauseData) -> None:
        frame, node = self._visit(data)
        live = self.asked.get((frame.id, node.index))
        self.live.pauses[frame.id, node.index] = _asked(data, node.path) if live is None else Paused(live)


def _error(data: JsonValue, where: str) -> FlujoError:
    error = load(FlujoError, data, where)
    return error if isinstance(error, FlujoError) else _unfit(f"{where} is no error")


def _asked(data: object, path: str) -> Paused:
    request, error = attempt(lambda: QuestionData.model_validate(data).request())
    if request is None or error is not None:  # of a fault its kind only: its text may show the question
        _unfit(f"the question of {path!r} does not fit ({type(error).__name__})")
    return Paused(request)


# --- journal ------------------------------------------------------------------------------------------------------

_KINDS: dict[str, type[Failure] | type[Aborted]] = {"failure": Failure, "aborted": Aborted}


def entry_of(plan: Plan, data: EntryData) -> Entry:
    """An entry that `entry_data` wrote.

    Raises:
        SnapshotError: It does not fit the plan.
    """
    if not 0 <= data.node < len(plan.nodes):
        _unfit(f"its journal names node {data.node}, which the pipeline does not have")
    node = plan.nodes[data.node]
    where = f"output of {data.path or node.path!r}"
    outcome: Outcome | Choice | Answer | Begun | Called | Decided | Spent
    if data.kind in _KINDS:
        lost = StepFailed(data.path, data.unwritten, "no more of it could be written") if data.unwritten else None
        outcome = _KINDS[data.kind](lost or _error(data.value, where))
    elif data.kind in ("success", "decided"):
        outcome = (Success if data.kind == "success" else Decided)(
            None if data.unwritten else load(node.output_type, data.value, where)
        )
    elif data.kind == "skipped":
        outcome = Skipped(None if data.unwritten else load(passed_type(node), data.value, where))
    elif data.kind == "choice" and isinstance(data.value, int):
        outcome = Choice(data.value)
    elif data.kind in ("answer", "called") and isinstance(data.value, list) and len(data.value) == 2:
        outcome = (Answer if data.kind == "answer" else Called)(data.value[1], str(data.value[0]))
    elif data.kind == "begun" and isinstance(data.value, list) and len(data.value) == 3:
        outcome = Begun(str(data.value[0]), str(data.value[1]), bool(data.value[2]))
    elif data.kind == "spent" and data.usage is not None and isinstance(data.value, list) and len(data.value) == 2:
        outcome = Spent(str(data.value[0]), bool(data.value[1]))
    elif data.kind == "paused":
        outcome = _asked(data.value, data.path)
    else:
        _unfit(f"its journal has an entry of unknown kind {data.kind!r}")
    changes = None if data.changes is None else load_changes(plan.context_model, data.changes, data.path)
    return Entry(
        data.frame, data.node, outcome, data.path, data.started_at, data.duration_s, changes, data.attempts,
        data.usage, data.cached, data.cancelled, data.is_void,
    )  # fmt: skip


def past_record(plan: Plan, data: EntryData) -> StepRecord:
    """A row of the journal for people; one from before a migration, which does not fit the plan, as it was written."""
    entry, error = attempt(entry_of, plan, data)
    if entry is not None and error is None:
        return entry.record()
    return Entry(data.frame, data.node, Success(data.value), data.path, data.started_at, data.duration_s, None,
                 data.attempts, data.usage, data.cached, data.cancelled).record()  # fmt: skip
