"""A step that changes what comes after it: what it may, who is asked, what is kept of it, and where it ends."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Annotated, Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from flujo.core import (
    AbortPipeline,
    Allow,
    ConfigurationError,
    Deny,
    Flujo,
    GuardMutation,
    GuardStep,
    Loop,
    Map,
    OnMutation,
    OnRunEnd,
    Parallel,
    PauseForHumanInput,
    Pipeline,
    PipelineChange,
    PipelineMutation,
    PipelineResult,
    Policy,
    PostStepExecution,
    RecordResult,
    Resource,
    Resources,
    RetryPolicy,
    RunContext,
    Snapshot,
    SnapshotError,
    Step,
    UsageLimits,
    hookimpl,
    step,
)
from flujo.core.mutation import MAX_ADDED, MAX_DEPTH, MAX_MUTATIONS

pytestmark = pytest.mark.anyio
ON = {"mutation"}


def adds(number: int, name: str) -> Step:
    async def add(value: int) -> int:
        return value + number

    return Step(add, name=name)


def changes(name: str = "first", **how: Any) -> Step:
    async def change(value: int) -> PipelineMutation[int]:
        return PipelineMutation(value, **how)

    return Step(change, name=name)


def paths(result: PipelineResult) -> list[str]:
    return [record.path for record in result.step_history]


async def run(*nodes: Any, value: int = 0, **given: Any) -> PipelineResult:
    return await Flujo(row_of(nodes), experimental=ON, **given).run_async(value)


def row_of(nodes: Iterable[Any]) -> Any:
    return reduce(lambda left, right: left >> right, nodes)


# --- what it does -----------------------------------------------------------------------------------------------------


async def test_steps_are_put_in_replaced_and_left_out() -> None:
    new = {"first": adds(1, "x") >> adds(2, "y"), "c": Parallel(adds(100, "p"), adds(200, "q"))}
    first = changes(insert_after={"first": new["first"]}, replace={"b": adds(10, "z")}, remove=["c"])
    result = await run(first, adds(1000, "b"), adds(5000, "c"), adds(7, "d"))
    assert (result.output, paths(result)) == (20, ["first", "x", "y", "z", "d"])


async def test_a_combinator_may_be_put_in_and_the_end_may_be_left_out() -> None:
    twice = Loop(adds(1, "x"), max_iterations=2, on_limit="return", name="twice")
    result = await run(changes(insert_after={"b": twice}, remove=["c"]), adds(10, "b"), adds(100, "c"))
    assert (result.output, paths(result)) == (12, ["first", "b", "twice#1/x", "twice#2/x"])


async def test_what_was_put_in_may_change_the_rest_again_in_each_of_its_runs_anew() -> None:
    inner = changes("inner", insert_after={"inner": adds(2, "x")})
    flujo = Flujo(changes(insert_after={"first": inner}) >> adds(1, "last"), experimental=ON)
    for _ in range(2):
        result = await flujo.run_async(0)
        assert (result.output, paths(result)) == (3, ["first", "inner", "x", "last"])
        assert result.step_history[0].output == 0


async def test_it_writes_the_context_as_an_update_does() -> None:
    class Notes(BaseModel):
        model_config = ConfigDict(frozen=True)
        said: Annotated[str, None] = ""

    @step(writes=("said",))
    async def first(value: int) -> PipelineMutation[int]:
        return PipelineMutation(value, insert_after={"first": told}, said="so")

    @step(reads=("said",))
    async def told(value: int, notes: Notes) -> int:
        return value + len(notes.said)

    result = await run(first, adds(1, "last"), context_model=Notes)
    assert (result.output, result.context) == (3, Notes(said="so"))


async def test_a_mutation_that_names_nothing_is_an_update() -> None:
    seen: list[OnMutation] = []

    def note(event: OnMutation) -> None:
        seen.append(event)

    result = await run(changes(), adds(1, "last"), hooks=[note])
    assert (result.output, seen) == (1, [])


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_row_that_was_changed_gives_what_the_same_row_written_so_gives(data: st.DataObject) -> None:
    length, at = data.draw(st.integers(1, 6)), 0
    at = data.draw(st.integers(0, length - 1))
    names = [f"s{k}" for k in range(length)]
    later = names[at + 1 :]
    removed = data.draw(st.sets(st.sampled_from(later))) if later else set[str]()
    rest = [name for name in later if name not in removed]
    replaced = data.draw(st.sets(st.sampled_from(rest))) if rest else set[str]()
    grown = data.draw(st.sets(st.sampled_from([names[at], *later])))

    def make(name: str) -> Step:
        return adds(sum(map(ord, name)), name)

    how = {
        "insert_after": {name: make(f"{name}i") >> make(f"{name}j") for name in grown},
        "replace": {name: make(f"{name}r") for name in replaced},
        "remove": removed,
    }
    expected = names[: at + 1]
    written: list[str] = []
    for name in [*expected, *later]:
        kept = [] if name in removed else [f"{name}r"] if name in replaced else [name]
        written += [*kept, *([f"{name}i", f"{name}j"] if name in grown else [])]
    nodes = [changes(name, **how) if name == names[at] else make(name) for name in names]
    row = [make(name) if name != names[at] else adds(0, name) for name in written]
    changed = Flujo(row_of(nodes), experimental=ON).run(0)
    by_hand = Flujo(row_of(row)).run(0)
    assert (changed.output, paths(changed)) == (by_hand.output, paths(by_hand))


# --- what it may not --------------------------------------------------------------------------------------------------


async def test_without_the_experiment_the_step_fails_and_says_what_to_do() -> None:
    result = await Flujo(changes(remove=["b"]) >> adds(1, "b")).run_async(0)
    assert result.status == "failed"
    assert str(result.error) == (
        "step 'first' failed: MutationRefused: it returned a PipelineMutation, which is experimental, and not for a "
        "step that runs elsewhere. Pass experimental={'mutation'}, or --experimental"
    )


LONG = Pipeline(row_of([adds(1, f"n{k}") for k in range(MAX_ADDED)]), name="long")


@step
async def text(value: int) -> str:
    return str(value)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"remove": ["x"]}, "no step 'x' stands after it; there are 'b', 'c'"),
        ({"remove": ["first"]}, "no step 'first' stands after it"),
        ({"replace": {"zeroth": adds(1, "n")}}, "no step 'zeroth' stands after it"),
        ({"replace": {"b": adds(1, "n")}, "remove": ["b"]}, "'b' cannot be replaced and removed"),
        ({"insert_after": {"b": text}}, "step 'text' gives str, but input 'value' of step 'c' takes int"),
        ({"insert_after": {"c": text}}, "the pipeline would give str, and it gave int"),
        ({"insert_after": {"b": 7}}, "'int' cannot be put into a pipeline"),
        ({"insert_after": {"b": LONG}}, "a run may gain 100 steps and combinators, not 101"),
    ],
)
async def test_what_does_not_fit_fails_the_step_and_changes_nothing(how: dict[str, Any], why: str) -> None:
    seen: list[object] = []

    def note(event: OnMutation) -> None:
        seen.append(event)

    before = Flujo(adds(0, "zeroth") >> changes(**how) >> adds(1, "b") >> adds(2, "c"), experimental=ON, hooks=[note])
    result = await before.run_async(0)
    assert (result.status, paths(result), seen) == ("failed", ["zeroth", "first"], [])
    assert "MutationRefused" in str(result.error)
    assert why in str(result.error)
    assert result.snapshot().fingerprint == before.plan.fingerprint


@pytest.mark.parametrize("around", ["map", "loop", "parallel", "pipeline", "dag"])
async def test_within_a_combinator_it_is_refused(around: str) -> None:
    body = changes(insert_after={"first": adds(1, "x")})
    source: Any = {
        "map": Map(body),
        "loop": Loop(body >> adds(1, "b"), max_iterations=1, on_limit="return"),
        "parallel": Parallel(body, adds(1, "b")),
        "pipeline": Pipeline(body >> adds(1, "b"), name="inner") >> adds(1, "c"),
        "dag": Pipeline(body, adds(1, "b")),
    }[around]
    result = await Flujo(source, experimental=ON).run_async([1] if around == "map" else 1)
    assert result.status == "failed"
    assert "only a step of the outermost row `a >> b >> c` can change what comes after it" in str(result.error)


async def test_how_often_and_how_deep_is_bounded() -> None:
    def again(depth: int) -> Step:
        async def change(value: int) -> PipelineMutation[int]:
            return PipelineMutation(value + 1, insert_after={f"deep{depth}": again(depth + 1)})

        return Step(change, name=f"deep{depth}")

    deep = await run(again(0), value=0)
    assert (deep.status, len(deep.step_history)) == ("failed", MAX_DEPTH + 1)
    assert "3 deep, not 4" in str(deep.error)
    row = [changes(f"s{k}", insert_after={f"s{k}": adds(1, f"x{k}")}) for k in range(MAX_MUTATIONS + 1)]
    often = await run(*row)
    assert often.status == "failed"
    assert "may be changed 10 times" in str(often.error)


async def test_a_resource_that_the_run_has_not_opened_is_refused() -> None:
    class Db(str):
        pass

    class Mine(Resources):
        db: Db = Resource(lambda: Db("db"), scope="run")

    async def reads(value: int, db: Db) -> int:
        return value + len(db)

    first = changes(insert_after={"first": Step(reads)})
    refused = await run(first, adds(1, "b"), resources=Mine())
    assert "this run has not opened db" in str(refused.error)
    taken = await run(first, Step(reads, name="b"), resources=Mine())
    assert taken.output == 4


def test_unknown_experiments_are_refused_when_built() -> None:
    with pytest.raises(ConfigurationError, match="experimental='fast' cannot be used: there is 'mutation'"):
        Flujo(adds(1, "a"), experimental={"fast"})


async def test_a_cached_step_is_not_taken_from_the_cache_when_it_changes_the_pipeline() -> None:
    first = changes(insert_after={"first": adds(5, "x")}).cache()
    flujo = Flujo(first >> adds(1, "b"), experimental=ON)
    for _ in range(2):
        assert paths(await flujo.run_async(0)) == ["first", "x", "b"]


async def test_what_is_put_in_is_never_given_what_another_kept_in_its_place() -> None:
    turn = iter([adds(5, "x").cache(), adds(50, "y").cache()])

    async def change(value: int) -> PipelineMutation[int]:
        return PipelineMutation(value, insert_after={"change": next(turn)})

    flujo = Flujo(Step(change) >> adds(1, "b"), experimental=ON)
    assert [(await flujo.run_async(0)).output for _ in range(2)] == [6, 51]


# --- who is asked and told --------------------------------------------------------------------------------------------


class Guard:
    def __init__(self, answer: object, log: list[str] | None = None, name: str = "") -> None:
        self.answer = answer
        self.log = log
        self.name = name

    @hookimpl
    async def guard_mutation(self, payload: GuardMutation) -> Any:
        if self.log is not None:
            self.log.append(f"{self.name} {payload.change.added} {payload.change.removed}")
        if self.answer == "hang":
            await anyio.sleep(60)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Deny("not today"), "not today"),
        (None, "answered NoneType"),
        (True, "answered bool"),
        (ValueError("x"), "failed with ValueError"),
        (AbortPipeline("enough"), "enough"),
        ("hang", "gave no answer in"),
    ],
)
async def test_a_guard_that_denies_raises_hangs_or_answers_garbage_ends_the_run(answer: object, why: str) -> None:
    policy, seen = Policy(guard_timeout_s=0.05), list[str]()

    def note(event: OnMutation) -> None:
        seen.append("changed")

    first = changes(insert_after={"first": adds(5, "x")})
    result = await run(first, adds(1, "b"), plugins=[Guard(answer)], policy=policy, hooks=[note])
    assert (result.status, paths(result), seen) == ("aborted", ["first"], [])
    assert why in str(result.error)
    assert "guard_mutation" in str(result.error)


async def test_all_guards_are_asked_and_see_what_comes_and_goes() -> None:
    log: list[str] = []
    guards = [Guard(Deny("one"), log, "a"), Guard(Deny("two"), log, "b"), Guard(Allow(), log, "c")]
    first = changes(insert_after={"first": adds(5, "x")}, remove=["c"])
    result = await run(first, adds(1, "b"), adds(2, "c"), plugins=guards)
    assert (result.status, sorted(log)) == ("aborted", [f"{name} ('x',) ('c',)" for name in "abc"])


class Recorder:
    def __init__(self) -> None:
        self.ends: list[tuple[str, str, str]] = []

    @hookimpl
    def record_result(self, payload: RecordResult) -> None:
        self.ends.append((payload.kind, payload.status, payload.error_type))


@pytest.mark.parametrize("retried", [False, True])
@pytest.mark.parametrize("how", ["allowed", "denied", "refused"])
async def test_the_end_of_a_step_is_recorded_once_it_is_known_what_came_of_its_change(how: str, retried: bool) -> None:
    recorder = Recorder()
    first = changes(remove=["x" if how == "refused" else "b"], insert_after={"first": adds(5, "y")})
    step = first if not retried else Step(first.function, name="first", retry=RetryPolicy(max_attempts=1))
    guard = Guard(Deny("no") if how == "denied" else Allow())
    result = await run(step, adds(1, "b"), plugins=[recorder, guard])
    status, kind = {
        "allowed": ("completed", ""), "denied": ("aborted", "GuardDenied"), "refused": ("failed", "MutationRefused")
    }[how]  # fmt: skip
    assert recorder.ends[0] == ("step", status, kind)
    assert (result.status, result.step_history[0].status) == (status, status)


async def test_observers_and_the_journal_have_both_fingerprints() -> None:
    seen: list[tuple[str, str, object]] = []

    def note(event: OnMutation) -> None:
        seen.append((event.step_path, event.run.fingerprint, event.change))

    def ended(event: PostStepExecution) -> None:
        seen.append((event.step_path, event.run.fingerprint, None))

    x = adds(5, "x")
    flujo = Flujo(changes(insert_after={"first": x}) >> adds(1, "b"), experimental=ON, hooks=[note, ended])
    result = await flujo.run_async(0)
    before, after = flujo.plan.fingerprint, Flujo(changes() >> x >> adds(1, "b")).plan.fingerprint
    change = PipelineChange(before, after, ("x",), ())
    assert seen == [("first", after, change), *((path, after, None) for path in ("first", "x", "b"))]
    snapshot = Snapshot.model_validate_json(result.snapshot().model_dump_json())
    assert [row.mutation for row in snapshot.journal] == [change, None, None]
    assert snapshot.fingerprint == after


async def test_an_observer_that_aborts_ends_the_run_with_the_step_kept() -> None:
    def stop(event: OnMutation) -> None:
        raise AbortPipeline("seen enough")

    result = await run(changes(insert_after={"first": adds(5, "x")}), adds(1, "b"), hooks=[stop])
    assert (result.status, paths(result)) == ("aborted", ["first"])
    assert result.step_history[0].output == 0


async def test_the_guards_of_steps_are_asked_for_what_was_put_in() -> None:
    class Steps:
        @hookimpl
        def guard_step(self, payload: GuardStep) -> Allow | Deny:
            return Deny("no x") if payload.name == "x" else Allow()

    result = await run(changes(insert_after={"first": adds(5, "x")}), adds(1, "b"), plugins=[Steps()])
    assert (result.status, paths(result)) == ("aborted", ["first", "x"])


# --- limits, ends, and what comes after -------------------------------------------------------------------------------


async def test_money_comes_from_the_same_limit() -> None:
    def costs(name: str, **how: Any) -> Step:
        async def pay(value: int, ctx: RunContext) -> PipelineMutation[int]:
            async with ctx.usage.reserve(cost_usd="0.4") as lease:
                lease.settle(cost_usd="0.4")
            return PipelineMutation(value + 1, **how)

        return Step(pay, name=name)

    first = costs("first", insert_after={"first": costs("x") >> costs("y")})
    result = await run(first, adds(1, "b"), limits=UsageLimits(1))
    assert (result.status, str(result.total_cost_usd), paths(result)) == ("stopped", "0.8", ["first", "x", "y"])


async def test_limits_that_the_policy_forbids_are_refused() -> None:
    dear = Pipeline(adds(1, "x"), name="dear", limits=UsageLimits(100))
    policy = Policy(max_limits=UsageLimits(5))
    result = await run(changes(insert_after={"first": dear}), adds(1, "b"), policy=policy, limits=UsageLimits(1))
    assert result.status == "failed"
    assert "MutationRefused" in str(result.error)


async def test_a_run_that_paused_after_a_change_is_resumed_by_a_flujo_of_the_changed_pipeline() -> None:
    @step
    async def ask(value: int) -> int:
        raise PauseForHumanInput("how much?", int)

    flujo = Flujo(changes(insert_after={"first": ask}) >> adds(1, "b"), experimental=ON)
    paused = await flujo.run_async(0)
    assert (paused.status, paused.pauses[0].step_path) == ("paused", "ask")
    written = paused.snapshot().model_dump_json()
    with pytest.raises(SnapshotError, match="is another or has changed"):
        await flujo.resume_async(Snapshot.model_validate_json(written), 5)
    same = Flujo(changes() >> ask >> adds(1, "b"))
    result = await same.resume_async(Snapshot.model_validate_json(written), 5)
    assert (result.output, paths(result)) == (6, ["first", "ask", "b"])
    assert (await same.resume_async(await flujo.run_async(1), 7)).output == 8


async def test_it_can_be_cancelled_timed_and_streamed_as_any_other_run() -> None:
    async def hangs(value: int) -> int:
        await anyio.sleep(60)
        return value

    flujo = Flujo(changes(insert_after={"first": Step(hangs)}) >> adds(1, "b"), experimental=ON)
    late = await flujo.run_async(0, deadline_s=0.05)
    assert (late.status, paths(late)) == ("aborted", ["first", "hangs"])
    assert "its deadline of 0.05 s passed" in str(late.error)
    handle = flujo.start(0)
    await anyio.sleep(0.02)
    handle.cancel("enough")
    assert (await handle.wait()).status == "aborted"
    quick = Flujo(changes(insert_after={"first": adds(5, "x")}) >> adds(1, "b"), experimental=ON)
    async with quick.stream_async(0) as stream:
        kinds = [type(item).__name__ async for item in stream]
    assert (stream.result.output, kinds.count("StepEnded")) == (6, 3)


async def test_the_history_of_nested_steps_before_a_change_stays_what_it_was() -> None:
    nested = Loop(adds(1, "x"), max_iterations=2, on_limit="return", name="loop")
    ended: list[OnRunEnd] = []

    def note(event: OnRunEnd) -> None:
        ended.append(event)

    result = await run(nested, changes(insert_after={"first": adds(5, "y")}), adds(1, "b"), hooks=[note])
    assert paths(result) == ["loop#1/x", "loop#2/x", "first", "y", "b"]
    assert [record.output for record in result.step_history] == [1, 2, 2, 7, 8]
    rows = [row.path for row in result.snapshot().journal if row.path]
    assert (rows, result.snapshot().checkpoint.position) == (paths(result), len(result.snapshot().journal))
    assert len(ended) == 1
