"""Stores that are closed when their test ends, on each event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flujo.hitl import SQLiteStore

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
