"""Decisions are what was asked for, whatever its type; what a run keeps comes back as it was."""

from __future__ import annotations

import cProfile
import json
import pstats
import uuid
import warnings
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from flujo.core import (
    Flujo,
    FlujoError,
    InputError,
    Loop,
    LoopLimit,
    Map,
    Parallel,
    PauseForHumanInput,
    Pipeline,
    PipelineResult,
    RetryPolicy,
    RunContext,
    Snapshot,
    Step,
    step,
)

pytestmark = pytest.mark.anyio


class Item(BaseModel):
    amount: int


@step
async def plus(value: int) -> int:
    return value + 1


@step(pauses=True)
async def ask(value: int) -> int:
    raise PauseForHumanInput("How many?", schema=int)


def copied(result: PipelineResult) -> Snapshot:
    return Snapshot.model_validate_json(result.snapshot().model_dump_json())


SCHEMAS: list[tuple[Any, Any, Any]] = [
    (Annotated[int, Field(gt=0, le=100)], 5, -5),
    (Literal["yes", "no"], "yes", "banana"),
    (list[Item], [{"amount": 1}], [{"x": 1}]),
    (Item | None, {"amount": 1}, {"x": 1}),
    (dict[str, int], {"a": 1}, {"a": "b"}),
    (tuple[int, str], [1, "a"], [1, 2]),
]


@pytest.mark.parametrize("asks", [False, True], ids=["raise", "ask"])
@pytest.mark.parametrize(("schema", "good", "wrong"), SCHEMAS, ids=lambda value: str(value)[:30])
async def test_an_answer_is_checked_whatever_type_its_schema_is(schema: Any, good: Any, wrong: Any, asks: bool) -> None:
    async def raises(value: int) -> Any:
        raise PauseForHumanInput("What?", schema=schema)

    async def calls(value: int, ctx: RunContext) -> Any:
        return await ctx.ask("What?", schema=schema)

    flujo = Flujo(Step(calls if asks else raises))
    for through in (lambda result: result, copied):
        paused = await flujo.run_async(1)
        with pytest.raises(InputError):
            await flujo.resume_async(through(paused), wrong)
        assert (await flujo.resume_async(through(paused), good)).status == "completed"


async def test_a_bound_of_the_schema_holds_where_the_step_gives_the_plain_type() -> None:
    @step(pauses=True)
    async def pay(value: int) -> int:
        raise PauseForHumanInput("How much?", schema=Annotated[int, Field(ge=0, le=100)])

    flujo = Flujo(pay)
    with pytest.raises(InputError):
        await flujo.resume_async(await flujo.run_async(1), -5)


async def test_the_answer_does_not_stand_in_an_error() -> None:
    @step(pauses=True)
    async def form(value: int, ctx: RunContext) -> str:
        return await ctx.ask("What?", schema=Annotated[str, Field(max_length=3)])  # type: ignore[no-any-return]

    flujo = Flujo(form)
    paused = await flujo.run_async(1)
    try:
        told = str((await flujo.resume_async(paused, "very private")).error)
    except InputError as error:
        told = str(error)
    assert "private" not in told


@pytest.mark.parametrize("given", [{"$error": {"a": "b"}}, {"$error": {"what": "w", "why": "", "do": ""}}], ids=str)
async def test_a_users_dict_is_never_taken_for_an_error_of_ours(given: dict[str, dict[str, str]]) -> None:
    async def same(value: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        return value

    async def end(first: dict[str, dict[str, str]], number: int) -> dict[str, dict[str, str]]:
        return first

    first = Step(same)

    @step(pauses=True)
    async def confirm(value: dict[str, dict[str, str]]) -> int:
        raise PauseForHumanInput("Good?", schema=int)

    then = Step(confirm, inputs={"value": first})
    flujo = Flujo(Pipeline(first, then, Step(end, inputs={"first": first, "number": then})))
    paused = await flujo.run_async(given)
    assert (await flujo.resume_async(copied(paused), 1)).output == given


@pytest.mark.parametrize("through", [lambda result: result, copied], ids=["result", "json"])
async def test_what_a_loop_at_its_limit_gave_survives_a_pause(through: Any) -> None:
    spent = Loop(plus, until=lambda value: False, max_iterations=2)
    flujo = Flujo(Parallel(spent, ask, on_failure="collect"))
    result: Any = await flujo.resume_async(through(await flujo.run_async(1)), 5)
    assert isinstance(result.output["loop"], LoopLimit)
    assert result.output["loop"].partial == 3


async def test_a_wrong_position_in_a_snapshot_is_refused_in_our_own_words() -> None:
    flujo = Flujo(Map(Loop(Parallel(plus, ask) >> Step(summed), until=lambda value: value > 90)))
    result = await flujo.run_async([1, 2])
    for _ in range(3):
        result = await flujo.resume_async(result, 1, pause=result.pauses[-1])
    for position in (None, *range(len(result.snapshot().journal)), 10**9, -1):
        document = json.loads(result.snapshot().model_dump_json()) | {"run_id": uuid.uuid4().hex}
        document["checkpoint"]["position"] = position
        if position is None:
            del document["checkpoint"]["position"]
        with pytest.raises(FlujoError, match="snapshot"):
            await flujo.resume_async(Snapshot.model_validate_json(json.dumps(document)), 1, pause=result.pauses[0].id)


async def summed(outputs: dict[str, int]) -> int:
    return sum(outputs.values())


async def test_a_resume_warns_of_nothing() -> None:
    flujo = Flujo(Step(unfound))
    paused = await flujo.run_async(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await flujo.resume_async(paused, [{"amount": 1}])
    assert [str(one.message) for one in caught] == []


async def unfound(value: int) -> Any:
    assert RetryPolicy
    raise PauseForHumanInput("What?", schema=list[Item])


async def test_a_resume_makes_no_schema_for_each_open_pause() -> None:
    flujo = Flujo(Map(ask))
    paused = await flujo.run_async(list(range(200)))
    profile = cProfile.Profile()
    profile.enable()
    await flujo.resume_async(paused, 1, pause=paused.pauses[7])
    profile.disable()
    calls = {key[2]: value[0] for key, value in pstats.Stats(profile).stats.items()}  # type: ignore[attr-defined]
    assert calls.get("_init_core_attrs", 0) < 20
