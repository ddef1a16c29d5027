"""Runs as a Flujo would keep them, and stores to keep them in."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime

from flujo.core import Checkpoint, EntryData, PauseData, Receipt, Snapshot, Usage
from flujo.hitl import SQLiteStore
from flujo.hitl.postgres import PostgresStore
from flujo.hitl.store import SqlStore


def new_id(name: str = "run") -> str:
    return f"{name}-{os.urandom(6).hex()}"


def question(path: str = "approve", **facts: object) -> PauseData:
    usual = {"frame": 0, "node": 1, "path": path, "number": 0, "question": f"Is {path} right?", "payload": {"sum": 40}}
    return PauseData.model_validate({**usual, **facts})


def snapshot(
    run_id: str,
    status: str = "running",
    *,
    pauses: Sequence[PauseData] = (),
    position: int = 0,
    pipeline: str = "refunds",
    **facts: object,
) -> Snapshot:
    checkpoint = Checkpoint(
        next_frame=1, frames=[{"id": 0}], usage=Usage(), pauses=list(pauses), position=position, input={"amount": 40}
    )  # type: ignore[list-item]
    usual = {"run_id": run_id, "pipeline": pipeline, "fingerprint": "f" * 64, "status": status}
    return Snapshot.model_validate({**usual, "checkpoint": checkpoint, **facts})


def row(number: int, **facts: object) -> EntryData:
    usual = {"frame": 0, "node": number % 100, "kind": "success", "path": f"step{number}", "value": {"number": number}}
    return EntryData.model_validate({**usual, **facts})


def receipt(run_id: str, pause_id: str = "approve", digest: str = "d" * 64) -> Receipt:
    return Receipt(run_id, pause_id, digest, datetime.now(UTC))


def store_at(where: str, **options: object) -> SqlStore:
    """A store object: each is to the others as one of another process."""
    if where.startswith("postgresql"):
        url, _, schema = where.partition("#")
        return PostgresStore(url, schema=schema, **options)  # type: ignore[arg-type]
    return SQLiteStore(where, **options)  # type: ignore[arg-type]
