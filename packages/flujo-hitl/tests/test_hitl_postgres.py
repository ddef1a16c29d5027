"""A server that goes away, an answer that is lost, a schema of another time."""

import os
import secrets
import signal
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest
from hitl_trials import PLAN, paused, receipt, row, run, store_at

from flujo.core import (
    ConfigurationError,
    Flujo,
    FlujoError,
    Hold,
    HoldLost,
    PauseForHumanInput,
    ResumeError,
    RunExists,
    Step,
    StillRunning,
)
from flujo.hitl import StoreError, StoreForeign, StoreUnreachable
from flujo.hitl.encryption import AesGcmCodec
from flujo.hitl.postgres import PostgresStore
from flujo.hitl.postgres_schema import PostgresConnection

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the rules of core, which are tried too, run on trio as well


def execute(place: str, *statements: str) -> list[Any]:
    url, _, schema = place.partition("#")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"SET search_path TO {schema}")  # type: ignore[arg-type]
        found = [connection.execute(statement) for statement in statements]  # type: ignore[arg-type]
        return found[-1].fetchall() if found[-1].description else []


def cut(place: str) -> None:
    """End all other connections."""
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    execute(place, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")


def restart(server: Any) -> None:
    """As a power cut would be to its clients."""
    stop(server)
    server.ensure_postgres_running()


def stop(server: Any) -> None:
    """Kill every process of the server."""
    import psutil

    postmaster = psutil.Process(server.get_pid())
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        if process.is_running():
            os.kill(process.pid, signal.SIGKILL)
    psutil.wait_procs(processes, timeout=10)


def test_the_arguments_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="libpq cannot read it"):
        PostgresStore("postgresql://host:port:port/x?what=1")
    with pytest.raises(ConfigurationError, match="no plain name"):
        PostgresStore("postgresql:///x", schema='"; DROP')
    with pytest.raises(ConfigurationError, match="lease_s=0"):
        PostgresStore("postgresql:///x", lease_s=0)


async def test_a_server_that_is_not_there_is_waited_for_but_not_for_ever(tmp_path: Path) -> None:
    store = PostgresStore(f"postgresql://somebody:hunter22@/x?host={tmp_path}", wait_s=0.5)
    started = time.monotonic()
    for work in (store.create(run("r")), store.load("r"), store.runs()):
        with pytest.raises(StoreUnreachable) as told:
            await work
        assert "hunter22" not in f"{told.value!r} {told.value.__cause__!r} {told.value.__context__!r}"
    assert 0.5 < time.monotonic() - started < 10
    store.close()


async def test_urls_of_other_libraries_are_read(place: str) -> None:
    url, _, schema = place.partition("#")
    store = PostgresStore(url.replace("postgresql:", "postgresql+psycopg:"), schema=schema)
    await store.create(run("r"))
    store.close()


async def test_a_later_schema_is_refused(place: str) -> None:
    store = store_at(place)
    await store.create(run("r"))
    store.close()
    execute(place, "INSERT INTO version VALUES (99)")
    store = store_at(place)
    for work in (store.create(run("s")), store.load("r")):
        with pytest.raises(StoreForeign, match="version 99"):
            await work
    store.close()


async def test_many_stores_make_the_schema_at_once(place: str) -> None:
    stores = [store_at(place) for _ in range(6)]
    async with anyio.create_task_group() as group:
        for number, store in enumerate(stores):
            group.start_soon(store.create, run(f"r{number}"))
    assert len((await stores[0].runs()).items) == 6
    for store in stores:
        store.close()


async def test_a_copy_is_the_work_of_the_servers_own_tool(place: str, tmp_path: Path) -> None:
    store = store_at(place)
    with pytest.raises(ConfigurationError, match="pg_dump"):
        await store.backup(tmp_path / "copy")
    store.close()


@pytest.mark.parametrize("bad", ["bad\0id", "bad\ud800id"])
async def test_an_id_that_the_server_cannot_hold_spoils_nothing_for_others(place: str, bad: str) -> None:
    store = store_at(place)
    ends: list[object] = []

    async def create(run_id: str) -> None:
        try:
            ends.append(await store.create(run(run_id)))
        except FlujoError as error:
            ends.append(error)

    async with anyio.create_task_group() as group:
        for run_id in ("a", bad, "b"):
            group.start_soon(create, run_id)
    assert sum(isinstance(end, FlujoError) for end in ends) == 1
    assert {one.run_id for one in (await store.runs()).items} == {"a", "b"}
    with pytest.raises(FlujoError):
        await store.load(bad)
    store.close()


