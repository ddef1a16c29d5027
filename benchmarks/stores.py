"""What keeping runs in SQLite costs, beside raw sqlite3 in the same folder: `python -m benchmarks.stores [FOLDER]`."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import TypeVar

from flujo.core import Checkpoint, EntryData, Hold, Receipt, Snapshot, Usage
from flujo.hitl import SQLiteStore
from flujo.hitl.lane import Ticket

T = TypeVar("T")

QUESTION = {
    "question": "Refund order A-1029?", "frame": 0, "node": 1, "path": "approve", "number": 0,
    "payload": {"order": "A-1029", "amount": "120.00"},
}  # fmt: skip


def snapshot(run_id: str, status: str = "running", position: int = 0, pipeline: str = "bench") -> Snapshot:
    pauses = [QUESTION] if status == "paused" else []
    frames = [{"id": 0, "outputs": {"0": 7}}]
    facts = {"next_frame": 1, "frames": frames, "usage": Usage(), "position": position, "pauses": pauses}
    names = {"run_id": run_id, "pipeline": pipeline, "fingerprint": "0" * 64, "status": status}
    return Snapshot.model_validate({**names, "checkpoint": Checkpoint.model_validate(facts)})


def entry(number: int) -> EntryData:
    return EntryData(
        frame=0, node=number, kind="success", path=f"step_{number}", value=number, started_at=1764313450.1234567,
        duration_s=0.00012345,
    )  # fmt: skip


def run_id(number: int) -> str:
    return f"{number:032x}"


class Timer:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = perf_counter(), process_time()

    def line(self, what: str, number: int) -> str:
        wall, cpu = perf_counter() - self._wall, process_time() - self._cpu
        return f"{what:58} {number / wall:10,.0f}/s {cpu / number * 1e6:8.1f} us CPU each"


def raw(path: Path, synchronous: str, number: int, batch: int = 1) -> str:
    """Insert the same payloads with sqlite3 alone."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute(f"PRAGMA synchronous={synchronous}")
    db.execute(
        "CREATE TABLE journal(run INTEGER, position INTEGER, payload BLOB, PRIMARY KEY(run, position)) WITHOUT ROWID"
    )
    payload = entry(1).model_dump_json(exclude_defaults=True).encode()
    timer = Timer()
    for first in range(0, number, batch):
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT INTO journal VALUES(1, ?, ?)", [(first + k, payload) for k in range(batch)])
        db.execute("COMMIT")
    line = timer.line(f"raw sqlite3, {synchronous}, {batch} rows a transaction", number)
    db.close()
    return line


async def chains(path: Path, durability: str, number: int, steps: int) -> str:
    """So many chains at once, each of whose steps waits until it is kept."""
    store = SQLiteStore(path, durability=durability)  # type: ignore[arg-type]
    holds = [await store.create(snapshot(run_id(k))) for k in range(number)]

    entries = [[entry(k)] for k in range(steps)]  # the engine has made them when it comes to the store

    async def chain(hold: Hold) -> None:
        for one in entries:
            await store.append(hold, one)

    timer = Timer()
    async with asyncio.TaskGroup() as group:
        for hold in holds:
            group.create_task(chain(hold))
    line = timer.line(f"{number} chains, {durability}, each step kept", number * steps)
    store.close()
    payload = len(entry(50).model_dump_json(exclude_defaults=True))
    size = path.stat().st_size / (number * steps)
    return f"{line}; {size:.0f} B a step on disk, of which its payload {payload}"


Round = tuple[Snapshot, Receipt, list[EntryData]]


def rounds_of(name: str, number: int) -> list[Round]:
    """What a run that pauses and is answered so often is kept by; made before, as the rows of raw sqlite3 are."""
    now = datetime.now(UTC)
    return [
        (snapshot(name, "paused", k), Receipt(name, f"approve?{k}", f"{k:064x}", now), [entry(k)])
        for k in range(number)
    ]


async def pauses(path: Path, runs: int, number: int) -> str:
    """So many runs at once that pause and resume: where one stands is kept, read again, and claimed with a decision."""
    store = SQLiteStore(path)
    holds = [await store.create(snapshot(run_id(k))) for k in range(runs)]
    all_rounds = [rounds_of(run_id(k), number) for k in range(runs)]

    async def again(hold: Hold, rounds: list[Round]) -> None:
        for paused, receipt, rows in rounds:
            await store.save(hold, paused)
            kept = await store.load(hold.run_id)
            hold = await store.claim(kept.length, "paused", receipt, rows)

    timer = Timer()
    async with asyncio.TaskGroup() as group:
        for hold, rounds in zip(holds, all_rounds, strict=True):
            group.create_task(again(hold, rounds))
    line = timer.line(f"pause, load and claim, full, {runs} runs at once", runs * number)
    store.close()
    return line


