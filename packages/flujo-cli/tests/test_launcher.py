"""The launcher looks at the namespace without importing it, and says what hides it."""

import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

from flujo_cli.launcher import diagnose

BOMB = "raise SystemExit('the hiding package was executed')\n"


def run_launcher(folder: Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); import flujo_cli.launcher as it; it.main()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_namespace_is_no_problem(tmp_path: Path) -> None:
    write(tmp_path / "flujo" / "core" / "__init__.py", "")
    assert diagnose(PathFinder.find_spec("flujo", [str(tmp_path)])) is None


def test_missing_core_is_named_with_the_command_that_installs_it() -> None:
    assert "pip install flujo-core" in (diagnose(None) or "")


def test_stray_package_without_a_distribution_is_named_by_its_path_and_not_executed(tmp_path: Path) -> None:
    stray = write(tmp_path / "flujo" / "__init__.py", BOMB)
    said = run_launcher(tmp_path)
    assert (said.returncode, said.stdout) == (2, "")
    assert str(stray) in said.stderr
    assert "rename or remove" in said.stderr
    assert "Traceback" not in said.stderr


def test_stray_module_is_named_by_its_path(tmp_path: Path) -> None:
    stray = write(tmp_path / "flujo.py", BOMB)
    said = run_launcher(tmp_path)
    assert said.returncode == 2
    assert str(stray) in said.stderr


def test_old_distribution_is_named_by_version_with_the_upgrade_command(tmp_path: Path) -> None:
    write(tmp_path / "flujo" / "__init__.py", BOMB)
    write(tmp_path / "flujo-0.6.11.dist-info" / "METADATA", "Metadata-Version: 2.1\nName: flujo\nVersion: 0.6.11\n")
    write(tmp_path / "flujo-0.6.11.dist-info" / "RECORD", "flujo/__init__.py,,\n")
    said = run_launcher(tmp_path)
    assert said.returncode == 2
    assert "flujo 0.6.11" in said.stderr
    assert "pip install -U 'flujo>=1'" in said.stderr
