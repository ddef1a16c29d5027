"""Each rule about chunks finds a backend that breaks it, and one of this process that says that it has chunks holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from pipe_backend import PipeBackend, Pool

from flujo.core import Capabilities, Failure, LocalBackend, StepExecutionRequest, StepFailed, StepOutcome, Usage, Worker
from flujo.core.testing import NotConforming, assert_conforms
from flujo.core.testing.backend_rules import BACKEND_RULES
from flujo.core.testing.conformance import _SUITES
from flujo.core.testing.stream_rules import STREAM_RULES

NAMES = {rule.__name__ for rule in STREAM_RULES}


class Here(LocalBackend):
    """This process, which says so."""

    capabilities = Capabilities(streams=True)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_backend_of_this_process_holds_them(loop: str) -> None:
    held = assert_conforms(Here(), loops=[loop])
    assert set(held) == NAMES | {rule.__name__ for rule in BACKEND_RULES}


class Broken:
    """A backend with a worker of its own in this process; what breaks a rule is made of it."""

    capabilities = Capabilities(remote=True, streams=True)

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        async with Worker() as worker:
            return await self.work(worker, request)

    async def work(self, worker: Worker, request: StepExecutionRequest) -> StepOutcome:
        return request.outcome(await worker.execute(request.task().model_dump_json(), request.give))


class AtTheEnd(Broken):
    async def work(self, worker: Worker, request: StepExecutionRequest) -> StepOutcome:
        chunks: list[str] = []

        async def keep(chunk: str) -> None:
            chunks.append(chunk)

        answer = await worker.execute(request.task().model_dump_json(), keep)
        for chunk in chunks:
            await request.give(chunk)
        return request.outcome(answer)


class Loses(Broken):
    async def work(self, worker: Worker, request: StepExecutionRequest) -> StepOutcome:
        async def lose(chunk: str) -> None:
            if json.loads(chunk)["number"] != 7:
                await request.give(chunk)

        return request.outcome(await worker.execute(request.task().model_dump_json(), lose))


class Hurries(Broken):
    """Lets its worker go on while a chunk waits for the reader."""

    async def work(self, worker: Worker, request: StepExecutionRequest) -> StepOutcome:
        send, receive = anyio.create_memory_object_stream[str](1000)

        async def hand_over() -> None:
            async with receive:
                async for chunk in receive:
                    await request.give(chunk)

        async with anyio.create_task_group() as group, send:
            group.start_soon(hand_over)
            answer = await worker.execute(request.task().model_dump_json(), send.send)
            send.close()
            while receive.statistics().open_send_streams or group.cancel_scope.cancel_called:
                await anyio.sleep(0.01)
        return request.outcome(answer)


class Leaves(Broken):
    """Leaves its worker behind when it is cancelled."""

    async def work(self, worker: Worker, request: StepExecutionRequest) -> StepOutcome:
        answer = asyncio.ensure_future(worker.execute(request.task().model_dump_json(), request.give))
        return request.outcome(await asyncio.shield(answer))


class OwnWords(Broken):
    async def work(self, worker: Worker, request: StepExecutionRequest) -> StepOutcome:
        done = await super().work(worker, request)
        if isinstance(done.outcome, Failure):
            done.outcome = Failure(StepFailed(request.ctx.step_path, "Remote", "it failed"))
        return done


class Pardons(PipeBackend):
    """Says that a worker that died has used nothing."""

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        done = await super().execute_step(request)
        done.usage = done.usage or Usage()
        return done


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool()
    yield made
    made.close()


SEEDS: list[tuple[Callable[[Pool], Any], str, str]] = [
    (lambda _: AtTheEnd(), "chunks_come_at_once", "['first', 'late']"),
    (lambda _: Loses(), "chunks_are_whole", "of 200 chunks came 7"),
    (lambda _: Hurries(), "reader_sets_the_pace", "made ahead of the reader"),
    (lambda _: Leaves(), "left_stream_is_closed", "its source goes on"),
    (lambda _: OwnWords(), "broken_stream_keeps_what_came", "Remote"),
    (lambda pool: Pardons(pool), "lost_stream_costs_its_lease", "booked is 0"),
]


@pytest.mark.parametrize(("make", "rule", "why"), SEEDS, ids=[seed[1] for seed in SEEDS])
def test_each_rule_finds_a_backend_that_breaks_it(
    make: Callable[[Pool], Any], rule: str, why: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flujo.core.testing.stream_steps.PATIENCE_S", 0.5)
    others = set(_SUITES[0].rules) - {rule}
    with pytest.raises(NotConforming) as caught:
        assert_conforms(lambda: make(pool), loops=["asyncio"], skip=others)
    assert why in caught.value.broken[rule]


def test_every_rule_has_a_broken_backend() -> None:
    assert {rule for _, rule, _ in SEEDS} == NAMES
