"""The main path: what a run does with its steps, in which order, and what it gives back."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest

from flujo.core import (
    Flujo,
    FlujoError,
    InputError,
    OnRetry,
    Pipeline,
    Resource,
    Resources,
    RetryPolicy,
    RunAborted,
    RunContext,
    RunExists,
    Step,
    StepFailed,
    StepTimeout,
    run_input,
    step,
)

pytestmark = pytest.mark.anyio


@step
async def double(value: int) -> int:
    return 2 * value


@step
async def increase(value: int) -> int:
    return value + 1


@step
async def fail(value: int) -> int:
    raise ValueError(f"no good: {value}")


async def test_chain_gives_each_step_what_the_one_before_returned() -> None:
    result = await Flujo(double >> increase >> Step(double, name="again")).run_async(3)
    assert result.output == 14
    assert result.status == "completed"
    assert [(r.name, r.output, r.status, r.attempts) for r in result.step_history] == [
        ("double", 6, "completed", 1),
        ("increase", 7, "completed", 1),
        ("again", 14, "completed", 1),
    ]


async def test_a_single_step_is_a_pipeline() -> None:
    assert (await Flujo(double).run_async(2)).output == 4


async def test_declared_inputs_make_a_graph_whose_free_branches_run_at_the_same_time() -> None:
    meeting = {"left": anyio.Event(), "right": anyio.Event()}

    async def left(value: int) -> int:
        meeting["left"].set()
        await meeting["right"].wait()  # only passes while `right` is running too
        return value

    async def right(value: int) -> int:
        meeting["right"].set()
        await meeting["left"].wait()
        return 10 * value

    first = Step(double)
    one, other = Step(left, inputs={"value": first}), Step(right, inputs={"value": first})

    async def join(a: int, b: int, raw: int) -> tuple[int, int, int]:
        return a, b, raw

    end = Step(join, inputs={"a": one, "b": other, "raw": run_input()})
    with anyio.fail_after(5):
        result = await Flujo(Pipeline(first, one, other, end)).run_async(1)
    assert result.output == (2, 20, 1)
    assert result.step_history[0].name == "double"
    assert result.step_history[-1].name == "join"


async def test_several_ends_give_a_dict_by_step_name() -> None:
    result = await Flujo(Pipeline(double, increase)).run_async(5)
    assert result.output == {"double": 10, "increase": 6}


async def test_output_says_what_the_pipeline_gives() -> None:
    assert (await Flujo(Pipeline(double >> increase, output=double)).run_async(5)).output == 10


async def test_a_failed_step_is_a_result_that_keeps_what_was_done() -> None:
    result = await Flujo(double >> fail >> increase).run_async(1)
    assert result.status == "failed"
    assert [(r.name, r.status) for r in result.step_history] == [("double", "completed"), ("fail", "failed")]
    assert isinstance(result.error, StepFailed)
    assert str(result.error) == "step 'fail' failed: ValueError: no good: 2"
    assert isinstance(result.error.__cause__, ValueError)
    with pytest.raises(StepFailed):
        _ = result.output
    with pytest.raises(StepFailed):
        result.unwrap()


async def test_repr_of_a_result_never_raises_and_shows_no_output() -> None:
    text = repr(await Flujo(double >> fail).run_async(1))
    assert "failed" in text
    assert "StepFailed" in text
    assert "no good" not in text


async def test_a_failure_cancels_the_branches_that_run_beside_it() -> None:
    running = anyio.Event()

    async def slow(value: int) -> int:
        running.set()
        await anyio.sleep(30)
        return value

    async def fail_later(value: int) -> int:
        await running.wait()
        raise ValueError("no good")

    started = time.perf_counter()
    result = await Flujo(Pipeline(Step(fail_later), Step(slow))).run_async(1)
    assert time.perf_counter() - started < 5
    assert result.status == "failed"
    assert {r.name: r.status for r in result.step_history} == {"fail_later": "failed", "slow": "cancelled"}


async def test_an_output_of_another_type_is_a_failure_of_the_step_that_gave_it() -> None:
    async def liar(value: int) -> int:
        return "text"  # type: ignore[return-value]

    result = await Flujo(Step(liar) >> increase).run_async(1)
    assert [r.name for r in result.step_history] == ["liar"]
    assert "step 'liar' failed" in str(result.error)
    assert "returned str, declared is int" in str(result.error)


async def test_validate_checks_an_output_deeply() -> None:
    async def words(value: int) -> list[str]:
        return [value]  # type: ignore[list-item]

    assert (await Flujo(Step(words)).run_async(1)).status == "completed"
    deep = await Flujo(Step(words, validate=True)).run_async(1)
    assert deep.status == "failed"
    assert "OutputMismatch" in str(deep.error)


async def test_run_input_is_checked_before_anything_runs() -> None:
    ran = []

    async def note(value: int) -> int:
        ran.append(value)
        return value

    flujo = Flujo(Step(note))
    with pytest.raises(InputError, match="does not fit"):
        await flujo.run_async("three")
    assert ran == []


async def test_input_errors_do_not_show_the_input() -> None:
    with pytest.raises(InputError) as caught:
        await Flujo(double).run_async("very private text")
    assert "private" not in str(caught.value)


async def test_a_failed_attempt_is_made_again_and_told() -> None:
    seen: list[OnRetry] = []
    calls = []

    async def flaky(value: int, ctx: RunContext) -> int:
        calls.append((ctx.attempt, ctx.idempotency_key))
        if ctx.attempt < 3:
            raise OSError("not yet")
        return value

    def on_retry(event: OnRetry) -> None:
        seen.append(event)

    retry = RetryPolicy(max_attempts=3, backoff_s=0.001)
    result = await Flujo(Step(flaky, retry=retry), hooks=[on_retry]).run_async(7)
    assert result.output == 7
    assert result.step_history[0].attempts == 3
    assert [attempt for attempt, _ in calls] == [1, 2, 3]
    assert len({key for _, key in calls}) == 1
    assert [(e.attempt, e.error_type) for e in seen] == [(1, "OSError"), (2, "OSError")]


async def test_only_the_named_errors_are_tried_again() -> None:
    calls = []

    async def wrong(value: int) -> int:
        calls.append(value)
        raise KeyError("x")

    retry = RetryPolicy(max_attempts=3, backoff_s=0, retry_on=(OSError,))
    assert (await Flujo(Step(wrong, retry=retry)).run_async(1)).status == "failed"
    assert len(calls) == 1


async def test_a_timeout_cancels_an_async_step() -> None:
    cancelled = []

    async def slow(value: int) -> int:
        try:
            await anyio.sleep(30)
        except anyio.get_cancelled_exc_class():
            cancelled.append(value)
            raise
        return value

    result = await Flujo(Step(slow, timeout_s=0.02)).run_async(1)
    assert cancelled == [1]
    assert isinstance(result.error, StepTimeout)
    assert not result.error.abandoned
    assert result.status == "failed"


async def test_a_timeout_error_of_the_step_itself_is_an_ordinary_failure() -> None:
    async def own(value: int) -> int:
        raise TimeoutError("the service was late")

    result = await Flujo(Step(own, timeout_s=30)).run_async(1)
    assert isinstance(result.error, StepFailed)
    assert not isinstance(result.error, StepTimeout)


@pytest.mark.alone
async def test_a_sync_step_is_abandoned_at_its_timeout() -> None:
    def slow(value: int) -> int:
        time.sleep(0.3)
        return value

    started = time.perf_counter()
    result = await Flujo(Step(slow, timeout_s=0.02)).run_async(1)
    assert time.perf_counter() - started < 0.25
    assert isinstance(result.error, StepTimeout)
    assert result.error.abandoned
    assert "abandoned" in str(result.error)


@pytest.mark.alone
async def test_sync_steps_run_in_more_threads_than_anyios_own_limit() -> None:
    def wait(value: int) -> int:
        time.sleep(0.2)
        return value

    steps = [Step(wait, name=f"wait{n}") for n in range(100)]
    started = time.perf_counter()
    result = await Flujo(Pipeline(*steps)).run_async(1)
    assert result.status == "completed"
    assert time.perf_counter() - started < 1.5  # 40 threads would need three rounds; 100 x 0.2 s in a row is 20 s


async def test_an_inline_step_runs_on_the_event_loop() -> None:
    def where(value: int) -> Any:
        return anyio.get_current_task().id  # raises in a worker thread

    result = await Flujo(Step(where, inline=True)).run_async(1)
    assert isinstance(result.output, int)


async def test_a_deadline_ends_the_run_and_keeps_what_was_done() -> None:
    async def slow(value: int) -> int:
        await anyio.sleep(30)
        return value

    result = await Flujo(double >> Step(slow)).run_async(1, deadline_s=0.05)
    assert result.status == "aborted"
    assert isinstance(result.error, RunAborted)
    assert "deadline" in str(result.error)
    assert [(r.name, r.status) for r in result.step_history] == [("double", "completed"), ("slow", "cancelled")]


async def test_a_cancel_from_outside_is_not_swallowed() -> None:
    ended = []

    async def slow(value: int) -> int:
        try:
            await anyio.sleep(30)
        finally:
            ended.append(value)
        return value

    with anyio.move_on_after(0.02) as scope:
        await Flujo(Pipeline(Step(slow), double)).run_async(1)
    assert scope.cancelled_caught
    assert ended == [1]


async def test_start_gives_a_handle_whose_cancel_leads_to_an_aborted_result() -> None:
    began = anyio.Event()

    async def slow(value: int) -> int:
        began.set()
        await anyio.sleep(30)
        return value

    handle = Flujo(double >> Step(slow)).start(1)
    await began.wait()
    handle.cancel("no longer needed")
    result = await handle.wait()
    assert result.run_id == handle.run_id
    assert result.status == "aborted"
    assert "no longer needed" in str(result.error)
    assert result.step_history[0].output == 2


async def test_a_started_run_completes_by_itself() -> None:
    assert (await Flujo(double).start(4).wait()).output == 8


async def test_a_run_id_is_used_once_at_a_time() -> None:
    gate = anyio.Event()

    async def wait(value: int) -> int:
        await gate.wait()
        return value

    flujo = Flujo(Step(wait))
    handle = flujo.start(1, run_id="mine")
    await anyio.sleep(0.01)
    with pytest.raises(RunExists, match="mine"):
        await flujo.run_async(2, run_id="mine")
    gate.set()
    assert (await handle.wait()).output == 1


async def test_one_flujo_runs_many_times_at_once_without_mixing() -> None:
    async def wait(value: int) -> int:
        await anyio.sleep(0.001 * (value % 7))
        return value

    flujo = Flujo(Step(wait) >> double >> increase)
    outputs: dict[int, object] = {}

    async def one(n: int) -> None:
        outputs[n] = (await flujo.run_async(n)).output

    async with anyio.create_task_group() as group:
        for n in range(200):
            group.start_soon(one, n)
    assert outputs == {n: 2 * n + 1 for n in range(200)}


async def test_run_inside_a_running_loop_says_what_to_use() -> None:
    with pytest.raises(FlujoError, match=r"await flujo\.run_async"):
        Flujo(double).run(1)


async def test_a_step_without_inputs_runs_and_a_part_of_the_input_can_be_taken() -> None:
    async def constant() -> int:
        return 5

    async def add(a: int, b: int) -> int:
        return a + b

    base = Step(constant)
    end = Step(add, inputs={"a": base, "b": run_input()["n"]})
    assert (await Flujo(Pipeline(base, end)).run_async({"n": 3})).output == 8
    missing = await Flujo(Pipeline(base, end)).run_async({})
    assert missing.status == "failed"
    assert "a part of its input is missing" in str(missing.error)


async def test_run_facts_reach_the_step() -> None:
    async def who(value: int, ctx: RunContext) -> tuple[str, str | None, str | None, str]:
        return ctx.run_id, ctx.run.actor, ctx.run.tenant, ctx.run.tags["case"]

    result = await Flujo(Step(who)).run_async(1, run_id="r1", actor="ada", tenant="acme", tags={"case": "7"})
    assert result.output == ("r1", "ada", "acme", "7")


def test_sync_run_works_without_a_loop() -> None:
    assert Flujo(double).run(4).output == 8


def test_a_secret_in_an_exception_text_does_not_reach_the_error() -> None:
    async def leak(value: int) -> int:
        raise RuntimeError("cannot log in with password=hunter2secret")

    result = Flujo(Step(leak)).run(1)
    assert "hunter2" not in str(result.error)


def test_thousands_of_steps_run_without_recursion() -> None:
    async def plus(value: int) -> int:
        return value + 1

    chain = Step(plus, name="s0") >> Step(plus, name="s1")
    for n in range(2, 3000):
        chain = chain >> Step(plus, name=f"s{n}")
    assert Flujo(chain).run(0).output == 3000


async def test_a_plain_function_that_makes_a_coroutine_is_awaited() -> None:
    async def fetch(value: int) -> int:
        return value + 1

    for inline in (False, True):
        lazy = Step(lambda value: fetch(value), name="lazy", inline=inline)
        assert (await Flujo(lazy).run_async(1)).output == 2


class Pool:
    """A resource that works in the background, as clients of message brokers do."""

    def __init__(self) -> None:
        self.beats = 0
        self._group = anyio.create_task_group()

    async def __aenter__(self) -> Pool:
        await self._group.__aenter__()
        self._group.start_soon(self._beat)
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)

    async def _beat(self) -> None:
        while True:
            self.beats += 1
            await anyio.sleep(0.001)


class Own(Resources):
    """Resources with a constructor of their own."""

    pool: Pool = Resource(Pool, scope="step")

    def __init__(self, label: str) -> None:
        super().__init__()
        self._label = label


async def test_a_resource_with_a_task_group_of_its_own_lives_for_one_attempt() -> None:
    async def use(value: int, pool: Pool, everything: Own) -> tuple[int, str, bool]:
        await anyio.sleep(0.01)
        return pool.beats, everything._label, everything.pool is pool

    result = await Flujo(Step(use), resources=Own("mine")).run_async(1)
    assert result.status == "completed", result.error
    beats, label, same = result.unwrap()  # type: ignore[misc]
    assert beats > 0
    assert (label, same) == ("mine", True)
