"""Fixtures of the cross-package tests: the wheels of this checkout, built once per session."""

from pathlib import Path

import pytest
from fresh_venv import ROOT, build_wheels


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and an sdist of every package of the workspace."""
    return build_wheels(tmp_path_factory.mktemp("wheelhouse"), ROOT)
