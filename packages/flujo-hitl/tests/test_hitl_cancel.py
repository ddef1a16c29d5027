"""A run is cancelled in the process that holds it, whatever that is."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import pytest
from hitl_trials import HERE, run, store_at

from flujo.core import Flujo, Pipeline, RunAborted, Step
from flujo.hitl.store import KeepingStore

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, path: Path) -> str:
    """A store of each kind, for other processes."""
    return str(path) if request.param == "sqlite" else str(request.getfixturevalue("place"))


@contextmanager
def slow_run(where: str, effects: Path, lease_s: float, steps_s: float) -> Iterator[subprocess.Popen[str]]:
    """Another process, that runs `slow`, once it has begun."""
    words = [where, str(lease_s), str(effects), str(steps_s)]
    running = subprocess.Popen([sys.executable, str(HERE / "hitl_slow_run.py"), *words], stdout=-1, text=True)
    try:
        while not effects.exists():
            assert running.poll() is None
            time.sleep(0.02)
        yield running
    finally:
        running.kill()
        running.communicate()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("lease_s", "steps_s"), [(0.9, 0), (900, 0.02)], ids=["it hears of it with its beat", "... with what it writes"]
)
async def test_a_run_of_another_process_is_cancelled_there(
    where: str, tmp_path: Path, lease_s: float, steps_s: float
) -> None:
    effects = tmp_path / "effects"
    with slow_run(where, effects, lease_s, steps_s) as running, closing(store_at(where)) as store:
        await store.request_cancel("slow")
        out, _ = running.communicate(timeout=30)
    assert out == "aborted run aborted by its store: cancelled on request\n"
    said = effects.read_text().splitlines()
    assert said.count("began") == said.count("cut off") == (1 if steps_s else 2)
    assert said[-1] == "end aborted: run aborted by its store: cancelled on request"
    assert [line for line in said if line.startswith(("end", "after"))] == said[-1:]  # one end, and nothing after it


@pytest.mark.parametrize("resumed", [False, True])
async def test_a_run_of_this_process_is_cancelled_at_once(either_store: KeepingStore, *, resumed: bool) -> None:
    began = anyio.Event()

    async def first(value: int) -> int:
        return value

    async def hang(value: int) -> int:
        if resumed and not began.is_set():
            began.set()
            raise OSError("fails the first time")
        began.set()
        await anyio.sleep_forever()
        return value

    flujo = Flujo(Pipeline(Step(first) >> Step(hang), name="hangs"), store=either_store)
    if resumed:
        assert (await flujo.run_async(1, run_id="r")).status == "failed"
    going_on = flujo.resume_async("r", retry=True) if resumed else flujo.run_async(1, run_id="r")

    async def ask() -> None:
        await began.wait()
        while (await either_store.load("r")).snapshot.status != "running":  # the resume has not won yet
            await anyio.sleep(0.01)
        await either_store.request_cancel("r")

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        with anyio.fail_after(20):
            result = await going_on
    assert result.status == "aborted"
    assert isinstance(result.error, RunAborted)
    assert (result.error.reason, result.error.by) == ("cancelled on request", "its store")
    paths = [(one.path, one.status) for one in result.step_history]
    assert paths[0] == ("first", "completed")  # what was done is kept
    assert paths[-1] == ("hang", "cancelled")
    assert (await either_store.load("r")).snapshot.status == "aborted"
    assert await either_store.cancel_requested() == []


async def test_who_was_asked_before_they_could_hear_is_told_again(path: Path) -> None:
    with closing(store_at(path, lease_s=0.3)) as store, closing(store_at(path)) as other:
        hold = await store.create(run("r"))
        await other.request_cancel("r")
        await store.create(run("another"))  # by which this store hears of it, and nobody is there to be told
        heard: list[str] = []
        hold.ends.append(lambda: heard.append("r"))
        with anyio.fail_after(10):
            while not heard:
                await anyio.sleep(0.02)
