"""Snapshots are JSON: every type comes back, in any process that has the pipeline; and replay of what is recorded."""

from __future__ import annotations

import importlib
import operator
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from typing_extensions import TypedDict

from flujo.core import (
    Branch,
    Flujo,
    Loop,
    Map,
    PauseForHumanInput,
    Pipeline,
    PipelineError,
    PipelineResult,
    Snapshot,
    Step,
    StepFailed,
    Update,
    run_input,
    step,
)

pytestmark = pytest.mark.anyio


class Colour(Enum):
    RED = "red"
    BLUE = 2


class Level(IntEnum):
    LOW = 1


@dataclass
class Point:
    x: int
    tags: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Line:
    ends: tuple[Point, Point]


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    age: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    age: int


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class House(BaseModel):
    pets: list[Pet]
    prices: dict[str, Decimal]
    built: date | None = None
    alias: str = Field(default="x", alias="aliasOfIt")
    model_config = ConfigDict(populate_by_name=True)


class Pair(NamedTuple):
    left: int
    right: Decimal


class Row(TypedDict):
    when: datetime
    colour: Colour


HOUSE = House(pets=[Dog(age=1), Cat(age=2)], prices={"a": Decimal("0.10")}, built=date(1900, 1, 2), alias="y")
NOW = datetime(2026, 11, 28, 1, 2, 3, 456789, tzinfo=timezone(timedelta(hours=5, minutes=30)))
TYPES: list[tuple[Any, Any]] = [
    (House, HOUSE), (list[House], [HOUSE]), (Point, Point(1, {"a", "b"})), (Line, Line((Point(1), Point(2)))),
    (Colour, Colour.BLUE), (Level, Level.LOW), (dict[Colour, int], {Colour.RED: 1}), (Decimal, Decimal("0.1000")),
    (Decimal, Decimal("1E+30")), (datetime, NOW), (datetime, datetime(1, 1, 1)), (date, date(2026, 11, 28)),
    (time, time(1, 2, 3, 4)), (timedelta, timedelta(days=-1, microseconds=7)), (tuple[int, str], (1, "a")),
    (tuple[Point, ...], (Point(1),)), (set[int], {1, 2}), (frozenset[str], frozenset({"a"})), (bytes, b"text"),
    (bytes, b""), (Pet, Dog(age=3)), (list[Pet], [Cat(age=1), Dog(age=1)]), (uuid.UUID, uuid.UUID(int=7)),
    (PurePosixPath, PurePosixPath("/a/b")), (Pair, Pair(1, Decimal("0.5"))), (Row, {"when": NOW, "colour": Colour.RED}),
    (dict[int, str], {1: "a"}), (int | None, None), (int, 2**70), (float, 0.1), (float, 1e308), (bool, True),
    (str, '["a", "b"]'), (str, "2026-11-28"), (str, "zero \x00, line \u2028, smile 😀"), (list[str], []), (None, None),
    (dict[str, JsonValue], {"a": [1, "b", None, {"c": 1.5}]}),
]  # fmt: skip


def typed(function: Callable[..., Any], **annotations: object) -> Callable[..., Any]:
    function.__annotations__ = annotations
    return function


@step(pauses=True, inputs={})
async def ask() -> str:
    raise PauseForHumanInput("Go on?", schema=str)


def same(value: object, other: object) -> bool:
    return type(value) is type(other) and repr(value) == repr(other) if isinstance(value, Decimal) else value == other


def copied(result: PipelineResult) -> Snapshot:
    return Snapshot.model_validate_json(result.snapshot().model_dump_json())


