"""What can become of a file: full, read-only, locked, cut, flipped, taken away, too new, not ours; and of a clock."""

import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from kept_runs import new_id, question, receipt, row, snapshot
from test_hitl_crash import child, lines

from flujo.core import ConfigurationError, FlujoError, HoldLost, KeptRun, SnapshotError, StillRunning
from flujo.hitl import SQLiteStore, StoreDamaged, StoreTooNew, StoreUnavailable
from flujo.hitl.sqlite import APPLICATION_ID, MIGRATIONS

pytestmark = pytest.mark.anyio


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


async def three_runs(path: Path, rows: int = 3) -> None:
    """r0 and r1 wait for an answer, r2 was at work."""
    async with SQLiteStore(path) as store:
        for name in ("r0", "r1", "r2"):
            hold = await store.create(snapshot(name, tenant="north"))
            await store.append(hold, [row(number) for number in range(rows)])
            if name != "r2":
                await store.save(hold, snapshot(name, "paused", pauses=[question()], position=rows, tenant="north"))


def test_the_arguments_are_checked(tmp_path):
    with pytest.raises(ConfigurationError, match="'fast'"):
        SQLiteStore(tmp_path / "x", durability="fast")
    with pytest.raises(ConfigurationError, match="lease_s=0"):
        SQLiteStore(tmp_path / "x", lease_s=0)
    assert not list(tmp_path.iterdir()), "nothing is made before it is used"


@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("normal", 1)])
async def test_how_durable_a_commit_is(tmp_path, durability, level):
    store = SQLiteStore(tmp_path / "runs.db", durability=durability)
    await store.create(snapshot("r0"))
    connection = store._writer._database._connection
    assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    await store.aclose()


def test_what_a_file_says_of_itself(tmp_path):
    anyio.run(three_runs, tmp_path / "runs.db")
    with closing(sqlite3.connect(tmp_path / "runs.db")) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


# --- files that cannot be used ------------------------------------------------------------------------------------


def other_program(path: Path) -> None:
    change(path, "CREATE TABLE songs (name TEXT)")


def too_new(path: Path) -> None:
    change(path, f"PRAGMA application_id = {APPLICATION_ID}", "PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (other_program, StoreDamaged),
        (too_new, StoreTooNew),
        (lambda path: path.write_bytes(b"no database at all, but quite a long text" * 100), StoreDamaged),
        (lambda path: path.mkdir(), StoreUnavailable),
        (lambda path: path.symlink_to("/nowhere/at/all"), StoreUnavailable),
    ],
)
async def test_a_file_that_is_no_store_is_left_as_it_is(tmp_path, make: Callable[[Path], object], kind):
    path = tmp_path / "runs.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    async with SQLiteStore(path) as store:
        for work in (store.create(snapshot("r0")), store.load("r0"), store.runs()):
            with pytest.raises(kind, match=r"runs\.db"):
                await work
    assert (path.read_bytes() if path.is_file() else None) == before


async def test_a_disk_that_is_full(tmp_path):
    """The rows before are kept, and the same store goes on when there is room."""
    with child("full", tmp_path / "runs.db", 3_000_000) as process:
        failed, kept, after = lines(process)
    assert failed["error"] == "StoreUnavailable"
    assert 0 < failed["acknowledged"] <= kept["length"] <= failed["acknowledged"] + 1
    assert after["length"] == kept["length"] + 1


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_store_that_may_not_be_written(what):
    folder = Path("/tmp") / new_id("flujo-ro")
    folder.mkdir(mode=0o777)
    try:
        anyio.run(three_runs, folder / "runs.db")
        folder.chmod(0o755 if what == "folder" else 0o777)
        with child("read_only", folder / "runs.db") as process:
            create, load = lines(process)
        assert create["error"] == "StoreUnavailable"
        assert load["error"] in (None, "StoreUnavailable")
    finally:
        shutil.rmtree(folder)