def direct_pauses(path: Path, number: int) -> str:
    """The same without threads: what the connection itself takes, beside a raw insert that has no thread either."""
    store = SQLiteStore(path)
    writes, reads, transactions = store._writes, store._reads, store._transactions

    def do(work: Callable[[], T]) -> T:
        ticket = Ticket(work, None, None)
        transactions.commit([ticket])  # type: ignore[list-item]  # a ticket of anything is one of object
        transactions.tidy()
        if ticket.error is not None:
            raise ticket.error
        return ticket.result  # type: ignore[return-value]  # done without an error

    hold, rounds = do(lambda: writes.create(snapshot("one"))), rounds_of("one", number)
    timer = Timer()
    for paused, receipt, rows in rounds:
        do(partial(writes.save, hold, paused))
        kept = reads.load("one")
        hold = do(partial(writes.claim, kept.length, "paused", receipt, rows))
    line = timer.line("pause, load and claim, full, on the connection itself", number)
    store.close()
    return line


async def many(path: Path, number: int) -> list[str]:
    """A store of paused runs: what each takes, and what pages of them cost."""
    store = SQLiteStore(path, durability="normal")

    async def pause(k: int) -> None:
        name = run_id(k)
        words = {"tenant": f"tenant-{k % 50}", "tags": {"roles": "finance"} if k % 100 == 0 else {}}
        hold = await store.create(snapshot(name, pipeline=f"pipeline-{k % 10}").model_copy(update=words))
        paused = snapshot(name, "paused", pipeline=f"pipeline-{k % 10}").model_copy(update=words)
        await store.save(hold, paused)

    for first in range(0, number, 1000):
        await asyncio.gather(*[pause(k) for k in range(first, min(number, first + 1000))])
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
    await timed(f"{label} of a pipeline, that failed", lambda: store.runs(pipeline="pipeline-3", status="failed"))
    await timed(f"{label} open questions", lambda: store.open_pauses())
    await timed(f"{label} open questions of a pipeline", lambda: store.open_pauses(pipeline="pipeline-3"))
    await timed(f"{label} open questions of a tenant", lambda: store.open_pauses(tenant="tenant-3"))
    await timed(f"{label} open questions for a role", lambda: store.open_pauses(role="finance"))
    await timed(f"{label} decisions that wait", lambda: store.decided())
    await timed(f"{label} questions that expired", lambda: store.expired(datetime.now(UTC)))
    await timed(f"{label} orphans", lambda: store.orphans("0" * 64))
    store.close()
    one = snapshot(run_id(1), "paused", pipeline="pipeline-1").model_dump_json(exclude_defaults=True)
    lines.append(
        f"{'bytes of a paused run':58} {path.stat().st_size / number:10.0f} B, of which its snapshot {len(one)}"
    )
    return lines


async def loads(path: Path, steps: int) -> str:
    """Load a paused run that did so many steps."""
    store = SQLiteStore(path)
    hold = await store.create(snapshot("one"))
    await store.append(hold, [entry(k) for k in range(steps)])
    await store.save(hold, snapshot("one", "paused", steps))
    await store.load("one")
    times = []
    for _ in range(50):
        started = perf_counter()
        await store.load("one")
        times.append(perf_counter() - started)
    store.close()
    return f"{f'load of a paused run of {steps} steps':58} {sorted(times)[25] * 1e3:10.2f} ms"


def machine() -> str:
    """How fast this machine is at this moment, to read the other lines by."""
    timer, total = process_time(), 0
    for number in range(3_000_000):
        total += number
    return f"{'a turn of a bare Python loop':58} {(process_time() - timer) / 3e6 * 1e9:10.0f} ns"


def main(folder: Path) -> None:
    print(machine())
    print(raw(folder / "a.db", "FULL", 3000))
    print(raw(folder / "b.db", "NORMAL", 20_000))
    print(raw(folder / "c.db", "FULL", 100_000, 1000))
    for number, steps in ((1, 5000), (10, 2000), (100, 1000)):
        for durability in ("full", "normal"):
            print(asyncio.run(chains(folder / f"{number}{durability}.db", durability, number, steps)))
    print(raw(folder / "d.db", "FULL", 3000))  # again: a disk is not as fast at each moment
    print(direct_pauses(folder / "p.db", 3000))
    for runs in (1, 10, 100):
        print(asyncio.run(pauses(folder / f"p{runs}.db", runs, 3000 // runs)))
    for steps in (10, 1000):
        print(asyncio.run(loads(folder / f"l{steps}.db", steps)))
    print(*asyncio.run(many(folder / "m.db", 100_000)), sep="\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as made:
        main(Path(made))
