"""Streams that are ended at random instants, in every way: nothing stays open, and no cancel reaches others."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import anyio
import pytest
from anyio.lowlevel import checkpoint

from flujo.core import Budget, Flujo, Message, ModelChunk, ModelRequest, Parallel, Price, RunContext, UsageLimits, step
from flujo.streaming import StreamingStep, buffer

pytestmark = pytest.mark.anyio

WAYS = ("break", "error", "scope", "cancel()", "timeout", "deadline")


class World:
    """Pipelines whose every generator says that it was opened and closed."""

    def __init__(self, rng: random.Random, timeout_s: float | None) -> None:
        self.rng = rng
        self.timeout_s = timeout_s
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.budget = Budget(UsageLimits(total_tokens_limit=10**9))

    async def nap(self) -> None:
        if self.rng.random() < 0.5:
            await anyio.sleep(self.rng.choice((0, 0, 0.001)))

    async def source(self, topic: str, ctx: RunContext) -> AsyncIterator[str]:
        self.opened.append("source")
        try:
            request = ModelRequest(model="m", messages=(Message(role="user", content=topic),), max_tokens=1000)
            async with ctx.stream_model(request, self.send, price=Price()) as answer:
                async for text in answer.text():
                    await self.nap()
                    yield text
        finally:
            self.closed.append("source")

    async def send(self, request: ModelRequest) -> AsyncIterator[ModelChunk]:
        self.opened.append("model")
        try:
            for _ in range(200):
                await self.nap()
                yield ModelChunk("word ")
        finally:
            self.closed.append("model")

    async def stage(self, chunks: AsyncIterator[str]) -> AsyncIterator[str]:
        self.opened.append("stage")
        try:
            async for chunk in chunks:
                await self.nap()
                yield chunk
        finally:
            self.closed.append("stage")

    def chain(self, name: str, *, buffered: bool):
        first = StreamingStep(self.source, name=name, timeout_s=self.timeout_s)
        between = (buffer(3),) if buffered else ()
        chain = first
        for one in (*between, StreamingStep(self.stage, name=f"{name}-stage")):
            chain = chain >> one
        return chain

    def flujo(self, shape: str) -> Flujo:
        @step
        async def other(topic: str) -> str:
            for _ in range(5):
                await self.nap()
            return topic

        if shape == "parallel":
            body = Parallel(self.chain("a", buffered=False), self.chain("b", buffered=True), other)
        else:
            body = other >> self.chain("a", buffered=shape == "buffered")
        return Flujo(body, limits=self.budget)


async def end_somehow(world: World, flujo: Flujo, way: str, after_s: float) -> str:
    options = {"deadline_s": after_s} if way == "deadline" else {}
    many = world.rng.randint(1, 40)
    with anyio.move_on_after(after_s if way == "scope" else 60):
        try:
            async with anyio.create_task_group() as group, flujo.stream_async("topic", **options) as stream:
                if way == "cancel()":
                    group.start_soon(_cancel_later, stream, after_s)
                seen = 0
                async for _ in stream:
                    await world.nap()
                    seen += 1
                    if way == "break" and seen == many:
                        break
                    if way == "error" and seen == many:
                        raise LookupError("by the reader")
        except* LookupError:
            assert way == "error"
    return stream.result.status


async def _cancel_later(stream, after_s: float) -> None:
    await anyio.sleep(after_s)
    stream.cancel("barge-in")


@pytest.mark.parametrize("shape", ["chain", "buffered", "parallel"])
@pytest.mark.parametrize("way", WAYS)
async def test_orchestration_check_15_streams_end_cleanly_at_random_instants(way, shape):
    for seed in range(8):
        rng = random.Random(f"{way}{shape}{seed}")
        after_s = rng.choice((0.001, 0.004, 0.01, 0.03))
        world = World(rng, after_s if way == "timeout" else None)
        flujo = world.flujo(shape)
        status = await end_somehow(world, flujo, way, after_s)
        assert status in ("aborted", "failed", "completed")
        assert sorted(world.opened) == sorted(world.closed)
        assert world.budget.reserved == type(world.budget.reserved)()
        assert not flujo._handles
        with anyio.fail_after(30):  # no cancel is left over that would meet who goes on
            await checkpoint()
            await anyio.sleep(0)
        if anyio.get_current_task() and _on_asyncio():
            assert asyncio.current_task().cancelling() == 0
            await asyncio.sleep(0)
            others = [task for task in asyncio.all_tasks() if _is_ours(task)]
            assert others == []


def _on_asyncio() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


def _is_ours(task: asyncio.Task) -> bool:
    name = getattr(task.get_coro(), "__qualname__", "")
    return not task.done() and any(word in name for word in ("Pump", "RunHandle", "Relay"))
