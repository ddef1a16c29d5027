"""Who may write a run: from when on a holder is taken to be gone, and what it can do no more then."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from conftest import OpenStore
from hitl_trials import HERE, PLAN, paused, receipt, row, run

from flujo.core import HoldLost, StillRunning
from flujo.hitl import SQLiteStore, StoreClosed
from flujo.hitl.lane import Lane, Ticket
from flujo.hitl.owner import Beats, Me, is_gone

pytestmark = pytest.mark.anyio


@contextmanager
def holder(path: Path, lease_s: float) -> Iterator[int]:
    """Another process that holds a run `other`."""
    command = [sys.executable, str(HERE / "hitl_holder.py"), str(path), "other", str(lease_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process.pid
        finally:
            process.kill()


def stop_between_writes(pid: int, path: Path) -> None:
    """Stop a process while it does not write: stopped in a write, it would keep the file locked."""
    if str(path).startswith("postgresql:"):  # the server does the writing
        os.kill(pid, signal.SIGSTOP)
        return
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        while True:
            os.kill(pid, signal.SIGSTOP)
            with suppress(sqlite3.OperationalError):
                other.execute("BEGIN IMMEDIATE")
                other.execute("ROLLBACK")
                return
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.01)


async def test_a_run_of_a_killed_process_is_an_orphan_at_once(path: Path, store: SQLiteStore) -> None:
    with holder(path, 1000) as pid:
        assert await store.orphans(PLAN) == []
        with pytest.raises(StillRunning):
            await store.claim(1, "running", receipt("other", ""), [])
        os.kill(pid, signal.SIGKILL)
        with anyio.fail_after(5):
            while not await store.orphans(PLAN):
                await anyio.sleep(0.01)
        hold = await store.claim(1, "running", receipt("other", ""), [row(1)])
        assert hold.fence == 2
        await store.append(hold, [row(2)])
    assert [one.node for one in (await store.load("other")).late] == [0, 1, 2]


async def test_a_process_that_hangs_loses_its_runs_when_its_lease_ended(path: Path, store: SQLiteStore) -> None:
    with holder(path, 0.6) as pid:
        await anyio.sleep(1)
        assert await store.orphans(PLAN) == []  # it renews
        stop_between_writes(pid, path)
        with anyio.fail_after(5):
            while await store.orphans(PLAN) != ["other"]:
                await anyio.sleep(0.05)
        await store.claim(1, "running", receipt("other", ""), [])


async def test_who_was_taken_over_writes_no_more(open_store: OpenStore) -> None:
    first, second = open_store(lease_s=0.2), open_store()
    hold = await first.create(run("r"))
    first._transactions.rest = lambda: None  # type: ignore[method-assign]  # it hangs
    await anyio.sleep(0.3)
    assert await second.orphans(PLAN) == ["r"]
    again = await second.claim(0, "running", receipt("r", ""), [])
    for late in (first.append(hold, [row(0)]), first.save(hold, run("r", "failed")), first.release(hold)):
        with pytest.raises(HoldLost):
            await late
    await second.append(again, [row(0)])
    assert (await second.load("r")).length == 1


async def test_a_lease_is_renewed_while_writes_go_on_and_while_none_does(open_store: OpenStore) -> None:
    first, second = open_store(lease_s=0.9), open_store()
    hold = await first.create(run("r"))
    until = time.monotonic() + 1.5
    number = 0
    while time.monotonic() < until:
        await first.append(hold, [row(number)])
        number += 1
        assert await second.orphans(PLAN) == []
    for _ in range(15):
        await anyio.sleep(0.1)
        assert await second.orphans(PLAN) == []
    assert (await second.load("r")).length == number


async def test_a_holder_with_nothing_to_hold_leaves_no_trace(path: Path, open_store: OpenStore) -> None:
    store = open_store(lease_s=0.1)
    await paused(store, "r")
    with anyio.fail_after(5):
        while True:
            with closing(sqlite3.connect(path)) as db:
                if db.execute("SELECT count(*) FROM owners").fetchone() == (0,):
                    break
            await anyio.sleep(0.05)
    hold = await store.claim(0, "paused", receipt("r"), [])
    await store.append(hold, [row(0)])


async def test_what_a_store_held_is_free_when_it_is_closed(open_store: OpenStore) -> None:
    first, second = open_store(), open_store()
    await first.create(run("r"))
    assert await second.orphans(PLAN) == []
    first.close()
    first.close()
    assert await second.orphans(PLAN) == ["r"]
    with pytest.raises(StoreClosed):
        await first.create(run("s"))
    with pytest.raises(StoreClosed):
        await first.load("r")


async def test_what_a_forgotten_store_held_is_free(path: Path, store: SQLiteStore) -> None:
    other = SQLiteStore(path)
    await other.create(run("r"))
    del other
    with anyio.fail_after(5):
        while await store.orphans(PLAN) != ["r"]:
            await anyio.sleep(0.01)


async def test_a_claim_that_nobody_waits_for_any_more_is_not_made(path: Path, store: SQLiteStore) -> None:
    await paused(store, "r")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with anyio.move_on_after(0.05) as first:
            await store.claim(0, "paused", receipt("r"), [row(0)])
        with anyio.move_on_after(0.05) as second:
            await store.create(run("s"))
        other.execute("ROLLBACK")
    assert first.cancelled_caught
    assert second.cancelled_caught
    await store.claim(0, "paused", receipt("r", digest="e" * 64), [row(0)])
    await store.create(run("s"))


class Stuck:
    """Commits at once, and tells only when it is let go."""

    def __init__(self) -> None:
        self.committed = threading.Event()
        self.let_go = threading.Event()

    def commit(self, tickets: Sequence[Ticket[object]]) -> None:
        for ticket in tickets:
            ticket.result = ticket.work()
        self.committed.set()
        self.let_go.wait(10)

    def tidy(self) -> None:
        pass

    def wait_s(self) -> None:
        return None

    def rest(self) -> None:
        raise AssertionError

    def close(self) -> None:
        pass


async def test_a_hold_that_was_won_after_its_cancel_is_given_back(path: Path) -> None:
    writes, given_back = Stuck(), threading.Event()
    lane = Lane(writes, path)

    async def claim() -> None:
        await lane.do(lambda: "hold", lambda hold: given_back.set())

    async with anyio.create_task_group() as group:
        group.start_soon(claim)
        await anyio.to_thread.run_sync(writes.committed.wait, 5)
        group.cancel_scope.cancel()
    assert not given_back.is_set()
    writes.let_go.set()
    with anyio.fail_after(5):
        while not given_back.is_set():
            await anyio.sleep(0.01)
    lane.close()


async def test_a_clock_set_back_or_forth_changes_nothing(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = open_store(lease_s=0.6), open_store()
    real = time.time
    await first.create(run("r"))
    for shift in (-1e6, 1e6):
        monkeypatch.setattr(time, "time", lambda shift=shift: real() + shift)
        assert await second.orphans(PLAN) == []
        with pytest.raises(StillRunning):
            await second.claim(0, "running", receipt("r", ""), [])
    first._transactions.rest = lambda: None  # type: ignore[method-assign]  # it hangs
    monkeypatch.setattr(time, "time", lambda: real() - 1e6)
    with anyio.fail_after(5):
        while await second.orphans(PLAN) != ["r"]:
            await anyio.sleep(0.05)


async def test_after_a_new_start_of_the_machine_silence_tells_where_the_clock_was_set_back() -> None:
    beats, before = Beats(), replace(Me(0.2).beat(), boot="of yesterday")
    assert not is_gone(before, beats)
    assert is_gone(replace(before, beat_wall=before.beat_wall - 1), beats)
    ahead = replace(before, id=1, beat_wall=before.beat_wall + 1e6)
    assert not is_gone(ahead, beats)
    await anyio.sleep(0.25)
    assert is_gone(ahead, beats)
    assert not is_gone(replace(ahead, beat=ahead.beat + 1), beats)


async def test_a_process_id_that_was_given_away_is_another_process() -> None:
    me = Me(1000).beat()
    assert not is_gone(me, Beats())
    assert is_gone(replace(me, started=me.started - 1), Beats())
    assert is_gone(replace(me, pid=2**22 - 1), Beats())
    elsewhere = replace(me, pid=2**22 - 1, space="pid:[1]")  # in another container its number says nothing here
    assert not is_gone(elsewhere, Beats())


def test_a_forked_child_writes_with_a_hold_of_its_own(path: Path) -> None:
    store = SQLiteStore(path)

    async def before() -> None:
        await store.create(run("r"))

    async def in_child() -> None:
        with pytest.raises(StillRunning):
            await store.claim(0, "running", receipt("r", ""), [])
        await store.create(run("s"))

    anyio.run(before)
    if (pid := os.fork()) == 0:
        code = 1
        try:
            anyio.run(in_child)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0

    async def after() -> None:
        assert await store.orphans(PLAN) == ["s"]
        await store.create(run("t"))

    anyio.run(after)
    store.close()