@pytest.mark.parametrize(("hint", "value"), TYPES, ids=[f"{n}-{type(v).__name__}" for n, (_, v) in enumerate(TYPES)])
async def test_every_type_comes_back_as_output_input_loop_value_map_item_and_decision(hint: Any, value: Any) -> None:
    got: list[object] = []

    async def give(given):  # type: ignore[no-untyped-def]
        return value

    async def wait(given):  # type: ignore[no-untyped-def]
        raise PauseForHumanInput("What now?", schema=hint)

    async def take(given, raw):  # type: ignore[no-untyped-def]
        got.extend((given, raw))
        return given

    def build() -> Flujo:
        first = Step(typed(give, given=hint, **{"return": hint}))
        waits = Step(typed(wait, given=hint, **{"return": hint}), pauses=True)
        loop = Loop(waits, until=None, max_iterations=2, on_limit="return", inputs=first)
        items = Step(
            typed(lambda given: [given, given], given=hint, **{"return": list[hint]}), name="items", inline=True
        )
        end = Step(typed(take, given=hint, raw=hint, **{"return": hint}), inputs={"given": first, "raw": run_input()})
        return Flujo(Pipeline(first, loop >> items >> Map(waits), end, output=end))

    result = await build().run_async(value)
    answers = 0
    while result.status == "paused":
        answers += 1
        result = await build().resume_async(copied(result), value, pause=result.pauses[0].id)
    assert result.status == "completed", result.error
    assert answers == 4
    every = [*got, result.output, *(r.output for r in result.step_history if r.name in ("give", "wait", "take"))]
    assert len(every) == 9
    for one in every:
        assert type(one) is type(value)
        assert same(one, value)


class Known(BaseModel):
    model_config = ConfigDict(frozen=True)
    pets: Annotated[tuple[Pet, ...], operator.add] = ()
    raw: bytes = b""


async def test_the_context_comes_back_with_its_types() -> None:
    async def writes(value: int) -> Update[int]:
        return Update(value, pets=(Dog(age=value),), raw=b"raw")

    def build() -> Flujo:
        one, two = Step(writes, writes=("pets", "raw")), Step(writes, name="two", writes=("pets", "raw"))
        return Flujo(one >> two >> pausing, context_model=Known)

    @step(pauses=True)
    async def pausing(value: int) -> int:
        raise PauseForHumanInput("Go on?", schema=int)

    paused = await build().run_async(3, context=Known(pets=(Cat(age=1),)))
    result = await build().resume_async(copied(paused), 3)
    assert result.context == Known(pets=(Cat(age=1), Dog(age=3), Dog(age=3)), raw=b"raw")
    assert [type(pet) for pet in result.context.pets] == [Cat, Dog, Dog]  # type: ignore[attr-defined]


