"""The budget script catches each planted violation, and nothing in a clean tree."""

import subprocess
import sys
from pathlib import Path

import pytest
import size_budget

CLEAN = '''"""A module."""


def public(name: str) -> str:
    """Say something."""
    return name
'''


def plant(root: Path, text: str, *, leaf: str = "flujo.audit", module: str = "planted") -> Path:
    """Write one module of a leaf below ``root``, as a package of the workspace would hold it."""
    folder = root / "packages" / leaf.replace(".", "-") / "src" / leaf.replace(".", "/")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").touch()
    (folder / f"{module}.py").write_text(text)
    return root


def broken(root: Path) -> list[str]:
    return [row.what for row in size_budget.check(root) if row.hard and not row.ok]


def body(lines: int, statement: str = "    x = 1\n") -> str:
    return f'def long() -> None:\n    """Say."""\n{statement * lines}'


VIOLATIONS = {
    "module lines, median": CLEAN + "x = 1\n" * 200,
    "module lines, max": CLEAN + "x = 1\n" * 400,
    "function lines, p50": body(20),
    "function lines, p95": body(45),
    "function lines, max": body(60),
    "complexity, max": body(10, "    if True: pass\n"),
    "positional arguments, max": "def f(a: int, b: int, c: int, d: int, e: int, f: int, g: int) -> None: ...\n",
    "annotated functions, %": "def f(a) -> None:\n    '''Say.'''\n",
    "public docstrings, %": "class Public:\n    def method(self) -> None: ...\n",
    "broad excepts (1 per 1,000 lines)": "try:\n    x = 1\n# Why: so.\nexcept Exception:\n    x = 2\n" * 2,
    "import cycles": "import flujo.audit.other\n",
    "private imports across packages": "from flujo.core import _hidden\n",
    "imports past public names": "from flujo.core.steps import step\n",
}


def test_clean_tree_passes(tmp_path: Path) -> None:
    assert broken(plant(tmp_path, CLEAN)) == []


@pytest.mark.parametrize("what", VIOLATIONS)
def test_planted_violation_breaks_its_row(tmp_path: Path, what: str) -> None:
    plant(tmp_path, "x = 1\n", leaf="flujo.core", module="other")
    plant(tmp_path, "import flujo.audit.planted\n", module="other")
    assert what in broken(plant(tmp_path, VIOLATIONS[what]))


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    x = 1\nexcept Exception:\n    x = 2\n",
        "try:\n    x = 1\n# Commented, but it swallows.\nexcept (ValueError, BaseException):\n    pass\n",
        "import contextlib\nwith contextlib.suppress(Exception):\n    x = 1\n",
        "def f() -> None:\n    '''Say.'''\n    import json\n",
    ],
    ids=["except without a comment", "silent except", "suppress without a comment", "local import without a comment"],
)
def test_unexplained_code_is_refused(tmp_path: Path, text: str) -> None:
    assert broken(plant(tmp_path, text)) == ["unexplained excepts and local imports"]


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    x = 1\nexcept Exception:  # a plugin may raise anything\n    x = 2\n",
        "try:\n    x = 1\nexcept ValueError:\n    pass\n",
        "try:\n    x = 1\nexcept BaseException:\n    x = 2\n    raise\n",
        "from flujo.core import step\n",
        "def f() -> None:\n    '''Say.'''\n    # 80 ms, and only here.\n    import json\n    import csv",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import flujo.audit.planted\n",
    ],
    ids=[
        "explained except",
        "narrow except",
        "re-raising except",
        "public name of core",
        "explained local import",
        "cycle that only a type checker sees",
    ],
)
def test_explained_code_passes(tmp_path: Path, text: str) -> None:
    plant(tmp_path, "x = 1\n", leaf="flujo.core", module="step")
    assert broken(plant(tmp_path, text)) == []


def test_cycle_through_a_local_and_a_relative_import_is_found(tmp_path: Path) -> None:
    plant(tmp_path, "def f() -> None:\n    # Hides the cycle.\n    from . import second\n", module="first")
    plant(tmp_path, "from flujo.audit.first import f\n", module="second")
    [row] = [row for row in size_budget.check(tmp_path) if row.what == "import cycles"]
    assert set(row.offenders[0].split(" > ")) == {"flujo.audit.first", "flujo.audit.second"}


def test_the_engine_may_have_3431_code_lines_without_testing_comments_and_docstrings(tmp_path: Path) -> None:
    padding = '"""Doc.\n\nMore.\n"""\n# comment\n\n'
    for number in range(10):
        plant(tmp_path, padding + "x = 1\n" * 341, leaf="flujo.core", module=f"part{number}")
    plant(tmp_path, "x = 1\n" * 300, leaf="flujo.core", module="testing")
    assert "flujo.core, code lines of the engine" not in broken(tmp_path)
    plant(tmp_path, "x = 1\n" * 22, leaf="flujo.core", module="last")
    assert "flujo.core, code lines of the engine" in broken(tmp_path)


def test_what_governs_a_run_counts_by_itself(tmp_path: Path) -> None:
    for name in ("ledger", "plugins", "calls", "telemetry", "meter", "usage"):
        plant(tmp_path, "x = 1\n" * 398, leaf="flujo.core", module=name)
    assert not {what for what in broken(tmp_path) if "code lines" in what}
    plant(tmp_path, "x = 1\n" * 25, leaf="flujo.core", module="policy")
    assert {what for what in broken(tmp_path) if "code lines" in what} == {"flujo.core, code lines of governance"}


def test_looking_at_nothing_is_an_error_not_a_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="would check nothing"):
        size_budget.check(tmp_path)


def test_exit_code_is_1_with_the_offender_named_and_0_when_clean(tmp_path: Path) -> None:
    script = [sys.executable, size_budget.__file__, str(tmp_path)]
    plant(tmp_path, body(70))
    failed = subprocess.run(script, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "FAIL function lines, max" in failed.stdout
    assert "flujo.audit/planted.py:1 long 71" in failed.stdout
    plant(tmp_path, CLEAN)
    assert subprocess.run(script, capture_output=True, check=False).returncode == 0
