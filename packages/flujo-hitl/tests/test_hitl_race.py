"""Of many processes that answer the same questions, one wins each."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest
from conftest import OpenStore
from hitl_trials import HERE, paused

PAUSES = 200
PROCESSES = 4


def race(path: Path | str, effects: Path, processes: int) -> list[tuple[int, int]]:
    """How many claims, and how many records, each process won."""
    with ExitStack() as stack:
        racers = []
        for number in range(processes):
            command = [sys.executable, str(HERE / "hitl_racer.py"), str(path), str(effects), f"p{number}", str(PAUSES)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            racers.append(stack.enter_context(subprocess.Popen(command, **pipes)))  # type: ignore[call-overload]
        for one in racers:
            assert one.stdout.readline() == "ready\n"
        for one in racers:
            one.stdin.write("go\n")
            one.stdin.flush()
        wins = [one.communicate(timeout=100)[0].split() for one in racers]
        assert all(one.returncode == 0 for one in racers)
    return [(int(won), int(recorded)) for won, recorded in wins]


def check(path: Path | str, effects: Path, open_store: OpenStore, processes: int) -> None:
    async def prepare() -> None:
        store = open_store(durability="normal")
        async with anyio.create_task_group() as group:
            for number in range(PAUSES):
                group.start_soon(paused, store, f"r{number}")
        store.close()

    anyio.run(prepare)
    wins = race(path, effects, processes)
    assert sum(won for won, _ in wins) == PAUSES // 2
    assert sum(recorded for _, recorded in wins) == PAUSES // 2
    assert sorted(effects.read_text().split()) == sorted(f"r{number}" for number in range(1, PAUSES, 2))

    async def look() -> None:
        store = open_store()
        assert len((await store.runs(status="completed", limit=1000)).items) == PAUSES // 2
        waiting = await store.decided(limit=1000)
        assert len({one.receipt.run_id for one in waiting}) == PAUSES // 2
        for number in range(1, PAUSES, 2):
            (entry,) = (await store.load(f"r{number}")).history()
            assert isinstance(entry.value, str)

    anyio.run(look)


def test_each_of_200_questions_has_one_winner(path: Path, tmp_path: Path, open_store: OpenStore) -> None:
    check(path, tmp_path / "effects", open_store, PROCESSES)


@pytest.mark.soak
def test_each_of_200_questions_has_one_winner_of_eight(path: Path, tmp_path: Path, open_store: OpenStore) -> None:
    check(path, tmp_path / "effects", open_store, 8)
