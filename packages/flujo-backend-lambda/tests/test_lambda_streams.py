"""What becomes of streaming steps beside a backend that gives each answer whole."""

from __future__ import annotations

import os

import pytest
from lambda_kit import Cloud
from lambda_steps import collects, shout, spells

from flujo.core import Capabilities, Chunk, Flujo, PipelineError, Stage, StepEnded, StreamStep

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


def spelled(backend: str | None = None) -> StreamStep:
    return StreamStep((Stage.of("spells", spells),), name="spells", backend=backend)


async def test_a_stream_that_names_no_backend_is_live_here_and_the_others_run_there(cloud: Cloud) -> None:
    function = cloud.deploy()
    seen: list[str] = []
    async with Flujo(shout >> spelled(), backend=cloud.backend()).stream_async("ab") as stream:
        async for item in stream:
            if isinstance(item, Chunk):
                seen.append(item.value)
            if isinstance(item, StepEnded):
                seen.append(item.step_path)
    letters = stream.result.unwrap()
    assert seen == ["shout", *[f"{letter}@{os.getpid()} " for letter in "AB!"], "spells"]
    assert letters == "".join(seen[1:-1])
    assert len(function.records) == 1  # of the other step
    assert stream.result.counts["executed_by"] == {"lambda": 1}


async def test_a_stream_that_names_it_is_refused_when_the_flujo_is_built(cloud: Cloud) -> None:
    backend = cloud.backend()
    assert backend.capabilities == Capabilities(remote=True, prepare=backend.capabilities.prepare)
    with pytest.raises(PipelineError, match="runs on LambdaBackend, but it is a stream, and no chunks come from there"):
        Flujo(spelled("lambda"), backend={"lambda": backend})


async def test_a_step_that_collects_a_stream_there_gives_it_whole_at_the_end(cloud: Cloud) -> None:
    cloud.deploy()
    async with Flujo(collects, backend=cloud.backend()).stream_async("ab") as stream:
        chunks = [item async for item in stream if isinstance(item, Chunk)]
    assert chunks == []  # what it emits there is not shown
    text = stream.result.unwrap()
    assert isinstance(text, str)
    assert text.count("@") == 2
    assert str(os.getpid()) not in text
