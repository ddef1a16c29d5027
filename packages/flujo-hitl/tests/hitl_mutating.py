"""A run in a store whose first step changes its pipeline, and whose process is killed after so many steps.

python hitl_mutating.py STORE LOG KILLED_BY [DECISION]
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import anyio
import hitl_mutating  # what stands in a script that was started has another path
from hitl_trials import note

from flujo.core import Flujo, PauseForHumanInput, PipelineMutation, step
from flujo.hitl import SQLiteStore

STORE, LOG, KILLED_BY = (*sys.argv[1:4], "", "", "")[:3]


def did(name: str) -> None:
    """Say that a step began, and die where that one is to be the last."""
    note(Path(LOG), name)
    if name == KILLED_BY:
        os.kill(os.getpid(), signal.SIGKILL)


@step
async def first(value: int) -> PipelineMutation[int]:
    did("first")
    return PipelineMutation(value + 1, insert_after={"first": double >> ask}, remove=["never"])


@step
async def double(value: int) -> int:
    did("double")
    return 2 * value


@step
async def ask(value: int) -> int:
    did("ask")
    raise PauseForHumanInput(f"add to {value}?", int)


@step
async def never(value: int) -> int:
    raise ValueError("it was left out")


@step
async def last(value: int) -> int:
    did("last")
    return value + 1


async def main() -> None:
    pipeline = hitl_mutating.first >> hitl_mutating.never >> hitl_mutating.last
    async with SQLiteStore(STORE) as store:
        flujo = Flujo(pipeline, store=store, experimental={"mutation"})
        if not Path(LOG).exists():
            result = await flujo.run_async(1, run_id="run")
        elif len(sys.argv) > 4:
            result = await flujo.resume_async("run", int(sys.argv[4]))
        else:
            [result] = await flujo.recover_async()
        replay = await flujo.replay_async("run")
        made = [change.step for change in (await store.load("run")).snapshot.mutations]
        paths = [record.path for record in result.step_history]
        print(result.status, paths, made, replay.divergence)  # noqa: T201


if __name__ == "__main__":
    anyio.run(main)
