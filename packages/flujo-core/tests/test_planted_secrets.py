"""Property tests of secrets, with the real SDK: see `planted_secrets.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(300)
def test_planted_secrets_come_out_nowhere() -> None:
    file = Path(__file__).with_name("planted_secrets.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=290, check=False, cwd=Path(__file__).parents[3]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
