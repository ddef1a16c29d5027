"""The job over 1,000 notes on a real Ray cluster of this machine: one budget for all, and their progress."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import cycle, islice
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NOTES = 1000
MOST_TOKENS = 5_000_000

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def test_a_thousand_notes_share_a_budget(tmp_path: Path) -> None:
    notes = [path.read_text(encoding="utf-8") for path in sorted((HERE / "notes").iterdir())]
    lines = [json.dumps(f"{note}\nSeen as number {number}.") for number, note in enumerate(islice(cycle(notes), NOTES))]
    (tmp_path / "notes.jsonl").write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "flujo_cli", "run", str(HERE / "pipeline.py"), "--input", "notes.jsonl", "--json"]
    command += ["--backend", "ray", "--concurrency", "64", "--max-tokens", str(MOST_TOKENS)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stderr[-2000:]
    *items, summary = map(json.loads, done.stdout.splitlines())
    assert sorted(item["index"] for item in items) == list(range(NOTES))
    assert {item["status"] for item in items} == {"completed"}
    assert all(item["counts"] == {"executed_by": {"ray": 3}} for item in items)
    used = sum(item["usage"]["total_tokens"] for item in items)
    assert used == summary["usage"]["total_tokens"] <= MOST_TOKENS
    assert summary["usage"]["requests"] == NOTES
    assert f"{NOTES}" in done.stderr  # the progress
