"""A fallback is no way round a limit: what a limit stopped is due again when the run is resumed, not its fallback."""

from __future__ import annotations

import pytest

from flujo.core import Fallback, Flujo, RunContext, Snapshot, Step, UsageLimits

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