async def test_two_stores_that_create_one_run_at_once(place: str) -> None:
    stores = [store_at(place) for _ in range(4)]
    ends: list[str] = []

    async def create(number: int) -> None:
        try:
            await stores[number % 4].create(run(f"r{number // 4}"))
            ends.append("made")
        except RunExists:
            ends.append("known")

    async with anyio.create_task_group() as group:
        for number in range(80):
            group.start_soon(create, number)
    assert (ends.count("made"), ends.count("known")) == (20, 60)
    for store in stores:
        store.close()


async def write_while_connections_end(place: str, cuts: int) -> None:
    """Nothing is lost and nothing is there twice, whenever a connection ends.

    Between two cuts one write at least comes through: else a slow machine would have no connection for `wait_s`.
    """
    store = store_at(place)
    hold = await store.create(run("r"))
    written, is_over = 0, False

    async def cut_often() -> None:
        nonlocal is_over
        for number in range(cuts):
            before = written
            while written == before:
                await anyio.sleep(0.002)
            await anyio.sleep(number % 13 / 1000)
            await anyio.to_thread.run_sync(cut, place)
        is_over = True

    async with anyio.create_task_group() as group:
        group.start_soon(cut_often)
        while not is_over:
            await store.append(hold, [row(written)])
            written += 1
    assert (await store.load("r")).history() == [row(number) for number in range(written)]
    store.close()


async def test_connections_that_end_are_made_anew(place: str) -> None:
    await write_while_connections_end(place, 10)


@pytest.mark.soak
async def test_200_connections_that_end_are_made_anew(place: str) -> None:
    await write_while_connections_end(place, 200)


