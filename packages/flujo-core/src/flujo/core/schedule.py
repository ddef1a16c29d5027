"""What is due next: pure decisions over a plan and the outcomes so far. No I/O, no clock, no chance, no await.

`advance` updates the state it is handed; folding the same entries always gives an equal state, which is what makes a
journal enough to go on from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from .journal import Entry
from .outcome import Success
from .plan import RUN_INPUT, Plan, PlanNode, Source
from .reducers import apply_changes


@dataclass(slots=True)
class RunState:
    """Where a run stands.

    Attributes:
        run_input: What the run was given.
        context: The context the run began with.
        waiting: For each node, how many of its predecessors have not ended well.
        outputs: Output of each node that did.
        changes: Context changes of each node that made some.
        succeeded: How many nodes ended well.
        seen: Contexts that were asked for, by the writers they hold: to be found again, not part of what a run is.
    """

    run_input: object
    context: BaseModel | None
    waiting: list[int]
    outputs: list[object]
    changes: dict[int, Mapping[str, object]]
    succeeded: int = 0
    seen: dict[int, BaseModel] = field(default_factory=dict, compare=False)

    def finished(self, plan: Plan) -> bool:
        """Whether every step ended well."""
        return self.succeeded == len(plan.nodes)


def start(plan: Plan, run_input: object, context: BaseModel | None) -> tuple[RunState, list[int]]:
    """The state before the first step, and the nodes that are due."""
    waiting = [len(node.predecessors) for node in plan.nodes]
    state = RunState(run_input, context, waiting, [None] * len(waiting), {})
    return state, [index for index, count in enumerate(waiting) if count == 0]


def advance(plan: Plan, state: RunState, entry: Entry) -> list[int]:
    """Take the end of a step into account and return the nodes that became due; none after a failure."""
    if not isinstance(entry.outcome, Success):
        return []
    state.outputs[entry.node] = entry.outcome.output
    state.succeeded += 1
    if entry.changes:
        state.changes[entry.node] = entry.changes
    due = []
    for successor in plan.nodes[entry.node].successors:
        state.waiting[successor] -= 1
        if state.waiting[successor] == 0:
            due.append(successor)
    return due


def fold(plan: Plan, run_input: object, context: BaseModel | None, entries: Iterable[Entry]) -> RunState:
    """The state after `entries`."""
    state, _ = start(plan, run_input, context)
    for entry in entries:
        advance(plan, state, entry)
    return state


def read(state: RunState, source: Source) -> object:
    """The value a source stands for.

    Raises:
        LookupError, AttributeError, TypeError: The part that is asked for is not there.
    """
    return part_of(state.run_input if source.node == RUN_INPUT else state.outputs[source.node], source.path)


def part_of(value: object, path: tuple[str | int, ...]) -> object:
    """A part of a value.

    Raises:
        LookupError, AttributeError, TypeError: It is not there.
    """
    for part in path:
        value = value[part] if isinstance(part, int) or isinstance(value, Mapping) else getattr(value, part)  # type: ignore[index]
    return value


def inputs_of(state: RunState, node: PlanNode) -> dict[str, object]:
    """Inputs of a due node by parameter name."""
    return {source.parameter: read(state, source) for source in node.sources}


_REMEMBERED = 1024
"""How many contexts are kept to build others on; a context that grows would else be held once per step."""


def context_at(state: RunState, node: PlanNode) -> BaseModel | None:
    """The context as all steps before `node` left it, changes applied in plan order."""
    context, writers, ahead = state.context, node.writers, []
    if context is None or not writers:
        return context
    while writers and writers not in state.seen:
        ahead.append(writers.bit_length() - 1)
        writers ^= 1 << ahead[-1]
    context = state.seen.get(writers, context)
    for writer in reversed(ahead):
        writers |= 1 << writer
        changes = state.changes.get(writer)
        context = apply_changes(context, changes) if changes else context
        state.seen[writers] = context
        if len(state.seen) > _REMEMBERED:
            del state.seen[next(iter(state.seen))]
    return context


def final_context(state: RunState) -> BaseModel | None:
    """The context as the whole run left it so far."""
    context = state.context
    if context is not None:
        for node in sorted(state.changes):
            context = apply_changes(context, state.changes[node])
    return context


def result_of(plan: Plan, state: RunState) -> object:
    """What a finished run gives."""
    if isinstance(plan.output, Source):
        return read(state, plan.output)
    return {name: read(state, source) for name, source in plan.output.items()}
