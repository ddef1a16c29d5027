"""Acceptance checks 9 to 13: kills, torn ends, full disks, failing syncs, and several processes. Real ones, all."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flujo.audit import AuditLog, AuditLogDamaged
from flujo.audit.chain import Chain
from flujo.audit.format import encode_record

CHILD = Path(__file__).with_name("crash_child.py")


def start(mode: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(CHILD), mode, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answer(process: subprocess.Popen[str]) -> dict[str, object]:
    out, err = process.communicate(timeout=110)
    assert process.returncode == 0, err
    return json.loads(out)


def stored(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def side_files(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.torn-*"))


@pytest.mark.parametrize("moments", [30, pytest.param(200, marks=pytest.mark.soak)])
def test_check_09_a_kill_at_any_moment_loses_no_acknowledged_record(tmp_path, moments):
    path = tmp_path / "log"
    told = answer(start("kill", path, moments))
    acknowledged = told["acknowledged"]
    assert isinstance(acknowledged, list)
    ids = [record["id"] for record in stored(path) if record["event"] == "work"]
    assert len(acknowledged) >= moments * 8
    assert set(acknowledged) <= set(ids)
    assert len(ids) == len(set(ids))
    found = AuditLog.verify(path)
    assert found.ok, found.reason
    assert found.recoveries == told["torn"] == len(side_files(path))
    assert len([1 for record in stored(path) if record["event"] == "restart"]) == moments


def test_check_10_a_line_torn_at_any_byte_is_moved_aside_and_told(tmp_path):
    path = tmp_path / "log"
    chain = Chain(path)
    chain.append([encode_record({"event": "first"})])
    first = path.read_bytes()
    chain.append([encode_record({"event": "second", "text": "x" * 50})])
    chain.close()
    second = path.read_bytes()[len(first) :]
    for cut in range(1, len(second)):
        path.write_bytes(first + second[:cut])
        writer = Chain(path)
        [receipt] = writer.append([encode_record({"event": "third"})])
        writer.close()
        records = stored(path)
        assert [record["event"] for record in records] == ["first", "recovered", "third"]
        assert receipt.seq == 3
        [side] = side_files(path)
        assert side.read_bytes() == second[:cut]
        told = records[1]
        assert (told["mark"], told["kind"], told["bytes"]) == ("recovered", "torn", cut)
        assert told["side_file"] == side.name
        found = AuditLog.verify(path)
        assert (found.ok, found.recoveries) == (True, 1)
        side.unlink()


def test_check_10_a_torn_very_first_line_begins_the_log_anew(tmp_path):
    path = tmp_path / "log"
    chain = Chain(path)
    chain.append([encode_record({"event": "first"})])
    chain.close()
    first = path.read_bytes()
    for cut in (1, 10, 23, 50, 90, len(first) - 1):
        path.write_bytes(first[:cut])
        writer = Chain(path)
        writer.append([encode_record({"event": "again"})])
        writer.close()
        assert [record["event"] for record in stored(path)] == ["recovered", "again"]
        assert AuditLog.verify(path).ok
        side_files(path)[0].unlink()


def test_a_damaged_last_line_is_moved_aside_but_never_two(tmp_path):
    path = tmp_path / "log"
    chain = Chain(path)
    chain.append([encode_record({"n": n}) for n in range(4)])
    chain.close()
    lines = path.read_bytes().splitlines(keepends=True)
    zeroed = b"\x00" * (len(lines[3]) - 1) + b"\n"
    path.write_bytes(b"".join(lines[:3]) + zeroed)
    writer = Chain(path)
    writer.append([encode_record({"n": 4})])
    writer.close()
    assert [record.get("kind") for record in stored(path)] == [None, None, None, "damaged", None]
    assert side_files(path)[0].read_bytes() == zeroed
    assert AuditLog.verify(path).ok

    beginning = lines[0][:120]
    for damage in ([zeroed, zeroed], [zeroed, b"{"], [beginning, zeroed, zeroed], [beginning, b"{" * 4_000_000]):
        content = b"".join(damage) if beginning in damage else b"".join([lines[0], *damage])
        path.write_bytes(content)
        with pytest.raises(AuditLogDamaged):
            Chain(path).append([encode_record({"n": 5})])
        assert path.read_bytes() == content


def test_lines_of_the_greatest_length_are_found_again(tmp_path):
    path = tmp_path / "log"
    long = encode_record({"x": "y" * ((1 << 20) - 520)})
    for _ in range(2):
        chain = Chain(path)
        chain.append([long, long])
        chain.close()
    with path.open("ab") as file:
        file.write(b'{"v":1' + b"z" * 900_000)
    chain = Chain(path)
    chain.append([long])
    chain.close()
    found = AuditLog.verify(path)
    assert (found.ok, found.records, found.recoveries) == (True, 6, 1)


@pytest.mark.parametrize("room", [0, 1, 200, 400, 700])
def test_check_11_a_full_disk_acknowledges_nothing_and_leaves_the_chain_whole(tmp_path, room):
    path = tmp_path / "log"
    told = answer(start("full", path, room))
    accepted = 3 - told["refused"]
    assert told["errors"] == [errno.EFBIG] * told["refused"]
    assert told["refused"] >= 1
    assert (told["grown"] == 0) == (accepted == 0)
    assert told["ok_while_full"] is True
    assert told["seq"] == 3 + accepted
    assert [record["n"] for record in stored(path)][-1] == 6
    assert AuditLog.verify(path).records == 3 + accepted
    assert side_files(path) == []


def test_check_12_a_failing_sync_is_a_failure_and_nothing_of_the_record_stays(tmp_path):
    path = tmp_path / "log"
    told = answer(start("sync_fails", path))
    assert told == {"errors": [errno.EIO, errno.EIO], "grown": 0}
    chain = Chain(path)
    [receipt] = chain.append([encode_record({"n": 4})])
    chain.close()
    assert receipt.seq == 2
    assert [record["n"] for record in stored(path)] == [1, 4]
    assert AuditLog.verify(path).ok


@pytest.mark.parametrize("count", [50, pytest.param(2000, marks=pytest.mark.soak)])
def test_check_13_four_processes_write_one_chain(tmp_path, count):
    path = tmp_path / "log"
    for process in [start("write", path, f"p{number}", count) for number in range(4)]:
        answer(process)
    ids = [record["id"] for record in stored(path)]
    assert len(ids) == len(set(ids)) == 4 * 4 * count
    found = AuditLog.verify(path)
    assert (found.ok, found.records, found.recoveries) == (True, len(ids), 0)


def test_check_13_a_fork_and_a_spawn_with_the_log_open_write_one_chain(tmp_path):
    path = tmp_path / "log"
    told = answer(start("fork", path))
    assert told == {"exit": [0, 0]}
    ids = [str(record["id"]) for record in stored(path)]
    assert len(ids) == len(set(ids)) == 1 + 100 + 100 + 40
    assert [name for name in ids if name.startswith("child")] == [f"child-{n}" for n in range(100)]
    found = AuditLog.verify(path)
    assert (found.ok, found.recoveries) == (True, 0)
    assert len({record["writer_id"] for record in stored(path)}) == 3


def test_a_child_that_outlives_a_killed_writer_does_not_keep_its_lock(tmp_path):
    path = tmp_path / "log"
    for _ in range(3):
        process = start("orphan", path)
        assert process.stdout is not None
        child = json.loads(process.stdout.readline())["child"]
        process.kill()
        process.wait()
        try:
            answer(start("write", path, "next", 1))
        finally:
            os.kill(child, signal.SIGKILL)
        process.communicate()
    assert AuditLog.verify(path).ok


def test_a_program_that_ends_at_once_still_writes_what_it_queued(tmp_path):
    path = tmp_path / "log"
    answer(start("leave", path))
    assert [record["n"] for record in stored(path)] == list(range(50))
    assert AuditLog.verify(path).ok


def clock_of(*seconds: float) -> Callable[[], int]:
    moments = iter(seconds)
    return lambda: int(next(moments) * 1e9)


def test_check_23_a_clock_set_back_is_flagged_and_the_order_stays(tmp_path):
    path = tmp_path / "log"
    for clock in (clock_of(10_000, 6_400, 6_401), clock_of(6_400, 6_402)):
        chain = Chain(path, clock)
        for n in range(3):
            try:
                chain.append([encode_record({"n": n})])
            except StopIteration:
                break
        chain.close()
    records = stored(path)
    assert [record["seq"] for record in records] == [1, 2, 3, 4, 5]
    assert [record.get("mark") for record in records] == [None, "clock_back", None, "clock_back", None]
    ticks = [record["mono_ns"] for record in records]
    assert ticks == sorted(ticks)
    found = AuditLog.verify(path)
    assert (found.ok, found.clock_steps) == (True, 2)
    assert "the clock was set back 2 times" in found.reason
