"""What is due next: pure decisions over a plan and the outcomes so far. No I/O, no clock, no chance, no await.

`advance` updates the state it is handed; folding the same entries always gives an equal state, which is what makes a
journal enough to go on from. Nothing here recurses: work that makes more work is put off: `state.todo`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

from pydantic import BaseModel

from .check import no_json
from .errors import LoopLimit, StepFailed
from .flow import Loop, Map, Parallel
from .foreign import attempt
from .frames import UNSET, Changes, Frame, Part, Passed, RunState
from .journal import Entry
from .outcome import Choice, Failure, Skipped, Success
from .plan import FlowNode, Plan, StepNode
from .told import forget_questions, hear, park
from .values import Node, changes_of, context_at, failed, final_context, flow_input, given_by, unfit_claim


def start(plan: Plan, run_input: object, context: BaseModel | None) -> RunState:
    """The state before the first step."""
    root = Frame(0, plan.root, None, 0, run_input, context)
    state = RunState(plan, root)
    _begin_first(state, root)
    if state.todo:
        _work(state)
    return state


def advance(state: RunState, entry: Entry) -> None:
    """Take the end of a visit into account: `due` gets what can be done now. What no longer counts changes nothing."""
    frame = state.frames.get(entry.frame)
    if frame is None or entry.is_void:
        return
    node, outcome = state.plan.nodes[entry.node], entry.outcome
    if state.has_words and (state.pauses or state.known or state.begun):
        forget_questions(state, (frame.id, node.index), outcome)
    if isinstance(outcome, (Success, Skipped)):
        output = outcome.output if isinstance(outcome, Success) else Passed(outcome.output)
        _end(state, frame, node, output, (entry.changes,) if entry.changes else ())
        if frame.left == 0:
            _body_ended(state, frame)
    elif isinstance(outcome, Failure):
        _fail(state, frame, node, outcome)
    elif isinstance(outcome, Choice):
        choose(state, frame.parts[node.place], outcome.value)
    else:
        hear(state, frame, node, outcome)
    if state.todo:
        _work(state)


def end_well(state: RunState, frame: Frame, node: StepNode, output: object) -> None:
    """Take the end of a step into account that gave an output and did nothing else: as `advance`, for less."""
    if not frame.is_open:
        return
    if state.has_words and (state.pauses or state.known or state.begun):
        forget_questions(state, (frame.id, node.index), Success(output))
    scope, part, place = frame.scope, frame.part, node.place
    if (follower := scope.followers[place]) is not None:
        frame.outputs[place] = output
        frame.left -= 1
        state.due.append((frame, follower))
    elif (
        part and part.ended < part.node.sure and frame.left == 1 and scope.gives == node.place and frame.context is None
    ):
        _iterated(state, part, frame, output)
    else:
        _end(state, frame, node, output, ())
        if frame.left == 0:
            _body_ended(state, frame)
        if state.todo:
            _work(state)


def fold(plan: Plan, run_input: object, context: BaseModel | None, entries: Iterable[Entry]) -> RunState:
    """The state after `entries`, with all that is due then."""
    state = start(plan, run_input, context)
    for entry in entries:
        advance(state, entry)
    find_due(state)
    return state


def find_due(state: RunState) -> None:
    """Find out anew what is due: whatever began and has not ended, but for what waits for a human.

    What may happen at most once, began, and ended nobody knows how is put to a human.
    """
    state.due.clear()
    state.failure = None
    for frame in sorted(state.frames.values(), key=lambda one: one.id):
        if frame.left == 0 and frame.parent is not None:
            _later(state, _body_ended, frame)
        for node in frame.scope.nodes:
            if frame.waits(node) or frame.outputs[node.place] is not UNSET:
                continue
            part = frame.parts.get(node.place)
            if part is None and isinstance(node, FlowNode):
                _later(state, _begin, frame, node)
            elif (frame.id, node.index) in state.begun:
                park(state, frame, node)
            elif (part is None or part.asks) and (frame.id, node.index) not in state.pauses:
                state.due.append((frame, node))
    _work(state)


def _later(state: RunState, act: Callable[..., None], *about: object) -> None:
    """Put off what would else recurse."""
    state.todo = state.todo or []  # a chain never has anything to put off
    state.todo.append((act, about))


def _work(state: RunState) -> None:
    todo = state.todo or []
    for act, about in todo:  # grows on the way
        act(state, *about)
    todo.clear()


# --- beginning ----------------------------------------------------------------------------------------------------


def _begin_first(state: RunState, frame: Frame) -> None:
    for node in frame.scope.first:
        if type(node) is StepNode:
            state.due.append((frame, node))
        else:
            _later(state, _begin, frame, node)


def _begin(state: RunState, frame: Frame, node: FlowNode) -> None:
    """Begin a combinator: read its input, and open its first bodies or ask what to do."""
    if not frame.is_open:
        return
    value, problem = flow_input(frame, node)
    context: BaseModel | None = None
    if problem is None and frame.context is not None:
        context, error = attempt(context_at, frame, node)
        path, knows = frame.prefix + node.name, (value, frame.context)
        problem = None if error is None else Failure(StepFailed.by(path, error, knows))
    if problem is not None:
        _fail(state, frame, node, problem)
        return
    part = frame.parts[node.place] = Part(node, frame, value, context)
    if node.kind == "branch":
        part.asks = True
        state.due.append((frame, node))
        return
    if node.kind in ("map", "parallel"):
        part.total = len(cast("list[object]", value) if node.kind == "map" else node.bodies)
        part.results = [UNSET] * part.total
    part.next = int(node.kind == "loop")
    if part.next:
        _open_next(state, part)
    elif part.total:
        _open_more(state, part)
    else:
        _finish(state, part, [])


def _open_more(state: RunState, part: Part) -> None:
    """Open as many bodies as there are and the limit allows; one that waits for a human keeps its place."""
    flow = part.node.flow
    limit = flow.limit if isinstance(flow, (Parallel, Map)) else 1
    while part.next < part.total and (limit is None or len(part.bodies) < limit):
        _open_next(state, part)


def _open_next(state: RunState, part: Part) -> None:
    _open(state, part, part.next)
    part.next += 1


def _iterated(state: RunState, part: Part, frame: Frame, output: object) -> None:
    """An iteration of a simple loop ended well that another may follow, as `_body_ended` and what it does, for less."""
    del state.frames[frame.id], part.bodies[frame.slot]
    part.output = output
    part.ended += 1
    if part.node.asks:
        part.asks, part.spare = True, frame
        state.due.append((part.frame, part.node))
    else:
        repeat(state, part, frame)


def repeat(state: RunState, part: Part, frame: Frame) -> None:
    """Begin the next iteration, with a step, in the frame of the last one, which has only its outputs of its own."""
    if part.asks:
        part.asks, part.spare = False, None
    part.value = frame.input = part.output
    frame.id, frame.slot = state.next_id, part.next
    if len(frame.outputs) > 1:  # the output of the last node was handed on, not kept
        frame.left = len(frame.outputs)
        frame.outputs = [UNSET] * frame.left
    part.next += 1
    _enter(state, part, frame)


def _open(state: RunState, part: Part, slot: int) -> None:
    node = part.node
    several = node.kind in ("parallel", "branch", "fallback")
    scope = node.bodies[slot if several else 0]
    value = part.value[slot] if node.kind == "map" else part.value  # type: ignore[index]
    _enter(state, part, Frame(state.next_id, scope, part, slot, value, part.context))


def _enter(state: RunState, part: Part, frame: Frame) -> None:
    state.next_id += 1
    state.frames[frame.id] = part.bodies[frame.slot] = frame
    _begin_first(state, frame)


# --- ending -------------------------------------------------------------------------------------------------------


def _end(state: RunState, frame: Frame, node: Node, output: object, changes: Changes) -> None:
    """A node ended well."""
    frame.outputs[node.place] = output
    if changes:
        frame.changes = frame.changes or {}
        frame.changes[node.place] = changes
    waiting = frame.waiting
    for place in node.successors:
        if waiting:
            waiting[place] -= 1
        if not waiting or waiting[place] == 0:
            successor = frame.scope.nodes[place]
            if type(successor) is StepNode:
                state.due.append((frame, successor))
            else:
                _later(state, _begin, frame, successor)
    frame.left -= 1


def _body_ended(state: RunState, frame: Frame) -> None:
    """All nodes of a body ended well: its combinator goes on, or ends too."""
    part = frame.part
    if part is None or not frame.is_open:
        return
    output, error = given_by(frame)
    if error is not None:
        why = f"a part of its output is missing ({type(error).__name__}: {error})"
        _fail(state, frame, part.node, Failure(StepFailed(frame.prefix + "output", "OutputMissing", why)))
        return
    flow = part.node.flow
    if frame.changes:
        if isinstance(flow, Loop) and (error := _carry_on(part, frame)) is not None:
            _fail(state, frame, part.node, Failure(StepFailed.by(part.path, error, (frame.context,))))
            return
        part.changes[frame.slot] = changes_of(frame)
    frame.is_open = False
    del state.frames[frame.id], part.bodies[frame.slot]
    part.ended += 1
    if isinstance(flow, Loop):
        part.output = output
        if flow.until is None:
            _go_on(state, part, flow)
        else:
            part.asks = True
            state.due.append((part.frame, part.node))
    elif part.results:
        part.results[frame.slot] = output
        _fan_in(state, part)
    else:
        _finish(state, part, output)


def _carry_on(part: Part, frame: Frame) -> Exception | None:
    """Let the next iteration begin with the context that this one left, or say why it cannot."""
    context, error = attempt(final_context, frame)
    part.context = context if error is None else part.context
    return error


def _fan_in(state: RunState, part: Part) -> None:
    if part.ended < part.total:
        _open_more(state, part)
    elif part.node.kind == "map":
        _finish(state, part, part.results)
    else:
        _finish(state, part, dict(zip(part.node.words, part.results, strict=True)))


def choose(state: RunState, part: Part, choice: int) -> None:
    """A branch was told its case, or a loop whether it is to end; one that was closed meanwhile does neither."""
    if not part.frame.is_open:
        return
    spare, part.spare, part.asks = part.spare, None, False
    if spare is not None and not choice:
        repeat(state, part, spare)
    elif part.node.kind == "branch":
        _open(state, part, choice)
    elif choice:
        _finish(state, part, part.output)
    else:
        _go_on(state, part, cast("Loop", part.node.flow))
    if state.todo:
        _work(state)


def _go_on(state: RunState, part: Part, flow: Loop) -> None:
    """The next iteration of a loop, or its end where there may be no more."""
    if part.ended < flow.max_iterations:
        part.value = part.output
        _open_next(state, part)
    elif error := limit_reached(part):
        part.asks = True  # again, where the run is resumed
        _fail(state, part.frame, part.node, Failure(error))
    else:
        _finish(state, part, part.output)


def limit_reached(part: Part) -> LoopLimit | None:
    """What a loop fails with that is not done, where it may not go on."""
    flow = part.node.flow
    if not isinstance(flow, Loop) or part.ended < flow.max_iterations or flow.on_limit == "return":
        return None
    return LoopLimit(part.path, flow.max_iterations, part.output, is_json=no_json(part.output) is None)


def _finish(state: RunState, part: Part, output: object) -> None:
    """A combinator ended well, where its followers find what they take of its output."""
    node, frame = part.node, part.frame
    if node.claims and (problem := unfit_claim(node, output)) is not None:
        _fail(state, frame, node, Failure(failed(frame, node, "OutputMismatch", problem)))
        return
    del frame.parts[node.place]
    changes = tuple(change for slot in sorted(part.changes) for change in part.changes[slot])
    _end(state, frame, node, output, changes)
    if frame.left == 0 and frame.part is not None:
        _later(state, _body_ended, frame)


# --- failing ------------------------------------------------------------------------------------------------------


def _fail(state: RunState, frame: Frame, node: Node, failure: Failure) -> None:
    """A node failed: the nearest combinator that can go on does; else the whole run has failed, and stays as it is."""
    body = frame
    while body.parent is not None:
        assert body.part is not None
        part, around = body.part, body.part.node
        if around.kind == "fallback" and body.slot + 1 < len(around.bodies):
            _close(state, part, body)
            _open(state, part, body.slot + 1)
            return
        if isinstance(around.flow, (Parallel, Map)) and around.flow.on_failure == "collect":
            _close(state, part, body)
            part.results[body.slot] = failure.error
            part.ended += 1
            _later(state, _fan_in, part)
            return
        body = body.parent
    state.failure = state.failure or failure


def _close(state: RunState, part: Part, body: Frame) -> None:
    """Close a body and all in it; what still runs there no longer counts."""
    del part.bodies[body.slot]
    open_ = [body]
    for frame in open_:  # grows on the way
        frame.is_open = False
        del state.frames[frame.id]
        open_ += [inner for one in frame.parts.values() for inner in one.bodies.values()]
    if state.has_words and (state.pauses or state.known or state.begun):
        gone = {frame.id for frame in open_}
        state.pauses = {key: pause for key, pause in state.pauses.items() if key[0] not in gone}
        state.known = {key: told for key, told in state.known.items() if key[0] not in gone}
        state.begun = {key: begun for key, begun in state.begun.items() if key[0] not in gone}
        state.decided = {key: output for key, output in state.decided.items() if key[0] not in gone}
    state.has_closed = True
