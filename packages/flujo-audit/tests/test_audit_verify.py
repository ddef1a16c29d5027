"""Acceptance checks 1 to 6 and 8: whatever is done to the bytes of a log, the check finds it and names the record."""

import hashlib
import json
import random
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from flujo.audit import AuditLog, Checkpoint
from flujo.audit.chain import Chain
from flujo.audit.format import TAIL, encode_record

KEY = "a key of more than sixteen characters"


def write_log(path: Path, count: int, start: int = 0) -> list[bytes]:
    chain = Chain(path)
    for first in range(start, count, 1000):
        numbers = range(first, min(first + 1000, count))
        chain.append([encode_record({"event": "test", "n": n, "text": f"é{n}"}) for n in numbers])
    chain.close()
    return path.read_bytes().splitlines(keepends=True)


def rehash(line: bytes, prev: bytes | None = None, **edits: str) -> bytes:
    """What a forger without a key can do: edit a line, then give it the right hash of its new bytes."""
    text = line[:-TAIL].decode()
    if prev is not None:
        text = re.sub(r'"prev":"\w+"', f'"prev":"{prev.decode()}"', text, count=1)
    for old, new in edits.items():
        text = text.replace(f'"{old}"', f'"{new}"', 1)
    return f'{text},"hash":"{hashlib.sha256(text.encode()).hexdigest()}"}}\n'.encode()


def hash_of(line: bytes) -> bytes:
    return json.loads(line)["hash"].encode()


def check(path: Path, *lines: bytes):
    path.write_bytes(b"".join(lines))
    return AuditLog.verify(path)


def test_an_untouched_log_is_intact_and_tells_its_head(tmp_path):
    lines = write_log(tmp_path / "log", 20)
    found = AuditLog.verify(tmp_path / "log")
    assert (found.ok, found.verdict, found.records, found.first_bad) == (True, "intact", 20, None)
    assert found.reason == "consistent up to record 20"
    assert found.head == json.loads(lines[-1])["hash"]
    assert found.log == json.loads(lines[0])["prev"]
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, 21))


def test_check_01_every_bit_of_a_small_log_is_guarded(tmp_path):
    path = tmp_path / "log"
    lines = write_log(path, 3)
    data = b"".join(lines)
    ends = [len(lines[0]), len(lines[0]) + len(lines[1]), len(data)]
    for position in range(len(data)):
        owner = next(number for number, end in enumerate(ends, 1) if position < end)
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        found = check(path, bytes(changed))
        assert (found.ok, found.verdict, found.first_bad) == (False, "tampered", owner), position
        assert found.records == owner - 1


def test_check_01_a_thousand_random_bits_of_a_larger_log(tmp_path):
    path = tmp_path / "log"
    lines = write_log(path, 100)
    dice = random.Random(1)
    for _ in range(1000):
        number = dice.randrange(100)
        line = bytearray(lines[number])
        line[dice.randrange(len(line))] ^= 1 << dice.randrange(8)
        found = check(path, *lines[:number], bytes(line), *lines[number + 1 :])
        assert (found.ok, found.first_bad) == (False, number + 1)


@pytest.mark.parametrize("gone", [0, 5, 8])
def test_check_02_a_deleted_line_is_missed(tmp_path, gone):
    lines = write_log(tmp_path / "log", 10)
    del lines[gone]
    found = check(tmp_path / "log", *lines)
    assert (found.ok, found.first_bad) == (False, gone + 1)
    assert found.reason == f"record {gone + 1} is missing: record {gone + 2} stands in its place"


def test_check_03_swapped_and_doubled_lines_are_found(tmp_path):
    lines = write_log(tmp_path / "log", 10)
    swapped = check(tmp_path / "log", *lines[:4], lines[5], lines[4], *lines[6:])
    assert (swapped.ok, swapped.first_bad) == (False, 5)
    doubled = check(tmp_path / "log", *lines[:5], lines[4], *lines[5:])
    assert (doubled.ok, doubled.first_bad, doubled.reason) == (False, 5, "record 5 stands there twice")


