"""Fixtures of the cross-package tests: the wheels of this checkout, built once per session."""

from pathlib import Path

import pytest
from fresh_venv import ROOT, build_wheels
from locks import locked


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder with a wheel and an sdist of every package of the workspace."""
    own = tmp_path_factory.getbasetemp()
    home = (own if worker_id == "master" else own.parent) / "wheelhouse"
    with locked(home.with_suffix(".lock")):
        return home / "dist" if home.exists() else build_wheels(home, ROOT)
