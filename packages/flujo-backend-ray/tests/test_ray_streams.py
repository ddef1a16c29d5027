"""Streaming steps on a real Ray cluster of this machine: their chunks come while they go on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import anyio
import pytest
import ray_steps as steps

from flujo.backend_ray import RayBackend
from flujo.backend_ray.actor import StepActor
from flujo.backend_ray.backend import AHEAD
from flujo.core import (
    Capabilities,
    Chunk,
    Flujo,
    Map,
    OnModelCall,
    PipelineResult,
    RecordIntent,
    StepExecutionRequest,
    StepOutcome,
    StepTimeout,
    UsageLimitExceeded,
    UsageLimits,
    WorkerLost,
    hookimpl,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.anyio]


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def backend() -> Iterator[RayBackend]:
    made = RayBackend(actors=1)
    assert made.capabilities.prepare is not None
    anyio.run(made.capabilities.prepare)
    yield made
    anyio.run(made.aclose)


async def read(flujo: Flujo, run_input: object) -> tuple[list[object], PipelineResult]:
    async with flujo.stream_async(run_input) as stream:
        chunks = [item.value async for item in stream if isinstance(item, Chunk)]
    return chunks, stream.result


async def test_chunks_come_live_from_another_process(backend: RayBackend, tmp_path: Path) -> None:
    seen = []
    flujo = Flujo(steps.streamed(steps.waits, backend="ray"), backend={"ray": backend})
    async with flujo.stream_async(str(tmp_path)) as stream:
        async for text in stream.text():
            seen.append(text)
            (tmp_path / "seen").touch()
    assert seen[0] == "first "
    assert int(seen[1]) != os.getpid()
    assert stream.result.output == "".join(seen)
    assert stream.result.counts["executed_by"] == {"ray": 1}


@pytest.mark.parametrize("collect", [None, "list", "last", "none"])
async def test_the_result_is_that_of_a_step_that_runs_here(backend: RayBackend, collect: str | None) -> None:
    step = steps.streamed(steps.chunks, collect=collect)
    here, there = await read(Flujo(step), 300), await read(Flujo(step, backend=backend), 300)
    assert here[0] == there[0]
    assert here[1].unwrap() == there[1].unwrap()
    assert (await Flujo(step, backend=backend).run_async(300)).output == here[1].output


async def test_streams_side_by_side_keep_their_chunks_apart(backend: RayBackend) -> None:
    step = steps.streamed(steps.chunks)
    result = await Flujo(Map(step), backend=backend).run_async([20] * 30)
    assert result.unwrap() == ["".join(f"{number} " for number in range(20))] * 30


async def test_an_actor_makes_one_chunk_ahead_of_its_reader_and_no_more(backend: RayBackend, tmp_path: Path) -> None:
    ahead = []
    async with Flujo(steps.streamed(steps.held), backend=backend).stream_async(str(tmp_path)) as stream:
        texts = stream.text()
        for number in range(5):
            assert await anext(texts) == f"{number} "
            await anyio.sleep(0.3)
            ahead.append((tmp_path / "made").stat().st_size - (number + 1))
        assert not (tmp_path / "closed").exists()
    assert (tmp_path / "closed").exists()  # before the next statement
    assert max(ahead) == AHEAD
    assert stream.result.status == "aborted"


@pytest.mark.parametrize("how", ["timeout", "cancel", "handle"])
async def test_every_end_from_here_closes_the_source_there(backend: RayBackend, tmp_path: Path, how: str) -> None:
    step = steps.streamed(steps.hangs, timeout_s=1 if how == "timeout" else None)
    flujo, chunks = Flujo(step, backend=backend), list[str]()
    with anyio.move_on_after(1 if how == "cancel" else 60) as limit:
        async with flujo.stream_async(str(tmp_path)) as stream:
            async for item in stream:
                if isinstance(item, Chunk):
                    chunks.append(item.value)
                    if how == "handle":
                        stream.cancel()
    assert chunks == ["one "]
    assert limit.cancelled_caught == (how == "cancel")
    assert (tmp_path / "closed").exists()
    if how == "timeout":
        assert isinstance(stream.result.error, StepTimeout)
    assert (await Flujo(steps.double, backend=backend).run_async(2)).unwrap() == 4  # its actor goes on


async def test_an_actor_that_dies_in_the_middle_costs_the_whole_lease_and_the_next_step_works(
    backend: RayBackend,
) -> None:
    step = steps.streamed(steps.dies, lease=UsageLimits(total_cost_usd_limit="0.30"))
    chunks, result = await read(Flujo(step, backend=backend, limits=UsageLimits(total_cost_usd_limit=1)), "one ")
    assert chunks == ["one "]
    assert isinstance(result.error, WorkerLost)
    assert "step 'dies' failed" in str(result.error)
    assert "the process of its actor went away" in str(result.error)
    assert result.error.partial == "one "
    assert (result.total_cost_usd, result.usage.reserved_usd) == (Decimal("0.30"), 0)
    chunks, result = await read(Flujo(steps.streamed(steps.chunks), backend=backend), 2)
    assert chunks == ["0 ", "1 "]


async def test_a_limit_ends_a_stream_within_its_lease(backend: RayBackend) -> None:
    limits = UsageLimits(total_cost_usd_limit="0.35")
    chunks, result = await read(Flujo(steps.streamed(steps.pays), backend=backend, limits=limits), 10)
    assert chunks == ["0 ", "1 ", "2 "]
    assert result.status == "stopped"
    assert isinstance(result.error, UsageLimitExceeded)
    assert result.total_cost_usd == Decimal("0.30")


class Records:
    def __init__(self) -> None:
        self.told: list[str] = []

    @hookimpl
    def record_intent(self, payload: RecordIntent) -> None:
        self.told.append(payload.kind)


async def test_hooks_act_once_and_usage_and_records_come_back(backend: RayBackend) -> None:
    calls: list[OnModelCall] = []

    def watch(event: OnModelCall) -> None:
        calls.append(event)

    marked, records = RayBackend(actors=1, worker="ray_steps:marking"), Records()
    plugins = [steps.Marks(), records]
    for place in (None, marked):
        flujo = Flujo(steps.streamed(steps.talks), backend=place, plugins=plugins, hooks=[watch])
        chunks, result = await read(flujo, "a b")
        assert chunks == ["<step:<model:a >>", "<step:<model:b >>"]
        assert result.output == "".join(map(str, chunks))
        assert result.total_cost_usd == Decimal("0.020")
        assert records.told == ["run", "step", "model_call"]
        assert [event.usage.total_tokens for event in calls] == [15]
        records.told.clear()
        calls.clear()
    await marked.aclose()


class Catching:
    """A backend that keeps the task it should send."""

    capabilities = Capabilities(remote=True, streams=True)
    task = ""

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        self.task = request.task().model_dump_json()
        raise RuntimeError("caught")


async def test_a_stream_that_is_closed_in_its_actor_leaves_no_task_there(tmp_path: Path) -> None:
    """Ray closes what a driver that died was fetching: nobody says a cancel then."""
    catching = Catching()
    await Flujo(steps.streamed(steps.held), backend=catching).run_async(str(tmp_path))
    actor = StepActor([])
    items = actor.stream(1, catching.task)
    assert not (await anext(items))[0]
    before = asyncio.all_tasks()
    await items.aclose()  # type: ignore[attr-defined]
    assert (tmp_path / "closed").exists()
    assert not actor._scopes
    assert len(asyncio.all_tasks()) < len(before)


async def test_a_call_that_is_closed_in_its_actor_ends_its_steps() -> None:
    catching = Catching()
    await Flujo(steps.double, backend=catching).run_async(1)
    quick = catching.task
    await Flujo(steps.sleeps, backend=catching).run_async(60)
    actor = StepActor([])
    answers = actor.run([(1, quick), (2, catching.task)])
    assert [number for number, _ in await anext(answers)] == [1]
    with anyio.fail_after(30):
        await answers.aclose()  # type: ignore[attr-defined]
    assert not actor._scopes
