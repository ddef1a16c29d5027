"""Steps on a real Ray cluster of this machine, which is started once."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import anyio
import pytest
import ray_steps as steps

from flujo.backend_ray import NeedsAsyncio, RayBackend
from flujo.backend_ray.actor import StepActor
from flujo.backend_ray.backend import START_S
from flujo.core import (
    Capabilities,
    Flujo,
    GuardDenied,
    Map,
    PipelineError,
    Step,
    StepExecutionRequest,
    StepFailed,
    StepOutcome,
    UsageLimitExceeded,
    UsageLimits,
)
from flujo.core.testing import assert_conforms
from flujo.core.testing.remote_rules import REMOTE_RULES
from flujo.core.testing.stream_rules import STREAM_RULES

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def backend() -> Iterator[RayBackend]:
    made = RayBackend(actors=2)
    assert made.capabilities.prepare is not None
    anyio.run(made.capabilities.prepare)  # on a busy machine a cluster starts slowly, and the tests have their limits
    yield made
    anyio.run(made.aclose)


def test_it_holds_every_rule_of_a_remote_backend(backend: RayBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flujo.core.testing.conformance.LIMIT_S", 120)  # a rule kills an actor, and another starts
    held = assert_conforms(backend, loops=["asyncio"])
    assert {rule.__name__ for rule in (*REMOTE_RULES, *STREAM_RULES)} <= set(held)


def test_a_thousand_items_keep_their_order(backend: RayBackend) -> None:
    result = Flujo(steps.doubled, backend=backend).run(list(range(1000)))
    assert result.unwrap() == [2 * number for number in range(1000)]
    assert result.counts["executed_by"] == {"ray": 1000}


def test_a_budget_for_five_of_a_hundred_lets_exactly_five_through(backend: RayBackend) -> None:
    limits = UsageLimits(total_cost_usd_limit="0.50")
    result = Flujo(Map(steps.cost_ten_cents), backend=backend, limits=limits).run(list(range(100)))
    assert result.status == "stopped"
    assert isinstance(result.error, UsageLimitExceeded)
    assert result.total_cost_usd == Decimal("0.50")
    assert sum(record.status == "completed" for record in result.step_history) == 5


def test_a_resource_of_app_scope_is_opened_once_in_each_process(backend: RayBackend) -> None:
    flujo = Flujo(Map(steps.how_often), backend=backend, resources=steps.AppResources())
    outputs = [pair for _ in range(3) for pair in flujo.run(list(range(20))).unwrap()]  # type: ignore[attr-defined]
    assert os.getpid() not in {pid for pid, _ in outputs}
    assert {opened for _, opened in outputs} == {1}


def test_steps_that_cannot_leave_are_found_when_the_flujo_is_built(backend: RayBackend) -> None:
    async def local(number: int) -> int:
        return number

    with pytest.raises(PipelineError, match=r"step 'local' runs on RayBackend, but nothing can import its code"):
        Flujo(Step(local), backend=backend)


def test_guards_act_in_the_actors(backend: RayBackend, tmp_path: Path) -> None:
    guarded = RayBackend(actors=1, worker="ray_steps:worker")
    result = Flujo(steps.delete, backend=guarded, plugins=[steps.NoDeleting()]).run(str(tmp_path))
    assert result.status == "aborted"
    assert isinstance(result.error, GuardDenied)
    assert (result.error.plugin, result.error.hook) == ("NoDeleting", "guard_tool_call")
    assert not (tmp_path / "deleted").exists()


def test_on_trio_it_says_that_it_needs_asyncio(backend: RayBackend) -> None:
    result = anyio.run(Flujo(steps.double, backend=backend).run_async, 1, backend="trio")
    assert isinstance(result.error, StepFailed)
    assert isinstance(result.error.__cause__, NeedsAsyncio)


def test_a_step_names_it_and_the_others_run_here(backend: RayBackend) -> None:
    here, there = Step(steps.double, name="here"), Step(steps.double, name="there", backend="ray")
    result = Flujo(here >> there, backend={"ray": backend}).run(1)
    assert result.unwrap() == 4
    assert result.counts["executed_by"] == {"ray": 1}


def test_an_actor_that_cannot_start_says_why(backend: RayBackend) -> None:
    result = Flujo(steps.double, backend=RayBackend(actors=1, worker="nowhere:make")).run(1)
    assert "WorkerLost" in str(result.error)
    assert "No module named 'nowhere'" in str(result.error)


def test_options_of_the_actors_win_but_for_retries_of_ray(backend: RayBackend, tmp_path: Path) -> None:
    asked = RayBackend(actors=1, actor_options={"num_cpus": 1, "max_task_retries": 3, "max_restarts": 3})
    result = Flujo(steps.dies_once, backend=asked).run(str(tmp_path / "mark"))
    assert "WorkerLost" in str(result.error)
    assert (tmp_path / "mark").read_text(encoding="utf-8") == "ran\n"


def test_a_step_that_raises_keyboard_interrupt_fails_and_its_actor_lives(backend: RayBackend) -> None:
    """It ended the actor's event loop: the run waited for ever."""
    alone = RayBackend(actors=1)
    before, failed, after = (Flujo(steps.interrupts, backend=alone).run(number) for number in range(3))
    assert "it raised KeyboardInterrupt" in str(failed.error)
    assert after.unwrap() == before.unwrap()


