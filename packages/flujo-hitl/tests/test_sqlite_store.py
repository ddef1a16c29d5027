"""The store in SQLite: what core demands of a store, and what can befall a file."""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest

from flujo.core import (
    AlreadyResumed,
    ConfigurationError,
    Flujo,
    HoldLost,
    Parallel,
    PauseForHumanInput,
    ResumeConflict,
    ResumeError,
    SnapshotError,
    Step,
    StillRunning,
    step,
)
from flujo.core.testing import assert_conforms
from flujo.core.testing.store_rules import STORE_RULES
from flujo.hitl import SQLiteStore, StoreClosed, StoreError

pytestmark = pytest.mark.anyio


@step(pauses=True)
async def ask(value: int) -> int:
    raise PauseForHumanInput("How many?", schema=int)


@step
async def double(value: int) -> int:
    return 2 * value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "runs.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(path) as made:
        yield made


class Rot13:
    """A codec that changes every byte, and refuses what it is given for another place."""

    def encode(self, data: bytes, about: str) -> bytes:
        return about.encode() + b"\0" + bytes(byte ^ 0x5A for byte in data)

    def decode(self, data: bytes, about: str) -> bytes:
        where, _, body = data.partition(b"\0")
        if where.decode() != about:
            raise SnapshotError(f"{about} cannot be read", "it was moved")
        return bytes(byte ^ 0x5A for byte in body)


@pytest.mark.parametrize("options", [{}, {"durability": "normal"}, {"codec": Rot13()}], ids=str)
def test_it_keeps_every_rule_for_stores(tmp_path: Path, options: dict[str, Any]) -> None:
    number, opened = count(), []

    def make() -> SQLiteStore:
        opened.append(SQLiteStore(tmp_path / f"{next(number)}.db", **options))
        return opened[-1]

    assert assert_conforms(make) == tuple(rule.__name__ for rule in STORE_RULES)
    for one in opened:
        one.close()


async def test_a_run_goes_on_in_another_store_on_the_same_file(path: Path) -> None:
    with SQLiteStore(path) as store:
        paused = await Flujo(double >> ask >> Step(double, name="again"), store=store).run_async(1, run_id="r")
        assert paused.status == "paused"
    with SQLiteStore(path) as store:
        done = await Flujo(double >> ask >> Step(double, name="again"), store=store).resume_async("r", 5)
    assert done.unwrap() == 10
    assert [record.path for record in done.step_history] == ["double", "ask", "again"]


async def test_two_stores_on_one_file_see_each_other(path: Path) -> None:
    with SQLiteStore(path) as one, SQLiteStore(path) as other:
        await Flujo(Parallel(ask, Step(ask, name="too")), store=one).run_async(1, run_id="r")
        flujo = Flujo(Parallel(ask, Step(ask, name="too")), store=other)
        await flujo.resume_async("r", 1, pause="parallel/ask")
        with pytest.raises(AlreadyResumed):
            await Flujo(Parallel(ask, Step(ask, name="too")), store=one).resume_async("r", 1, pause="parallel/ask")
        with pytest.raises(ResumeConflict):
            await flujo.resume_async("r", 2, pause="parallel/ask")
        assert (await flujo.resume_async("r", 2)).unwrap() == {"ask": 1, "too": 2}


# --- holds ------------------------------------------------------------------------------------------------------------


async def held(store: SQLiteStore) -> Any:
    """A run that goes on in `store`, and what lets it end."""
    started, go = anyio.Event(), anyio.Event()

    @step
    async def work(value: int) -> int:
        started.set()
        await go.wait()
        return value

    flujo = Flujo(work, store=store)
    handle = flujo.start(1, run_id="r")
    await started.wait()
    return flujo, handle, go


async def test_a_run_that_goes_on_in_a_living_process_is_not_taken_over(path: Path) -> None:
    with SQLiteStore(path, lease_s=0.1) as store, SQLiteStore(path) as other:
        flujo, handle, go = await held(store)
        await anyio.sleep(0.3)  # its lease is over if nobody renews it; but its process can be looked at
        with pytest.raises(StillRunning):
            await Flujo(flujo.given["pipeline"], store=other).resume_async("r")
        assert await other.orphans(flujo.plan.fingerprint) == []
        go.set()
        assert (await handle.wait()).unwrap() == 1


async def test_a_run_whose_store_was_closed_is_an_orphan(path: Path) -> None:
    store = SQLiteStore(path)
    flujo, handle, go = await held(store)
    await anyio.to_thread.run_sync(store.close)
    with SQLiteStore(path) as other:
        assert await other.orphans(flujo.plan.fingerprint) == ["r"]
    go.set()
    result = await handle.wait()
    assert result.status == "aborted"
    assert "it was closed" in str(result.error)


