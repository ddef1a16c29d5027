"""AuditLog in use: acknowledged means durable, many tasks, cancellation, closing, and what it refuses to continue."""

import asyncio
import contextlib
import fcntl
import json
import os
import threading
from pathlib import Path

import anyio
import pytest
import trio

from flujo.audit import AuditError, AuditLog, AuditLogClosed, AuditLogDamaged, AuditRecordError, AuditWriteError

pytestmark = pytest.mark.anyio


def stored(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def writers(path: Path) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == f"flujo-audit {path.name}"]


def open_files() -> set[str]:
    """What this process holds open (Linux), but for what was closed while we looked."""
    held = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            held.add(os.readlink(link))
    return held


async def test_an_acknowledged_record_is_in_the_file_and_the_receipt_names_it(tmp_path):
    path = tmp_path / "new" / "folder" / "audit.jsonl"
    receipt = await AuditLog(path).append({"event": "hello", "n": 1})
    [record] = stored(path)
    assert (record["event"], record["n"]) == ("hello", 1)
    assert (record["seq"], record["event_id"], record["hash"]) == (receipt.seq, receipt.event_id, receipt.hash)
    assert path.stat().st_mode & 0o777 == 0o600
    assert AuditLog.verify(path).ok


async def test_a_second_object_continues_the_chain_of_the_first(tmp_path):
    path = tmp_path / "log"
    first, second = AuditLog(path), AuditLog(path)
    for n in range(3):
        await first.append({"n": n})
        await second.append({"n": n})
    found = AuditLog.verify(path)
    assert (found.ok, found.records) == (True, 6)
    assert len({record["writer_id"] for record in stored(path)}) == 2
    assert first.checkpoint() != second.checkpoint() == found.checkpoint


async def test_the_lock_is_free_again_when_a_record_is_acknowledged(tmp_path):
    log = AuditLog(tmp_path / "log")
    await log.append({})
    assert not is_locked(tmp_path / "log")
    with (tmp_path / "log").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert is_locked(tmp_path / "log")


def is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


async def test_check_14_64_tasks_leave_no_gap_and_each_keeps_its_order(tmp_path):
    path = tmp_path / "log"
    receipts: dict[str, int] = {}

    async def work(log: AuditLog, task: int) -> None:
        for n in range(10):
            receipt = await log.append({"task": task, "n": n})
            receipts[receipt.event_id] = receipt.seq

    async with AuditLog(path) as log, anyio.create_task_group() as group:
        for task in range(64):
            group.start_soon(work, log, task)
    records = stored(path)
    assert [record["seq"] for record in records] == list(range(1, 641))
    assert {record["event_id"]: record["seq"] for record in records} == receipts
    for task in range(64):
        assert [record["n"] for record in records if record["task"] == task] == list(range(10))
    assert AuditLog.verify(path).ok


async def test_check_14_cancelling_a_task_never_drops_a_record(tmp_path):
    path = tmp_path / "log"
    acknowledged: list[str] = []
    begun = 0

    async def work(log: AuditLog) -> None:
        nonlocal begun
        while True:
            begun += 1
            acknowledged.append((await log.append({"n": begun})).event_id)

    log = AuditLog(path)
    for delay in range(12):
        with anyio.move_on_after(delay * 0.001):
            async with anyio.create_task_group() as group:
                for _ in range(8):
                    group.start_soon(work, log)
    await log.close()
    ids = [str(record["event_id"]) for record in stored(path)]
    assert len(acknowledged) > 20
    assert set(acknowledged) <= set(ids)
    assert len(ids) == len(set(ids)) == begun, "also a record whose wait was cancelled is written"
    assert AuditLog.verify(path).ok


async def test_an_idle_log_holds_neither_thread_nor_file_and_wakes_again(tmp_path):
    path = tmp_path / "idle"
    log = AuditLog(path)
    for seq in (1, 2):
        assert (await log.append({})).seq == seq
        with anyio.fail_after(5):
            while writers(path):
                await anyio.sleep(0.01)
        assert str(path) not in open_files()


async def test_a_log_is_shared_by_threads_with_loops_of_their_own(tmp_path):
    path = tmp_path / "log"
    log = AuditLog(path)

    async def work() -> None:
        for n in range(20):
            await log.append({"n": n})

    threads = [threading.Thread(target=asyncio.run, args=(work(),)), threading.Thread(target=trio.run, args=(work,))]
    for thread in threads:
        thread.start()
    await work()
    for thread in threads:
        await anyio.to_thread.run_sync(thread.join)
    found = AuditLog.verify(path)
    assert (found.ok, found.records) == (True, 60)