async def test_a_lock_is_waited_for_but_not_for_ever(tmp_path):
    path = tmp_path / "runs.db"
    store = SQLiteStore(path, patience_s=0.3)
    hold = await store.create(snapshot("r0"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.append(hold, [row(0)])
        assert 0.2 < time.monotonic() - started < 3
        assert (await store.load("r0")).length == 0, "who reads does not wait"
    await store.append(hold, [row(0)])
    await store.aclose()


# --- damage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "match"),
    [
        ("UPDATE journal SET payload = x'00' WHERE run = 3", r"journal\[0\] of run 'r2'"),
        ("UPDATE journal SET payload = substr(payload, 1, 30) WHERE run = 3 AND position = 1", r"journal\[1\]"),
        ("UPDATE journal SET run = 3, position = 3 WHERE run = 1 AND position = 0", r"journal\[3\].*belongs elsewhere"),
        ("DELETE FROM journal WHERE run = 3 AND position = 1", r"journal\[1\].*missing"),
        ("DELETE FROM journal WHERE run = 1 AND position = 2", r"journal\[2\] of run 'r0'.*missing"),
        ("UPDATE runs SET snapshot = (SELECT snapshot FROM runs WHERE key = 1) WHERE key = 3", "snapshot of run 'r2'"),
        ("UPDATE runs SET snapshot = 'text' WHERE key = 3", "not what a store writes"),
        ("UPDATE runs SET status = 'flying' WHERE key = 3", "status is 'flying'"),
        ("INSERT INTO pauses SELECT 99, 3, pause, 0, 0, 1, 1, NULL, NULL, 0, shown FROM pauses WHERE run = 1", "pause"),
    ],
)
async def test_damage_to_one_run_is_named_and_leaves_the_others(tmp_path, statement, match):
    path = tmp_path / "runs.db"
    await three_runs(path)
    change(path, statement)
    async with SQLiteStore(path) as store:
        with pytest.raises(SnapshotError, match=match):
            await read_two(store)
        assert (await store.load("r1")).length == 3
        assert len((await store.runs()).items) == 3
        await store.claim(3, receipt("r1"), [row(3)])


async def read_two(store: SQLiteStore) -> None:
    await store.load("r2")
    (await store.load("r0")).history()


async def use(path: Path) -> None:
    """All that is read of a store; whatever is wrong with it, only our errors come out."""
    async with SQLiteStore(path, patience_s=0.2) as store:
        works = [lambda name=name: store.load(name) for name in ("r0", "r1", "r2")]
        works += [lambda name=name: store.receipt(name) for name in ("r0", "r2")]
        works += [store.runs, store.open_pauses, store.decided, store.orphaned]
        works += [lambda: store.record_decision("r0", "approve", True, "d")]
        works += [lambda: store.claim(3, receipt("r2", ""), [row(3)])]
        for work in works:
            try:
                found = await work()
                if isinstance(found, KeptRun):
                    rows, is_at_work = found.history(), found.snapshot.run_id == "r2"
                    # what a run at work wrote last is nowhere counted: damage to the index may hide it
                    assert rows[:3] == [row(0), row(1), row(2)][: len(rows) if is_at_work else 3]
            except FlujoError:
                continue


async def flip(path: Path, times: int, seed: int) -> None:
    await three_runs(path)
    good, dice = path.read_bytes(), random.Random(seed)
    for _ in range(times):
        bad = bytearray(good)
        for _ in range(dice.choice([1, 1, 1, 20])):
            bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
        for left in path.parent.glob("runs.db-*"):
            left.unlink()
        path.write_bytes(bad if dice.random() < 0.8 else bad[: dice.randrange(len(bad))])
        await use(path)


async def test_flipped_bits_and_cut_files_give_our_errors(tmp_path, anyio_backend_name):
    await flip(tmp_path / "runs.db", 40, seed=len(anyio_backend_name))


@pytest.mark.soak
async def test_3000_flipped_and_cut_files_give_our_errors(tmp_path):
    await flip(tmp_path / "runs.db", 3000, seed=11)


async def test_rows_that_are_taken_away_in_use_come_back(tmp_path):
    """The file of newest rows is deleted under a store: it says so, and puts what it has into the main file."""
    path = tmp_path / "runs.db"
    store = SQLiteStore(path)
    hold = await store.create(snapshot("r0"))
    await store.append(hold, [row(0)])
    (tmp_path / "runs.db-wal").unlink()
    with pytest.raises(StoreDamaged, match="taken away"):
        await store.append(hold, [row(1)])
    await store.append(hold, [row(1)])
    await store.aclose()
    async with SQLiteStore(path) as other:
        assert (await other.load("r0")).length == 2


async def test_a_file_that_is_taken_away_in_use_is_not_begun_anew(tmp_path):
    store = SQLiteStore(tmp_path / "runs.db")
    hold = await store.create(snapshot("r0"))
    for path in tmp_path.iterdir():
        path.unlink()
    for work in (store.append(hold, [row(0)]), store.append(hold, [row(0)]), store.create(snapshot("r1"))):
        with pytest.raises(StoreDamaged, match="taken away"):
            await work
    await store.aclose()
    assert not (tmp_path / "runs.db").exists()


async def test_lost_newest_rows_leave_what_was_there_before(tmp_path):
    path = tmp_path / "runs.db"
    await three_runs(path)
    async with SQLiteStore(path) as store:
        await store.claim(3, receipt("r0"), [row(3)])
        shutil.copy(path, tmp_path / "copy.db")
    async with SQLiteStore(tmp_path / "copy.db") as copy:
        assert (await copy.load("r0")).length == 3
        await copy.claim(3, receipt("r0"), [row(3)])


# --- leases and clocks --------------------------------------------------------------------------------------------


def on_another_machine(path: Path) -> None:
    change(path, "UPDATE owners SET host = 'another boot'")


async def test_a_hold_of_another_machine_lasts_as_long_as_its_lease(tmp_path):
    path, shift = tmp_path / "runs.db", 0.0
    far, near = SQLiteStore(path, lease_s=30), SQLiteStore(path, clock=lambda: time.time() + shift)
    hold = await far.create(snapshot("r0"))
    on_another_machine(path)
    shift = 29
    with pytest.raises(StillRunning):
        await near.claim(0, receipt("r0", ""), [])
    shift = 31
    taken = await near.claim(0, receipt("r0", ""), [])
    assert taken.fence == hold.fence + 1
    for late in (far.append(hold, [row(0)]), far.save(hold, snapshot("r0", "failed")), far.release(hold)):
        with pytest.raises(HoldLost):
            await late
    await near.append(taken, [row(0)])
    await far.aclose()
    await near.aclose()


async def test_a_hold_is_renewed_while_its_store_lives(tmp_path):
    path = tmp_path / "runs.db"
    far, near = SQLiteStore(path, lease_s=0.6), SQLiteStore(path)
    hold = await far.create(snapshot("r0"))
    on_another_machine(path)
    for _ in range(8):
        await anyio.sleep(0.15)
        with pytest.raises(StillRunning):
            await near.claim(0, receipt("r0", ""), [])
    await far.append(hold, [row(0)])
    await far.aclose()
    await near.claim(1, receipt("r0", ""), [])
    await near.aclose()


async def test_a_clock_that_was_set_back_keeps_no_run_for_an_hour(tmp_path):
    """What another machine wrote an hour ahead is waited for as long as a lease, by the clock that nobody sets."""
    path = tmp_path / "runs.db"
    far = SQLiteStore(path, lease_s=0.5, clock=lambda: time.time() + 3600)
    near = SQLiteStore(path, lease_s=0.5)
    hold = await far.create(snapshot("r0"))
    on_another_machine(path)
    for _ in range(4):
        with pytest.raises(StillRunning):
            await near.claim(0, receipt("r0", ""), [])
        await anyio.sleep(0.2)
    await far.append(hold, [row(0)])
    await far._writer.call(NoMoreBeats(far))
    await anyio.sleep(0.3)
    with pytest.raises(StillRunning):
        await near.claim(1, receipt("r0", ""), [])
    await anyio.sleep(0.6)
    await near.claim(1, receipt("r0", ""), [])
    await far.aclose()
    await near.aclose()


class NoMoreBeats:
    """A store that lives and says nothing any more."""

    run_id = ""

    def __init__(self, store: SQLiteStore) -> None:
        self.owner = store._kit.owner

    def __call__(self, tx: object) -> None:
        self.owner.holds.clear()
