"""What is deleted is gone from the file; a copy is whole."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from conftest import OpenStore
from hitl_trials import PLAN, paused, receipt, row, run

from flujo.core import ConfigurationError, ResumeError, StillRunning
from flujo.hitl import SQLiteStore, StoreWriteError

pytestmark = pytest.mark.anyio


def bytes_beside(path: Path) -> bytes:
    return b"".join(one.read_bytes() for one in path.parent.iterdir())


async def test_a_deleted_run_leaves_no_byte_behind(path: Path, store: SQLiteStore) -> None:
    hold = await store.create(run("secret-run", tenant="acme"))
    await store.append(hold, [row(k, {"name": f"Erika Mustermann {k}"}) for k in range(50)])
    await store.save(hold, run("secret-run", "completed", 50, tenant="acme"))
    await paused(store, "other")
    assert b"Mustermann" in bytes_beside(path)
    assert await store.delete("secret-run") == 1
    left = bytes_beside(path)
    assert b"Mustermann" not in left
    assert b"secret-run" not in left
    with pytest.raises(ResumeError):
        await store.load("secret-run")
    assert (await store.load("other")).snapshot.status == "paused"


async def test_a_tenant_is_deleted_but_for_what_runs(store: SQLiteStore) -> None:
    async with anyio.create_task_group() as group:
        for number in range(450):
            tenant = "a" if number % 2 else "b"
            group.start_soon(lambda name=f"r{number}", tenant=tenant: paused(store, name, tenant=tenant))
    hold = await store.create(run("busy", tenant="a"))
    with pytest.raises(StillRunning):
        await store.delete(tenant="a")
    assert [one.run_id for one in (await store.runs(tenant="a")).items] == ["busy"]
    with pytest.raises(StillRunning):
        await store.delete("busy")
    await store.release(hold)
    assert await store.delete(tenant="a") == 1
    assert len((await store.runs(tenant="b", limit=1000)).items) == 225
    with pytest.raises(ResumeError):
        await store.delete("busy")
    for wrong in ({}, {"run_id": "x", "tenant": "y"}):
        with pytest.raises(ConfigurationError):
            await store.delete(**wrong)


async def test_all_about_a_person_is_deleted_but_for_what_runs(store: SQLiteStore) -> None:
    for number in range(450):
        tags = {"subject": "ann"} if number % 3 == 0 else {"subject": "bob"} if number % 3 == 1 else {"other": "ann"}
        await paused(store, f"r{number}", tenant=f"t{number % 2}", tags=tags)
    hold = await store.create(run("busy", tags={"subject": "ann"}))
    assert await store.delete(tenant="t1", subject="ann") == 75
    with pytest.raises(StillRunning):
        await store.delete(subject="ann")
    await store.release(hold)
    assert await store.delete(subject="ann") == 1
    assert await store.delete(subject="ann") == 0
    assert len((await store.runs(limit=1000)).items) == 300


async def test_what_ended_long_ago_is_purged(store: SQLiteStore) -> None:
    for status in ("completed", "failed", "aborted"):
        await store.save(await store.create(run(status)), run(status, status))
    await paused(store, "paused")
    now = datetime.now(UTC)
    assert await store.purge(now - timedelta(hours=1)) == 0
    assert await store.purge(now + timedelta(seconds=1)) == 2
    assert {one.run_id for one in (await store.runs()).items} == {"failed", "paused"}
    assert await store.purge(now + timedelta(seconds=1), ["failed", "paused"]) == 2
    assert not (await store.runs()).items
    assert not (await store.open_pauses()).items


async def test_a_copy_is_whole_while_runs_go_on(tmp_path: Path, store: SQLiteStore) -> None:
    hold = await store.create(run("busy"))
    await paused(store, "asks", rows=3)
    stop = anyio.Event()
    written = 0

    async def write() -> None:
        nonlocal written
        while not stop.is_set():
            await store.append(hold, [row(written)])
            written += 1

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        for number in range(5):
            before = written
            await store.backup(tmp_path / f"copy{number}.db")
            copy = SQLiteStore(tmp_path / f"copy{number}.db")
            assert before <= (await copy.load("busy")).length <= written + 1
            assert await copy.orphans(PLAN) == ["busy"]
            await copy.claim(3, "paused", receipt("asks"), [row(3)])
            copy.close()
        stop.set()
    assert (await store.load("asks")).snapshot.status == "paused"
    assert (await store.load("busy")).length == written


async def test_a_copy_takes_no_place_of_a_file(tmp_path: Path, store: SQLiteStore) -> None:
    await paused(store, "r")
    (tmp_path / "there").write_text("mine")
    with pytest.raises(StoreWriteError, match="there is a file"):
        await store.backup(tmp_path / "there")
    with pytest.raises(StoreWriteError):
        await store.backup(tmp_path / "no" / "folder")
    assert (tmp_path / "there").read_text() == "mine"
    assert not list(tmp_path.glob("*.part"))


async def test_the_file_is_for_its_owner_alone(path: Path, open_store: OpenStore) -> None:
    before = os.umask(0)
    try:
        store = open_store()
        await paused(store, "r")
        await store.backup(path.with_name("copy"))
    finally:
        os.umask(before)
    for one in path.parent.iterdir():
        assert one.stat().st_mode & 0o077 == 0, one
