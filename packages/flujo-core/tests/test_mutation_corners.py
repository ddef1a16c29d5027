"""A step that changes what comes after it, where that is odd: names, joins, resources, mappings, cancels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from test_mutation import ON, Guard, adds, changes, paths, row_of, run

from flujo.core import (
    Allow,
    Flujo,
    GuardMutation,
    Loop,
    OnMutation,
    PipelineChange,
    PipelineMutation,
    Resource,
    Resources,
    RetryPolicy,
    RunContext,
    Snapshot,
    Step,
    hookimpl,
)

pytestmark = pytest.mark.anyio


class Looks:
    def __init__(self) -> None:
        self.seen: list[PipelineChange] = []

    @hookimpl
    def guard_mutation(self, payload: GuardMutation) -> Allow:
        self.seen.append(payload.change)
        return Allow()


async def test_a_guard_sees_a_step_that_is_replaced_by_another_of_its_name() -> None:
    guard = Looks()
    result = await run(changes(replace={"b": adds(50, "b")}), adds(1, "b"), adds(2, "c"), plugins=[guard])
    assert result.output == 52
    assert [(one.added, one.removed) for one in guard.seen] == [(("b",), ("b",))]


async def test_a_guard_sees_a_combinator_that_is_replaced_around_the_same_step() -> None:
    guard, x = Looks(), adds(1, "x")
    first = changes(replace={"loop": Loop(x, max_iterations=5, on_limit="return", name="loop")})
    once = Loop(x, max_iterations=1, on_limit="return", name="loop")
    assert (await run(first, once, adds(2, "c"), plugins=[guard])).output == 7
    assert [(one.added, one.removed) for one in guard.seen] == [(("loop#*/x",), ("loop#*/x",))]


async def test_a_guard_sees_a_step_that_is_moved() -> None:
    guard, publish = Looks(), adds(100, "publish")
    first = changes(insert_after={"first": publish}, remove=["publish"])
    result = await run(first, adds(1, "review"), publish, plugins=[guard])
    assert paths(result) == ["first", "publish", "review"]
    assert [(one.added, one.removed) for one in guard.seen] == [(("publish",), ("publish",))]
    stays = changes(replace={"publish": publish})
    assert paths(await run(stays, adds(1, "review"), publish, plugins=[guard])) == ["first", "review", "publish"]
    assert (guard.seen[1].added, guard.seen[1].removed) == ((), ())


async def test_what_is_put_in_waits_for_all_that_its_inputs_name() -> None:
    async def both(value: int, other: int) -> int:
        return value * 100 + other

    two = Step(both, name="two", inputs={"other": "first"})
    result = await run(changes(insert_after={"first": adds(5, "x") >> two}), adds(1, "last"), value=3)
    assert (result.output, paths(result)) == (804, ["first", "x", "two", "last"])


async def test_a_row_whose_steps_name_others_can_be_changed() -> None:
    async def both(value: int, other: int) -> int:
        return value * 100 + other

    named = adds(1, "a"), Step(both, name="two", inputs={"other": "a"})
    first = changes(insert_after={"first": adds(5, "x")}, remove=["c"])
    result = await run(named[0], first, named[1], adds(1, "c"), adds(2, "last"), value=3)
    assert (result.output, paths(result)) == (906, ["a", "first", "x", "two", "last"])


async def test_resources_of_step_scope_are_opened_for_what_is_put_in() -> None:
    class Db(str):
        pass

    class Mine(Resources):
        db: Db = Resource(lambda: Db("db"), scope="step")

    async def reads(value: int, db: Db) -> int:
        return value + len(db)

    first = changes(insert_after={"first": Step(reads)})
    assert (await run(first, adds(1, "b"), resources=Mine())).output == 3
    assert (await run(first, Step(reads, name="b"), resources=Mine())).output == 4


class Hostile(dict[str, Any]):
    def __iter__(self) -> Iterator[str]:
        raise KeyError("boo")

    def keys(self) -> Any:
        raise KeyError("boo")


class Unreadable(str):
    def __repr__(self) -> str:
        raise KeyError("boo")


@pytest.mark.parametrize("how", [{"insert_after": Hostile(a=1)}, {"remove": [Unreadable("z")]}])
async def test_mappings_and_names_that_raise_fail_the_step(how: dict[str, Any]) -> None:
    result = await run(changes(**how), adds(1, "b"))
    assert (result.status, paths(result)) == ("failed", ["first"])
    assert "MutationRefused: 'boo'" in str(result.error)


async def waits(event: OnMutation) -> None:
    await anyio.sleep(60)


@pytest.mark.parametrize("given", [{"plugins": [Guard("hang")]}, {"hooks": [waits]}])
async def test_a_cancel_while_guards_or_observers_wait_keeps_what_the_step_cost(given: dict[str, Any]) -> None:
    async def pays(value: int, ctx: RunContext) -> PipelineMutation[int]:
        async with ctx.usage.reserve(cost_usd="0.4") as lease:
            lease.settle(cost_usd="0.4")
        return PipelineMutation(value, insert_after={"first": adds(5, "x")})

    flujo = Flujo(Step(pays, name="first") >> adds(1, "b"), experimental=ON, **given)
    result = await flujo.run_async(0, deadline_s=0.1)
    assert (result.status, paths(result)) == ("aborted", ["first"])
    assert (str(result.total_cost_usd), str(result.step_history[0].usage.cost_usd)) == ("0.4", "0.4")


async def test_a_run_that_was_cut_off_after_its_change_goes_on_from_there_and_before_it_does_the_step_again() -> None:
    first, x, rest = changes(insert_after={"first": adds(5, "x")}), adds(5, "x"), adds(1, "b")
    after = await Flujo(first >> rest, experimental=ON, hooks=[waits]).run_async(0, deadline_s=0.1)
    written = Snapshot.model_validate_json(after.snapshot().model_dump_json())
    resumed = await Flujo(changes() >> x >> rest).resume_async(written, retry=True)
    assert (resumed.output, paths(resumed)) == (6, ["first", "x", "b"])
    before = await Flujo(first >> rest, experimental=ON, plugins=[Guard("hang")]).run_async(0, deadline_s=0.1)
    again = await Flujo(first >> rest, experimental=ON).resume_async(before, retry=True)
    assert (again.output, paths(again)) == (6, ["first", "first", "x", "b"])


@pytest.mark.parametrize("how", [{}, {"insert_after": {"first": adds(5, "x")}}])
async def test_what_changes_no_context_is_replayed_where_there_is_none(how: dict[str, Any]) -> None:
    result = await run(changes(**how), adds(1, "b"))
    row = changes() >> adds(5, "x") >> adds(1, "b") if how else changes() >> adds(1, "b")
    replay = await Flujo(row).replay_async(Snapshot.model_validate_json(result.snapshot().model_dump_json()))
    assert (replay.divergence, replay.result and replay.result.output) == (None, result.output)


async def test_a_row_in_which_nothing_waits_for_two_any_more_goes_on() -> None:
    async def both(value: int, other: int) -> int:
        return value * 100 + other

    two = Step(both, name="two", inputs={"other": "a"})
    x, y, z = (Step(adds(5, name), retry=RetryPolicy(max_attempts=2)) for name in "xyz")
    new = {"two": x >> y >> z}
    result = await run(adds(1, "a"), changes(replace=new), two, adds(2, "last"), value=3)
    assert (result.output, paths(result)) == (21, ["a", "first", "x", "y", "z", "last"])


async def test_what_is_put_in_twice_or_has_a_name_in_use_is_numbered() -> None:
    more = adds(1, "more")
    result = await run(changes(insert_after={"first": more >> adds(2, "b"), "b": more}), adds(10, "b"))
    assert (result.output, paths(result)) == (14, ["first", "more", "b-2", "b", "more-2"])


@pytest.mark.parametrize("nested", [False, True])
async def test_what_is_far_too_large_is_refused_before_it_is_compiled(nested: bool) -> None:
    many = row_of([adds(1, "x")] * 4_000)
    new = {"first": Loop(many, max_iterations=1, on_limit="return")} if nested else {"first": many}
    result = await run(changes(insert_after=new), adds(1, "b"))
    assert (result.status, paths(result)) == ("failed", ["first"])
    assert "a run may gain 100 steps and combinators, and more than 102 are put in" in str(result.error)


async def test_a_step_that_may_happen_at_most_once_changes_nothing() -> None:
    guard, plain = Looks(), changes(insert_after={"first": adds(5, "x")})
    result = await run(Step(plain.function, name="first", effect="at_most_once"), adds(1, "b"), plugins=[guard])
    assert (result.status, paths(result), guard.seen) == ("failed", ["first"], [])
    assert "a step that may happen at most once cannot: a human who settles it" in str(result.error)


@pytest.mark.parametrize("how", [{"remove": ["first"]}, {"replace": {"first": adds(7, "y")}}])
async def test_a_step_that_puts_something_in_behind_itself_cannot_go_away_itself(how: dict[str, Any]) -> None:
    guard = Looks()
    result = await run(changes(insert_after={"first": adds(5, "x")}, **how), adds(1, "b"), plugins=[guard])
    assert (result.status, guard.seen) == ("failed", [])
    assert "no step 'first' stands after it; there are 'b'" in str(result.error)
