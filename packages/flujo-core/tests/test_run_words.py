"""Words about a run are texts, its handle is forgotten when it ends."""

from __future__ import annotations

import gc
import weakref
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest

from flujo.core import ConfigurationError, Flujo, MemoryStore, PauseForHumanInput, RunContext, Snapshot, step

pytestmark = pytest.mark.anyio


@step(pauses=True)
async def ask(value: int) -> int:
    raise PauseForHumanInput("How many?", schema=int)


NO_TEXT = UUID(int=7)


@pytest.mark.parametrize(
    "words",
    [
        {"run_id": NO_TEXT}, {"run_id": 0}, {"run_id": "a\ud800"}, {"actor": b"ann"}, {"actor": 0}, {"actor": "\udfff"},
        {"tenant": 7}, {"tenant": {"a": "b"}}, {"tags": {"number": 1}}, {"tags": {1: "number"}}, {"tags": {"a": None}},
        {"tags": [("a", "b")]}, {"tags": "ab"}, {"tags": {"a": "\ud800"}}, {"tags": {"\ud800": "a"}},
    ],
    ids=repr,
)  # fmt: skip
async def test_words_that_are_no_text_are_refused_before_a_run_starts(words: dict[str, Any]) -> None:
    ran: list[int] = []

    @step
    async def note(value: int) -> int:
        ran.append(value)
        return value

    store = MemoryStore()
    for flujo in (Flujo(note), Flujo(note, store=store)):
        with pytest.raises(ConfigurationError, match=f"{next(iter(words))}= of a run cannot be used"):
            await flujo.run_async(1, **words)
        with pytest.raises(ConfigurationError):
            flujo.start(1, **words)
    assert (ran, vars(store)["_runs"]) == ([], {})


async def test_words_that_are_text_go_with_a_run_wherever_it_goes_on() -> None:
    tags = {"größe": "ä", "": ""}
    flujo = Flujo(ask)
    run_id = f"Lauf {uuid4()}/ß"
    paused = await flujo.run_async(1, actor="ann", tenant=None, tags=MappingProxyType(tags), run_id=run_id)
    tags["late"] = "not part of it"
    read = Snapshot.model_validate_json(paused.snapshot().model_dump_json())
    assert (read.run_id, read.actor, read.tenant, read.tags) == (run_id, "ann", None, {"größe": "ä", "": ""})
    assert (await flujo.resume_async(read, 3)).output == 3


async def test_a_run_that_ended_is_forgotten_by_its_flujo() -> None:
    class Big:
        pass

    kept: list[weakref.ref[Big]] = []

    @step
    async def make(value: int) -> Big:
        kept.append(weakref.ref(big := Big()))
        return big

    flujo = Flujo(make)
    for _ in range(3):
        await flujo.start(1).wait()
    await anyio.sleep(0.01)
    gc.collect()
    assert [ref() for ref in kept] == [None] * 3


async def test_a_run_that_was_cancelled_is_freed_at_once_and_not_by_the_collector() -> None:
    class Big:
        pass

    kept: list[weakref.ref[Big]] = []

    @step
    async def make(value: int) -> int:
        big = Big()
        kept.append(weakref.ref(big))
        await anyio.sleep(5)
        return id(big)

    flujo = Flujo(make)
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            with anyio.move_on_after(0.01):
                await flujo.run_async(1)
            handle = flujo.start(1)
            await anyio.sleep(0.01)
            handle.cancel()
            await handle.wait()
            del handle
        await anyio.sleep(0.01)
        assert [ref() for ref in kept] == [None] * 4
    finally:
        gc.enable()


async def test_a_flujo_waits_at_its_end_for_every_run_it_started() -> None:
    ended: list[int] = []
    flujo: Any = None

    @step
    async def work(value: int, ctx: RunContext) -> int:
        if value:
            flujo.start(value - 1)  # while the Flujo is being closed, too
            await anyio.sleep(0.01)
        ended.append(value)
        return value

    async with (flujo := Flujo(work)):
        flujo.start(2)
        await anyio.sleep(0)
    assert sorted(ended) == [0, 1, 2]
