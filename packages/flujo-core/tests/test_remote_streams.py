"""Streaming steps that run elsewhere: their chunks come while they go on, as those of one that runs here."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import anyio
import pytest
import remote_streams as flows
import trio
from pipe_backend import PipeBackend, Pool

from flujo.core import (
    Capabilities,
    Chunk,
    Flujo,
    LocalBackend,
    Map,
    OnModelCall,
    PipelineError,
    RetryPolicy,
    StepExecutionRequest,
    StepFailed,
    StepOutcome,
    StepTimeout,
    TransformStepOutput,
    UsageLimitExceeded,
    UsageLimits,
    Worker,
    WorkerLost,
    hookimpl,
)
from flujo.core.streamstep import Stage, StreamStep
from flujo.core.testing.trial_steps import marks
from flujo.core.wire import ChunkData

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    made = Pool("remote_streams:plugins")
    yield made
    made.close()


@pytest.fixture
def backend(pool: Pool) -> PipeBackend:
    return PipeBackend(pool)


async def read(flujo: Flujo, run_input: object) -> tuple[list[object], StepOutcome | object]:
    """The chunks that a reader is given, and the result."""
    async with flujo.stream_async(run_input) as stream:
        chunks = [item.value async for item in stream if isinstance(item, Chunk)]
    return chunks, stream.result


# --- as one that runs here --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "given"),
    [
        (flows.stream(flows.words), "a b c"),
        (flows.stream(flows.words, flows.loud), "a b c"),
        (flows.stream(flows.rows), 3),
        (flows.stream(flows.rows, collect="last"), 3),
        (flows.stream(flows.rows, collect="none"), 3),
        (flows.stream(flows.rows, collect=len), 3),
        (flows.stream(flows.rows), 0),
        (StreamStep((Stage.of("talker", flows.talker.stream, flows.talker),), name="talker"), "hi"),
    ],
    ids=lambda value: repr(value),
)
async def test_chunks_and_output_are_those_of_a_step_that_runs_here(
    backend: PipeBackend, step: StreamStep, given: object
) -> None:
    here, there = await read(Flujo(step), given), await read(Flujo(step, backend=backend), given)
    assert there[0] == here[0]
    assert there[1].status == "completed", there[1].error
    assert there[1].output == here[1].output
    assert there[1].counts["executed_by"] == {"pipe": 1}
    assert (await Flujo(step, backend=backend).run_async(given)).output == here[1].output  # nobody reads it


async def test_chunks_come_while_the_step_goes_on(backend: PipeBackend, tmp_path: Path) -> None:
    seen = []
    async with Flujo(flows.stream(flows.waits), backend=backend).stream_async(str(tmp_path)) as stream:
        async for text in stream.text():
            seen.append(text)
            (tmp_path / "seen").touch()
    assert seen == ["first ", "second"]
    assert stream.result.output == "first second"


async def test_a_chain_runs_where_its_first_step_says_and_a_step_without_a_name_is_found_by_that_of_its_module(
    backend: PipeBackend,
) -> None:
    first = flows.stream(flows.words, backend="there")
    chain = first >> flows.made >> StreamStep((Stage.of("loud", flows.loud),), name="loud")
    chunks, result = await read(Flujo(chain, backend={"there": backend}), "a b")
    assert chunks == ["A ", "B "]
    assert result.counts["executed_by"] == {"pipe": 1}
    assert json.loads(backend.sent[-1])["code"]["refs"] == [
        "remote_streams:words", "remote_streams:made", "remote_streams:loud",
    ]  # fmt: skip
    with pytest.raises(PipelineError, match="move backend there"):
        Flujo(flows.stream(flows.words) >> flows.stream(flows.loud, backend="there"), backend={"there": backend})


async def test_streams_side_by_side_keep_their_chunks_apart(backend: PipeBackend) -> None:
    seen: dict[str, str] = {}
    async with Flujo(Map(flows.stream(flows.words)), backend=backend).stream_async(["a b", "c", "d e f"]) as stream:
        async for item in stream:
            if isinstance(item, Chunk):
                seen[item.step_path] = seen.get(item.step_path, "") + item.value
    assert list(dict(sorted(seen.items())).values()) == stream.result.unwrap() == ["a b ", "c ", "d e f "]


async def test_a_stream_reads_the_declared_context_and_resources_there(backend: PipeBackend) -> None:
    step = flows.stream(flows.knows, reads=("subject",))
    flujo = Flujo(step, backend=backend, context_model=flows.Facts, resources=flows.Tools(word="ho"))
    async with flujo.stream_async("", context=flows.Facts(subject="hey")) as stream:
        assert "".join([text async for text in stream.text()]) == "hey ho"
    assert "not for workers" not in backend.sent[-1]


async def test_a_backend_that_does_not_wait_for_its_reader_loses_no_chunk_unseen() -> None:
    class Impatient:
        capabilities = Capabilities(remote=True, streams=True)

        async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
            async def hurry(chunk: str) -> None:
                with anyio.move_on_after(0.05):
                    await request.give(chunk)

            async with Worker() as worker:
                answer = await worker.execute(request.task().model_dump_json(), hurry)
            return request.outcome(answer)

    async with Flujo(flows.stream(flows.words), backend=Impatient()).stream_async("a b c") as stream:
        async for _ in stream:
            await anyio.sleep(0.3)
    assert isinstance(stream.result.error, StepFailed)
    assert stream.result.error.error_type == "AnswerMismatch"


@pytest.mark.parametrize("numbers", [(0, 0), (0, 1)])
async def test_of_two_chunks_that_are_given_at_once_the_second_is_refused(numbers: tuple[int, int]) -> None:
    class Hasty:
        capabilities = Capabilities(remote=True, streams=True)

        async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
            task = request.task()
            chunks = [ChunkData(task_id=task.id, number=one, value=f"{one} ").model_dump_json() for one in numbers]
            async with anyio.create_task_group() as group:
                group.start_soon(request.give, chunks[0])
                await anyio.sleep(0.05)  # until the first lies there, and its reader is away
                await request.give(chunks[1])
            raise AssertionError("it was taken")

    with anyio.fail_after(10):
        async with Flujo(flows.stream(flows.words), backend=Hasty()).stream_async("a b c") as stream:
            await anyio.sleep(0.3)
            async for _ in stream:
                pass
    assert stream.result.status == "failed"


def test_a_stream_of_trio_goes_on_inside_a_task_of_asyncio() -> None:
    async def inner() -> list[object]:
        with anyio.fail_after(10):
            return (await read(Flujo(flows.stream(flows.words)), "a b c"))[0]

    async def outer() -> list[object]:
        return trio.run(inner)

    assert asyncio.run(outer()) == asyncio.run(inner())


async def test_a_worker_makes_no_chunk_before_its_reader_asks_for_it(backend: PipeBackend, tmp_path: Path) -> None:
    async with Flujo(flows.stream(flows.held), backend=backend).stream_async(str(tmp_path)) as stream:
        texts = stream.text()
        for number in range(3):
            assert await anext(texts) == f"{number} "
            await anyio.sleep(0.2)
            assert marks(str(tmp_path))[-1] == f"made-{number}"
    assert marks(str(tmp_path))[-1] == "closed"  # before the next statement


# --- ends -------------------------------------------------------------------------------------------------------------


async def test_a_timeout_closes_the_source_there_and_keeps_what_came(backend: PipeBackend, tmp_path: Path) -> None:
    step = flows.stream(flows.hangs, timeout_s=0.3)
    chunks, result = await read(Flujo(step, backend=backend), str(tmp_path))
    assert chunks == ["one "]
    assert isinstance(result.error, StepTimeout)
    assert result.error.partial == "one "
    assert marks(str(tmp_path)) == ["hangs", "closed"]


async def test_of_a_stream_whose_time_was_up_the_worker_says_what_it_used_if_its_reader_hears_it(
    backend: PipeBackend,
) -> None:
    step = flows.stream(flows.pays_and_hangs, timeout_s=0.3, lease=UsageLimits(total_cost_usd_limit="0.50"))
    limits = UsageLimits(total_cost_usd_limit=1)
    for waits_s, cost in ((0, "0.10"), (2, "0.50")):
        async with Flujo(step, backend=backend, limits=limits).stream_async(1) as stream:
            async for item in stream:
                await anyio.sleep(waits_s if isinstance(item, Chunk) else 0)
        assert isinstance(stream.result.error, StepTimeout)
        assert stream.result.total_cost_usd == Decimal(cost)


async def test_a_cancel_from_outside_closes_the_source_there(backend: PipeBackend, tmp_path: Path) -> None:
    with anyio.move_on_after(0.5) as limit:
        await read(Flujo(flows.stream(flows.hangs), backend=backend), str(tmp_path))
    assert limit.cancelled_caught
    assert marks(str(tmp_path)) == ["hangs", "closed"]


async def test_an_error_there_comes_after_the_chunks_and_names_itself(backend: PipeBackend) -> None:
    for step in (flows.stream(flows.breaks), flows.stream(flows.breaks, flows.loud)):
        chunks, result = await read(Flujo(step, backend=backend), "a")
        assert [str(chunk).lower() for chunk in chunks] == ["a"]
        assert isinstance(result.error, StepFailed)
        assert result.error.error_type == "ValueError"
        assert "it broke" in str(result.error)
        assert str(result.error.partial).lower() == "a"
        assert not getattr(result.error, "__notes__", [])


async def test_a_worker_that_dies_in_the_middle_costs_its_whole_lease_and_what_came_is_kept(
    backend: PipeBackend,
) -> None:
    lease = UsageLimits(total_cost_usd_limit="0.30")
    step = flows.stream(flows.dies, lease=lease, retry=RetryPolicy(max_attempts=2, backoff_s=0))
    limits = UsageLimits(total_cost_usd_limit=1)
    chunks, result = await read(Flujo(step, backend=backend, limits=limits), "one ")
    assert chunks == ["one "]
    assert isinstance(result.error, WorkerLost)
    assert "its process went away" in str(result.error)
    assert result.error.partial == "one "
    assert result.total_cost_usd == Decimal("0.30")  # once: a reader was given a part, so it is not tried again
    unread = await Flujo(step, backend=backend, limits=limits).run_async("one ")
    assert unread.total_cost_usd == Decimal("0.60")


async def test_a_limit_ends_a_stream_within_its_lease(backend: PipeBackend) -> None:
    limits = UsageLimits(total_cost_usd_limit="0.35")
    chunks, result = await read(Flujo(flows.stream(flows.pays), backend=backend, limits=limits), 10)
    assert chunks == ["0 ", "1 ", "2 "]
    assert result.status == "stopped"
    assert isinstance(result.error, UsageLimitExceeded)
    assert result.total_cost_usd == Decimal("0.30")
    chunks, result = await read(Flujo(flows.stream(flows.pays), backend=backend, limits=limits), 2)
    assert (result.status, result.total_cost_usd) == ("completed", Decimal("0.20"))


async def test_a_stream_that_is_left_early_costs_its_lease_and_one_that_can_use_nothing_costs_nothing(
    backend: PipeBackend, tmp_path: Path
) -> None:
    lease, limits = UsageLimits(total_cost_usd_limit="0.50"), UsageLimits(total_cost_usd_limit=1)
    for step, given, cost in ((flows.pays, 10, "0.50"), (flows.held, str(tmp_path), "0")):
        flujo = Flujo(flows.stream(step, lease=lease), backend=backend, limits=limits)
        async with flujo.stream_async(given) as stream:
            assert await anext(stream.text())
        assert stream.result.total_cost_usd == Decimal(cost)


async def test_a_stream_that_asks_a_human_goes_on_where_its_reader_was(backend: PipeBackend) -> None:
    flujo = Flujo(flows.stream(flows.asks), backend=backend)
    chunks, result = await read(flujo, "pay")
    assert (chunks, result.status) == (["pay? "], "paused")
    async with flujo.resume_stream_async(result, True) as stream:
        assert [item.value async for item in stream if isinstance(item, Chunk)] == ["True"]
    assert stream.result.output == "pay? True"


# --- hooks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("away", [False, True])
async def test_each_chunk_is_transformed_once_a_models_there_and_the_steps_here(
    backend: PipeBackend, away: bool
) -> None:
    seen: list[OnModelCall] = []

    def watch(event: OnModelCall) -> None:
        seen.append(event)

    places = {"backend": backend} if away else {}
    flujo = Flujo(flows.stream(flows.talks), plugins=[flows.Marks()], hooks=[watch], **places)
    chunks, result = await read(flujo, "a b")
    assert chunks == ["<step:<model:a >>", "<step:<model:b >>"]
    assert result.output == "".join(map(str, chunks))
    assert result.counts["chunks"] == {"model": 2, "step": 2}
    assert result.total_cost_usd == Decimal("0.020")
    assert [event.usage.total_tokens for event in seen] == [15]


async def test_chunks_that_only_a_transform_of_the_whole_may_change_are_shown_after_it(backend: PipeBackend) -> None:
    class Whole:
        @hookimpl
        def transform_step_output(self, payload: TransformStepOutput) -> object:
            return f"[{payload.value}]"

    chunks, result = await read(Flujo(flows.stream(flows.words), backend=backend, plugins=[Whole()]), "a b")
    assert (chunks, result.output) == (["[a b ]"], "[a b ]")


async def test_a_transform_that_fails_here_ends_the_stream_there(backend: PipeBackend, tmp_path: Path) -> None:
    class Broken:
        @hookimpl
        def transform_chunk(self, payload: object) -> str:
            raise ValueError("no")

    broken = Flujo(flows.stream(flows.held), backend=backend, plugins=[Broken()])
    with pytest.MonkeyPatch.context() as patched:  # it acts on no model there, so none need be there
        patched.setattr("flujo.core.away.ACTS", ("guard_step",))
        broken = Flujo(flows.stream(flows.held), backend=backend, plugins=[Broken()])
        chunks, result = await read(broken, str(tmp_path))
    assert chunks == []
    assert result.status == "failed"
    assert marks(str(tmp_path))[-1] == "closed"


# --- what is refused --------------------------------------------------------------------------------------------------


class Remote(LocalBackend):
    """Says that it is remote, and hands over no chunks."""

    capabilities = Capabilities(remote=True)


class Streaming(LocalBackend):
    """Says that it hands over chunks."""

    capabilities = Capabilities(remote=True, streams=True)


async def test_a_backend_without_chunks_is_refused_by_name_and_left_alone_otherwise() -> None:
    named = flows.stream(flows.words, backend="far")
    with pytest.raises(PipelineError, match="'words' runs on Remote, but it is a stream, and no chunks come"):
        Flujo(named, backend={"far": Remote()})
    chunks, result = await read(Flujo(flows.stream(flows.where), backend=Remote()), "")
    assert chunks == [os.getpid()]
    assert "executed_by" not in result.counts


async def test_a_generator_that_no_import_path_leads_to_is_found_when_the_flujo_is_built() -> None:
    local = StreamStep((Stage.of("local", lambda text: flows.words(text)),), name="local")
    with pytest.raises(PipelineError, match="nothing can import all its stages"):
        Flujo(local, backend=Streaming())
    with pytest.raises(PipelineError, match="its chunks, Pool, cannot travel"):
        Flujo(flows.stream(_gives_pool), backend=Streaming())


async def _gives_pool(_: int) -> Iterator[Pool]:  # type: ignore[misc]
    yield Pool()


async def test_a_chunk_that_json_cannot_hold_fails_the_step(backend: PipeBackend) -> None:
    result = await Flujo(flows.stream(flows.unkept), backend=backend).run_async(1)
    assert isinstance(result.error, StepFailed)
    assert result.error.error_type == "NotSerialisable"


def _with(**facts: object) -> Callable[[str], str]:
    """Changes chunks, not the outcome."""
    return lambda text: json.dumps({**json.loads(text), **facts}) if '"number"' in text[:120] else text


@pytest.mark.parametrize(
    "changed",
    [
        lambda _: "\x80\x04\x95pickled",
        lambda text: text.replace('"value":"a "', '"value":NaN'),
        lambda text: text.replace('"value":"a "', '"value":"\\ud800"'),
        lambda text: text.replace('"output":2', '"output":3'),
        _with(value=1),
        _with(number=7),
        _with(task_id="0" * 64),
        _with(extra=1),
    ],
)
async def test_a_chunk_that_does_not_fit_fails_the_step_and_costs_its_whole_lease(
    pool: Pool, changed: Callable[[str], str]
) -> None:
    backend = PipeBackend(pool, changed=changed)
    step = flows.stream(_says, lease=UsageLimits(total_cost_usd_limit="0.25"))
    result = await Flujo(step, backend=backend, limits=UsageLimits(total_cost_usd_limit=1)).run_async("a b")
    assert isinstance(result.error, StepFailed)
    assert result.error.error_type == "AnswerMismatch"
    assert result.total_cost_usd == Decimal("0.25")


_says = flows.talks_not


async def test_a_worker_that_is_not_told_where_chunks_go_refuses_a_stream() -> None:
    class Deaf:
        capabilities = Capabilities(remote=True, streams=True)

        async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
            async with Worker() as worker:
                return request.outcome(await worker.execute(request.task().model_dump_json()))

    result = await Flujo(flows.stream(flows.words), backend=Deaf()).run_async("a")
    assert result.status == "aborted"
    assert "who brought the task takes no chunks" in str(result.error)


async def test_chunks_of_a_step_that_is_no_stream_are_refused() -> None:
    class Talkative:
        capabilities = Capabilities(remote=True)

        async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
            request.task()
            await request.give("{}")
            raise AssertionError("it was taken")

    result = await Flujo(flows.step_of_one, backend=Talkative()).run_async(1)
    assert "the step is no stream" in str(result.error)
