"""A pipeline in a module of its own, with types of its own, that `test_snapshots.py` starts and resumes in processes.

python paused_pipeline.py start  FILE      runs until it pauses, and writes the snapshot
python paused_pipeline.py resume FILE      resumes it with one decision after the other, and prints what came out
"""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import anyio
from pydantic import BaseModel, ConfigDict, Field

from flujo.core import Flujo, Loop, Map, Parallel, PauseForHumanInput, Pipeline, PipelineResult, Snapshot, Step, step


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Point:
    x: int
    at: datetime


class Card(BaseModel):
    kind: Literal["card"] = "card"
    amount: Decimal


class Cash(BaseModel):
    kind: Literal["cash"] = "cash"
    coins: set[int]


Payment = Annotated[Card | Cash, Field(discriminator="kind")]


class Order(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    colour: Colour
    points: tuple[Point, ...]
    payments: list[Payment]
    raw: bytes


ORDER = Order(
    colour=Colour.RED,
    points=(Point(1, datetime(2026, 11, 28, 1, 2, 3, 4, tzinfo=UTC)),),
    payments=[Card(amount=Decimal("0.10")), Cash(coins={1, 2})],
    raw=b"\xff\x00flujo",
)


@step
async def order(number: int) -> Order:
    return ORDER


@step(pauses=True)
async def approve(value: Order) -> Card:
    raise PauseForHumanInput(f"Pay for {len(value.payments)}?", schema=Card)


@step(pauses=True)
async def again(value: int) -> int:
    raise PauseForHumanInput("Which number?", schema=int)


async def report(value: Order, card: Card, numbers: list[int]) -> str:
    same = value == ORDER and [type(one) for one in value.payments] == [Card, Cash] and type(value.points[0]) is Point
    return f"{same} {type(card).__name__} {card.amount} {numbers}"


@step(inline=True)
def numbers(number: int) -> list[int]:
    return [number, number + 1]


def build() -> Flujo:
    asked = Step(approve, inputs={"value": order})
    looped = numbers >> Map(Loop(Parallel(again) >> Step(only, inline=True), until=lambda value: value > 10))
    end = Step(report, inputs={"value": order, "card": asked, "numbers": "map"})
    return Flujo(Pipeline(order, asked, looped, end))


def only(values: dict[str, int]) -> int:
    return values["again"]


async def answer_all(flujo: Flujo, result: PipelineResult) -> PipelineResult:
    """Answer every pause: the card with 0.20, numbers with 5 first and 11 in the second iteration."""
    while result.pauses:
        pause = result.pauses[0]
        decision = {"amount": "0.20"} if pause.step_path == "approve" else 11 if "loop#2" in pause.step_path else 5
        target = Snapshot.model_validate_json(result.snapshot().model_dump_json())
        result = await flujo.resume_async(target, decision, pause=pause.id)
    return result


async def main(act: str, file: Path) -> None:
    flujo = build()
    if act == "start":
        file.write_text((await flujo.run_async(1)).snapshot().model_dump_json())
        return
    snapshot = Snapshot.model_validate_json(file.read_bytes())
    result = await flujo.resume_async(snapshot, Card(amount=Decimal("0.20")), pause="approve")
    print((await answer_all(flujo, result)).output)  # noqa: T201


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], Path(sys.argv[2]))
