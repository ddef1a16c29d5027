"""A worker: what it takes up, that one bad run stops no other, and how it ends."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import anyio
import pytest
from annotated_types import MultipleOf
from conftest import OpenStore
from hitl_trials import paused, question

from flujo.core import (
    ConfigurationError,
    Flujo,
    MemoryStore,
    OnRunEnd,
    PauseForHumanInput,
    Pipeline,
    Receipt,
    RunContext,
    Snapshot,
    Step,
    migrate,
)
from flujo.hitl import Progress, SQLiteStore, Worker
from flujo.hitl.store import KeepingStore

pytestmark = pytest.mark.anyio

Even = Annotated[int, MultipleOf(2)]
"""What JSON schema calls it is not checked before a worker has the type."""


async def ask(value: int) -> Even:
    raise PauseForHumanInput("How many?", schema=Even)


async def double(value: int) -> int:
    return 2 * value


FLOW = Pipeline(Step(ask) >> Step(double), name="asks")


async def worked(store: SQLiteStore, flow: Pipeline = FLOW) -> list[Progress]:
    told: list[Progress] = []
    await Worker(Flujo(flow, store=store), told.append).work(once=True)
    return told


def events(told: list[Progress]) -> list[tuple[str, str]]:
    return [(one.event, one.run_id) for one in told if one.event != "begun"]


async def answered(store: SQLiteStore, run_id: str, answer: int, flow: Pipeline = FLOW) -> None:
    (pause,) = (await Flujo(flow, store=store).run_async(1, run_id=run_id)).pauses
    await store.record_decision(run_id, pause.id, answer, shown_digest=pause.shown_digest, actor="ann")


async def test_what_was_decided_goes_on(store: SQLiteStore) -> None:
    for number in range(9):
        await answered(store, f"r{number}", 2 * number)
    await Flujo(FLOW, store=store).run_async(1, run_id="waits")
    told = await worked(store)
    assert sorted(events(told)) == [("ended", f"r{number}") for number in range(9)]
    assert sorted(one.result.output for one in told if one.result) == [4 * number for number in range(9)]
    assert await worked(store) == []


async def test_a_decision_that_proves_to_be_none_opens_its_question_again(store: SQLiteStore) -> None:
    await answered(store, "odd", 3)
    await answered(store, "even", 4)
    told = await worked(store)
    assert sorted(events(told)) == [("ended", "even"), ("reopened", "odd")]
    (again,) = (await store.open_pauses()).items
    await store.record_decision("odd", again.pause_id, 6, shown_digest=again.shown_digest)
    assert events(await worked(store)) == [("ended", "odd")]


async def pay(amount: int) -> int:
    raise PauseForHumanInput("Pay this?", int, payload=amount)


async def test_a_decision_does_not_count_for_what_was_put_in_the_place_of_what_was_shown(store: SQLiteStore) -> None:
    flow = Pipeline(Step(pay) >> Step(double), name="pays")
    await answered(store, "r", 5, flow)
    (decided,) = await store.decisions("r")
    assert decided.shown_digest == (await store.load("r")).snapshot.pauses[0].shown_digest
    standing = (await store.load("r")).snapshot.model_dump(mode="json")
    standing["checkpoint"] |= {"input": 5000}
    standing["checkpoint"]["pauses"][0] |= {"payload": 5000}
    with sqlite3.connect(store.path) as db:  # who may write the file, checksum and all
        db.execute("UPDATE snapshots SET payload=?", [store._payloads.snapshot(Snapshot.model_validate(standing))])
    db.close()
    told = await worked(store, flow)
    assert events(told) == [("reopened", "r")]
    assert "what it asks now is not what was shown to who decided" in told[-1].why
    assert (await store.load("r")).snapshot.status == "paused"


async def test_what_was_decided_before_its_digest_was_kept_goes_on(store: SQLiteStore) -> None:
    await answered(store, "r", 4)
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE decisions SET shown=NULL")
    db.close()
    assert events(await worked(store)) == [("ended", "r")]


async def test_a_decision_in_time_counts_however_late_it_is_applied(store: SQLiteStore) -> None:
    async def soon(value: int) -> int:
        raise PauseForHumanInput("Now?", schema=int, expires_at=datetime.now(UTC) + timedelta(seconds=0.3), on_expiry=0)

    flow = Pipeline(Step(soon) >> Step(double), name="soon")
    await answered(store, "in time", 5, flow)
    await Flujo(flow, store=store).run_async(1, run_id="late")
    await anyio.sleep(0.4)
    told = await worked(store, flow)
    assert {one.run_id: one.result.output for one in told if one.result} == {"in time": 10, "late": 0}
    decided = {one.receipt.run_id: one for one in [*await store.decisions("in time"), *await store.decisions("late")]}
    assert (decided["in time"].decision, decided["in time"].actor, decided["in time"].is_applied) == (5, "ann", True)
    assert decided["late"].actor is None


async def test_one_that_expired_without_an_outcome_stops_no_other(store: SQLiteStore) -> None:
    async def soon(value: int) -> int:
        raise PauseForHumanInput("Now?", schema=int, expires_at=datetime.now(UTC) - timedelta(days=1))

    flow = Pipeline(Step(soon, name="ask") >> Step(double), name="asks")
    await Flujo(flow, store=store).run_async(1, run_id="stuck")
    assert (
        Flujo(flow).plan.fingerprint
        == Flujo(Pipeline(Step(soon, name="ask") >> Step(double), name="asks")).plan.fingerprint
    )
    await Flujo(flow, store=store).run_async(1, run_id="other")
    assert events(await worked(store, flow)) == []


def soon(*, name: str = "soon", on_expiry: object = None) -> Pipeline:
    async def soon(value: int) -> Even:
        late = datetime.now(UTC) - timedelta(days=1)
        raise PauseForHumanInput("Now?", schema=Even, expires_at=late, on_expiry=on_expiry)  # type: ignore[arg-type]

    return Pipeline(Step(soon) >> Step(double), name=name)


async def test_many_that_expired_without_an_outcome_hold_up_no_later_one(store: SQLiteStore) -> None:
    flow = soon(on_expiry=2)
    old = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    plan = Flujo(flow).plan.fingerprint
    for number in range(1001):
        await paused(store, f"r{number}", question(f"Number {number}?", expires_at=old), fingerprint=plan)
    await Flujo(flow, store=store).run_async(1, run_id="late")
    assert events(await worked(store, flow)) == [("ended", "late")]


async def test_an_outcome_that_does_not_fit_is_told(store: SQLiteStore) -> None:
    await Flujo(soon(on_expiry=3), store=store).run_async(1, run_id="odd")
    told = await worked(store, soon(on_expiry=3))
    assert events(told) == [("refused", "odd")]
    assert "does not fit" in told[-1].why


async def test_a_question_that_was_opened_again_is_taken_up_as_soon_as_it_is_answered(store: SQLiteStore) -> None:
    await answered(store, "r", 3)
    told: list[Progress] = []
    worker = Worker(Flujo(FLOW, store=store), told.append)
    await worker.work(once=True)
    (again,) = (await store.open_pauses()).items
    await store.record_decision("r", again.pause_id, 4, shown_digest=again.shown_digest)
    await worker.work(once=True)
    assert events(told) == [("reopened", "r"), ("ended", "r")]


async def test_runs_of_a_pipeline_with_a_migration_go_on(store: SQLiteStore, anyio_backend: str) -> None:
    old = Pipeline(Step(ask) >> Step(double, name=f"double-{anyio_backend}"), name="asks")  # a migration is for good
    new = Pipeline(Step(ask) >> Step(double, name=f"double-{anyio_backend}", version=2), name="asks")
    await answered(store, "r", 4, old)
    await answered(store, "ends", 4, old)
    await store.request_cancel("ends")
    before, after = Flujo(old).plan.fingerprint, Flujo(new).plan.fingerprint
    told = await worked(store, new)
    assert sorted(events(told)) == [("refused", "ends"), ("refused", "r")]
    assert f"it began with plan {before[:12]}, and 'asks' is now {after[:12]}" in told[-1].why
    migrate(before, after, lambda snapshot: snapshot)
    assert sorted(events(await worked(store, new))) == [("cancelled", "ends"), ("ended", "r")]
    assert (await store.load("ends")).snapshot.status == "aborted"


def renaming(key: str, to: str, question: str | None = None) -> tuple[Pipeline, Pipeline]:
    """A pipeline as it was, and with another name of what asks, to which runs of the first migrate."""

    def asks(version: int, name: str) -> Pipeline:  # a migration is for good: each test has its own pipelines
        return Pipeline(Step(ask, name=name) >> Step(double, name=f"twice-{key}", version=version), name="asks")

    def renamed(snapshot: Snapshot) -> Snapshot:
        stand = snapshot.checkpoint
        changed = {"path": to} if question is None else {"path": to, "question": question}
        pauses = [one.model_copy(update=changed) for one in stand.pauses]
        return snapshot.model_copy(update={"checkpoint": stand.model_copy(update={"pauses": pauses})})

    old, new = asks(1, "ask"), asks(2, to)
    migrate(Flujo(old).plan.fingerprint, Flujo(new).plan.fingerprint, renamed)
    return old, new


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_decision_goes_with_a_question_that_a_migration_renamed(either_store: KeepingStore) -> None:
    store = either_store
    old, new = renaming(f"goes-{type(store).__name__}", "how_many")
    await Flujo(old, store=store).run_async(1, run_id="r")
    (asked,) = (await store.open_pauses()).items
    words = {"shown_digest": asked.shown_digest, "actor": "ann", "reason": "as agreed"}
    receipt = await store.record_decision("r", asked.pause_id, 4, **words)
    told: list[Progress] = []
    await Worker(Flujo(new, store=store), told.append).work(once=True)
    assert events(told) == [("ended", "r")]  # nobody could answer it in the inbox
    assert told[-1].result is not None
    assert told[-1].result.output == 8
    assert await store.record_decision("r", asked.pause_id, 4, **words) == receipt
    first, then = await store.decisions("r")
    assert (first.receipt, first.is_applied, then.is_applied) == (receipt, True, True)
    facts = (then.receipt.pause_id, then.receipt.decided_at, then.decision, then.actor, then.reason)
    assert facts == ("how_many", receipt.decided_at, 4, "ann", "as agreed")


async def test_a_decision_goes_with_its_question_where_a_worker_died_on_the_way(
    store: SQLiteStore, anyio_backend: str
) -> None:
    old, new = renaming(f"died-{anyio_backend}", "how_many")
    await answered(store, "r", 4, old)
    kept = await store.load("r")
    await store.release(await store.claim(kept.length, "paused", Receipt("r", "", "0" * 64, datetime.now(UTC)), []))
    assert list(await store.orphans(Flujo(old).plan.fingerprint)) == ["r"]
    told = await worked(store, new)
    assert told[-1].result is not None
    assert told[-1].result.output == 8
    assert await worked(store, new) == []


async def test_a_decision_whose_question_a_migration_changed_is_told(store: SQLiteStore, anyio_backend: str) -> None:
    old, new = renaming(f"told-{anyio_backend}", "how_many", "How many of the others?")
    await answered(store, "r", 4, old)
    told = await worked(store, new)
    assert events(told) == [("refused", "r")]  # it was put off without a word, for ever
    assert "a migration left 'ask' no place in 'asks'" in told[-1].why
    assert (await Flujo(new, store=store).resume_async("r", 6)).output == 12
    assert await worked(store, new) == []


async def test_what_was_left_behind_goes_on_and_what_is_damaged_stops_no_other(open_store: OpenStore) -> None:
    store = open_store()
    for name in ("bad", "good"):
        await answered(store, name, 4)
    store.close()
    import sqlite3  # as somebody who breaks a file

    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE snapshots SET payload=x'00' WHERE run=(SELECT id FROM runs WHERE run_id='bad')")
    db.close()
    assert sorted(events(await worked(open_store()))) == [("ended", "good"), ("refused", "bad")]


async def test_of_several_workers_one_goes_on_with_each_run(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(3)]
    for number in range(20):
        await answered(stores[0], f"r{number}", 2)
    told: list[Progress] = []
    async with anyio.create_task_group() as group:
        for store in stores:
            group.start_soon(lambda store=store: Worker(Flujo(FLOW, store=store), told.append).work(once=True))  # type: ignore[misc]
    assert sorted(one.run_id for one in told if one.event == "ended") == sorted(f"r{number}" for number in range(20))
    assert not [one for one in told if one.event == "refused"]


async def test_a_run_that_goes_on_here_is_cancelled(store: SQLiteStore) -> None:
    ends: list[str] = []
    begun = anyio.Event()

    async def hang(value: int) -> int:
        begun.set()
        await anyio.sleep_forever()
        return value

    def note(event: OnRunEnd) -> None:
        ends.append(event.result.status)

    flow = Pipeline(Step(ask) >> Step(hang), name="hangs")
    await answered(store, "r", 2, flow)
    told: list[Progress] = []
    worker = Worker(Flujo(flow, store=store, hooks=[note]), told.append)
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: worker.work(poll_s=0.05))
        await begun.wait()
        await store.request_cancel("r")
        while not [one for one in told if one.event == "cancelled"]:
            await anyio.sleep(0.02)
        worker.end()
    assert (await store.load("r")).snapshot.status == "aborted"
    assert ends == ["aborted"]
    assert await store.cancel_requested() == []


async def test_a_worker_that_is_told_to_end_lets_what_runs_end(store: SQLiteStore) -> None:
    goes_on = anyio.Event()

    async def wait(value: int, ctx: RunContext) -> int:
        goes_on.set()
        await anyio.sleep(0.1)
        return value

    flow = Pipeline(Step(ask) >> Step(wait), name="waits")
    for number in range(3):
        await answered(store, f"r{number}", 2, flow)
    told: list[Progress] = []
    worker = Worker(Flujo(flow, store=store), told.append, concurrency=1)
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: worker.work(poll_s=0.05))
        await goes_on.wait()
        worker.end()
    assert events(told) == [("ended", "r0")]
    assert len(await store.decided()) == 2


async def test_a_worker_waits_for_a_store_that_cannot_be_used(open_store: OpenStore) -> None:
    store = open_store()
    await answered(store, "r", 2)
    told: list[Progress] = []
    broken = open_store()
    worker = Worker(Flujo(FLOW, store=broken), told.append)
    broken.close()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: worker.work(poll_s=0.05))
        while len(told) < 2:
            await anyio.sleep(0.01)
        worker.end()
    assert {one.event for one in told} == {"waiting"}


@pytest.mark.parametrize(("kept", "why"), [(None, "has no store"), (MemoryStore, "keeps no decisions")])
async def test_a_worker_needs_a_store_that_keeps_decisions(kept: Callable[[], MemoryStore] | None, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Worker(Flujo(FLOW, store=kept and kept()), print)


PROGRAM = """
import asyncio
from pathlib import Path
from flujo.core import PauseForHumanInput, Pipeline, step