class Catching:
    """A backend that keeps the task it should send."""

    capabilities = Capabilities(remote=True)
    task = ""

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        self.task = request.task().model_dump_json()
        raise RuntimeError("caught")


def test_a_cancel_that_comes_before_its_step_has_begun_ends_it() -> None:
    """Both may reach an actor in one turn of its loop: a cancel that is missed would kill the actor 10 s later."""
    catching = Catching()
    Flujo(steps.sleeps, backend=catching).run(60)

    async def cancelled() -> list[tuple[int, str]]:
        actor = StepActor([])
        answers = actor.run([(1, catching.task)])
        first = asyncio.ensure_future(anext(answers))
        await asyncio.sleep(0)  # `run` has begun, its step has not
        await actor.cancel(1)
        return await first

    assert asyncio.run(asyncio.wait_for(cancelled(), 30)) == [(1, "")]


def test_a_cancel_does_not_wait_for_actors_that_the_cluster_has_no_room_for(backend: RayBackend) -> None:
    crowded = RayBackend(actors=1, actor_options={"num_cpus": 1000})

    async def give_up() -> float:
        with anyio.move_on_after(1):
            await Flujo(steps.doubled, backend=crowded).run_async([1])
        since = anyio.current_time()
        await crowded.aclose()
        return anyio.current_time() - since

    since = time.monotonic()
    closed_s = anyio.run(give_up)
    assert time.monotonic() - since < START_S / 2
    assert closed_s < START_S / 2
    assert not crowded._actors


def test_the_command_line_needs_no_setup(tmp_path: Path) -> None:
    """It starts a cluster of its own, whatever a file in the temp directory names, and leaves nothing of it."""
    planted = tmp_path / "ray" / "ray_current_cluster"
    planted.parent.mkdir()
    planted.write_text("192.0.2.2:6399", encoding="utf-8")
    (tmp_path / "flow.py").write_text((Path(__file__).parent / "ray_steps.py").read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "flujo_cli", "run", "flow.py:hurried", "--backend", "ray", "--text", "21"]
    env = {**os.environ, "RAY_TMPDIR": str(tmp_path)}
    command.append("--json")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
    [item] = [row for row in map(json.loads, done.stdout.splitlines()) if row["type"] == "item"]
    output, folder, open_to_others, mode = item["output"]
    assert (output, open_to_others, mode) == (42, 0, "token")
    assert folder.startswith("/tmp/flujo-ray-")
    assert not Path(folder).exists()
