"""What the tests of the voice bot need: espeak-ng."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess

import pytest
from locks import locked


def has_espeak() -> bool:
    try:
        ctypes.CDLL("libespeak-ng.so.1")
    except OSError:
        return False
    return shutil.which("espeak-ng") is not None


@pytest.fixture(scope="session", autouse=True)
def espeak(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> None:
    """espeak-ng, a Debian package: installed here where that is possible."""
    own = tmp_path_factory.getbasetemp()
    with locked((own if worker_id == "master" else own.parent) / "espeak.lock"):
        if not has_espeak() and os.geteuid() == 0 and shutil.which("apt-get"):
            quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "espeak-ng"]):
                subprocess.run(["apt-get", *words], env=quiet, capture_output=True, timeout=110, check=False)
    if not has_espeak():
        pytest.fail("these tests need espeak-ng: apt-get install espeak-ng")