@pytest.mark.parametrize("ahead_s", [-3600, 0], ids=["clock set back", "clock as it was"])
async def test_a_lease_on_another_machine_counts_until_it_is_over(
    path: Path, ahead_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SQLiteStore(path, lease_s=30) as store, SQLiteStore(path) as other:
        flujo, handle, go = await held(store)
        with sqlite3.connect(path) as db:
            db.execute("UPDATE owners SET place = 'another machine'")
        monkeypatch.setattr(time, "time", lambda now=time.time: now() + ahead_s)
        assert await other.orphans(flujo.plan.fingerprint) == []
        with sqlite3.connect(path) as db:
            db.execute("UPDATE owners SET expires_at = 0")
        assert await other.orphans(flujo.plan.fingerprint) == ["r"]
        assert await taken_over(flujo, other, go) == "completed"
        late = await handle.wait()
        assert late.status == "aborted"
        assert isinstance(late.error, Exception)
        assert "another process took it over" in str(late.error)


async def taken_over(flujo: Flujo, other: SQLiteStore, go: anyio.Event) -> str:
    """Take the run over, and let both go on."""
    taken: list[str] = []

    async def take() -> None:
        taken.append((await Flujo(flujo.given["pipeline"], store=other).resume_async("r")).status)

    async with anyio.create_task_group() as group:
        group.start_soon(take)
        while (await other.load("r")).snapshot.status != "running" or await other.orphans(flujo.plan.fingerprint):
            await anyio.sleep(0.01)
        go.set()
    return taken[0]


async def test_leases_are_renewed_while_a_store_is_open(path: Path) -> None:
    with SQLiteStore(path, lease_s=0.3) as store:
        _, handle, go = await held(store)
        with sqlite3.connect(path) as db:
            db.execute("UPDATE owners SET place = 'another machine'")
        with SQLiteStore(path) as other:
            for _ in range(8):
                await anyio.sleep(0.1)
                with pytest.raises(StillRunning):
                    await other.claim(0, _receipt(), [])
        go.set()
        assert (await handle.wait()).status == "completed"


def _receipt() -> Any:
    from flujo.core.resume import receipt_of

    return receipt_of("r", None)


# --- files ------------------------------------------------------------------------------------------------------------


async def test_a_closed_store_says_so(store: SQLiteStore) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreClosed, match="was closed"):
        await store.load("r")


