"""A server that goes away, an answer that is lost, a schema of another time."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import anyio
import psycopg
import pytest
from kept_runs import new_id, question, receipt, row, snapshot, store_at

from flujo.core import ConfigurationError, HoldLost, ResumeError
from flujo.hitl import StoreError, StoreTooNew, StoreUnavailable
from flujo.hitl.postgres import PostgresStore
from flujo.hitl.postgres_database import PostgresDatabase

pytestmark = pytest.mark.anyio


@pytest.fixture
def here(postgres: str, request: pytest.FixtureRequest) -> str:
    """A schema of its own."""
    return f"{postgres}#own_{id(request)}_{os.getpid()}"


def execute(here: str, *statements: str) -> None:
    url, _, schema = here.partition("#")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"SET search_path TO {schema}")  # type: ignore[arg-type]
        for statement in statements:
            connection.execute(statement)  # type: ignore[arg-type]


def test_the_arguments_are_checked():
    with pytest.raises(ConfigurationError, match="libpq cannot read it"):
        PostgresStore("postgresql://host:port:port/x?what=1")
    with pytest.raises(ConfigurationError, match="no plain name"):
        PostgresStore("postgresql:///x", schema='"; DROP')


async def test_a_server_that_is_not_there_is_waited_for_but_not_for_ever(tmp_path):
    store = PostgresStore(f"postgresql://somebody:hunter22@/x?host={tmp_path}", patience_s=0.5)
    started = time.monotonic()
    for work in (store.create(snapshot("r0")), store.load("r0")):
        with pytest.raises(StoreUnavailable) as told:
            await work
        assert "hunter22" not in str(told.value)
    assert 0.3 < time.monotonic() - started < 10
    await store.aclose()


async def test_urls_of_other_libraries_are_read(here):
    url, _, schema = here.partition("#")
    store = PostgresStore(url.replace("postgresql:", "postgresql+psycopg:"), schema=schema)
    await store.create(snapshot("r0"))
    await store.aclose()


async def test_a_later_schema_is_refused(here):
    store = store_at(here)
    await store.create(snapshot("r0"))
    await store.aclose()
    execute(here, "INSERT INTO version VALUES (99)")
    for work in ((store := store_at(here)).create(snapshot("r1")), store.load("r0")):
        with pytest.raises(StoreTooNew, match="version 99"):
            await work
    await store.aclose()


async def test_many_stores_make_the_schema_at_once(here):
    stores = [store_at(here) for _ in range(6)]
    async with anyio.create_task_group() as group:
        for number, store in enumerate(stores):
            group.start_soon(store.create, snapshot(f"r{number}"))
    assert len((await stores[0].runs()).items) == 6
    for store in stores:
        await store.aclose()


async def test_text_that_the_server_cannot_hold_is_told(here):
    store = store_at(here)
    await store.create(snapshot("good"))
    with pytest.raises(StoreError, match="refused"):
        await store.create(snapshot("bad\0id"))
    async with anyio.create_task_group() as group:  # in one batch with others it fails alone
        for number in range(5):
            group.start_soon(store.create, snapshot(f"r{number}"))
        with pytest.raises(StoreError, match="refused"):
            await store.create(snapshot("bad\0id"))
    assert len((await store.runs()).items) == 6
    await store.aclose()


def backends(here: str, of: str = "idle") -> list[int]:
    url = here.partition("#")[0]
    with psycopg.connect(url, autocommit=True) as connection:
        sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        return [pid for (pid,) in connection.execute(sql)]


async def test_connections_that_end_are_made_anew(here):
    """Nothing is lost and nothing is there twice, whenever a connection ends."""
    store, run_id = store_at(here), new_id()
    hold = await store.create(snapshot(run_id))

    async def cut() -> None:
        for _ in range(10):
            await anyio.sleep(0.05)
            for pid in await anyio.to_thread.run_sync(backends, here):
                await anyio.to_thread.run_sync(execute, here, f"SELECT pg_terminate_backend({pid})")

    written = 0
    async with anyio.create_task_group() as group:
        group.start_soon(cut)
        while written < 200:
            await store.append(hold, [row(written)])
            written += 1
            if written % 20 == 0:
                assert (await store.load(run_id)).length == written
    assert (await store.load(run_id)).history() == [row(number) for number in range(written)]
    await store.aclose()


Work = Callable[[PostgresDatabase], Any]


@pytest.mark.parametrize("counts", [True, False])
async def test_a_commit_without_an_answer_is_found_out(here, counts):
    """The connection ends after the server has committed, or before: the rows are there once either way."""
    store, run_id = store_at(here), new_id()
    hold = await store.create(snapshot(run_id))
    database = store._writer._database
    execute_there = database._execute
    cut: list[bool] = []

    def execute_and_cut(sql: str, arguments: object = ()) -> object:
        if sql != "COMMIT" or cut:
            return execute_there(sql, arguments)
        cut.append(True)
        if counts:
            execute_there(sql)
        pid = database._connection.info.backend_pid
        execute(here, f"SELECT pg_terminate_backend({pid})")
        return execute_there("SELECT 1")

    database._execute = execute_and_cut
    await store.append(hold, [row(0)])
    assert cut
    await store.append(hold, [row(1)])
    assert (await store.load(run_id)).history() == [row(0), row(1)]
    await store.aclose()


async def test_a_server_that_is_killed_and_started_again_loses_nothing(here, postgres_server):
    stores = [store_at(here) for _ in range(2)]
    runs = [new_id() for _ in range(8)]
    holds = [await stores[number % 2].create(snapshot(run_id)) for number, run_id in enumerate(runs)]
    told = [0] * len(runs)

    async def work(number: int) -> None:
        while told[number] < 60:
            await stores[number % 2].append(holds[number], [row(told[number])])
            told[number] += 1
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as group:
        for number in range(len(runs)):
            group.start_soon(work, number)
        await anyio.sleep(0.2)
        await anyio.to_thread.run_sync(restart, postgres_server)
    for run_id in runs:
        assert (await stores[0].load(run_id)).history() == [row(number) for number in range(60)]
    await stores[0].save(holds[0], snapshot(runs[0], "paused", pauses=[question()], position=60))
    await stores[1].claim(60, receipt(runs[0]), [])
    with pytest.raises(HoldLost):
        await stores[0].append(holds[0], [row(61)])
    with pytest.raises(ResumeError):
        await stores[1].load("nobody")
    for store in stores:
        await store.aclose()


def restart(server: Any) -> None:
    """As a crash of the machine would be to its clients: every process of the server is killed."""
    import psutil

    postmaster = psutil.Process(server.get_pid())
    processes = [*postmaster.children(recursive=True), postmaster]
    os.kill(postmaster.pid, signal.SIGKILL)
    for process in processes:
        if process.is_running():
            process.kill()
    psutil.wait_procs(processes, timeout=10)
    server.ensure_postgres_running()
