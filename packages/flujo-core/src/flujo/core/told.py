"""What a step that has not ended asks, is told, and has begun: the part of the schedule about humans and tools."""

from __future__ import annotations

import hashlib
import json

from .errors import StepTimeout, WorkerLost
from .frames import UNSET, Frame, RunState
from .messages import ModelRequest, ToolCall
from .outcome import Aborted, Answer, Begun, Called, Decided, Failure, Paused, Spent
from .pause import Reconcile
from .values import Node

_OF_MODELS, _ATTEMPTS = "model:", "attempts"


def tool_key(call: ToolCall) -> str:
    """What makes two calls of one visit the same: the tool and its arguments, not the id that a model gave it."""
    text = json.dumps([call.name, call.arguments], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def model_key(request: ModelRequest, attempt: int) -> str:
    """What makes two recorded calls to a model the same: all that was asked, before transforms, in the same attempt.

    A step that runs again goes through its attempts again: the second is not to get what made the first fail.
    """
    asked = request.model_dump_json(exclude={"unseen_tokens"})  # it bounds what is asked, and is none of it
    return f"{_OF_MODELS}{attempt}:" + hashlib.sha256(asked.encode()).hexdigest()


def attempts_told(number: int, feedback: tuple[str, ...]) -> Called:
    """That a step asks in a later attempt than the first: so many ended before it, of which validators said this."""
    return Called([number, *feedback], _ATTEMPTS)


def attempts_before(state: RunState, visit: tuple[int, int]) -> tuple[int, tuple[str, ...]]:
    """How many attempts of a visit ended before the one that asked a human last, and what validators said to them."""
    for key, told in reversed(state.known.get(visit, ()) if state.known else ()):
        match told:
            case [int(number), *feedback] if key == _ATTEMPTS:
                return number, tuple(map(str, feedback))
    return 0, ()


def hear(state: RunState, frame: Frame, node: Node, outcome: object) -> None:
    """A step asks, is told something, or does what may happen at most once: it has not ended."""
    visit = (frame.id, node.index)
    if frame.outputs[node.place] is not UNSET:
        return  # it has: a call that it left behind came back
    state.has_words = True
    if isinstance(outcome, Paused) and visit in state.begun and not outcome.request.asked:
        park(state, frame, node)  # the answer ends the step: what became of a call that it left behind is asked first
    elif isinstance(outcome, Paused):
        state.pauses[visit] = outcome
    elif isinstance(outcome, Begun):
        _note_begun(state, visit, outcome)
    elif isinstance(outcome, Decided):
        state.decided[visit] = outcome.output
        state.known.setdefault(visit, []).append(("", None))  # so that its next question has another id
        state.due.append((frame, node))
    elif isinstance(outcome, (Answer, Called)):
        state.known.setdefault(visit, []).append((outcome.key, outcome.value))
        if isinstance(outcome, Called):
            _note_begun(state, visit, Begun(outcome.key, is_over=True))
        elif visit in state.begun:
            park(state, frame, node)
        else:
            state.due.append((frame, node))


def goes_on(state: RunState, visit: tuple[int, int]) -> bool:
    """Whether a visit of a step has neither ended nor paused."""
    frame = state.frames.get(visit[0])
    return frame is not None and frame.outputs[state.plan.nodes[visit[1]].place] is UNSET and visit not in state.pauses


def _note_begun(state: RunState, visit: tuple[int, int], begun: Begun) -> None:
    if not begun.is_over:
        state.begun.setdefault(visit, {})[begun.key] = begun.tool
    elif visit in state.begun:
        state.begun[visit].pop(begun.key, None)
        if not state.begun[visit]:
            del state.begun[visit]


def park(state: RunState, frame: Frame, node: Node) -> None:
    """Ask a human what became of the first thing that began and may not be done again, once it asks nothing else."""
    visit = (frame.id, node.index)
    key, tool = next(iter(state.begun[visit].items()))
    question, open_ = Reconcile(frame.prefix + node.name, key, tool), state.pauses.get(visit)
    if open_ is None or open_.request.payload == question.payload:  # one that was read back does not know its key
        state.pauses[visit] = Paused(question)


def forget_questions(state: RunState, visit: tuple[int, int], outcome: object) -> None:
    """Forget what a step asked, was told and has begun, as far as that is over with this end."""
    if isinstance(outcome, Paused):
        state.decided.pop(visit, None)  # it was refused, and the step asks anew
        _note_begun(state, visit, Begun(is_over=True))  # it came as far as its question, and ended there
    if isinstance(outcome, (Paused, Called, Begun, Spent)):
        return
    state.pauses.pop(visit, None)
    if isinstance(outcome, (Answer, Aborted, Decided)):
        return
    state.decided.pop(visit, None)
    if isinstance(outcome, Failure):  # a failed step that runs again is told what it was before, but asks models anew
        if visit in state.known:
            was = state.known[visit]  # as many as before: by their number its questions are told apart
            state.known[visit] = [
                ("", None) if key.startswith((_OF_MODELS, _ATTEMPTS)) else (key, told) for key, told in was
            ]
        if not isinstance(outcome.error, (StepTimeout, WorkerLost)):  # cut off: nobody knows whether it happened
            _note_begun(state, visit, Begun(is_over=True))
    else:
        state.known.pop(visit, None)
        state.begun.pop(visit, None)
