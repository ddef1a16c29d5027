"""Programs that the crash tests run, and kill: `python crash_child.py MODE ...`. They print JSON lines."""

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import Callable

from kept_runs import question, receipt, row, snapshot, store_at

from flujo.core import FlujoError, Hold, ResumeError


def say(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


async def write(where: str, run_id: str) -> None:
    """Append for ever, and tell of each row that was acknowledged."""
    store = store_at(where)
    hold = await store.create(snapshot(run_id))
    number = 0
    while True:
        await store.append(hold, [row(number)])
        number += 1
        say(acknowledged=number)


async def cycle(where: str, run_id: str) -> None:
    """Pause and go on for ever, and tell of each that was acknowledged."""
    store = store_at(where)
    hold = await store.create(snapshot(run_id))
    number = 0
    while True:
        paused = snapshot(run_id, "paused", pauses=[question(f"ask{number}")], position=number)
        await store.save(hold, paused)
        hold = await store.claim(number, receipt(run_id, f"ask{number}"), [row(number)])
        number += 1
        say(acknowledged=number)


async def _race(where: str, who: int, count: int) -> dict[str, int]:
    ends = {"won": 0, "lost": 0}
    async with store_at(where, patience_s=60) as store:

        async def claim(number: int) -> None:
            try:
                await store.claim(0, receipt(f"r{number}", digest=f"{who}"), [row(who)])
                ends["won"] += 1
            except ResumeError:
                ends["lost"] += 1

        for start in range(0, count, 10):
            await asyncio.gather(*(claim(number) for number in range(start, start + 10)))
    return ends


def race(where: str, processes: str, count: str) -> None:
    """Many processes want to go on with each of many paused runs."""
    pipes = []
    go, start = os.pipe()
    for who in range(int(processes)):
        out_of, into = os.pipe()
        if os.fork() == 0:
            os.read(go, 1)
            os.write(into, json.dumps(asyncio.run(_race(where, who, int(count)))).encode())
            os._exit(0)
        os.close(into)
        pipes.append(out_of)
    os.write(start, b"x" * int(processes))
    ends = [json.loads(os.read(pipe, 1000)) for pipe in pipes]
    say(won=sum(end["won"] for end in ends), lost=sum(end["lost"] for end in ends))


async def full(where: str, limit: str) -> None:
    """Write until no file may grow any more, then go on when it may."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    store = store_at(where)
    hold = await store.create(snapshot("full"))
    number = 0
    try:
        while True:
            await store.append(hold, [row(number, value="x" * 10_000)])
            number += 1
    except FlujoError as error:
        say(error=type(error).__name__, text=str(error), acknowledged=number)
    say(length=(await store.load("full")).length)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.append(hold, [row(number)])
    say(length=(await store.load("full")).length)
    await store.aclose()


async def read_only(where: str) -> None:
    """As a user who may not write."""
    os.setgid(65534)
    os.setuid(65534)
    store = store_at(where)
    for name, work in (("create", store.create(snapshot("new"))), ("load", store.load("r0"))):
        try:
            await work
            say(work=name, error=None)
        except FlujoError as error:
            say(work=name, error=type(error).__name__, text=str(error))


async def stopped(where: str, run_id: str) -> None:
    """Hold a run, be stopped for longer than the lease, and write."""
    store = store_at(where, lease_s=0.3)
    hold = await store.create(snapshot(run_id))
    say(held=hold.fence)
    os.kill(os.getpid(), signal.SIGSTOP)
    try:
        await store.append(hold, [row(0)])
        say(error=None)
    except FlujoError as error:
        say(error=type(error).__name__)


def fork(where: str) -> None:
    """A store that was used before a fork is used after it by both."""
    store = store_at(where)
    hold: Hold = asyncio.run(store.create(snapshot("parent")))
    out_of, into = os.pipe()
    if os.fork() == 0:
        mine = asyncio.run(store.create(snapshot("child")))
        asyncio.run(store.append(mine, [row(0)]))
        os.write(into, b"done")
        os._exit(0)
    os.read(out_of, 4)
    asyncio.run(store.append(hold, [row(0)]))
    os.wait()
    orphans = asyncio.run(store.orphaned())
    lengths = [asyncio.run(store.load(run_id)).length for run_id in ("parent", "child")]
    say(lengths=lengths, orphans=orphans)


if __name__ == "__main__":
    mode: Callable[..., object] = globals()[sys.argv[1]]
    work = mode(*sys.argv[2:])
    if asyncio.iscoroutine(work):
        asyncio.run(work)
