"""Errors of the stores.

FlujoError
├── StoreError              the root of all errors of flujo-hitl's stores
│   ├── StoreUnavailable    it cannot be read or written now: full, read-only, locked, not reached
│   ├── StoreDamaged        what is there is no store of Flujo, or no longer a whole one
│   ├── StoreTooNew         it was written by a later version
│   └── StoreClosed         it was closed before (also a RuntimeError)
└── SnapshotError           (of flujo.core) what is kept of one run cannot be used; the other runs can
"""

from __future__ import annotations

from flujo.core import FlujoError, SnapshotError

__all__ = ["StoreClosed", "StoreDamaged", "StoreError", "StoreTooNew", "StoreUnavailable", "refused", "unusable"]


class StoreError(FlujoError):
    """The root of all errors of the stores."""


class StoreUnavailable(StoreError):
    """A store cannot be read or written now. Nothing of what was to be written counts; try again later."""

    def __init__(self, store: str, why: str) -> None:
        do = "See to the cause, then go on: what was acknowledged before is kept"
        super().__init__(f"store {store!r} cannot be used now", why, do)


class StoreDamaged(StoreError):
    """What is there is no store of Flujo, or parts of it are gone. It is left as it is."""

    def __init__(self, store: str, why: str) -> None:
        do = "Keep it aside, and go on with a backup or with a new store"
        super().__init__(f"store {store!r} is damaged or no store", why, do)


class StoreTooNew(StoreError):
    """A store has a form that this version does not know. It is left as it is."""

    def __init__(self, store: str, found: int, known: int) -> None:
        why = f"it has version {found}, and this flujo-hitl knows versions up to {known}"
        super().__init__(f"store {store!r} cannot be used", why, "Upgrade flujo-hitl")


class StoreClosed(StoreError, RuntimeError):
    """Something was asked of a store after its `close`."""

    def __init__(self, store: str) -> None:
        super().__init__(f"store {store!r} is closed", "`close` was called", "Make a new store")


def unusable(run_id: str, part: str, why: str) -> SnapshotError:
    """The error for one part of one run that cannot be read."""
    do = "Go on with the run as a backup has it; other runs are not touched by this"
    return SnapshotError(f"{part} of run {run_id!r} cannot be used", why, do)


def refused(store: str, why: str) -> StoreError:
    """The error for what a store cannot hold."""
    return StoreError(f"store {store!r} refused what was to be written", why, "Use ids and names that are plain text")
