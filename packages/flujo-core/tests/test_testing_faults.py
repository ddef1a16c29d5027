"""Faults at named points: they strike where and when they were planned."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import anyio
import pytest

from flujo.core import ConfigurationError, Flujo, MemoryStore, Pipeline, RetryPolicy, Step, StepTimeout, step
from flujo.core.testing import FaultInjector, ScriptedAgent

pytestmark = pytest.mark.anyio


def agents() -> tuple[ScriptedAgent, ScriptedAgent]:
    return ScriptedAgent("drafted", name="draft"), ScriptedAgent("checked", name="check")


async def test_without_faults_it_is_its_backend() -> None:
    draft, check = agents()
    with FaultInjector() as faults:
        result = await Flujo(draft >> check, backend=faults).run_async("x")
    assert result.output == "checked"
    assert faults.struck == []


@pytest.mark.parametrize(("at", "asked"), [("before_step", []), ("after_step", ["drafted"])])
async def test_it_raises_before_or_after_the_step(at: Any, asked: list[str]) -> None:
    draft, check = agents()
    faults = FaultInjector().raises(ConnectionError("lost"), at=at, step="check")
    with pytest.raises(ConnectionError, match="lost"):
        await faults_of(Flujo(draft >> check, backend=faults))
    assert check.calls == asked
    assert faults.struck == [(at, "check")]


async def faults_of(flujo: Flujo) -> None:
    """Run, and raise what the backend raised, whether or not the engine makes a result of it."""
    error = (await flujo.run_async("x")).error
    raise error.__cause__ or error if error is not None else AssertionError("no fault")


async def test_it_sleeps_until_a_timeout() -> None:
    agent = ScriptedAgent("late")
    with FaultInjector().sleeps(30, at="after_step") as faults:
        result = await Flujo(Step(agent, timeout_s=0.05), backend=faults).run_async("x")
    assert isinstance(result.error, StepTimeout)
    assert agent.calls == ["x"]


async def test_attempts_are_visits_and_the_nth_is_struck() -> None:
    agent = ScriptedAgent(OSError("one"), "two")
    retry = RetryPolicy(max_attempts=3, backoff_s=0)
    with FaultInjector().sleeps(30, at="before_step", step="agent", visit=2) as faults:
        flujo = Flujo(Step(agent, retry=retry, timeout_s=0.1), backend=faults)
        result = await flujo.run_async("x")
    assert result.output == "two"
    assert result.step_history[0].attempts == 3
    assert faults.struck == [("before_step", "agent")]


async def test_visits_of_any_step_and_every_visit() -> None:
    draft, check = agents()
    faults = FaultInjector().sleeps(0, at="before_step", visit=2).sleeps(0, at="after_step", visit=None)
    await Flujo(draft >> check, backend=faults).run_async("x")
    assert faults.struck == [("after_step", "draft"), ("before_step", "check"), ("after_step", "check")]


async def test_it_cancels_a_scope_around_the_run() -> None:
    draft, check = agents()
    with anyio.CancelScope() as scope:
        await Flujo(draft >> check, backend=FaultInjector().cancels(scope, at="after_step", step="draft")).run_async(
            "x"
        )
    assert scope.cancelled_caught
    assert (draft.calls, check.calls) == (["x"], [])


async def test_it_cancels_a_run_by_its_handle() -> None:
    draft, check = agents()
    faults = FaultInjector()
    handle = Flujo(draft >> check, backend=faults).start("x")
    faults.cancels(handle, at="before_step", step="check")
    result = await handle.wait()
    assert result.status == "aborted"
    assert check.calls == []


def test_it_kills_the_process(tmp_path: Path) -> None:
    code = """
        from pathlib import Path
        from flujo.core import Flujo, step
        from flujo.core.testing import FaultInjector

        @step
        async def pay(order: str) -> str:
            Path("paid").write_text(order)
            return order

        @step
        async def ship(order: str) -> None:
            Path("shipped").touch()

        try:
            Flujo(pay >> ship, backend=FaultInjector().kills(at="after_step", step="pay")).run("A-17")
        finally:
            Path("cleaned-up").touch()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, timeout=240, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [file.name for file in tmp_path.iterdir()] == ["paid"]


async def test_a_fault_that_never_struck_fails_the_test() -> None:
    faults = FaultInjector().raises(OSError, at="before_step", step="chekc").kills(at="after_step", visit=9)
    draft, check = agents()
    await Flujo(draft >> check, backend=faults).run_async("x")
    message = (
        "planned and never reached: raises <class 'OSError'> before_step of 'chekc', visit 1; "
        "kills after_step of any step, visit 9"
    )
    with pytest.raises(AssertionError) as caught:
        faults.assert_done()
    assert str(caught.value) == message
    with pytest.raises(ZeroDivisionError), FaultInjector().kills(at="before_step"):
        raise ZeroDivisionError


async def test_other_wrappers_have_points_by_reaching_them() -> None:
    faults = FaultInjector().raises(OSError("full"), at="before_step", step="elsewhere", visit=2)
    await faults.reach("before_step", "elsewhere")
    with pytest.raises(OSError, match="full"):
        await faults.reach("before_step", "elsewhere")


async def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="none of before_step, after_step"):
        FaultInjector().kills(at="during_step")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="counted from 1"):
        FaultInjector().kills(at="before_step", visit=0)


async def test_each_step_of_a_fan_out_is_struck_by_itself() -> None:
    @step
    async def left(text: str) -> str:
        return text

    @step
    async def right(text: str) -> str:
        return text

    with FaultInjector().sleeps(30, at="before_step", step="left") as faults:
        flujo = Flujo(Pipeline(Step(left, timeout_s=0.05), right), backend=faults)
        result = await flujo.run_async("x")
    assert result.status == "failed"
    assert faults.struck == [("before_step", "left")]


class Fatal(BaseException):
    """As a KeyboardInterrupt that arrives while a store writes; that itself would end the event loop of the test."""


@pytest.mark.parametrize("at", ["before_write", "after_write", "before_save", "after_save"])
async def test_what_ends_a_store_for_good_is_raised_and_nobody_waits_for_it(at: Any) -> None:
    draft, check = agents()
    store = MemoryStore()
    faults = FaultInjector().raises(Fatal("stop"), at=at)
    with anyio.fail_after(10), pytest.raises(Fatal, match="stop"):
        await Flujo(draft >> check, store=faults.store(store)).run_async("x", run_id="run")
    again = await Flujo(Step(ScriptedAgent("drafted", name="draft")) >> check, store=store.reopened()).recover_async()
    assert [result.output for result in again] == ([] if at == "after_save" else ["checked"])


async def test_a_run_whose_store_failed_is_released_between_points_of_its_own() -> None:
    draft, check = agents()
    faults = FaultInjector().raises(OSError("full"), at="before_write").sleeps(0, at="before_release")
    with faults.sleeps(0, at="after_release"):
        await Flujo(draft >> check, store=faults.store(MemoryStore())).run_async("x")
    assert [point for point, _ in faults.struck] == ["before_write", "before_release", "after_release"]
