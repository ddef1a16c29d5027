"""A fallback is no way round a limit: what that stopped is due again when the run is resumed. Replays of such ends."""

from __future__ import annotations

import pytest

from flujo.core import AbortPipeline, Fallback, Flujo, PostStepExecution, RunContext, Snapshot, Step, UsageLimits

pytestmark = pytest.mark.anyio


async def dear(value: int, ctx: RunContext) -> str:
    async with ctx.usage.reserve(cost_usd="0.5") as lease:
        lease.settle(cost_usd="0.5")
    return "dear"


async def cheap(value: int) -> str:
    return "cheap"


@pytest.mark.parametrize("through", ["result", "json"])
async def test_a_step_that_a_limit_stopped_inside_a_fallback_is_tried_again_with_a_higher_limit(through: str) -> None:
    flujo = Flujo(Fallback(Step(dear), Step(cheap)), limits=UsageLimits("0.4"))
    stopped = await flujo.run_async(1)
    assert stopped.status == "stopped"
    target = stopped if through == "result" else Snapshot.model_validate_json(stopped.snapshot().model_dump_json())
    result = await flujo.resume_async(target, limits=UsageLimits("1"))
    assert result.output == "dear"
    assert [record.name for record in result.step_history] == ["dear", "dear"]
    assert (await flujo.replay_async(result)).divergence is None


@pytest.mark.parametrize("by", ["an observer", "a limit"])
async def test_a_run_that_was_ended_when_all_its_steps_had_ended_is_replayed_as_that(by: str) -> None:
    def stop(event: PostStepExecution) -> None:
        if by == "an observer":
            raise AbortPipeline("enough")

    async def work(value: int, ctx: RunContext) -> int:
        ctx.usage.record(cost_usd="2")
        return value

    limits = UsageLimits("1") if by == "a limit" else None
    flujo = Flujo(Step(work), hooks=[stop], limits=limits)
    result = await flujo.run_async(1)
    replay = await flujo.replay_async(result)
    assert (replay.divergence, replay.result and replay.result.status) == (None, result.status)
    assert result.status == ("aborted" if by == "an observer" else "stopped")
    assert [record.status for record in result.step_history] == ["completed"]
