"""Canaries of the type gates: a planted fault must fail them. Run by ``nox -s canaries``; pyright takes seconds."""

import subprocess
import sys
from pathlib import Path

import public_types
import pytest
from fresh_venv import ROOT, FreshVenv


@pytest.fixture(scope="module")
def venv(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> FreshVenv:
    venv = FreshVenv.create(tmp_path_factory.mktemp("types") / "venv", wheelhouse)
    venv.install_locked_dependencies_of("flujo-core")
    venv.uv_install_ours("flujo-core")
    return venv


def install_module(venv: FreshVenv, name: str, text: str) -> None:
    folder = venv.site_packages / name
    folder.mkdir()
    (folder / "py.typed").touch()
    (folder / "__init__.py").write_text(text)


def test_known_types_pass(venv: FreshVenv) -> None:
    install_module(venv, "typed", "def say(word: str) -> str:\n    return word\n")
    assert "1 symbols" in public_types.check_exports("typed", venv.python)


def test_public_function_without_types_fails(venv: FreshVenv) -> None:
    install_module(venv, "untyped", "def say(word):\n    return word\n")
    with pytest.raises(public_types.GateError, match=r"untyped\.say"):
        public_types.check_exports("untyped", venv.python)


def test_package_that_pyright_cannot_see_fails(venv: FreshVenv) -> None:
    with pytest.raises(public_types.GateError, match="sees no symbol"):
        public_types.check_exports("flujo.nowhere", venv.python)


def test_user_code_that_misuses_the_interface_fails(venv: FreshVenv, tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text("from flujo.core import RetryPolicy\n\nRetryPolicy(max_attempts='three')\n")
    with pytest.raises(public_types.GateError, match=r"use\.py:3"):
        public_types.check_user_code(tmp_path, venv.python)


def test_folder_without_code_fails(venv: FreshVenv, tmp_path: Path) -> None:
    with pytest.raises(public_types.GateError, match="0 of 0"):
        public_types.check_user_code(tmp_path, venv.python)


def test_mypy_reads_every_source_file_and_refuses_a_planted_fault(tmp_path: Path) -> None:
    # The configured folders, with one more that holds the fault: were they matched by nothing, mypy would say so.
    fault = tmp_path / "fault.py"
    fault.write_text("def f(x):\n    return x\n")
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(fault)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no-untyped-def" in done.stdout