def test_check_04_a_forged_line_with_its_own_right_hash_is_found(tmp_path):
    path = tmp_path / "log"
    lines = write_log(path, 10)
    edited = rehash(lines[4], test="tess")
    found = check(path, *lines[:4], edited, *lines[5:])
    assert (found.ok, found.first_bad) == (False, 5)
    assert "rewritten" in found.reason
    inserted = check(path, *lines[:4], edited, *lines[4:])
    assert (inserted.ok, inserted.first_bad) == (False, 5)
    # The forger can go on as far as he likes: the first line he leaves alone tells.
    nearly_all = [edited]
    for line in lines[5:9]:
        nearly_all.append(rehash(line, hash_of(nearly_all[-1])))
    found = check(path, *lines[:4], *nearly_all, lines[9])
    assert (found.ok, found.first_bad) == (False, 9)


def test_check_05_a_cut_end_shows_against_a_checkpoint_only(tmp_path):
    path = tmp_path / "log"
    lines = write_log(path, 10)
    point = AuditLog.verify(path).checkpoint
    assert point is not None
    cut = check(path, *lines[:7])
    assert (cut.ok, cut.reason) == (True, "consistent up to record 7")
    found = AuditLog.verify(path, checkpoint=point)
    assert (found.ok, found.records, found.first_bad) == (False, 7, 8)
    assert found.reason == "the end was cut: there are 7 records, a checkpoint saw 10"
    path.write_bytes(b"")
    emptied = AuditLog.verify(path, checkpoint=point)
    assert (emptied.verdict, emptied.first_bad) == ("tampered", 1)


def test_check_06_a_log_rewritten_as_a_whole_fails_against_a_signed_checkpoint(tmp_path):
    path, file = tmp_path / "log", tmp_path / "points"
    lines = write_log(path, 10)
    point = AuditLog.verify(path).checkpoint
    assert point is not None
    file.write_text(point.line(KEY.encode()) + "\n")
    assert AuditLog.verify(path, checkpoint=file, key=KEY).ok

    forged = [*lines[:4], rehash(lines[4], test="tess")]
    for line in lines[5:]:
        forged.append(rehash(line, hash_of(forged[-1])))
    assert check(path, *forged).ok, "a chain alone cannot show it"
    found = AuditLog.verify(path, checkpoint=file, key=KEY)
    assert (found.ok, found.verdict, found.first_bad) == (False, "tampered", 10)
    assert "rewritten" in found.reason

    path.unlink()
    write_log(path, 10)
    found = AuditLog.verify(path, checkpoint=file, key=KEY)
    assert (found.ok, found.verdict, found.first_bad) == (False, "tampered", 1)
    assert "another log" in found.reason


def test_records_after_a_checkpoint_do_not_disturb_it(tmp_path):
    path = tmp_path / "log"
    write_log(path, 10)
    early = AuditLog.verify(path).checkpoint
    write_log(path, 20, start=10)
    late = AuditLog.verify(path).checkpoint
    assert early is not None
    assert late is not None
    found = AuditLog.verify(path, checkpoint=f"{late.line()}\n\n{early.line()}\n")
    assert found.ok
    assert found.reason == "consistent up to record 20; agrees with 2 checkpoints, the last at record 20"


def test_check_08_a_wrong_key_or_a_useless_one_is_no_verdict(tmp_path):
    path = tmp_path / "log"
    write_log(path, 3)
    point = AuditLog.verify(path).checkpoint
    assert point is not None
    signed, unsigned = point.line(KEY.encode()), point.line()
    assert AuditLog.verify(path, checkpoint=signed, key=KEY).ok
    assert AuditLog.verify(path, checkpoint=signed).ok
    for checkpoint, key, why in [
        (signed, "another key of enough characters", "wrongly signed"),
        (signed.replace('"seq":3', '"seq":2'), KEY, "wrongly signed"),
        (unsigned, KEY, "not signed"),
        (None, KEY, "no use"),
        (signed, "short", "at least 16"),
        (signed, tmp_path / "no key", "cannot be read"),
    ]:
        found = AuditLog.verify(path, checkpoint=checkpoint, key=key)
        assert (found.ok, found.verdict, found.first_bad) == (False, "unusable", None)
        assert why in found.reason


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"hello\n", "line 1 is not"), (b"\xff\xfe", "no file of checkpoints"), (b"\n", "holds no checkpoint")],
)
def test_a_file_that_holds_no_checkpoints_is_no_verdict(tmp_path, content, why):
    write_log(tmp_path / "log", 1)
    (tmp_path / "points").write_bytes(content)
    found = AuditLog.verify(tmp_path / "log", checkpoint=tmp_path / "points")
    assert (found.verdict, why in found.reason) == ("unusable", True)
    missing = AuditLog.verify(tmp_path / "log", checkpoint=str(tmp_path / "missing"))
    assert (missing.verdict, "cannot be read" in missing.reason) == ("unusable", True)


