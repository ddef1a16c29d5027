"""Runs as a Flujo would keep them, for the tests of stores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flujo.core import Checkpoint, EntryData, Receipt, Snapshot, Usage
from flujo.hitl import SQLiteStore
from flujo.hitl.postgres import PostgresStore
from flujo.hitl.store import KeepingStore

PLAN = "0" * 64
HERE = Path(__file__).parent


def store_at(where: str | Path, **options: Any) -> KeepingStore:
    """A store in a file, or where `postgresql://...#schema` says."""
    url, _, schema = str(where).partition("#")
    return PostgresStore(url, schema=schema, **options) if schema else SQLiteStore(where, **options)


def question(text: str = "Pay?", pause: str = "ask", **more: object) -> dict[str, object]:
    """A question as a snapshot has it; its pause has the id `pause`."""
    return {"question": text, "frame": 0, "node": 0, "path": pause, "number": 0, **more}


def run(run_id: str, status: str = "running", position: int = 0, asks: Sequence[Any] = (), **more: object) -> Snapshot:
    """A run that stands somewhere."""
    facts = {"next_frame": 1, "frames": [{"id": 0}], "usage": Usage(), "position": position, "pauses": list(asks)}
    names = {"run_id": run_id, "pipeline": "trial", "fingerprint": PLAN, "status": status}
    return Snapshot.model_validate({**names, "checkpoint": Checkpoint.model_validate(facts), **more})


def row(number: int, value: object = None) -> EntryData:
    """An entry of a journal."""
    value = {"number": number} if value is None else value
    return EntryData.model_validate({"frame": 0, "node": number, "kind": "success", "path": "step", "value": value})


def receipt(run_id: str, pause: str = "ask", digest: str = "d" * 64) -> Receipt:
    """A decision."""
    return Receipt(run_id, pause, digest, datetime.now(UTC))


async def paused(store: KeepingStore, run_id: str, *asks: object, rows: int = 0, **more: object) -> Snapshot:
    """Keep a run that waits for answers, by default to one question."""
    hold = await store.create(run(run_id, **more))
    await store.append(hold, [row(number) for number in range(rows)])
    standing = run(run_id, "paused", rows, asks or [question()], **more)
    await store.save(hold, standing)
    return standing


def child(script: str, *arguments: object, check: bool = True) -> str:
    """What a fresh process prints that runs a script of this folder; it may be killed where `check` is false."""
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    allowed = (0,) if check else (0, -signal.SIGKILL)
    assert done.returncode in allowed, f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout if done.returncode == 0 else "killed"


def note(path: Path, word: str) -> None:
    """Do an effect: a line in a file, on the disk when this returns."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{word}\n".encode())
        os.fsync(file)
    finally:
        os.close(file)
