"""What can go wrong with a store."""

from __future__ import annotations

from pathlib import Path

from flujo.core import FlujoError


class StoreError(FlujoError):
    """A store cannot be read or written; `__cause__` is what the database said.

    Attributes:
        path: Its file.
    """

    def __init__(self, path: Path, why: str, do: str = "") -> None:
        self.path = path
        super().__init__(f"store {str(path)!r} cannot be used", why, do)


class StoreClosed(StoreError):
    """It was closed before."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "it was closed", "Make another SQLiteStore")