def test_what_is_no_log_is_unusable_and_says_why(tmp_path):
    for name, content, why in [
        ("empty", b"", "empty"),
        ("notes.txt", b"some notes\n", "not a Flujo audit log"),
        ("other.jsonl", b'{"seq":1}\n{"seq":2}\n', "not a Flujo audit log"),
        ("zeros", b"\x00" * 3_000_000, "not a Flujo audit log"),
    ]:
        (tmp_path / name).write_bytes(content)
        found = AuditLog.verify(tmp_path / name)
        assert (found.ok, found.verdict, found.records) == (False, "unusable", 0)
        assert why in found.reason
        assert name in found.reason
    assert "No such file" in AuditLog.verify(tmp_path / "missing").reason
    assert "directory" in AuditLog.verify(tmp_path).reason


def test_a_log_whose_end_is_torn_is_not_called_intact(tmp_path):
    lines = write_log(tmp_path / "log", 3)
    for cut in (1, len(lines[2]) - 1):
        found = check(tmp_path / "log", *lines[:2], lines[2][:cut])
        assert (found.ok, found.records, found.first_bad) == (False, 2, 3)
        assert "has no end" in found.reason
    first = check(tmp_path / "log", lines[0][:5])
    assert (first.verdict, first.first_bad) == ("tampered", 1)


def test_a_line_blown_up_beyond_the_longest_is_bounded_and_found(tmp_path):
    lines = write_log(tmp_path / "log", 2)
    found = check(tmp_path / "log", lines[0], lines[1][:-TAIL] + b"x" * 3_000_000 + lines[1][-TAIL:])
    assert (found.ok, found.first_bad) == (False, 2)


def test_a_checkpoint_object_knows_nothing_of_a_shorter_history(tmp_path):
    write_log(tmp_path / "log", 2)
    head = AuditLog.verify(tmp_path / "log")
    wrong = Checkpoint(head.log, 1, "0" * 64, head.head_ts)
    found = AuditLog.verify(tmp_path / "log", checkpoint=wrong)
    assert (found.ok, found.first_bad) == (False, 1)


def test_check_15_a_long_log_is_read_in_one_pass_and_little_memory(tmp_path):
    write_log(tmp_path / "log", 20_000)
    tracemalloc.start()
    try:
        found = AuditLog.verify(tmp_path / "log")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (found.ok, found.records) == (True, 20_000)
    assert peak < 3 << 20 < (tmp_path / "log").stat().st_size


@pytest.mark.alone
@pytest.mark.soak
def test_check_15_a_million_records_are_verified_in_five_seconds_of_cpu_and_100_megabytes(tmp_path):
    chain = Chain(tmp_path / "log")
    body = encode_record({"event": "llm.result", "run_id": "r-1", "pad": "x" * 300})
    for _ in range(1000):
        chain.append([body] * 1000)
    chain.close()
    # Peak memory as the kernel keeps it for the program itself; getrusage also counts what its parent had.
    code = (
        "import sys, time; from flujo.audit import AuditLog; start = time.process_time(); "
        "found = AuditLog.verify(sys.argv[1]); print(found.records, time.process_time() - start); "
        "print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')])"
    )
    command = [sys.executable, "-c", code, tmp_path / "log"]
    records, cpu_s, peak_kb = subprocess.check_output(command, text=True, timeout=100).split()
    assert int(records) == 1_000_000
    assert float(cpu_s) <= 5
    assert int(peak_kb) <= 100 * 1024