@pytest.mark.parametrize(
    "options", [{"durability": "fast"}, {"lease_s": 0}, {"lease_s": float("nan")}, {"lock_timeout_s": -1}], ids=str
)
def test_options_that_make_no_sense_are_refused(path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        SQLiteStore(path, **options)


async def test_an_unknown_run_is_told(store: SQLiteStore) -> None:
    with pytest.raises(ResumeError, match="does not know it"):
        await Flujo(double, store=store).resume_async("nobody")


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")


def later(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA application_id = 1179407690")
        db.execute("PRAGMA user_version = 99")


def text(path: Path) -> None:
    path.write_text("no database at all, but a text that is long enough to be read as one" * 20)


@pytest.mark.parametrize(
    ("spoil", "why"), [(foreign, "something else"), (later, "version 99"), (text, "not a database")], ids=str
)
async def test_a_file_of_something_else_is_refused_and_left_alone(
    path: Path, spoil: Callable[[Path], None], why: str
) -> None:
    path.parent.mkdir()
    spoil(path)
    before = path.read_bytes()
    with SQLiteStore(path) as store, pytest.raises(StoreError, match=why):
        await Flujo(double, store=store).run_async(1)
    assert path.read_bytes() == before


async def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with SQLiteStore(tmp_path / "file" / "runs.db") as store, pytest.raises(StoreError, match="folder cannot be made"):
        await Flujo(double, store=store).run_async(1)


async def test_a_lock_of_another_process_is_waited_for_and_then_told(path: Path) -> None:
    with SQLiteStore(path, lock_timeout_s=0.2) as store:
        await Flujo(double, store=store).run_async(1)
        with sqlite3.connect(path, isolation_level=None) as db:
            db.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked"):
                await Flujo(double, store=store).run_async(1)
            db.execute("ROLLBACK")
        assert (await Flujo(double, store=store).run_async(1)).unwrap() == 2


async def test_a_lock_that_ends_in_time_is_only_a_delay(path: Path) -> None:
    with SQLiteStore(path) as store:
        await Flujo(double, store=store).run_async(1)
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        db.execute("BEGIN IMMEDIATE")
        threading.Timer(0.2, lambda: db.execute("ROLLBACK")).start()
        assert (await Flujo(double, store=store).run_async(1)).unwrap() == 2
        db.close()


async def spoiled(path: Path, sql: str) -> None:
    with SQLiteStore(path) as store:
        for run_id in ("bad", "good"):
            await Flujo(double >> ask, store=store).run_async(1, run_id=run_id)
    with sqlite3.connect(path) as db:
        db.execute(sql)


@pytest.mark.parametrize(
    "change", ["x'00' || data", "substr(data, 1, length(data) - 1)", "x''", "'text'", "zeroblob(64)"]
)
async def test_damage_to_one_run_is_told_and_leaves_the_others(path: Path, change: str) -> None:
    await spoiled(path, f"UPDATE snapshots SET data = {change} WHERE run = 1")
    with SQLiteStore(path) as store:
        with pytest.raises(SnapshotError, match="run 'bad' cannot be read: its checksum"):
            await Flujo(double >> ask, store=store).resume_async("bad", 5)
        assert (await Flujo(double >> ask, store=store).resume_async("good", 5)).unwrap() == 5


async def test_every_flipped_bit_of_a_row_is_found(path: Path) -> None:
    with SQLiteStore(path) as store:
        await Flujo(double >> ask, store=store).run_async(1, run_id="r")
        kept = await store.load("r")
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA synchronous = OFF")
        [data] = db.execute("SELECT data FROM journal WHERE position = 0").fetchone()
        for place in range(0, len(data) * 8, 3):
            flipped = bytearray(data)
            flipped[place // 8] ^= 1 << place % 8
            db.execute("UPDATE journal SET data = ? WHERE position = 0", (bytes(flipped),))
            with pytest.raises(SnapshotError, match="entry 0 of run 'r'"):
                kept.history()
        db.close()


async def test_a_row_that_was_moved_is_found_by_the_codec(path: Path) -> None:
    with SQLiteStore(path, codec=Rot13()) as store:
        await Flujo(double >> Step(double, name="b") >> ask, store=store).run_async(1, run_id="r")
        kept = await store.load("r")
        with sqlite3.connect(path) as db:
            db.execute("UPDATE journal SET data = (SELECT data FROM journal WHERE position = 1) WHERE position = 0")
        with pytest.raises(SnapshotError, match="it was moved"):
            kept.history()


async def test_a_truncated_file_is_told_as_such(path: Path) -> None:
    await spoiled(path, "SELECT 1")
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(path.read_bytes()[:-4096])
    with SQLiteStore(path) as store, pytest.raises(StoreError, match=r"malformed|disk image"):
        await Flujo(double >> ask, store=store).resume_async("good", 5)


async def test_payloads_are_written_through_the_codec_only(path: Path) -> None:
    @step(pauses=True)
    async def confess(value: str) -> str:
        raise PauseForHumanInput("Really?", payload={"secret": value})

    with SQLiteStore(path, codec=Rot13()) as store:
        await Flujo(confess, store=store).run_async("a-very-private-word", run_id="r")
        held_bytes = b"".join(one.read_bytes() for one in path.parent.iterdir())
        assert b"a-very-private-word" not in held_bytes
        done = await Flujo(confess, store=store).resume_async("r", "yes")
    assert done.unwrap() == "yes"


async def test_a_codec_that_fails_ends_the_run_and_not_the_store(path: Path) -> None:
    class Fails(Rot13):
        def encode(self, data: bytes, about: str) -> bytes:
            if about.startswith("entry"):
                raise RuntimeError("no key")
            return super().encode(data, about)

    with SQLiteStore(path, codec=Fails()) as store:
        result = await Flujo(double, store=store).run_async(1, run_id="r")
        assert result.status == "aborted"
        assert "no key" in str(result.error)
        assert (await store.load("r")).length == 0


async def test_a_backup_is_taken_while_the_store_is_in_use(path: Path, tmp_path: Path) -> None:
    with SQLiteStore(path) as store:
        flujo = Flujo(double >> ask, store=store)
        await flujo.run_async(1, run_id="r")
        store.backup(tmp_path / "copy.db")
        await flujo.resume_async("r", 5)
    with SQLiteStore(tmp_path / "copy.db") as copy:
        assert (await Flujo(double >> ask, store=copy).resume_async("r", 7)).unwrap() == 7


async def test_a_backup_to_nowhere_is_told(store: SQLiteStore, tmp_path: Path) -> None:
    await Flujo(double, store=store).run_async(1)
    with pytest.raises(StoreError):
        store.backup(tmp_path / "no" / "folder.db")


async def test_a_lost_hold_writes_nothing(store: SQLiteStore) -> None:
    flujo = Flujo(ask, store=store)
    await flujo.run_async(1, run_id="r")
    kept = await store.load("r")
    hold = await store.claim(kept.length, _receipt(), [])
    await store.release(hold)
    with pytest.raises(HoldLost):
        await store.save(hold, kept.snapshot)


async def test_many_runs_at_once_are_all_kept(store: SQLiteStore) -> None:
    flujo = Flujo(double >> Step(double, name="b") >> ask, store=store)
    paused: list[str] = []

    async def one(number: int) -> None:
        paused.append((await flujo.run_async(number, run_id=f"r{number}")).status)

    async with anyio.create_task_group() as group:
        for number in range(200):
            group.start_soon(one, number)
    assert paused == ["paused"] * 200
    assert [(await store.load(f"r{number}")).length for number in (0, 99, 199)] == [3, 3, 3]


def test_sqlite_is_one_that_is_tested() -> None:
    assert sys.version_info >= (3, 11)
    assert sqlite3.sqlite_version_info >= (3, 35)
