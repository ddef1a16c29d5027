"""No repr of what stands for a run shows a payload: such texts end up in logs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from flujo.core import (
    Event,
    Flujo,
    Loop,
    MemoryStore,
    Parallel,
    PauseForHumanInput,
    Pipeline,
    RunContext,
    Snapshot,
    Step,
    ToolCall,
    TransformStepInput,
    TransformStepOutput,
    Update,
    hookimpl,
    step,
)

pytestmark = pytest.mark.anyio

WORD = "Ann Smith, born 1970"


class Notes(BaseModel, frozen=True):
    note: str = WORD


@step(writes=("note",))
async def say(value: str) -> Update[str]:
    return Update(WORD, note=f"{WORD}, again")


@step(pauses=True)
async def ask(value: Any, ctx: RunContext) -> str:
    async def send(call: ToolCall) -> str:
        return WORD

    await ctx.call_tool(ToolCall(name="look"), send)
    await ctx.ask(f"Is {WORD} right?", bool, payload={"who": WORD})
    raise PauseForHumanInput(f"Who is {WORD}?", schema=str, payload=WORD)


@step
async def fails(value: str) -> str:
    raise ValueError("no payload")


def inside(data: BaseModel) -> Iterator[BaseModel]:
    """A model of a snapshot and all in it."""
    yield data
    for value in vars(data).values():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, BaseModel):
                yield from inside(one)


async def test_no_repr_of_a_snapshot_or_a_part_of_it_shows_a_payload() -> None:
    body = Parallel(
        Pipeline(ask, name="asks"),
        Pipeline(fails, name="fails"),
        Pipeline(Loop(Step(say), until=lambda value: False, max_iterations=2), name="loops"),
        Pipeline(Step(ask.function, name="again"), name="both"),
        on_failure="collect",
    )
    flujo = Flujo(say >> body, context_model=Notes)
    paused = await flujo.run_async(WORD, tags={"who": WORD}, actor=WORD, tenant=WORD)
    again = await flujo.resume_async(paused, True, pause=paused.pauses[0])
    shown: set[str] = set()
    for result in (paused, again):
        snapshot = Snapshot.model_validate_json(result.snapshot().model_dump_json())
        assert WORD in snapshot.model_dump_json()
        for part in inside(snapshot):
            shown.add(type(part).__name__)
            for text in (repr(part), str(part), f"{[part]}", repr(list(part.__repr_args__()))):
                assert WORD not in text, type(part)
        assert result.run_id in repr(snapshot)
        assert WORD not in repr(result.step_history)
        assert WORD not in repr(result)
    assert shown == {"Snapshot", "Checkpoint", "FrameData", "PartData", "PauseData", "KnownData", "EntryData"}


async def test_a_record_shows_how_its_step_went() -> None:
    result = await Flujo(say >> fails, context_model=Notes).run_async("a")
    texts = [repr(record) for record in result.step_history]
    assert "name='say'" in texts[0]
    assert "status='failed', error=StepFailed" in texts[1]


async def test_what_a_store_is_given_shows_no_payload() -> None:
    texts: list[str] = []

    class Told(MemoryStore):
        async def append(self, run_id: str, row: Any) -> None:
            texts.append(repr(row))

    await Flujo(say >> ask, context_model=Notes, store=Told()).run_async(WORD)
    assert [WORD in text for text in texts] == [False] * 3
    assert "kind='paused'" in texts[2]


class Veil:
    """Takes what is private out of what steps are given and give."""

    @hookimpl
    def transform_step_input(self, payload: TransformStepInput) -> object:
        return str(payload.value).replace("Ann", "X")

    @hookimpl
    def transform_step_output(self, payload: TransformStepOutput) -> object:
        return str(payload.value).replace("Ann", "X")


@pytest.mark.parametrize("veiled", [True, False])
async def test_observers_see_no_input_and_no_decision_as_they_were_before_a_transform(veiled: bool) -> None:
    seen: dict[str, list[object]] = {}

    def watch(event: Event) -> None:
        names = [name for name in ("input", "decision", "inputs") if hasattr(event, name)]
        shown = [getattr(event, name) for name in names]
        seen.setdefault(type(event).__name__, []).extend(shown)

    async def ask(text: str) -> str:
        raise PauseForHumanInput("Who?", schema=str)

    async def greet(name: str) -> str:
        return f"hello {name}"

    flujo = Flujo(Step(ask) >> Step(greet), hooks=[watch], plugins=[Veil()] if veiled else [])
    paused = await flujo.run_async("for Ann")
    result = await flujo.resume_async(paused, "Ann")
    assert result.output == ("hello X" if veiled else "hello Ann")
    assert (seen["OnRunStart"], seen["OnRunResume"]) == (([None], [None]) if veiled else (["for Ann"], ["for Ann"]))
    assert seen["OnHumanDecision"] == ([None] if veiled else ["Ann"])
    assert ("Ann" in repr(seen)) is not veiled
