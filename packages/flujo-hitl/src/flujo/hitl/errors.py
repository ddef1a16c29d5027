"""Errors of the stores of runs.

FlujoError
└── StoreError              the root of all errors of flujo-hitl
    ├── StoreWriteError     what was to be kept is not: disk full, file or folder read-only, an error of the device
    ├── StoreBusy           another process keeps the file locked; nothing was written
    ├── StoreUnreachable    its server cannot be reached, or does not do what is asked; nothing of it is there
    ├── StoreDamaged        the file is damaged, so that it cannot be used (or not in this place)
    │   └── RunDamaged      ... only what is kept of one run; all others can be used (also a SnapshotError)
    │       └── RunSealed   ... by no fault: a codec wrote it, and the store was opened without one
    ├── StoreForeign        the file is no store of ours, or of a later version; nothing in it was touched
    └── StoreClosed         the store was closed before (also a RuntimeError)
└── NeedsAsyncio            the inbox was served on another event loop than asyncio's (also a ConfigurationError)
"""

from __future__ import annotations

from pathlib import Path

from flujo.core import ConfigurationError, FlujoError, SnapshotError

__all__ = [
    "NeedsAsyncio",
    "RunDamaged",
    "RunSealed",
    "StoreBusy",
    "StoreClosed",
    "StoreDamaged",
    "StoreError",
    "StoreForeign",
    "StoreUnreachable",
    "StoreWriteError",
]


class NeedsAsyncio(ConfigurationError):
    """The inbox was served on another event loop than asyncio's."""

    def __init__(self) -> None:
        why, do = "its server works with asyncio alone", "Serve it with asyncio; stores work on trio too"
        super().__init__("the inbox cannot be served here", why, do)


class StoreError(FlujoError):
    """The root of all errors of flujo-hitl."""


class StoreWriteError(StoreError):
    """What was to be kept is not; the same store works again once the cause is gone."""

    def __init__(self, path: Path, why: str) -> None:
        do = "Make room, or the file and its folder writable, then try again"
        super().__init__(f"store {str(path)!r} cannot be written", why, do)


class StoreBusy(StoreError):
    """Another process keeps the file locked. Nothing was written."""

    def __init__(self, path: Path, seconds: float) -> None:
        why = f"another process keeps it locked, for more than {seconds:g} s"
        super().__init__(f"store {str(path)!r} cannot be used", why, "End that process, or try again")


class StoreUnreachable(StoreError):
    """The server of a store cannot be reached, or refuses the work. What was not acknowledged is not there."""

    def __init__(self, where: Path, why: str) -> None:
        super().__init__(f"store {str(where)!r} cannot be used now", why, "See to its server, then try again")


class StoreDamaged(StoreError):
    """The file is damaged."""

    def __init__(self, path: Path, why: str) -> None:
        do = "Keep it aside and put a backup in its place"
        super().__init__(f"store {str(path)!r} is damaged", why, do)


class RunDamaged(StoreDamaged, SnapshotError):
    """What is kept of one run is damaged. All others can be used.

    Attributes:
        run_id: The run.
    """

    def __init__(self, run_id: str, why: str, do: str = "Take it from a backup, or start it anew") -> None:
        self.run_id = run_id
        FlujoError.__init__(self, f"run {run_id!r} cannot be read", why, do)


class RunSealed(RunDamaged):
    """What is kept of a run was written by a codec, and the store was opened without one."""

    def __init__(self, run_id: str, about: str) -> None:
        do = "Name that codec, as FLUJO_CODEC=flows:codec for `codec` in flows.py; in code, open the store with it"
        super().__init__(run_id, f"{about}: a codec wrote it, and this store has none", do)


class StoreForeign(StoreError):
    """The file is no store of ours, or of a later version. Nothing in it was touched."""

    def __init__(self, path: Path, why: str, do: str) -> None:
        super().__init__(f"file {str(path)!r} cannot be used as a store", why, do)


class StoreClosed(StoreError, RuntimeError):
    """The store was used after its `close`."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"store {str(path)!r} is closed", "`close` was called", "Make a new one")
