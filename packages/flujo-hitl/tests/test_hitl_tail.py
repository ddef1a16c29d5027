"""Entries are read in order wherever they lie: at the end of all, or folded into the journal of their run."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from conftest import OpenStore
from hitl_trials import PLAN, receipt, row, run

from flujo.hitl import SQLiteStore

pytestmark = pytest.mark.anyio


def counted(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def fold_at(store: SQLiteStore, rows: int) -> None:
    store._transactions.fold_at, store._transactions.added = rows, rows


async def test_what_lies_in_both_places_is_read_in_order(path: Path, store: SQLiteStore) -> None:
    holds = [await store.create(run(f"r{number}")) for number in range(5)]
    for number in range(20):
        for hold in holds:
            await store.append(hold, [row(number)])
        if number == 11:
            fold_at(store, 1)
    assert counted(path, "journal") >= 60
    assert counted(path, "tail") > 0
    for hold in holds:
        kept = await store.load(hold.run_id)
        assert [one.node for one in kept.late] == list(range(20)) == [one.node for one in kept.history()]
    await store.release(holds[0])
    assert await store.orphans(PLAN) == ["r0"]
    again = await store.claim(20, "running", receipt("r0", ""), [row(20)])
    await store.append(again, [row(21)])
    await store.save(again, run("r0", "paused", 22))
    assert (await store.load("r0")).length == 22
    store.close()
    assert (counted(path, "tail"), counted(path, "journal")) == (0, 102)


async def test_two_stores_that_fold_and_write_by_turns_lose_nothing(path: Path, open_store: OpenStore) -> None:
    stores, dice = [open_store(), open_store()], random.Random(3)
    holds = [[await store.create(run(f"{number}{k}")) for k in range(3)] for number, store in enumerate(stores)]
    written = dict.fromkeys([hold.run_id for some in holds for hold in some], 0)
    for _ in range(200):
        place = dice.randrange(2)
        hold = dice.choice(holds[place])
        fold_at(stores[place], dice.choice([1, 5, 1000]))
        await stores[place].append(hold, [row(written[hold.run_id])])
        written[hold.run_id] += 1
    for run_id, length in written.items():
        kept = await stores[0].load(run_id)
        assert [one.node for one in kept.history()] == list(range(length))
    assert counted(path, "journal") > 0


async def test_where_folding_fails_all_is_kept_and_writes_go_on(path: Path, store: SQLiteStore) -> None:
    hold = await store.create(run("r"))
    with closing(sqlite3.connect(path)) as db:  # as a damaged page of the journal does
        db.execute("CREATE TRIGGER no BEFORE INSERT ON journal BEGIN SELECT RAISE(ABORT, 'no'); END")
        db.commit()
    for number in range(10):
        fold_at(store, 1)
        await store.append(hold, [row(number)])
    assert counted(path, "tail") == 10
    await store._lane.do(lambda: None)  # what follows the last batch is over, too
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TRIGGER no")
        db.commit()
    fold_at(store, 1)
    await store.append(hold, [row(10)])
    await store.append(hold, [row(11)])
    assert counted(path, "journal") >= 11
    assert [one.node for one in (await store.load("r")).late] == list(range(12))