def test_a_run_is_resumed_in_a_fresh_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(__file__).with_name("paused_pipeline.py")
    stored = tmp_path / "snapshot.json"

    def process(act: str) -> str:
        command = [sys.executable, str(script), act, str(stored)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    process("start")
    assert process("resume") == "True Card 0.20 [11, 11]"
    monkeypatch.syspath_prepend(str(script.parent))
    module = importlib.import_module("paused_pipeline")
    flujo = module.build()
    stored.write_text(flujo.run(1).snapshot().model_dump_json())
    assert process("resume") == "True Card 0.20 [11, 11]"


# --- what cannot be kept ----------------------------------------------------------------------------------------------


class Socket:
    pass


async def test_a_type_that_cannot_be_kept_is_told_when_compiled_or_fails_the_step_that_pauses() -> None:
    async def opens(value: int) -> Socket:
        return Socket()

    async def waits(value: Socket) -> int:
        raise PauseForHumanInput("Go on?", schema=int)

    async def takes(value: int, socket: Socket) -> int:
        return value

    def build(**options: Any) -> Flujo:
        first = Step(opens)
        then = Step(waits, inputs={"value": first}, **options)
        return Flujo(Pipeline(first, then, Step(takes, inputs={"value": then, "socket": first})))

    with pytest.raises(PipelineError, match="Socket") as refused:
        build(pauses=True)
    assert "opens" in str(refused.value)
    undeclared = await build().run_async(1)
    assert undeclared.status == "failed"
    assert isinstance(undeclared.error, StepFailed)
    assert undeclared.error.step_path == "waits"
    assert "Socket" in str(undeclared.error)


class Big(BaseModel):
    age: int


class Small(BaseModel):
    age: int


async def test_a_union_that_does_not_say_which_it_is_is_refused_where_a_step_pauses() -> None:
    async def either(value: str) -> Big | Small:
        return Small(age=1)

    with pytest.raises(PipelineError, match="discriminator") as refused:
        Flujo(Pipeline(Step(either), ask))
    assert "either" in str(refused.value)


# --- size -------------------------------------------------------------------------------------------------------------


async def test_a_snapshot_grows_in_a_straight_line() -> None:
    async def work(value: int) -> int:
        return (value + 1) % 10

    async def size(iterations: int) -> int:
        loop = Loop(Step(work), until=None, max_iterations=iterations, on_limit="return")
        return len((await Flujo(Pipeline(loop, ask)).run_async(0)).snapshot().model_dump_json())

    none, half, whole = await size(1), await size(500), await size(1000)
    assert whole - none <= 2.1 * (half - none)


async def test_each_pause_adds_the_same_to_a_snapshot() -> None:
    @step(pauses=True)
    async def turn(value: str) -> str:
        raise PauseForHumanInput("And?", schema=str)

    flujo = Flujo(Loop(turn, until=None, max_iterations=100, on_limit="return"))
    result = await flujo.run_async("x")
    sizes: list[int] = []
    while result.status == "paused":
        sizes.append(len(result.snapshot().model_dump_json()))
        result = await flujo.resume_async(copied(result), "y")
    assert len(sizes) == 100
    early, late = sizes[40] - sizes[20], sizes[90] - sizes[70]
    assert late <= 1.2 * early
    assert [record.output for record in result.step_history] == ["y"] * 100


# --- replay -----------------------------------------------------------------------------------------------------------

calls: list[object] = []


@step
async def work(value: int) -> int:
    calls.append(value)
    return value + 1


def routed(on: Callable[[int], object], until: Callable[[int], bool]) -> Flujo:
    body = Branch(on=on, cases={"odd": work, "even": Step(work, name="other")})
    return Flujo(Loop(body, until=until) >> Step(lambda value: [value, value], name="twice", inline=True) >> Map(work))


def parity(value: int) -> str:
    return "odd" if value % 2 else "even"


@pytest.mark.parametrize("by", [lambda result: result, copied], ids=["result", "json"])
async def test_a_replay_calls_no_step_and_gives_what_was(by: Callable[[PipelineResult], Any]) -> None:
    flujo = routed(parity, lambda value: value >= 4)
    first = await flujo.run_async(1)
    calls.clear()
    replay = await flujo.replay_async(by(first))
    assert calls == []
    assert replay.divergence is None
    assert replay.result is not None
    assert replay.result.output == first.output == [5, 5]


@pytest.mark.parametrize(
    ("on", "until", "told"),
    [
        (lambda value: "even", lambda value: value >= 4, "case 'odd' case 'even'"),
        (parity, lambda value: value >= 3, "the loop goes on the loop ends"),
        (parity, lambda value: value >= 5, "the loop ends the loop goes on"),
    ],
)
async def test_a_replay_says_where_code_now_decides_otherwise(on: Any, until: Any, told: str) -> None:
    first = await routed(parity, lambda value: value >= 4).run_async(1)
    calls.clear()
    replay = await routed(on, until).replay_async(first)
    assert calls == []
    assert replay.divergence is not None
    assert replay.divergence.path.startswith("loop")
    assert f"{replay.divergence.recorded} {replay.divergence.replayed}" == told


async def test_failed_and_paused_runs_are_replayed_as_they_were() -> None:
    async def breaks(value: int) -> int:
        calls.append(value)
        raise OSError("down")

    for last in (Step(breaks), Step(work, name="again") >> paused_here):
        flujo = Flujo(work >> last)
        first = await flujo.run_async(1)
        assert first.status in ("failed", "paused")
        calls.clear()
        replay = await flujo.replay_async(copied(first))
        assert calls == []
        assert replay.divergence is None
        assert replay.result is not None
        assert (replay.result.status, replay.result.error) == (first.status, first.error)
        assert [pause.id for pause in replay.result.pauses] == [pause.id for pause in first.pauses]


@step(pauses=True)
async def paused_here(value: int) -> int:
    calls.append(value)
    raise PauseForHumanInput("Go on?", schema=int)
