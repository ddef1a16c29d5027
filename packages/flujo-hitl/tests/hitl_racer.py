"""A process that races others: `hitl_racer.py WHERE EFFECTS NAME PAUSES` prints how many questions it won."""

import random
import sys
from pathlib import Path

import anyio
from hitl_trials import note, receipt, row, run, store_at

from flujo.core import ResumeConflict, ResumeError, decision_digest


async def main(where: str, effects: Path, name: str, pauses: int) -> None:
    store = store_at(where, wait_s=60)
    digests = {one.run_id: one.shown_digest for one in (await store.open_pauses(limit=1000)).items}
    won = recorded = 0
    room = anyio.Semaphore(10)

    async def claim(run_id: str) -> None:
        nonlocal won
        async with room:
            try:
                hold = await store.claim(0, "paused", receipt(run_id, digest=decision_digest(name)), [row(0, name)])
            except ResumeError:
                return
            won += 1
            note(effects, run_id)
            await store.save(hold, run(run_id, "completed", 1))

    async def record(run_id: str) -> None:
        nonlocal recorded
        async with room:
            try:
                await store.record_decision(run_id, "ask", name, shown_digest=digests[run_id])
                recorded += 1
            except ResumeConflict:
                return

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    async with anyio.create_task_group() as group:
        for number in random.sample(range(pauses), pauses):
            group.start_soon(claim if number % 2 else record, f"r{number}")
    await store.orphans("0" * 64)
    sys.stdout.write(f"{won} {recorded}\n")
    store.close()


anyio.run(main, sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
