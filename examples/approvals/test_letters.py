"""The example does what its README says; in a browser it is tested beside flujo-hitl."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LETTERS = Path(__file__).parent / "letters.py"


def flujo(folder: Path, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "flujo_cli", *words, "--store", "sqlite:///runs.db"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def test_a_letter_is_reviewed_and_sent_within_one_limit(tmp_path: Path) -> None:
    code, told = flujo(tmp_path, "run", str(LETTERS), "--text", "a late parcel", "--json")
    assert code == 5
    run = json.loads(told.splitlines()[0])["run_id"]
    code, shown = flujo(
        tmp_path, "runs", "answer", run, '{"approved": true, "tone": "friendly", "amount": 60}', "--yes"
    )
    assert code == 0
    assert "about a late parcel: we pay back 40 USD." in shown
    code, told = flujo(tmp_path, "runs", "worker", str(LETTERS), "--once", "--json")
    done = json.loads(told.splitlines()[-1])
    assert (code, done["status"], done["cost_usd"]) == (0, "completed", "0.032")
    assert "Hello Ann,\n\nabout a late parcel: we pay back 60 USD." in done["output"]


def test_a_letter_that_is_refused_is_not_sent(tmp_path: Path) -> None:
    _, told = flujo(tmp_path, "run", str(LETTERS), "--text", "a broken cup", "--json")
    run = json.loads(told.splitlines()[0])["run_id"]
    flujo(tmp_path, "runs", "answer", run, '{"approved": false, "changes": "not ours"}', "--yes")
    code, told = flujo(tmp_path, "runs", "worker", str(LETTERS), "--once")
    assert (code, "the reviewer refused it: not ours" in told) == (3, True)
