"""The pure core: over random DAGs and random interleavings, every step is due once, after all it depends on."""

from __future__ import annotations

import operator
import random
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from flujo.core import (
    RUN_INPUT,
    Aborted,
    Failure,
    FlujoError,
    Pipeline,
    Plan,
    Source,
    Step,
    StepNode,
    Success,
    Usage,
    compile_plan,
)
from flujo.core.frames import RunState
from flujo.core.journal import Entry
from flujo.core.restore import restored
from flujo.core.schedule import advance, fold, start
from flujo.core.snapshot import Checkpoint
from flujo.core.values import context_at, final_context, inputs_of, read, result_of
from flujo.core.written import checkpoint_of


class Log(BaseModel, frozen=True):
    seen: Annotated[tuple[str, ...], operator.add] = ()


@dataclass(frozen=True)
class Shape:
    """A DAG: for each step the earlier ones it depends on, and whether it writes; `order` is how it is declared."""

    before: tuple[tuple[int, ...], ...]
    writes: tuple[bool, ...]
    order: tuple[int, ...]


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    size = draw(st.integers(1, 14))
    before = tuple(
        tuple(sorted(draw(st.sets(st.integers(0, place - 1), max_size=3)))) if place else () for place in range(size)
    )
    writes = tuple(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    return Shape(before, writes, tuple(draw(st.permutations(range(size)))))


def plan_of(shape: Shape) -> Plan:
    steps = []
    for place, sources in enumerate(shape.before):
        parameters = ", ".join(f"p{source}" for source in sources)
        space: dict[str, Any] = {}
        exec(f"async def work({parameters}) -> str: ...", space)
        inputs = {f"p{source}": f"s{source}" for source in sources}
        writes = ("seen",) if shape.writes[place] else ()
        steps.append(Step(space["work"], name=f"s{place}", inputs=inputs, writes=writes))
    return compile_plan(Pipeline(*(steps[place] for place in shape.order)), context_model=Log)


def entry_of(plan: Plan, index: int, frame: int = 0) -> Entry:
    node = plan.nodes[index]
    assert isinstance(node, StepNode)
    changes = {"seen": (node.path,)} if node.step.options.writes else None
    return Entry(frame, index, Success(f"out of {node.path}"), node.path, changes=changes)


def facts(state: RunState) -> object:
    """Everything that a state is: what its checkpoint holds, and what is due."""
    due = sorted((frame.id, node.index) for frame, node in state.due)
    return checkpoint_of(state, Usage(), None).model_dump(), due


def walk(plan: Plan, chance: random.Random) -> list[Entry]:
    """Run a plan without running anything: end one of the due steps after another, in a random order."""
    state = start(plan, "input", Log())
    entries = []
    while state.due:
        place = chance.randrange(len(state.due))
        frame, node = state.due[place]
        del state.due[place]
        done = {entry.node for entry in entries}
        assert set(node.predecessors) <= done
        assert inputs_of(frame, node) == {
            f"p{plan.nodes[p].path[1:]}": f"out of {plan.nodes[p].path}" for p in node.predecessors
        }
        assert context_at(frame, node) == expected_context(plan, ancestors(plan, node.index))
        entry = entry_of(plan, node.index)
        entries.append(entry)
        advance(state, entry)
    assert state.finished
    assert facts(fold(plan, "input", Log(), entries)) == facts(state)
    return entries


def ancestors(plan: Plan, index: int) -> set[int]:
    found: set[int] = set()
    open_nodes = list(plan.nodes[index].predecessors)
    while open_nodes:
        node = open_nodes.pop()
        if node not in found:
            found.add(node)
            open_nodes += plan.nodes[node].predecessors
    return found


def expected_context(plan: Plan, nodes: set[int]) -> Log:
    return Log(seen=tuple(plan.nodes[i].path for i in sorted(nodes) if plan.nodes[i].writes))


@given(shapes())
@settings(max_examples=100, deadline=None)
def test_a_plan_is_topological_and_its_edges_agree_from_both_ends(shape: Shape) -> None:
    plan = plan_of(shape)
    for node in plan.nodes:
        assert {plan.nodes[p].path for p in node.predecessors} == {f"s{p}" for p in shape.before[int(node.path[1:])]}
        assert all(before < node.index for before in node.predecessors)
        assert all(node.index in plan.nodes[after].predecessors for after in node.successors)
        assert all(node.index in plan.nodes[before].successors for before in node.predecessors)
    assert sorted(node.path for node in plan.nodes) == sorted(f"s{place}" for place in shape.order)


@given(shapes())
@settings(max_examples=60, deadline=None)
def test_a_declared_order_that_works_is_kept(shape: Shape) -> None:
    inorder = Shape(shape.before, shape.writes, tuple(range(len(shape.before))))
    assert [node.path for node in plan_of(inorder).nodes] == [f"s{place}" for place in inorder.order]


@given(shapes(), st.randoms(use_true_random=False), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_every_step_is_due_once_and_the_end_does_not_depend_on_the_interleaving(
    shape: Shape, one: random.Random, other: random.Random
) -> None:
    plan = plan_of(shape)
    first, second = walk(plan, one), walk(plan, other)
    assert Counter(entry.node for entry in first) == Counter(range(len(plan.nodes)))
    states = [fold(plan, "input", Log(), entries) for entries in (first, second)]
    assert facts(states[0]) == facts(states[1])
    roots = [state.root for state in states]
    assert result_of(roots[0]) == result_of(roots[1])
    assert final_context(roots[0]) == final_context(roots[1]) == expected_context(plan, set(range(len(plan.nodes))))


@given(shapes(), st.randoms(use_true_random=False), st.integers(0, 14))
@settings(max_examples=60, deadline=None)
def test_a_part_of_a_journal_is_enough_to_go_on_from(shape: Shape, chance: random.Random, cut: int) -> None:
    plan = plan_of(shape)
    entries = walk(plan, chance)
    state = fold(plan, "input", Log(), entries[:cut])
    for entry in entries[cut:]:
        assert not state.root.waits(plan.nodes[entry.node])
        state.due.remove((state.root, plan.nodes[entry.node]))
        advance(state, entry)
    assert facts(state) == facts(fold(plan, "input", Log(), entries))


@given(shapes(), st.randoms(use_true_random=False), st.integers(0, 14))
@settings(max_examples=60, deadline=None)
def test_a_checkpoint_holds_the_same_state_as_the_entries_before_it(
    shape: Shape, chance: random.Random, cut: int
) -> None:
    plan = plan_of(shape)
    state = fold(plan, "input", Log(), walk(plan, chance)[:cut])
    text = checkpoint_of(state, Usage(), None).model_dump_json()
    assert facts(restored(plan, Checkpoint.model_validate_json(text))) == facts(state)


async def one(value: int) -> int:
    return value


@pytest.mark.parametrize("outcome", [Failure(FlujoError("no")), Aborted(FlujoError("no"))])
def test_nothing_is_due_after_a_step_that_did_not_end_well(outcome: Failure | Aborted) -> None:
    plan = compile_plan(Step(one) >> Step(one, name="two"))
    state = start(plan, 1, None)
    assert [node.path for _, node in state.due] == ["one"]
    state.due.clear()
    advance(state, Entry(0, 0, outcome, "one"))
    assert not state.due
    assert (state.failure is not None) == isinstance(outcome, Failure)
    assert not state.finished
    assert final_context(state.root) is None


def test_a_source_reads_items_keys_and_attributes_and_says_what_is_not_there() -> None:
    state = start(compile_plan(Step(one)), {"a": [Log(seen=("x",))], "items": 3}, None)
    for path, value in ((("a", 0, "seen", 0), "x"), (("items",), 3), ((), state.root.input)):
        assert read(state.root, Source("", RUN_INPUT, path, Any)) == value
    for path in (("b",), ("a", 1), ("a", 0, "sean"), ("items", 0)):
        with pytest.raises((LookupError, AttributeError, TypeError)):
            read(state.root, Source("", RUN_INPUT, path, Any))


def test_contexts_that_are_remembered_are_bounded_and_can_be_built_anew() -> None:
    shape = Shape(((), *((place,) for place in range(1_499))), (True,) * 1_500, tuple(range(1_500)))
    plan = plan_of(shape)
    state = start(plan, "input", Log())
    for node in plan.nodes:
        context_at(state.root, node)
        advance(state, entry_of(plan, node.index))
    assert len(state.root.seen) <= 1_024
    for place in (1_499, 700, 3, 0):
        context = context_at(state.root, plan.nodes[place])
        assert isinstance(context, Log)
        assert len(context.seen) == place
