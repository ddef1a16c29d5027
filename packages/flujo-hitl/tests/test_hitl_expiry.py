"""A question that expires while it is answered: one of both counts, and who answered is told which."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from hitl_trials import store_at

from flujo.core import Flujo, PauseForHumanInput, Pipeline, ResumeError, Step
from flujo.hitl import OpenPause, Worker
from flujo.hitl.store import KeepingStore

pytestmark = pytest.mark.anyio

QUESTIONS = 60


@pytest.fixture(params=["sqlite", "postgresql"])
def again(request: pytest.FixtureRequest) -> Callable[[], KeepingStore]:
    """Opens one store again and again, as processes do that share it."""
    where = request.getfixturevalue("path" if request.param == "sqlite" else "place")
    return lambda: store_at(where, wait_s=60)


def racing(ends: datetime, effects: list[str]) -> Pipeline:
    """Its question expires at `ends`, and with a higher input a little later: sixty of them within a second."""

    async def ask(value: int) -> str:
        due = ends + timedelta(seconds=value / QUESTIONS)
        raise PauseForHumanInput("Good?", schema=str, expires_at=due, on_expiry="nobody")

    async def act(answer: str) -> str:
        effects.append(answer)
        return answer

    return Pipeline(Step(ask, pauses=True) >> Step(act), name="races")


async def answer_late(desk: KeepingStore, ends: datetime) -> set[str]:
    """Answer each question about when it expires; of which runs that was taken."""
    accepted: set[str] = set()

    async def answer(one: OpenPause) -> None:
        due = ends + timedelta(seconds=int(one.run_id) / QUESTIONS + random.uniform(-0.05, 0.05))
        await anyio.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds()))
        with suppress(ResumeError):
            await desk.record_decision(one.run_id, one.pause_id, one.run_id, shown_digest=one.shown_digest)
            accepted.add(one.run_id)

    async with anyio.create_task_group() as people:
        for one in (await desk.open_pauses(limit=1000)).items:
            people.start_soon(answer, one)
    return accepted


async def test_of_an_expiry_and_an_approval_one_counts(again: Callable[[], KeepingStore]) -> None:
    effects: list[str] = []
    ends = datetime.now(UTC) + timedelta(seconds=8)
    stores = first, second, desk = again(), again(), again()
    flow = racing(ends, effects)
    async with anyio.create_task_group() as group:
        for number in range(QUESTIONS):
            group.start_soon(lambda number=number: Flujo(flow, store=first).run_async(number, run_id=str(number)))
    workers = [Worker(Flujo(flow, store=store), lambda _: None) for store in (first, second)]
    async with anyio.create_task_group() as group:
        for worker in workers:
            group.start_soon(lambda worker=worker: worker.work(poll_s=0.02))
        accepted = await answer_late(desk, ends)
        with anyio.fail_after(60):
            while len((await desk.runs(status="completed", limit=1000)).items) < QUESTIONS:
                await anyio.sleep(0.05)
        for worker in workers:
            worker.end()
    gave = {}
    for run_id in map(str, range(QUESTIONS)):
        ((decided,), kept) = (await desk.decisions(run_id), await desk.load(run_id))
        gave[run_id] = kept.history()[-1].value
        assert decided.is_applied
    # of whom it was taken, it counts; for the others what was declared does; each once
    assert gave == {run_id: run_id if run_id in accepted else "nobody" for run_id in gave}
    assert sorted(effects) == sorted(map(str, gave.values()))
    for store in stores:
        store.close()
