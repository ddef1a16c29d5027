"""Each import contract of pyproject.toml breaks when the import it forbids is planted in a copy of the sources."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = "flujo-core/src/flujo/core"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of every package's sources, and of the configuration, that a test may spoil."""
    for src in ROOT.glob("packages/*/src"):
        shutil.copytree(src, tmp_path / src.parent.name / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(sources: Path) -> subprocess.CompletedProcess[str]:
    """Check the copy: its folders come first on the path, so that they hide the installed packages."""
    folders = [str(src) for src in sources.glob("*/src")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(folders), "NO_COLOR": "1", "COLUMNS": "200"}
    code = "import sys; from importlinter.cli import lint_imports_command as run; run(['--no-cache'])"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=sources, env=env, capture_output=True, text=True, check=False
    )


def plant(sources: Path, file: str, line: str) -> None:
    path = sources / file
    path.write_text((path.read_text() if path.exists() else "") + f"\n{line}\n")


def test_sources_as_they_are_keep_every_contract(sources: Path) -> None:
    done = lint(sources)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line", "named"),
    [
        (f"{CORE}/errors.py", "from . import outcome", "flujo.core.errors is not allowed to import flujo.core.outcome"),
        (f"{CORE}/stray.py", "", "- flujo.core.stray"),
        (f"{CORE}/outcome.py", "import flujo.audit", "flujo.core is not allowed to import flujo.audit"),
        (f"{CORE}/outcome.py", "import click", "flujo.core is not allowed to import click"),
        (
            "flujo-audit/src/flujo/audit/__init__.py",
            "import flujo.deidentifier",
            "flujo.audit is not allowed to import flujo.deidentifier",
        ),
        (
            "flujo-cli/src/flujo_cli/launcher.py",
            "def late():\n    import flujo.audit",
            "flujo_cli is not allowed to import flujo.audit",
        ),
        (
            "flujo-audit/src/flujo/audit/__init__.py",
            "from flujo.core.errors import FlujoError",
            "flujo.audit -> flujo.core.errors",
        ),
    ],
    ids=["upwards", "undeclared module", "core to plugin", "core to click", "sibling", "command to plugin", "inside"],
)
def test_planted_import_breaks_its_contract(sources: Path, file: str, line: str, named: str) -> None:
    plant(sources, file, line)
    done = lint(sources)
    assert done.returncode == 1, done.stdout + done.stderr
    assert named in done.stdout


def test_import_of_public_core_names_keeps_every_contract(sources: Path) -> None:
    plant(sources, "flujo-audit/src/flujo/audit/__init__.py", "from flujo.core import hookimpl")
    assert lint(sources).returncode == 0
