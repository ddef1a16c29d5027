"""Flipped bits and cut files: told with the run and the cause, in errors of ours, and other runs go on."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import anyio
import pytest
from conftest import OpenStore
from hitl_trials import paused, question, receipt, row

from flujo.core import FlujoError, SnapshotError
from flujo.hitl import RunDamaged, SQLiteStore, StoreDamaged, StoreError

pytestmark = pytest.mark.anyio

FLIP_JOURNAL = "UPDATE journal SET payload=? WHERE run=1 AND position=5"
FLIP_SNAPSHOT = "UPDATE snapshots SET payload=? WHERE run=1"


def flipped(payload: bytes) -> bytes:
    middle = len(payload) // 2
    return payload[:middle] + bytes([payload[middle] ^ 1]) + payload[middle + 1 :]


def change(path: Path, ask: str, change: str, how: Callable[[bytes], object]) -> None:
    with closing(sqlite3.connect(path)) as db:
        (payload,) = db.execute(ask).fetchone()
        db.execute(change, (how(payload),))
        db.commit()


async def two_runs(open_store: OpenStore) -> None:
    store = open_store()
    await paused(store, "bad", question("Pay the bad one?"), rows=10)
    await paused(store, "good", rows=10)
    store.close()


@pytest.mark.parametrize("how", [flipped, lambda _: b"", lambda _: "text", lambda _: b"\0\0\0\0{}"])
async def test_a_damaged_snapshot_is_told_and_harms_no_other_run(
    path: Path, open_store: OpenStore, how: Callable[[bytes], object]
) -> None:
    await two_runs(open_store)
    change(path, "SELECT payload FROM snapshots WHERE run=1", FLIP_SNAPSHOT, how)
    store = open_store()
    with pytest.raises(RunDamaged, match=r"'bad'.*snapshot of bad") as damage:
        await store.load("bad")
    assert damage.value.run_id == "bad"
    assert isinstance(damage.value, SnapshotError)
    assert isinstance(damage.value, StoreDamaged)
    assert len((await store.load("good")).history()) == 10
    assert {one.run_id for one in (await store.runs()).items} == {"good", "bad"}


async def test_a_damaged_journal_is_told_when_it_is_read(path: Path, open_store: OpenStore) -> None:
    await two_runs(open_store)
    change(path, "SELECT payload FROM journal WHERE run=1 AND position=5", FLIP_JOURNAL, flipped)
    store = open_store()
    kept = await store.load("bad")  # it needs nothing of what came before it stood
    with pytest.raises(RunDamaged, match=r"'bad'.*journal 5 of bad.*checksum"):
        kept.history()


async def test_a_missing_entry_is_told(path: Path, open_store: OpenStore) -> None:
    await two_runs(open_store)
    with closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM journal WHERE run=1 AND position IN (5, 9)")
        db.execute("DELETE FROM journal WHERE run=2 AND position=9")
        db.commit()
    store = open_store()
    for run_id, why in (("bad", "journal 5 of bad: it is missing"), ("good", "9 entries, not 10")):
        with pytest.raises(RunDamaged, match=why):
            (await store.load(run_id)).history()


async def test_an_entry_of_another_place_is_no_entry_of_this_one(path: Path, open_store: OpenStore) -> None:
    await two_runs(open_store)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE journal SET payload=(SELECT payload FROM journal WHERE run=2 AND position=5) WHERE run=1")
        db.commit()
    with pytest.raises(RunDamaged, match="journal 0 of bad"):
        (await open_store().load("bad")).history()


async def test_a_position_that_was_changed_is_told(path: Path, open_store: OpenStore) -> None:
    await two_runs(open_store)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE snapshots SET position=8 WHERE run=1")
        db.execute("UPDATE runs SET status=77 WHERE id=2")
        db.commit()
    for run_id in ("bad", "good"):
        with pytest.raises(RunDamaged):
            await open_store().load(run_id)


async def all_of_it(store: SQLiteStore, wrong: list[FlujoError]) -> int:
    """Read and write all that can be, and count what works."""
    works = 0
    for number in range(6):
        for work in (store.load, store.receipt):
            try:
                kept = await work(f"r{number}")
                if kept is not None and work == store.load:
                    kept.history()
                works += 1
            except FlujoError as error:
                wrong.append(error)
    for listing in (store.runs(), store.open_pauses(), store.decided(), store.orphans("0" * 64)):
        try:
            await listing
            works += 1
        except FlujoError as error:
            wrong.append(error)
    try:
        hold = await store.claim(40, "paused", receipt("r5"), [row(40)])
        await store.append(hold, [row(41)])
        works += 1
    except FlujoError as error:
        wrong.append(error)
    return works


async def made(open_store: OpenStore) -> None:
    store = open_store(durability="normal")
    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(lambda number=number: paused(store, f"r{number}", rows=40))
    store.close()


async def test_bits_that_flip_anywhere_give_errors_of_ours_only(path: Path, open_store: OpenStore) -> None:
    await made(open_store)
    whole, dice = path.read_bytes(), random.Random(7)
    wrong: list[FlujoError] = []
    works = 0
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(3):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        for beside in path.parent.iterdir():
            beside.unlink()
        path.write_bytes(data)
        store = open_store(wait_s=0.2)
        works += await all_of_it(store, wrong)
        store.close()
    assert works > 400  # of 680
    assert wrong
    assert any(isinstance(error, RunDamaged) for error in wrong)


async def test_a_cut_file_gives_errors_of_ours_only(path: Path, open_store: OpenStore) -> None:
    await made(open_store)
    whole = path.read_bytes()
    wrong: list[FlujoError] = []
    for part in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        for beside in path.parent.iterdir():
            beside.unlink()
        path.write_bytes(whole[: int(len(whole) * part)])
        store = open_store(wait_s=0.2)
        await all_of_it(store, wrong)
        store.close()
    assert any(isinstance(error, StoreError) for error in wrong)


async def test_one_damaged_question_hides_no_other(path: Path, open_store: OpenStore) -> None:
    await two_runs(open_store)
    change(path, "SELECT question FROM pauses WHERE run=1", "UPDATE pauses SET question=? WHERE run=1", flipped)
    assert [one.run_id for one in (await open_store().open_pauses()).items] == ["good"]


@pytest.mark.parametrize("value", ["'text'", "9e99", "x'00'", str(2**62)])
async def test_columns_that_hold_what_was_never_written_are_told(path: Path, open_store: OpenStore, value: str) -> None:
    await two_runs(open_store)
    store = open_store()
    await store.claim(10, "paused", receipt("bad"), [])
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"UPDATE decisions SET decided={value}")
        db.execute(f"UPDATE runs SET began={value}, status={value}, plan={value} WHERE id=2")
        db.execute(f"UPDATE owners SET boot={value}, beat_wall={value}, beat_mono={value}, lease_s={value}")
        db.commit()
    other = open_store()
    for work in (other.receipt("bad"), other.load("good"), other.claim(10, "paused", receipt("bad"), [])):
        with pytest.raises(FlujoError):
            await work
    for listing in (other.runs(), other.orphans("0" * 64)):
        with suppress(StoreError):
            await listing
