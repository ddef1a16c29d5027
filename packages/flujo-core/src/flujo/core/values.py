"""What a frame holds: the inputs of its nodes, what it gives, and the context as its nodes left it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from .errors import StepFailed
from .foreign import attempt, text_of
from .frames import Changes, Frame, Passed
from .outcome import Failure
from .plan import BODY_INPUT, RUN_INPUT, FlowNode, Source, StepNode
from .reducers import apply_changes

Node = StepNode | FlowNode


def read(frame: Frame, source: Source) -> object:
    """The value a source stands for.

    Raises:
        LookupError, AttributeError, TypeError: The part that is asked for is not there.
    """
    place = source.place
    if place >= 0:
        value = frame.outputs[place]
        if type(value) is Passed:
            if not source.chained:
                return None  # of what was left out, every part is None
            value = value.value
    else:
        value = frame.input if place == BODY_INPUT else frame.run_input
    return part_of(value, source.path) if source.path else value


def part_of(value: object, path: tuple[str | int, ...]) -> object:
    """A part of a value.

    Raises:
        LookupError, AttributeError, TypeError: It is not there.
    """
    for part in path:
        value = value[part] if isinstance(part, int) or isinstance(value, Mapping) else getattr(value, part)  # type: ignore[index]
    return value


def inputs_of(frame: Frame, node: Node) -> dict[str, object]:
    """Inputs of a due node by parameter name."""
    inputs, outputs = {}, frame.outputs
    for source in node.sources:  # a comprehension costs a call, and so does `read` where there is nothing to it
        place = source.place
        value = outputs[place] if place >= 0 else frame.input
        is_it = place != RUN_INPUT and not source.path and type(value) is not Passed
        inputs[source.parameter] = value if is_it else read(frame, source)
    return inputs


def result_of(frame: Frame) -> object:
    """What a scope gives when all its nodes ended.

    Raises:
        LookupError, AttributeError, TypeError: A part that `output=` names is not there.
    """
    output = frame.scope.output
    if isinstance(output, Source):
        return read(frame, output)
    return {name: read(frame, source) for name, source in output.items()}


def given_by(frame: Frame) -> tuple[object, Exception | None]:
    """What a scope gives, or why it cannot."""
    gives = frame.scope.gives
    if gives is not None and type(output := frame.outputs[gives]) is not Passed:  # all of what a node gave: it is there
        return output, None
    return attempt(result_of, frame)


def called(frame: Frame, node: StepNode) -> Any:
    """Call the function of a due step with its inputs; what it gives is to be awaited."""
    if node.call is None:
        return node.step.function(**inputs_of(frame, node))
    value = frame.outputs[at] if (at := node.takes) >= 0 else frame.input if at == BODY_INPUT else frame.run_input
    return node.call(value if type(value) is not Passed else read(frame, node.sources[0]))


_REMEMBERED = 1024
"""How many contexts are kept to build others on; a context that grows would else be held once per step."""


def context_at(frame: Frame, node: Node) -> BaseModel | None:
    """The context as all nodes before `node` left it, changes applied in plan order."""
    context, writers, ahead = frame.context, node.writers, []
    if context is None or not writers:
        return context
    while writers and writers not in frame.seen:
        ahead.append(writers.bit_length() - 1)
        writers ^= 1 << ahead[-1]
    context = frame.seen.get(writers, context)
    for writer in reversed(ahead):
        writers |= 1 << writer
        for changes in frame.changes.get(writer, ()):
            context = apply_changes(context, changes)
        frame.seen[writers] = context
        if len(frame.seen) > _REMEMBERED:
            del frame.seen[next(iter(frame.seen))]
    return context


def changes_of(frame: Frame) -> Changes:
    """All context changes made in a frame, in plan order."""
    return tuple(change for place in sorted(frame.changes) for change in frame.changes[place])


def final_context(frame: Frame) -> BaseModel | None:
    """The context as all nodes of a frame left it so far."""
    context = frame.context
    if context is not None:
        for changes in changes_of(frame):
            context = apply_changes(context, changes)
    return context


def unfit_claim(node: Node, output: object) -> str | None:
    """Why a follower cannot take what it wants of an output; None where all can."""
    for claim in node.claims:
        value, error = attempt(part_of, output, claim.path)
        problem = claim.fit(value)[1] if error is None else f"{type(error).__name__}: {text_of(error)}"
        if problem is not None:
            return f"{claim.taker}, which does not fit: {problem}"
    return None


def flow_input(frame: Frame, node: FlowNode) -> tuple[object, Failure | None]:
    """What a combinator is given, or why it cannot be."""
    inputs, lost = attempt(inputs_of, frame, node)
    if inputs is None:
        why = f"a part of its input is missing ({type(lost).__name__}: {lost})"
        return None, Failure(failed(frame, node, "InputMissing", why))
    for parameter, origin, fit in node.checks:
        inputs[parameter], problem = fit(inputs[parameter])
        if problem is not None:
            why = f"input {parameter!r}, taken from {origin}, does not fit: {problem}"
            return None, Failure(failed(frame, node, "InputMismatch", why))
    value = inputs if node.gathers else inputs.get("input")
    if node.kind == "map" and not isinstance(value, (list, tuple)):
        why = f"a map takes a list or a tuple of items, and was given {type(value).__name__}"
        return None, Failure(failed(frame, node, "InputMismatch", why))
    if node.fit_item is not None and isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            if problem := node.fit_item(item)[1]:
                why = f"item {number} does not fit: {problem}"
                return None, Failure(failed(frame, node, "InputMismatch", why))
    return value, None


def failed(frame: Frame, node: FlowNode, error_type: str, why: str) -> StepFailed:
    """The error of a combinator that cannot begin or end."""
    return StepFailed(frame.prefix + node.name, error_type, why)
