"""What is due next: pure decisions over a plan and the outcomes so far. No I/O, no clock, no chance, no await.

`advance` updates the state it is handed; folding the same entries always gives an equal state, which is what makes a
journal enough to go on from. Nothing here recurses: work that makes more work is put on `state.todo`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from pydantic import BaseModel

from .errors import LoopLimit, StepFailed
from .flow import Loop, Map, Parallel
from .foreign import attempt, text_of
from .frames import UNSET, Changes, Frame, Part, Passed, RunState
from .journal import Entry
from .outcome import Answer, Called, Choice, Failure, Paused, Skipped, Success
from .plan import FlowNode, Plan, StepNode
from .values import Node, changes_of, context_at, final_context, inputs_of, result_of, unfit_claim


def start(plan: Plan, run_input: object, context: BaseModel | None) -> RunState:
    """The state before the first step."""
    root = Frame(0, plan.root, None, 0, run_input, context)
    state = RunState(plan, root, {0: root})
    _begin_first(state, root)
    if state.todo:
        _work(state)
    return state


def advance(state: RunState, entry: Entry) -> None:
    """Take the end of a visit into account: `due` gets what can be done now. What no longer counts changes nothing."""
    frame = state.frames.get(entry.frame)
    if frame is None:
        return
    node, outcome = state.plan.nodes[entry.node], entry.outcome
    kind = type(outcome)
    if state.pauses or state.known:
        _forget_questions(state, (frame.id, node.index), outcome)
    if kind is Success:
        _end(state, frame, node, cast("Success", outcome).output, (entry.changes,) if entry.changes else ())
    elif kind is Skipped:
        _end(state, frame, node, Passed(cast("Skipped", outcome).output), ())
    elif isinstance(outcome, Failure):
        _fail(state, frame, node, outcome)
    elif isinstance(outcome, Choice):
        _choose(state, frame.parts[node.place], outcome.value)
    else:
        _hear(state, frame, node, outcome)
    if state.todo:
        _work(state)


def _hear(state: RunState, frame: Frame, node: Node, outcome: object) -> None:
    """A step asks, or is told something: it has not ended."""
    visit = (frame.id, node.index)
    if isinstance(outcome, Paused):
        state.pauses[visit] = outcome
    elif isinstance(outcome, (Answer, Called)):
        state.known.setdefault(visit, []).append((outcome.key, outcome.value))
        if isinstance(outcome, Answer):
            state.due.append((frame, node))


def _forget_questions(state: RunState, visit: tuple[int, int], outcome: object) -> None:
    if not isinstance(outcome, (Paused, Called)):
        state.pauses.pop(visit, None)
        if not isinstance(outcome, (Answer, Failure)):  # a failed step that runs again asks what it asked before
            state.known.pop(visit, None)


def fold(plan: Plan, run_input: object, context: BaseModel | None, entries: Iterable[Entry]) -> RunState:
    """The state after `entries`, with all that is due then."""
    state = start(plan, run_input, context)
    for entry in entries:
        advance(state, entry)
    find_due(state)
    return state


def find_due(state: RunState) -> None:
    """Find out anew what is due: whatever began and has not ended, but for what waits for a human."""
    state.due.clear()
    state.failure = None
    for frame in sorted(state.frames.values(), key=lambda one: one.id):
        if frame.left == 0 and frame.parent is not None:
            state.todo.append((_body_ended, (frame,)))
        for node in frame.scope.nodes:
            if frame.waiting[node.place] or frame.outputs[node.place] is not UNSET:
                continue
            part = frame.parts.get(node.place)
            if part is None and isinstance(node, FlowNode):
                state.todo.append((_begin, (frame, node)))
            elif (part is None or part.asks) and (frame.id, node.index) not in state.pauses:
                state.due.append((frame, node))
    _work(state)


def _work(state: RunState) -> None:
    while state.todo:
        act, about = state.todo.popleft()
        act(state, *about)


# --- beginning ----------------------------------------------------------------------------------------------------


def _begin_first(state: RunState, frame: Frame) -> None:
    for node in frame.scope.first:
        if type(node) is StepNode:
            state.due.append((frame, node))
        else:
            state.todo.append((_begin, (frame, node)))


def _begin(state: RunState, frame: Frame, node: FlowNode) -> None:
    """Begin a combinator: read its input, and open its first bodies or ask what to do."""
    if not frame.is_open:
        return
    value, problem = flow_input(frame, node)
    context: BaseModel | None = None
    if problem is None and frame.context is not None:
        context, error = attempt(context_at, frame, node)
        problem = None if error is None else Failure(_failed(frame, node, type(error).__name__, text_of(error)))
    if problem is not None:
        _fail(state, frame, node, problem)
        return
    part = frame.parts[node.place] = Part(node, frame, value, context)
    if node.kind == "branch":
        part.asks = True
        state.due.append((frame, node))
        return
    if isinstance(node.flow, Parallel):
        part.total = len(node.bodies)
    elif isinstance(node.flow, Map):
        part.total = len(cast("list[object]", value))
    elif isinstance(node.flow, Loop):
        part.next = 1
    part.results = [UNSET] * part.total if node.kind in ("map", "parallel") else []
    if part.total:
        _open_more(state, part)
    else:
        _finish(state, part, [])


def flow_input(frame: Frame, node: FlowNode) -> tuple[object, Failure | None]:
    """What a combinator is given, or why it cannot be."""
    try:
        inputs = inputs_of(frame, node)
    except (LookupError, AttributeError, TypeError) as error:
        why = f"a part of its input is missing ({type(error).__name__}: {error})"
        return None, Failure(_failed(frame, node, "InputMissing", why))
    for parameter, origin, fit in node.checks:
        inputs[parameter], problem = fit(inputs[parameter])
        if problem is not None:
            why = f"input {parameter!r}, taken from {origin}, does not fit: {problem}"
            return None, Failure(_failed(frame, node, "InputMismatch", why))
    value = inputs if node.gathers else inputs.get("input")
    if node.kind == "map" and not isinstance(value, (list, tuple)):
        why = f"a map takes a list or a tuple of items, and was given {type(value).__name__}"
        return None, Failure(_failed(frame, node, "InputMismatch", why))
    if node.fit_item is not None and isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            if problem := node.fit_item(item)[1]:
                why = f"item {number} does not fit: {problem}"
                return None, Failure(_failed(frame, node, "InputMismatch", why))
    return value, None


def _failed(frame: Frame, node: FlowNode, error_type: str, why: str) -> StepFailed:
    return StepFailed(frame.prefix + node.name, error_type, why)


def _open_more(state: RunState, part: Part) -> None:
    """Open as many bodies as there are and the limit allows; one that waits for a human keeps its place."""
    flow = part.node.flow
    limit = flow.limit if isinstance(flow, (Parallel, Map)) else 1
    while part.next < part.total and (limit is None or len(part.bodies) < limit):
        _open(state, part, part.next)
        part.next += 1
    if isinstance(flow, Loop) and not part.bodies:
        _open(state, part, part.next)
        part.next += 1


def _open(state: RunState, part: Part, slot: int) -> None:
    node = part.node
    several = node.kind in ("parallel", "branch", "fallback")
    scope = node.bodies[slot if several else 0]
    value = part.value[slot] if node.kind == "map" else part.value  # type: ignore[index]
    frame = Frame(state.next_id, scope, part, slot, value, part.context)
    state.next_id += 1
    state.frames[frame.id] = frame
    part.bodies[slot] = frame
    _begin_first(state, frame)


# --- ending -------------------------------------------------------------------------------------------------------


def _end(state: RunState, frame: Frame, node: Node, output: object, changes: Changes) -> None:
    """A node ended well."""
    frame.outputs[node.place] = output
    if changes:
        frame.changes[node.place] = changes
    for place in node.successors:
        frame.waiting[place] -= 1
        if frame.waiting[place] == 0:
            successor = frame.scope.nodes[place]
            if type(successor) is StepNode:
                state.due.append((frame, successor))
            else:
                state.todo.append((_begin, (frame, successor)))
    frame.left -= 1
    if frame.left == 0 and frame.parent is not None:
        state.todo.append((_body_ended, (frame,)))


def _body_ended(state: RunState, frame: Frame) -> None:
    """All nodes of a body ended well: its combinator goes on, or ends too."""
    if not frame.is_open:
        return
    node, parent = cast("FlowNode", frame.node), cast("Frame", frame.parent)
    part = parent.parts[node.place]
    output, error = attempt(result_of, frame)
    if error is not None:
        why = f"a part of its output is missing ({type(error).__name__}: {error})"
        _fail(state, frame, node, Failure(StepFailed(frame.prefix + "output", "OutputMissing", why)))
        return
    if node.kind == "loop" and frame.changes:
        context, error = attempt(final_context, frame)
        if error is not None:
            _fail(state, frame, node, Failure(_failed(parent, node, type(error).__name__, text_of(error))))
            return
        part.context = context
    frame.is_open = False
    del state.frames[frame.id], part.bodies[frame.slot]
    part.ended += 1
    if frame.changes:
        part.changes[frame.slot] = changes_of(frame)
    if node.kind == "loop":
        _iterated(state, part, output)
    elif part.results:
        part.results[frame.slot] = output
        _fan_in(state, part)
    else:
        _finish(state, part, output)


def _iterated(state: RunState, part: Part, output: object) -> None:
    part.output = output
    if cast("Loop", part.node.flow).until is None:
        _go_on(state, part)
    else:
        part.asks = True
        state.due.append((part.frame, part.node))


def _fan_in(state: RunState, part: Part) -> None:
    if part.ended < part.total:
        _open_more(state, part)
    elif part.node.kind == "map":
        _finish(state, part, part.results)
    else:
        _finish(state, part, dict(zip(part.node.words, part.results, strict=True)))


def _choose(state: RunState, part: Part, choice: int) -> None:
    """A branch was told its case, or a loop whether it is to end."""
    part.asks = False
    if part.node.kind == "branch":
        _open(state, part, choice)
    elif choice:
        _finish(state, part, part.output)
    else:
        _go_on(state, part)


def _go_on(state: RunState, part: Part) -> None:
    """The next iteration of a loop, or its end where there may be no more."""
    flow = cast("Loop", part.node.flow)
    if part.ended < flow.max_iterations:
        part.value = part.output
        _open_more(state, part)
    elif flow.on_limit == "return":
        _finish(state, part, part.output)
    else:
        path = part.frame.prefix + part.node.name
        part.asks = flow.until is not None  # so that it is asked again where the run is resumed
        _fail(state, part.frame, part.node, Failure(LoopLimit(path, flow.max_iterations, part.output)))


def _finish(state: RunState, part: Part, output: object) -> None:
    """A combinator ended well, where its followers find what they take of its output."""
    node, frame = part.node, part.frame
    if node.claims:
        problem = unfit_claim(node, output)
        if problem is not None:
            _fail(state, frame, node, Failure(_failed(frame, node, "OutputMismatch", problem)))
            return
    del frame.parts[node.place]
    changes = tuple(change for slot in sorted(part.changes) for change in part.changes[slot])
    _end(state, frame, node, output, changes)


# --- failing ------------------------------------------------------------------------------------------------------


def _fail(state: RunState, frame: Frame, node: Node, failure: Failure) -> None:
    """A node failed: the nearest combinator that can go on does; else the whole run has failed, and stays as it is."""
    body = frame
    while body.parent is not None:
        around = cast("FlowNode", body.node)
        part = body.parent.parts[around.place]
        if around.kind == "fallback" and body.slot + 1 < len(around.bodies):
            _close(state, part, body)
            _open(state, part, body.slot + 1)
            return
        if isinstance(around.flow, (Parallel, Map)) and around.flow.on_failure == "collect":
            _close(state, part, body)
            part.results[body.slot] = failure.error
            part.ended += 1
            state.todo.append((_fan_in, (part,)))
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
    if state.pauses or state.known:
        gone = {frame.id for frame in open_}
        state.pauses = {key: pause for key, pause in state.pauses.items() if key[0] not in gone}
        state.known = {key: told for key, told in state.known.items() if key[0] not in gone}
    state.has_closed = True
