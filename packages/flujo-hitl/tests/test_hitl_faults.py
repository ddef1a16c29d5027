"""A full disk, files that cannot be written, files of others: what is told, and that the store works again after it."""

import os
import resource
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from conftest import OpenStore
from hitl_trials import HERE, PLAN, paused, question, receipt, row, run

from flujo.core import ConfigurationError, RunExists, StillRunning
from flujo.hitl import SQLiteStore, StoreBusy, StoreDamaged, StoreError, StoreForeign, StoreWriteError
from flujo.hitl.schema import APPLICATION_ID, MIGRATIONS

pytestmark = pytest.mark.anyio


async def test_a_full_disk_is_told_and_what_was_kept_stays(store: SQLiteStore) -> None:
    hold = await store.create(run("r"))
    await store.append(hold, [row(0)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))  # the kernel answers EFBIG from here on
    try:
        with pytest.raises(StoreWriteError):
            await store.append(hold, [row(k, "x" * 10_000) for k in range(1, 20)])
        with pytest.raises(StoreWriteError):
            await store.append(hold, [row(k, "x" * 10_000) for k in range(1, 20)])
        assert (await store.load("r")).length == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    await store.append(hold, [row(1)])
    assert [one.node for one in (await store.load("r")).late] == [0, 1]


async def test_a_disk_without_space_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs.db").symlink_to("/dev/full")
    store = SQLiteStore(tmp_path / "runs.db")
    with pytest.raises(StoreError):
        await store.create(run("r"))
    store.close()


async def test_a_file_that_another_process_locks_is_waited_for_but_not_for_ever(
    path: Path, open_store: OpenStore
) -> None:
    store = open_store(wait_s=0.3)
    hold = await store.create(run("r"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(StoreBusy):
            await store.append(hold, [row(0)])
        assert 0.2 < time.monotonic() - started < 5
        assert (await store.load("r")).length == 0  # who reads is not held up
        other.execute("ROLLBACK")
    await store.append(hold, [row(0)])


async def test_a_run_that_could_not_be_given_back_is_when_the_store_works_again(
    path: Path, open_store: OpenStore
) -> None:
    store = open_store(wait_s=0.1, lease_s=0.3)
    hold = await store.create(run("r"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy):
            await store.save(hold, run("r", "failed"))
        with pytest.raises(StoreBusy):
            await store.release(hold)
        assert await store.orphans(run("r").fingerprint) == []
        other.execute("ROLLBACK")
    with anyio.fail_after(20):
        while not await store.orphans(run("r").fingerprint):  # this process goes on, and holds other runs
            await anyio.sleep(0.05)


def test_what_may_not_be_written_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, str(HERE / "hitl_readonly.py"), str(folder)], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["StoreWriteError", "StoreWriteError"], done.stderr


async def test_a_file_of_another_program_is_refused_and_left_as_it_is(path: Path, store: SQLiteStore) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE mine(x)")
        other.commit()
    before = path.read_bytes()
    for attempt in (store.create(run("r")), store.load("r")):
        with pytest.raises(StoreForeign, match="another program"):
            await attempt
    assert path.read_bytes() == before


async def test_what_is_no_database_is_refused(path: Path, store: SQLiteStore) -> None:
    path.write_text("no database at all, but a text of some length " * 100)
    with pytest.raises(StoreForeign, match="no SQLite database"):
        await store.load("r")


async def test_a_file_of_a_later_version_is_refused(path: Path, open_store: OpenStore) -> None:
    first = open_store()
    await paused(first, "r")
    first.close()
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        other.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    with pytest.raises(StoreForeign, match=rf"version {len(MIGRATIONS) + 1}.*Update flujo-hitl"):
        await open_store().load("r")


async def test_a_file_of_the_first_version_is_brought_to_this_one(path: Path, open_store: OpenStore) -> None:
    first, late = open_store(), datetime.now(UTC) - timedelta(days=1)
    await paused(first, "r", question(expires_at=late))
    first.close()
    with closing(sqlite3.connect(path)) as other:
        for change in ("DROP INDEX pauses_expire", "ALTER TABLE runs DROP COLUMN target",
                       "ALTER TABLE pauses DROP COLUMN stuck", "ALTER TABLE decisions DROP COLUMN shown",
                       "PRAGMA user_version=1",
                       "CREATE INDEX pauses_expire ON pauses(expires) WHERE expires IS NOT NULL"):  # fmt: skip
            other.execute(change)
        other.commit()
    store = open_store()
    await paused(store, "new", question(expires_at=late), tags={"target": "flows.py:pay"})
    assert [(one.run_id, one.target) for one in (await store.runs()).items] == [("new", "flows.py:pay"), ("r", None)]
    # of the older one nobody knows whether something was declared: a worker tries it
    assert [one.run_id for one in await store.expired(datetime.now(UTC))] == ["r"]


async def test_a_file_whose_version_is_missing_half_way_is_made_whole(path: Path, store: SQLiteStore) -> None:
    path.touch()  # a process that was killed before it made the tables
    await paused(store, "r")
    assert (await store.load("r")).snapshot.status == "paused"


async def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "no").write_text("")
    store = SQLiteStore(tmp_path / "no" / "deep" / "runs.db")
    for _ in range(2):
        with pytest.raises(StoreWriteError):
            await store.create(run("r"))
    (tmp_path / "no").unlink()
    await store.create(run("r"))
    with pytest.raises(RunExists):
        await store.create(run("r"))
    store.close()


async def test_what_cannot_be_written_harms_nobody_else(store: SQLiteStore) -> None:
    hold = await store.create(run("r"))
    with pytest.raises(StoreError):
        await store.append(hold, [row(0), row(1, "\ud800")])
    await paused(store, "s")
    with pytest.raises(StoreError):
        await store.claim(0, "paused", receipt("s"), [row(0, "\ud800")])
    assert await store.receipt("s") is None
    await store.claim(0, "paused", receipt("s"), [row(0)])
    await store.append(hold, [row(0)])
    assert (await store.load("r")).length == 1


@pytest.mark.parametrize("wrong", [{"durability": "off"}, {"lease_s": 0}, {"lease_s": float("nan")}, {"wait_s": -1}])
async def test_an_option_that_cannot_be_used_is_told(path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        SQLiteStore(path, **wrong)  # type: ignore[arg-type]


async def test_pages_that_were_overwritten_are_told(path: Path, open_store: OpenStore) -> None:
    first = open_store()
    await paused(first, "r", rows=200)
    first.close()
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    store = open_store()
    for work in (store.load("r"), store.create(run("s")), store.runs()):
        with pytest.raises(StoreDamaged):
            await work


async def test_a_file_that_is_removed_while_it_is_used_is_told(path: Path, store: SQLiteStore) -> None:
    hold = await store.create(run("r"))
    path.rename(path.with_name("elsewhere"))
    for _ in range(2):
        with pytest.raises(StoreDamaged, match="removed or replaced"):
            await store.append(hold, [row(0)])
    path.with_name("elsewhere").rename(path)
    await store.append(hold, [row(0)])


async def test_who_could_not_be_registered_is_with_the_next_hold(open_store: OpenStore) -> None:
    store, other = open_store(), open_store()
    await paused(other, "x")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(StoreWriteError):
            await store.create(run("r"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    await store.create(run("r"))
    assert await other.orphans(PLAN) == []
    with pytest.raises(StillRunning):
        await other.claim(0, "running", receipt("r", ""), [])