@step
async def ask(text: str) -> int:
    raise PauseForHumanInput("How many?", schema=int)

@step
async def slowly(value: int) -> int:
    if Path("slow").exists():
        print("slowly", flush=True)
        await asyncio.sleep(value)
    return value

flow = Pipeline(ask >> slowly, name="slow")
"""


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("signals", [1, 2])
async def test_the_first_sigterm_lets_it_end_and_the_second_stops_at_once(tmp_path: Path, signals: int) -> None:
    (tmp_path / "flow.py").write_text(PROGRAM)
    (tmp_path / "slow").touch()

    def flujo(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "flujo_cli", *words, "--store", "sqlite:///runs.db"]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    flujo("run", "flow.py", "--text", "x").communicate(timeout=240)
    async with SQLiteStore(tmp_path / "runs.db") as store:
        (row,) = (await store.runs()).items
    flujo("runs", "answer", row.run_id, "1" if signals == 1 else "60", "--yes").communicate(timeout=240)
    worker = flujo("runs", "worker", "flow.py", "--poll", "0.1")
    assert worker.stdout is not None
    while "slowly" not in (line := worker.stdout.readline()):
        assert line
    for _ in range(signals):
        worker.send_signal(signal.SIGTERM)
        while "nce" not in (line := worker.stdout.readline()):  # "Once more", "at once"
            assert line
    rest, _ = worker.communicate(timeout=240)
    assert worker.returncode == 130
    assert ("is completed" in rest) == (signals == 1)
    if signals == 2:  # another goes on with it
        (tmp_path / "slow").unlink()
        rest, _ = flujo("runs", "worker", "flow.py", "--once").communicate(timeout=240)
        assert f"run {row.run_id} begun: left behind" in rest
        assert f"run {row.run_id} is completed" in rest
