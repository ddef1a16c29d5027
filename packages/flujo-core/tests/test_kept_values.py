"""Limits, time, bytes and infinity survive a pause; damage to a snapshot is found; it shows what is asked."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import anyio
import pytest
import trio
from pydantic import BaseModel
from pydantic_core import core_schema
from trio.testing import MockClock

from flujo.core import Flujo, PauseForHumanInput, Snapshot, SnapshotError, Step, UsageLimits, step

pytestmark = pytest.mark.anyio


@step
async def plus(value: int) -> int:
    return value + 1


@step(pauses=True)
async def ask(value: int) -> int:
    raise PauseForHumanInput("How many?", schema=int)


async def test_a_run_with_limits_of_its_own_survives_json() -> None:
    flujo = Flujo(ask)
    paused = await flujo.run_async(1, limits=UsageLimits("1"))
    text = paused.snapshot().model_dump_json()
    assert (await flujo.resume_async(Snapshot.model_validate_json(text), 5)).output == 5


def test_the_time_before_a_pause_counts_on_the_clock_that_the_deadline_is_on() -> None:
    async def sleeps(value: int) -> int:
        await anyio.sleep(0.6)
        return value

    async def main() -> None:
        flujo = Flujo(Step(sleeps, name="before") >> ask >> Step(sleeps, name="after"))
        paused = await flujo.run_async(1, deadline_s=1)
        assert (await flujo.resume_async(paused, 5)).status == "aborted"

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize(
    ("hint", "value"), [(bytes, b"\xff\x00"), (list[bytes], [b"\x80"]), (float, float("inf")), (float, float("-inf"))]
)
async def test_bytes_and_infinity_come_back(hint: Any, value: Any) -> None:
    async def give(given):  # type: ignore[no-untyped-def]
        return value

    async def wait(given):  # type: ignore[no-untyped-def]
        raise PauseForHumanInput("Go on?", schema=hint)

    give.__annotations__ = wait.__annotations__ = {"given": hint, "return": hint}
    flujo = Flujo(Step(give) >> Step(wait, pauses=True))
    paused = await flujo.run_async(value)
    assert paused.status == "paused", paused.error
    result = await flujo.resume_async(Snapshot.model_validate_json(paused.snapshot().model_dump_json()), value)
    assert result.output == value


async def test_a_flipped_bit_anywhere_in_a_snapshot_is_refused_or_changes_nothing() -> None:
    whole = (await Flujo(plus >> ask).run_async(2)).snapshot()
    text = whole.model_dump_json().encode()
    chance = random.Random(22)
    refused = 0
    for _ in range(200):
        at = chance.randrange(len(text))
        flipped = bytearray(text)
        flipped[at] ^= 1 << chance.randrange(8)
        try:
            read = Snapshot.model_validate_json(bytes(flipped))
            if read != whole:
                await Flujo(plus >> ask).resume_async(read, 5)
                pytest.fail(f"byte {at} was changed, and nobody noticed")
        except SnapshotError:
            refused += 1
    assert refused > 190  # the others, as 1E-05 for 1e-05, read the same


async def test_a_snapshot_shows_what_is_asked() -> None:
    paused = await Flujo(plus >> ask).run_async(2)
    snapshot: Any = Snapshot.model_validate_json(paused.snapshot().model_dump_json())
    assert [pause.id for pause in snapshot.pauses] == [pause.id for pause in paused.pauses]
    assert json.loads(paused.snapshot().model_dump_json())["version"] == 1


@pytest.mark.parametrize(("hint", "value"), [(float | int, 5), (int | float, 5.0), (list[float | int], [5, 5.0])])
async def test_a_number_of_a_union_comes_back_of_the_same_class(hint: Any, value: Any) -> None:
    async def give(number: int) -> Any:
        return value

    give.__annotations__["return"] = hint
    flujo = Flujo(Step(give, name="give") >> Step(confirm))
    paused = await flujo.run_async(1)
    done = await flujo.resume_async(Snapshot.model_validate_json(paused.snapshot().model_dump_json()), "yes")
    assert repr(done.step_history[0].output) == repr(value)


async def confirm(shown: Any) -> str:
    raise PauseForHumanInput("Right?", schema=str)


class Measured(BaseModel):
    value: float


class ById:
    """Equal to itself only."""

    def __init__(self, value: int) -> None:
        self.value = value

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: Any) -> Any:
        return core_schema.no_info_after_validator_function(
            cls, core_schema.int_schema(), serialization=core_schema.plain_serializer_function_ser_schema(_value_of)
        )


def _value_of(one: ById) -> int:
    return one.value


@pytest.mark.parametrize(
    ("hint", "value"),
    [(float, math.nan), (list[float], [math.nan]), (Measured, Measured(value=math.nan)), (ById, ById(1))],
)
async def test_what_equals_not_even_itself_is_told_what_to_do_about_it(hint: Any, value: Any) -> None:
    async def give(number: int) -> Any:
        return value

    give.__annotations__["return"] = hint
    result = await Flujo(Step(give, name="give") >> Step(confirm)).run_async(1)
    assert result.status == "failed"
    assert "A NaN equals nothing" in str(result.error)
    assert "union" not in str(result.error)