async def test_a_loop_that_ends_while_its_record_is_written_loses_nothing(tmp_path):
    log = AuditLog(tmp_path / "log")

    def run_and_leave() -> None:
        async def leave() -> None:
            with anyio.move_on_after(0):
                await log.append({"event": "left behind"})

        asyncio.run(leave())
        trio.run(leave)

    await anyio.to_thread.run_sync(run_and_leave)
    await log.append({"event": "after"})
    assert [record["event"] for record in stored(tmp_path / "log")] == ["left behind", "left behind", "after"]


async def test_close_refuses_more_and_may_be_called_twice(tmp_path):
    log = AuditLog(tmp_path / "to close")
    await log.append({})
    await log.close()
    await log.close()
    assert writers(log.path) == []
    with pytest.raises(AuditLogClosed, match="is closed"):
        await log.append({})
    assert len(stored(log.path)) == 1


async def test_close_exports_a_checkpoint_even_when_the_run_is_cancelled(tmp_path):
    path, points = tmp_path / "log", tmp_path / "elsewhere" / "points"
    key = "a key of more than sixteen characters"
    with anyio.CancelScope() as scope:
        async with AuditLog(path, checkpoint_to=points, key=key) as log:
            await log.append({"n": 1})
            scope.cancel()
            await log.append({"n": 2})
    assert len(points.read_text().splitlines()) == 1
    found = AuditLog.verify(path, checkpoint=points, key=key)
    assert (found.ok, found.records) == (True, 2)
    assert "the last at record 2" in found.reason


async def test_a_log_without_records_exports_nothing(tmp_path):
    async with AuditLog(tmp_path / "log", checkpoint_to=tmp_path / "points") as log:
        assert log.checkpoint() is None
    assert list(tmp_path.iterdir()) == []


async def test_a_checkpoint_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "points").mkdir()
    log = AuditLog(tmp_path / "log", checkpoint_to=tmp_path / "points")
    await log.append({})
    with pytest.raises(AuditWriteError, match="points"):
        await log.close()


async def test_a_bad_record_is_refused_at_once_and_the_log_goes_on(tmp_path):
    log = AuditLog(tmp_path / "log")
    with pytest.raises(AuditRecordError):
        await log.append({"seq": 3})
    assert not (tmp_path / "log").exists()
    assert (await log.append({"event": "good"})).seq == 1


async def test_a_record_is_taken_as_it_was_when_it_was_given(tmp_path):
    record: dict[str, object] = {"n": 1}
    log = AuditLog(tmp_path / "log")
    given = anyio.Event()

    async def give() -> None:
        given.set()
        await log.append(record)

    async with anyio.create_task_group() as group:
        group.start_soon(give)
        await given.wait()
        record["n"] = 2
    assert stored(tmp_path / "log")[0]["n"] == 1


@pytest.mark.parametrize("content", [b"my notes\n", b"\x00" * 100, b'{"seq":1}\n' * 50])
async def test_a_file_that_is_no_log_is_never_touched(tmp_path, content):
    path = tmp_path / "notes"
    path.write_bytes(content)
    with pytest.raises(AuditLogDamaged, match="not that of a Flujo audit log"):
        await AuditLog(path).append({})
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


async def test_a_log_that_is_removed_replaced_cut_or_rewritten_in_use_is_not_continued(tmp_path):
    async def damaged(name: str, why: str) -> None:
        log = AuditLog(tmp_path / name)
        await log.append({"n": 1})
        await log.append({"n": 2})
        spare = AuditLog(tmp_path / f"{name} spare")
        await spare.append({"n": 1})
        path = tmp_path / name
        lines = path.read_bytes().splitlines(keepends=True)
        match name:
            case "removed":
                path.unlink()
            case "replaced":
                os.replace(tmp_path / f"{name} spare", path)
            case "cut":
                path.write_bytes(lines[0])
            case "torn":
                path.write_bytes(b"".join(lines)[:-1])
            case "emptied":
                path.write_bytes(b"")
        before = path.read_bytes() if path.exists() else None
        for _ in range(2):
            with pytest.raises(AuditLogDamaged, match=why):
                await log.append({"n": 3})
        assert (path.read_bytes() if path.exists() else None) == before

    await damaged("removed", "removed")
    await damaged("replaced", "replaced|gone")
    for name in ("cut", "torn", "emptied"):
        await damaged(name, "are gone")


async def test_a_folder_or_a_device_is_no_log(tmp_path):
    for path in (tmp_path, Path("/dev/full")):
        with pytest.raises(AuditError, match="cannot be"):
            await AuditLog(path).append({})


async def test_a_change_of_folder_does_not_begin_a_second_log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = AuditLog("log")
    await log.append({})
    (tmp_path / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "deeper")
    assert (await log.append({})).seq == 2
