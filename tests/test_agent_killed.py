"""An agent whose process is killed in its second tool call: nothing is paid twice, nor done twice unasked."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("agent_that_dies.py")


def part(folder: Path, effect: str, name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(folder), effect, name]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("effect", ["idempotent", "at_most_once"])
def test_an_agent_that_was_killed_in_its_second_tool_call_goes_on(tmp_path: Path, effect: str) -> None:
    first = part(tmp_path, effect, "first")
    assert first.returncode == -signal.SIGKILL, first.stderr
    later = part(tmp_path, effect, "later")
    assert later.returncode == 0, later.stderr
    result = json.loads(later.stdout)
    effects = (tmp_path / "effects").read_text().splitlines()
    asked = (tmp_path / "asked").read_text().splitlines()
    if effect == "idempotent":  # the cut call is made again, the one before it is not, nor is the model asked again
        assert (result["status"], effects) == ("completed", ["pay 1", "pay 2", "pay 2"])
        assert (asked, result["requests"], result["cost"]) == (["0", "1", "2"], 3, "0.03")
    else:
        assert (result["status"], effects) == ("paused", ["pay 1", "pay 2"])
        assert (asked, result["requests"]) == (["0", "1"], 2)
        assert "'pay'" in result["questions"][0]
