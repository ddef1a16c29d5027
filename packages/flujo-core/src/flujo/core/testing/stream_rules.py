"""The rules for an `ExecutionBackend` that says that it hands over the chunks of streaming steps."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import anyio

from flujo.core import Chunk, Flujo, PipelineResult, StepFailed, StreamStep, UsageLimits, WorkerLost

from . import stream_steps as steps
from .backend_rules import BackendRule, Trial
from .trial_steps import double, mark, marks
from .verdict import demand

AHEAD = 64
"""Most chunks that may be made ahead of the reader."""


async def _read(trial: Trial, step: StreamStep, value: object, **options: Any) -> tuple[list[object], PipelineResult]:
    async with Flujo(step, backend=trial, **options).stream_async(value) as stream:
        chunks = [item.value async for item in stream if isinstance(item, Chunk)]
    return chunks, stream.result


async def chunks_come_at_once(trial: Trial) -> None:
    """A chunk of a streaming step is with the reader before the step goes on."""
    seen: list[object] = []
    async with Flujo(steps.stream_of(steps.until_seen), backend=trial).stream_async(trial.folder) as stream:
        async for item in stream:
            if isinstance(item, Chunk):
                seen.append(item.value)
                mark(trial.folder, "seen")
    demand(seen == ["first", "second"], f"its second chunk waits for the reader of the first, and there came {seen!r}")


async def chunks_are_whole(trial: Trial) -> None:
    """All chunks come, once, in order and with their type, and make the output; also where nobody reads them."""
    rows = [steps.Row(number=number) for number in range(200)]
    chunks, result = await _read(trial, steps.stream_of(steps.rows), 200)
    demand(chunks == rows, f"of 200 chunks came {len(chunks)}, the first is {chunks[:1]!r}")
    demand(result.status == "completed", f"a stream that works ended with {result.error!r}")
    demand(result.output == rows, "the chunks came right, and the output is another")
    output = (await trial.run(steps.stream_of(steps.rows), 200)).output
    demand(output == rows, "nobody read it, and the output is another")


async def reader_sets_the_pace(trial: Trial) -> None:
    """A source waits for its reader; at most a few chunks are made ahead, 64 where a network is between."""
    async with Flujo(steps.stream_of(steps.on_and_on), backend=trial).stream_async(trial.folder) as stream:
        texts = (item async for item in stream if isinstance(item, Chunk))
        demand((await anext(texts)).value == 0, "its first chunk is another")
        demand(await trial.comes_to_rest(), "its reader has one chunk and asks for no more, and it goes on")
        made = marks(trial.folder).count("made") - 1
        demand(made <= AHEAD, f"{made} chunks were made ahead of the reader")
        await texts.aclose()


async def left_stream_is_closed(trial: Trial) -> None:
    """When a reader has left a stream early, or its run is cancelled, its source is closed."""
    async with Flujo(steps.stream_of(steps.on_and_on), backend=trial).stream_async(trial.folder) as stream:
        async for item in stream:
            if isinstance(item, Chunk):
                break
    demand(marks(trial.folder)[-1] == "closed", "its reader has left, and its source goes on")


async def broken_stream_keeps_what_came(trial: Trial) -> None:
    """A stream that fails has given the chunks before, and its error knows them."""
    chunks, result = await _read(trial, steps.stream_of(steps.break_off), "hello")
    error = result.error
    demand(chunks == ["hello"], f"it gave one chunk before it failed, and there came {chunks!r}")
    demand(isinstance(error, StepFailed), f"it failed, and its run ended with {error!r}")
    assert isinstance(error, StepFailed)
    facts = (error.step_path, error.error_type, error.partial)
    demand(facts == ("break_off", "ValueError", "hello"), f"step_path, error_type and partial are {facts!r}")


async def lost_stream_costs_its_lease(trial: Trial) -> None:
    """Where the worker dies in the middle of a stream, its whole lease counts, and the next step works; it is asked of
    remote backends only."""
    if not trial.capabilities.remote:
        return
    step = steps.stream_of(steps.die_between, lease=UsageLimits(total_cost_usd_limit="0.30"))
    with anyio.fail_after(15):
        chunks, result = await _read(trial, step, "hello", limits=UsageLimits(total_cost_usd_limit=1))
    demand(chunks in (["hello"], []), f"it gave one chunk, and there came {chunks!r}")
    demand(isinstance(result.error, WorkerLost), f"its worker was killed, and its run ended with {result.error!r}")
    cost = result.usage.cost_usd
    demand(cost == Decimal("0.30"), f"its lease was 0.30 USD, booked is {cost}")
    demand(await trial.output(double, 21) == 42, "after the death of a worker the next step gets a wrong output")


STREAM_RULES: tuple[BackendRule, ...] = (
    chunks_come_at_once,
    chunks_are_whole,
    reader_sets_the_pace,
    left_stream_is_closed,
    broken_stream_keeps_what_came,
    lost_stream_costs_its_lease,
)
