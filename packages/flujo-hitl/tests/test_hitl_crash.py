"""Processes that are killed, stopped, forked, or race each other."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from kept_runs import new_id, question, receipt, row, snapshot, store_at

from flujo.core import StillRunning

CHILD = Path(__file__).with_name("crash_child.py")


@contextmanager
def child(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    path = os.pathsep.join([str(CHILD.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(CHILD), *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def lines(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    assert process.stdout is not None
    return [json.loads(line) for line in process.stdout if line.endswith("\n")]


async def paused_runs(where: str, count: int) -> None:
    async with store_at(where) as store:

        async def pause(number: int) -> None:
            hold = await store.create(snapshot(f"r{number}"))
            await store.save(hold, snapshot(f"r{number}", "paused", pauses=[question()]))

        async with anyio.create_task_group() as group:
            for number in range(count):
                group.start_soon(pause, number)


def race(where: str, count: int, processes: int = 8) -> None:
    anyio.run(paused_runs, where, count)
    with child("race", where, processes, count) as racers:
        (ends,) = lines(racers)
    assert ends == {"won": count, "lost": (processes - 1) * count}

    async def look() -> None:
        async with store_at(where) as store:
            assert await store.orphaned(limit=2 * count) == [f"r{number}" for number in range(count)]
            for number in range(0, count, 10):
                kept = await store.load(f"r{number}")
                found = await store.receipt(f"r{number}")
                assert found is not None
                assert [str(one.value["number"]) for one in kept.late] == [found.digest]

    anyio.run(look)


def test_of_eight_processes_one_goes_on_with_each_of_200_paused_runs(where: str) -> None:
    race(where, 200)


@pytest.mark.soak
def test_of_eight_processes_one_goes_on_with_each_of_5000_paused_runs(where: str) -> None:
    race(where, 5000)


def kill(where: str, mode: str, times: int) -> None:
    """Kill a process at a random moment; what it was told is kept, and the run goes on at once."""
    dice = random.Random(5)
    for _ in range(times):
        run_id = new_id()
        with child(mode, where, run_id) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            time.sleep(dice.random() * 0.1)
            process.kill()
            told = [json.loads(first), *lines(process)][-1]["acknowledged"]

        async def look(run_id: str = run_id, told: int = told) -> None:
            async with store_at(where) as store:
                kept = await store.load(run_id)
                assert told <= kept.length <= told + 1
                assert kept.history() == [row(number) for number in range(kept.length)]
                if kept.snapshot.status == "paused":
                    await store.claim(kept.length, receipt(run_id, f"ask{told}"), [])
                else:
                    assert run_id in await store.orphaned()
                    await store.claim(kept.length, receipt(run_id, ""), [])

        anyio.run(look)


@pytest.mark.parametrize("mode", ["write", "cycle"])
def test_what_was_acknowledged_outlives_a_killed_process(where: str, mode: str) -> None:
    kill(where, mode, 2)


@pytest.mark.soak
@pytest.mark.parametrize("mode", ["write", "cycle"])
def test_what_was_acknowledged_outlives_100_killed_processes(where: str, mode: str) -> None:
    kill(where, mode, 100)


def test_a_process_that_was_stopped_too_long_has_lost_its_hold(where: str) -> None:
    run_id = new_id()
    with child("stopped", where, run_id) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"held": 1}

        async def take_over() -> int:
            async with store_at(where) as store:
                with pytest.raises(StillRunning):
                    await store.claim(0, receipt(run_id, ""), [])
                await anyio.sleep(0.5)
                assert await store.orphaned() == [run_id]
                return (await store.claim(0, receipt(run_id, ""), [row(7)])).fence

        assert anyio.run(take_over) == 2
        os.kill(process.pid, signal.SIGCONT)
        assert lines(process) == [{"error": "HoldLost"}]

    async def look() -> None:
        async with store_at(where) as store:
            assert (await store.load(run_id)).late == (row(7),)

    anyio.run(look)


def test_a_store_goes_on_in_a_forked_child(where: str) -> None:
    with child("fork", where) as process:
        assert lines(process) == [{"lengths": [1, 1], "orphans": ["child"]}]