@pytest.mark.parametrize("counts", [True, False])
async def test_a_commit_without_an_answer_is_found_out(
    place: str, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection ends after the server has committed, or before: the rows are there once either way."""
    store = store_at(place)
    hold = await store.create(run("r"))
    there, is_cut = PostgresConnection.execute, threading.Event()

    def execute_and_cut(self: PostgresConnection, sql: str, facts: Any = ()) -> object:
        if sql != "COMMIT" or is_cut.is_set():
            return there(self, sql, facts)
        is_cut.set()
        if counts:
            there(self, sql)
        cut(place)
        return there(self, "SELECT 1")

    monkeypatch.setattr(PostgresConnection, "execute", execute_and_cut)
    await store.append(hold, [row(0)])
    assert is_cut.is_set()
    await store.append(hold, [row(1)])
    assert (await store.load("r")).history() == [row(0), row(1)]
    store.close()


async def test_a_lock_is_waited_for_but_not_for_ever(place: str) -> None:
    store = store_at(place, wait_s=0.3)
    hold = await store.create(run("r"))
    with psycopg.connect(place.partition("#")[0]) as other:
        other.execute(f"SELECT * FROM {place.partition('#')[2]}.runs FOR UPDATE")  # type: ignore[arg-type]
        with pytest.raises(StoreUnreachable, match="lock"):
            await store.append(hold, [row(0)])
        assert (await store.load("r")).length == 0
    await store.append(hold, [row(0)])
    store.close()


@pytest.mark.parametrize(
    ("statement", "match"),
    [
        ("UPDATE journal SET payload = '\\x00'", "holds no payload"),
        ("UPDATE journal SET payload = substring(payload FROM 1 FOR 20)", "checksum"),
        ("UPDATE snapshots SET payload = set_byte(payload, 9, 0)", "checksum"),
        ("UPDATE runs SET status = 77", "where it stands is missing"),
        ("DELETE FROM journal WHERE position = 1", "missing"),
    ],
)
async def test_damage_to_a_run_is_told_and_leaves_the_others(place: str, statement: str, match: str) -> None:
    store = store_at(place)
    hold = await store.create(run("r"))
    await store.append(hold, [row(number) for number in range(3)])
    execute(place, statement)
    await paused(store, "good", rows=3)
    with pytest.raises(StoreError, match=match):
        await store.load("r")
    assert (await store.load("good")).length == 3
    await store.claim(3, "paused", receipt("good"), [row(3)])
    store.close()


async def test_tables_that_are_gone_are_told(place: str) -> None:
    store = store_at(place)
    hold = await store.create(run("r"))
    execute(place, "DROP TABLE journal")
    for work in (store.append(hold, [row(0)]), store.load("r")):
        with pytest.raises(StoreError, match="journal"):
            await work
    store.close()


async def test_a_server_that_is_killed_and_started_again_loses_nothing(place: str, postgres_server: Any) -> None:
    stores = [store_at(place) for _ in range(2)]
    holds = [await stores[number % 2].create(run(f"r{number}")) for number in range(8)]
    told = [0] * len(holds)

    async def work(number: int) -> None:
        while told[number] < 60:
            await stores[number % 2].append(holds[number], [row(told[number])])
            told[number] += 1
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as group:
        for number in range(len(holds)):
            group.start_soon(work, number)
        await anyio.sleep(0.2)
        await anyio.to_thread.run_sync(restart, postgres_server)
    for number in range(len(holds)):
        assert (await stores[0].load(f"r{number}")).history() == [row(at) for at in range(60)]
    assert await stores[0].orphans(PLAN) == []
    await stores[0].release(holds[0])
    await stores[1].claim(60, "running", receipt("r0", ""), [])
    with pytest.raises(HoldLost):
        await stores[0].append(holds[0], [row(61)])
    with pytest.raises(ResumeError):
        await stores[1].load("nobody")
    for store in stores:
        store.close()


async def test_a_commit_that_jams_with_another_is_done_again(place: str) -> None:
    """Other programs may lock rows in another order; the server ends one of both, and it must not be the run."""
    store = store_at(place)
    holds = [await store.create(run(name)) for name in ("a", "b")]
    schema = place.partition("#")[2]
    jam = "SELECT 1 FROM {}.runs WHERE run_id = '{}' FOR UPDATE"
    with psycopg.connect(place.partition("#")[0]) as other:
        other.execute("SET deadlock_timeout = '60s'")  # so that the store's is the one that is ended
        other.execute(jam.format(schema, "b"))  # type: ignore[arg-type]

        async def write() -> None:
            async with anyio.create_task_group() as group:
                for hold in holds:
                    group.start_soon(store.append, hold, [row(0)])

        async with anyio.create_task_group() as group:
            group.start_soon(write)
            await anyio.sleep(0.2)
            await anyio.to_thread.run_sync(lambda: other.execute(jam.format(schema, "a")))  # type: ignore[arg-type]
            other.rollback()
    for name in ("a", "b"):
        assert (await store.load(name)).late == (row(0),)
    store.close()


async def test_a_run_goes_on_by_the_url_of_its_store(postgres_server: Any) -> None:
    async def double(value: int) -> int:
        return 2 * value

    async def ask(value: int) -> int:
        raise PauseForHumanInput("How many?", schema=int)

    url, run_id = postgres_server.get_uri(), secrets.token_hex(8)
    paused_run = await Flujo(Step(double) >> Step(ask), store=url).run_async(1, run_id=run_id)
    assert paused_run.status == "paused"
    done = await Flujo(Step(double) >> Step(ask), store=url).resume_async(run_id, 5)
    assert done.output == 5


async def test_payloads_are_encrypted(place: str) -> None:
    store = store_at(place, codec=AesGcmCodec({"k": secrets.token_bytes(32)}, "k"))
    await paused(store, "r", rows=2)
    assert len((await store.load("r")).history()) == 2
    found = execute(place, "SELECT payload FROM journal UNION ALL SELECT question FROM pauses")
    assert len(found) == 3
    assert not any(b"number" in payload or b"Pay" in payload for (payload,) in found)
    store.close()


def test_a_forked_child_writes_over_a_connection_of_its_own(place: str) -> None:
    store = store_at(place)

    async def in_child() -> None:
        with pytest.raises(StillRunning):
            await store.claim(0, "running", receipt("r", ""), [])
        await store.append(await store.create(run("s")), [row(0)])

    async def before() -> Hold:
        return await store.create(run("r"))

    hold = anyio.run(before)
    if (pid := os.fork()) == 0:
        code = 1
        try:
            anyio.run(in_child)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0

    async def after() -> None:
        await store.append(hold, [row(0)])
        assert await store.orphans(PLAN) == ["s"]
        assert [(await store.load(run_id)).length for run_id in ("r", "s")] == [1, 1]

    anyio.run(after)
    store.close()


async def test_who_closes_a_store_does_not_wait_for_a_server_that_is_away(place: str, postgres_server: Any) -> None:
    store = store_at(place)
    await store.create(run("r"))
    await anyio.to_thread.run_sync(stop, postgres_server)
    try:
        started = time.monotonic()
        await anyio.to_thread.run_sync(store.close)
        assert time.monotonic() - started < 10
    finally:
        postgres_server.ensure_postgres_running()
