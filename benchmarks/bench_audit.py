"""What the audit log costs beside the bare system calls and hashes it cannot do without, measured in the same run.

CPU time is the process's, all threads and the kernel's part included. Run it with `nox -s bench -- -k audit`.
"""

import json
import os
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from time import perf_counter, process_time

import anyio
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from flujo.audit import AuditLog
from flujo.audit.chain import Chain
from flujo.audit.digest import Digester
from flujo.audit.format import encode_record
from flujo.audit.records import Scribe
from flujo.core import Message, ModelRequest, RecordIntent, RunInfo

RECORD = {
    "event": "llm.result", "run_id": "01a21427-0583-7581-9e58-3d50187b7c03", "step": "summarise", "attempt": 1,
    "record_id": "call-12", "outcome": "completed", "latency_ms": 1234.567, "tokens_in": 900, "tokens_out": 150,
    "requests": 1, "cost_usd": "0.00231", "model": "openai:gpt-4o-mini", "finish_reason": "stop",
    "response": {"hmac": "0" * 64, "length": 812},
}  # fmt: skip
BATCH = 1000
LINES = 50_000


def cpu_us(work: Callable[[], object], count: int, rounds: int = 5) -> float:
    """CPU microseconds per item, best round: noise only ever adds time."""
    best = float("inf")
    for _ in range(rounds):
        started = process_time()
        work()
        best = min(best, process_time() - started)
    return best / count * 1e6


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "log"
    chain = Chain(path)
    for _ in range(LINES // BATCH):
        chain.append([encode_record(RECORD)] * BATCH)
    chain.close()
    return path


def test_verifying_beside_hashing_the_same_lines(benchmark: BenchmarkFixture, long_log: Path) -> None:
    def bare() -> None:
        with long_log.open("rb") as file:
            for line in file:
                sha256(line).hexdigest()

    assert benchmark.pedantic(AuditLog.verify, (long_log,), rounds=5).ok
    ours, floor = cpu_us(lambda: AuditLog.verify(long_log), LINES), cpu_us(bare, LINES)
    benchmark.extra_info.update(us_per_record=round(ours, 2), bare_us=round(floor, 2), ratio=round(ours / floor, 2))
    assert ours <= 5.0, "a million records in five seconds of CPU"
    assert ours / floor <= 4


def test_a_batch_of_a_thousand_beside_encoding_hashing_writing_and_syncing_it(
    benchmark: BenchmarkFixture, tmp_path: Path
) -> None:
    chain = Chain(tmp_path / "log")

    def ours() -> None:
        chain.append([encode_record(RECORD) for _ in range(BATCH)])

    def bare() -> None:
        lines = []
        for _ in range(BATCH):
            body = json.dumps(RECORD, separators=(",", ":")).encode()
            lines.append(body + sha256(body).hexdigest().encode() + b"\n")
        fd = os.open(tmp_path / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, b"".join(lines))
        os.fdatasync(fd)
        os.close(fd)

    benchmark.pedantic(ours, rounds=10)
    mine, floor = cpu_us(ours, BATCH), cpu_us(bare, BATCH)
    chain.close()
    benchmark.extra_info.update(us_per_record=round(mine, 2), bare_us=round(floor, 2), ratio=round(mine / floor, 2))
    assert mine <= 50, "overhead per event, without the waits for the disk"
    assert mine / floor <= 4


@pytest.mark.parametrize("writers", [1, 8, 64, 256])
def test_acknowledged_records_per_second_beside_a_write_and_a_sync_each(
    benchmark: BenchmarkFixture, tmp_path: Path, writers: int
) -> None:
    per_writer = max(1, 4000 // writers)
    waits: list[float] = []

    async def work(log: AuditLog) -> None:
        for _ in range(per_writer):
            started = perf_counter()
            await log.append(RECORD)
            waits.append(perf_counter() - started)

    async def all_writers() -> None:
        async with AuditLog(tmp_path / "log") as log, anyio.create_task_group() as group:
            for _ in range(writers):
                group.start_soon(work, log)

    def bare() -> None:
        fd = os.open(tmp_path / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        line = json.dumps(RECORD).encode() + b"\n"
        for _ in range(per_writer):
            os.write(fd, line)
            os.fdatasync(fd)
        os.close(fd)

    count = per_writer * writers
    benchmark.pedantic(lambda: anyio.run(all_writers), rounds=3)
    mine, wall = _both(all_writers, count)
    floor = cpu_us(bare, per_writer)
    waits.sort()
    benchmark.extra_info.update(
        acked_per_s=round(1 / wall), p50_ms=round(waits[len(waits) // 2] * 1e3, 2),
        p99_ms=round(waits[len(waits) * 99 // 100] * 1e3, 2), us_per_record=round(mine, 1), bare_us=round(floor, 1),
        ratio=round(mine / floor, 2),
    )  # fmt: skip


def _both(work: Callable[[], Awaitable[None]], count: int) -> tuple[float, float]:
    """CPU microseconds and wall seconds per item of an async program, each the best of five rounds."""
    walls = []

    def run() -> None:
        started = perf_counter()
        anyio.run(work)
        walls.append(perf_counter() - started)

    return cpu_us(run, count), min(walls) / count


def test_turning_a_model_request_into_a_record_beside_hashing_its_text(benchmark: BenchmarkFixture) -> None:
    text = "The patient was seen on the ward. " * 60
    request = ModelRequest(model="openai:gpt-4o-mini", messages=(Message(role="user", content=text),), max_tokens=400)
    run = RunInfo("01a21427-0583-7581-9e58-3d50187b7c03", "notes", "f" * 16, actor="dr-lee")
    scribe = Scribe(Digester(b"0" * 32))
    intent = RecordIntent(run, "model_call", "call-1", "summarise", 1, request)
    benchmark(lambda: encode_record(scribe.intent(intent)))
    ours = cpu_us(lambda: [encode_record(scribe.intent(intent)) for _ in range(1000)], 1000)
    floor = cpu_us(lambda: [sha256(json.dumps(text).encode()).hexdigest() for _ in range(1000)], 1000)
    benchmark.extra_info.update(us_per_record=round(ours, 1), bare_us=round(floor, 1), ratio=round(ours / floor, 2))
    assert ours <= 100
