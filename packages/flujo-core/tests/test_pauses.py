"""Pauses: wherever a step stands a person can be asked, and everything else is as it was when the answer comes."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Literal

import anyio
import pytest
from pydantic import BaseModel, ConfigDict

from flujo.core import (
    Branch,
    Event,
    Fallback,
    Flujo,
    InputError,
    Loop,
    Map,
    Parallel,
    PauseForHumanInput,
    Pipeline,
    PipelineResult,
    RetryPolicy,
    RunContext,
    RunPaused,
    Snapshot,
    Step,
    StepFailed,
    Update,
    UsageLimits,
    run_input,
    step,
)

pytestmark = pytest.mark.anyio


@step
async def plus(value: int) -> int:
    return value + 1


@step
async def fails(value: int) -> int:
    raise ValueError("no good")


@step(pauses=True)
async def ask(value: int) -> int:
    raise PauseForHumanInput(f"What comes after {value}?", schema=int)


def asks(name: str) -> Step:
    return Step(ask, name=name)


@step(inline=True)
def kept(outputs: dict[str, int]) -> dict[str, int]:
    return outputs


@step(inline=True)
def shout(text: str) -> str:
    return f"{text}!"


@step(inline=True)
def total(outputs: dict[str, int]) -> int:
    return sum(outputs.values())


@step(inline=True)
def summed(outputs: list[int]) -> int:
    return sum(outputs)


def big(value: int) -> bool:
    return value > 50


def deep() -> Loop:
    return Loop(Parallel(Fallback(fails, Pipeline(ask, name="sub"))) >> total, until=big)


DEEP = "map[0]/branch[False]/loop#1/parallel/fallback/sub/ask"

PLACES: dict[str, tuple[Callable[[], Any], object, str, object]] = {
    # what is built, the run input, where it pauses, what the answer 60 leads to
    "chain": (lambda: plus >> ask >> Step(plus, name="end"), 1, "ask", 61),
    "branch": (lambda: Branch(on=big, cases={False: plus >> ask}) >> Step(plus, name="e"), 1, "branch[False]/ask", 61),
    "loop": (lambda: Loop(plus >> ask, until=big) >> Step(plus, name="end"), 1, "loop#1/ask", 61),
    "map": (lambda: Map(plus >> ask) >> summed, [1], "map[0]/ask", 60),
    "parallel": (lambda: Parallel(ask, plus) >> total, 1, "parallel/ask", 62),
    "fallback, first": (lambda: Fallback(ask, fails) >> plus, 1, "fallback/ask", 61),
    "fallback, second": (lambda: Fallback(fails, ask) >> plus, 1, "fallback/ask", 61),
    "sub-pipeline": (lambda: Pipeline(plus >> ask, name="sub") >> Step(plus, name="end"), 1, "sub/ask", 61),
    "all of them": (lambda: Map(Branch(on=big, cases={False: deep()})), [1], DEEP, [60]),
}


@pytest.mark.parametrize("by", ["result", "snapshot", "json"])
@pytest.mark.parametrize("place", PLACES)
async def test_a_run_pauses_and_goes_on_at_exactly_that_place(place: str, by: str) -> None:
    build, given, path, output = PLACES[place]
    flujo = Flujo(build())
    paused = await flujo.run_async(given)
    assert paused.status == "paused", paused.error
    (pause,) = paused.pauses
    assert pause.step_path == path
    assert pause.question.startswith("What comes after")
    assert (pause.expires_at, pause.token) == (None, None)
    assert {record.path: record.status for record in paused.step_history}[path] == "paused"
    target: PipelineResult | Snapshot = paused
    if by == "snapshot":
        target = paused.snapshot()
    elif by == "json":
        flujo, target = Flujo(build()), Snapshot.model_validate_json(paused.snapshot().model_dump_json())
    result = await flujo.resume_async(target, 60)
    assert result.status == "completed", result.error
    assert result.output == output
    assert result.run_id == paused.run_id
    (record,) = [record for record in result.step_history if record.path == path]
    assert (record.status, record.output) == ("completed", 60)


async def test_a_pause_is_no_failure_for_fallback_collect_or_retry() -> None:
    again = Step(ask, retry=RetryPolicy(max_attempts=3, backoff_s=0))
    told: list[str] = []

    def every(event: Event) -> None:
        told.append(type(event).__name__)

    flujo = Flujo(Parallel(Fallback(again, plus), on_failure="collect"), hooks=[every])
    paused = await flujo.run_async(1)
    assert paused.status == "paused"
    assert [record.attempts for record in paused.step_history] == [1]
    assert "OnStepFailure" not in told
    assert "OnRetry" not in told
    assert "OnRunPause" in told
    assert (await flujo.resume_async(paused, 5)).output == {"fallback": 5}
    assert "OnRunResume" in told


async def test_reading_the_output_of_a_paused_run_says_that_it_waits() -> None:
    paused = await Flujo(ask).run_async(1)
    with pytest.raises(RunPaused, match="waits for 1 answer"):
        paused.unwrap()
    assert "paused" in repr(paused)


# --- several at once --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_several_pauses_are_answered_in_any_order(order: tuple[int, ...]) -> None:
    flujo = Flujo(Parallel(asks("a"), asks("b"), asks("c")) >> kept)
    result = await flujo.run_async(1)
    pauses = result.pauses
    assert [pause.step_path for pause in pauses] == ["parallel/a", "parallel/b", "parallel/c"]
    assert len({pause.id for pause in pauses}) == 3
    for left, index in zip((2, 1, 0), order, strict=True):
        target = Snapshot.model_validate_json(result.snapshot().model_dump_json())
        result = await flujo.resume_async(target, 10 * index, pause=pauses[index].id)
        assert len(result.pauses) == left
        assert result.status == ("paused" if left else "completed")
    assert result.output == {"a": 0, "b": 10, "c": 20}


async def test_a_run_pauses_only_when_nothing_else_is_ready() -> None:
    ran: list[str] = []

    async def slow(value: int) -> int:
        await anyio.sleep(0.01)
        ran.append("slow")
        return value

    async def then(value: int) -> int:
        ran.append("then")
        return value

    first = Step(slow)
    pipeline = Pipeline(asks("a"), first, Step(then, inputs={"value": first}), asks("b"))
    paused = await Flujo(pipeline).run_async(1)
    assert ran == ["slow", "then"]
    assert {pause.step_path for pause in paused.pauses} == {"a", "b"}


async def test_a_paused_body_holds_its_place_under_a_limit() -> None:
    flujo = Flujo(Map(ask, limit=2))
    result = await flujo.run_async([1, 2, 3])
    assert [pause.step_path for pause in result.pauses] == ["map[0]/ask", "map[1]/ask"]
    result = await flujo.resume_async(result, 20, pause=result.pauses[1])
    assert [pause.step_path for pause in result.pauses] == ["map[0]/ask", "map[2]/ask"]
    for value in (10, 30):
        result = await flujo.resume_async(result, value, pause=result.pauses[0])
    assert result.output == [10, 20, 30]


async def test_a_failure_beside_a_pause_ends_the_run() -> None:
    began = anyio.Event()

    async def later(value: int) -> int:
        began.set()
        await anyio.sleep(0.005)
        raise ValueError("no good")

    result = await Flujo(Parallel(ask, Step(later))).run_async(1)
    assert result.status == "failed"
    assert isinstance(result.error, StepFailed)


# --- answers ----------------------------------------------------------------------------------------------------------


class Yes(BaseModel):
    kind: Literal["yes"] = "yes"
    amount: Decimal


class No(BaseModel):
    kind: Literal["no"] = "no"
    why: str


@step(pauses=True)
async def pay(value: int) -> Yes:
    raise PauseForHumanInput("How much?", schema=Yes)


@pytest.mark.parametrize("wrong", [{"amount": "a lot"}, {}, "yes", None, 5, No(why="x"), {"kind": "no", "amount": 1}])
async def test_an_answer_that_does_not_fit_is_refused_and_the_pause_stays_open(wrong: Any) -> None:
    flujo = Flujo(pay)
    paused = await flujo.run_async(1)
    with pytest.raises(InputError) as refused:
        await flujo.resume_async(paused, wrong)
    assert "pay" in str(refused.value)
    assert "a lot" not in str(refused.value)
    assert (await flujo.resume_async(paused, {"amount": "0.10"})).output == Yes(amount=Decimal("0.10"))


async def test_without_a_schema_the_answer_must_be_what_the_step_gives() -> None:
    @step(pauses=True)
    async def number(value: int) -> int:
        raise PauseForHumanInput("How many?")

    flujo = Flujo(number >> plus)
    paused = await flujo.run_async(1)
    assert paused.pauses[0].schema is None
    with pytest.raises(InputError):
        await flujo.resume_async(paused, "many")
    assert (await flujo.resume_async(paused, 4)).output == 5


async def test_a_pause_shows_its_schema_and_a_digest_of_what_was_shown() -> None:
    async def digest(text: str) -> str:
        @step(pauses=True)
        async def one(value: int) -> Yes:
            raise PauseForHumanInput(text, schema=Yes)

        (pause,) = (await Flujo(one).run_async(1)).pauses
        assert pause.schema == Yes.model_json_schema()
        return pause.shown_digest

    same, again, other = await digest("Pay?"), await digest("Pay?"), await digest("Pay!")
    assert len(bytes.fromhex(same)) == 32
    assert same == again != other


# --- ctx.ask ----------------------------------------------------------------------------------------------------------


async def test_ask_runs_the_body_again_from_its_start_with_the_recorded_answers() -> None:
    ran: list[str] = []

    @step(pauses=True)
    async def form(value: int, ctx: RunContext) -> str:
        ran.append("start")
        first = await ctx.ask("How many?", schema=Yes)
        assert type(first) is Yes
        ran.append(f"{first.amount}")
        second = await ctx.ask("Why?", schema=str)
        return f"{value}, {first.amount}, {second}"

    def build() -> Flujo:
        return Flujo(form >> shout)

    first = await build().run_async(1)
    assert [pause.question for pause in first.pauses] == ["How many?"]
    second = await build().resume_async(Snapshot.model_validate_json(first.snapshot().model_dump_json()), Yes(amount=3))
    assert [pause.question for pause in second.pauses] == ["Why?"]
    result = await build().resume_async(Snapshot.model_validate_json(second.snapshot().model_dump_json()), "so")
    assert result.output == "1, 3, so!"
    assert ran == ["start", "start", "3", "start", "3"]


async def test_ask_in_a_loop_asks_anew_in_each_iteration() -> None:
    @step(pauses=True)
    async def turn(value: int, ctx: RunContext) -> int:
        return value + await ctx.ask(f"More than {value}?", schema=int)

    flujo = Flujo(Loop(turn, until=big))
    result = await flujo.run_async(0)
    questions: list[str] = []
    for answer in (10, 20, 30):
        questions.append(result.pauses[0].question)
        result = await flujo.resume_async(result, answer)
    assert result.output == 60
    assert questions == ["More than 0?", "More than 10?", "More than 30?"]


async def test_what_was_used_before_ask_counts_each_time_it_was_used() -> None:
    @step(pauses=True)
    async def dear(value: int, ctx: RunContext) -> int:
        ctx.usage.record(cost_usd="0.1")
        return await ctx.ask("How many?", schema=int)

    flujo = Flujo(dear, limits=UsageLimits("1"))
    paused = await flujo.run_async(1)
    assert paused.total_cost_usd == Decimal("0.1")
    assert (await flujo.resume_async(paused, 2)).total_cost_usd == Decimal("0.2")


# --- everything else stays --------------------------------------------------------------------------------------------


class Notes(BaseModel):
    model_config = ConfigDict(frozen=True)
    seen: Annotated[tuple[str, ...], operator.add] = ()
    last: str = ""


def notes(name: str) -> Step:
    async def work(value: int, context: Notes, ctx: RunContext) -> Update[int]:
        ctx.usage.record(cost_usd="0.1")
        return Update(value + len(context.seen), seen=(name,))

    return Step(work, name=name, writes=("seen",))


async def test_context_tally_and_other_branches_are_as_they_were() -> None:
    def build() -> Flujo:
        inner = Parallel(notes("left"), Pipeline(asks("asked") >> notes("after"), name="right"))
        pipeline = Pipeline(notes("first") >> inner >> Step(total, name="sum") >> notes("end"))
        return Flujo(pipeline, context_model=Notes, limits=UsageLimits("10"))

    paused = await build().run_async(1, context=Notes(seen=("given",), last="x"))
    assert paused.total_cost_usd == Decimal("0.2")
    result = await build().resume_async(Snapshot.model_validate_json(paused.snapshot().model_dump_json()), 100)
    assert result.status == "completed", result.error
    assert result.context == Notes(seen=("given", "first", "left", "after", "end"), last="x")
    assert result.total_cost_usd == Decimal("0.4")
    names = [record.name for record in result.step_history]
    assert sorted(names) == sorted({*names})  # nothing twice, `left` neither


async def test_the_run_input_is_still_there_after_a_pause() -> None:
    async def end(answer: int, given: dict[str, int]) -> int:
        return answer + given["n"]

    first = Step(ask, inputs={"value": run_input()["n"]})
    pipeline = Pipeline(first, Step(end, inputs={"answer": first, "given": run_input()}))
    paused = await Flujo(pipeline).run_async({"n": 7})
    target = Snapshot.model_validate_json(paused.snapshot().model_dump_json())
    assert (await Flujo(pipeline).resume_async(target, 1)).output == 8
