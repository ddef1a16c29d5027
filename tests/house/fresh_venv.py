"""Virtual environments as a user would make them: no workspace, no editable installs, only our wheels.

Third-party packages come from ``uv.lock``, so that a release of somebody else cannot break a test, and from uv's
cache where they are in it; our own packages come from a folder of wheels with every index switched off.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What would let the outside leak in: import paths, the outer venv, pip's own folder of wheels.
LEAKS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_FIND_LINKS", "UV_FIND_LINKS", "FLUJO_PLUGINS")


def uv_binary() -> str:
    """Find uv: the one that runs us (``uv run`` names it), else the one on PATH."""
    found = os.environ.get("UV") or shutil.which("uv")
    if found is None:
        raise FileNotFoundError("uv is needed to build and install packages; do: pip install uv")
    return found


def clean_environment(**extra: str) -> dict[str, str]:
    """Copy the environment without what would leak in, and with Python downloads and colours off."""
    kept = {name: value for name, value in os.environ.items() if name not in LEAKS}
    return kept | {"UV_PYTHON_DOWNLOADS": "never", "PYTHONNOUSERSITE": "1", "NO_COLOR": "1"} | extra


def run(*command: str | Path, cwd: Path | None = None, ok: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command without stdin; with ``ok`` a failure becomes an assertion error that shows its whole output."""
    argv = [str(part) for part in command]
    done = subprocess.run(
        argv, cwd=cwd, env=clean_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
    )
    assert not ok or done.returncode == 0, f"{argv} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def build_wheels(at: Path, source: Path) -> Path:
    """Build every package from a copy of the workspace ``source``; give the folder that holds wheels and sdists.

    A copy has other paths and modification times, and edits made meanwhile do not tear it.
    """
    copy = at / "source"
    skipped = shutil.ignore_patterns("__pycache__", "tests", ".*")
    shutil.copytree(source / "packages", copy / "packages", ignore=skipped, copy_function=shutil.copyfile)
    shutil.copyfile(source / "pyproject.toml", copy / "pyproject.toml")
    run(uv_binary(), "build", "-q", "--all-packages", "--no-sources", "--out-dir", at / "dist", cwd=copy)
    return at / "dist"


@dataclass(frozen=True)
class FreshVenv:
    """A virtual environment at ``path``; ``wheels`` is the folder that our own packages are installed from."""

    path: Path
    wheels: Path

    @classmethod
    def create(cls, path: Path, wheels: Path, *, pip: bool = False) -> "FreshVenv":
        """Make a venv for the running Python, with pip inside when asked for."""
        run(uv_binary(), "venv", "--no-project", "-q", "-p", sys.executable, *(["--seed"] if pip else []), path)
        return cls(path, wheels)

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        return next(self.path.glob("lib/python*/site-packages"))

    def uv_install(self, *arguments: str | Path) -> None:
        """Install with uv, as ``uv pip install``."""
        run(uv_binary(), "pip", "install", "-q", "-p", self.python, *arguments)

    def uv_uninstall(self, distribution: str) -> None:
        """Uninstall with uv, as ``uv pip uninstall``."""
        run(uv_binary(), "pip", "uninstall", "-q", "-p", self.python, distribution)

    def uv_install_ours(self, *arguments: str) -> None:
        """Install our wheels with uv; anything that is not in the venv or the folder is an error."""
        # --refresh: uv keeps a wheel of a folder by its name, and would install an older build of the same version.
        self.uv_install("--refresh", "--no-index", "--find-links", self.wheels, *arguments)

    def pip_install_ours(self, *arguments: str) -> None:
        """Install our wheels with pip; anything that is not in the venv or the folder is an error."""
        pip = (self.python, "-m", "pip", "install", "-q", "--disable-pip-version-check")
        run(*pip, "--no-index", "--find-links", self.wheels, *arguments)

    def install_locked_dependencies_of(self, *distributions: str, extras: Iterable[str] = ()) -> None:
        """Install the third-party packages that ``uv.lock`` records for these workspace members and nothing else.

        Args:
            *distributions: The members.
            extras: Extras of theirs that are wanted too.
        """
        lock = self.path / "pylock.toml"
        chosen = [part for name in distributions for part in ("--package", name)]
        chosen += [part for extra in extras for part in ("--extra", extra)]
        shape = ("--frozen", "--no-dev", "--no-emit-workspace", "--format", "pylock.toml")
        run(uv_binary(), "export", "-q", *shape, *chosen, "-o", lock, cwd=ROOT)
        self.uv_install("--preview-features", "pylock", "-r", lock)

    def run_python(self, code: str, *, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Run code in the venv, away from the checkout, so that only installed packages can be imported."""
        return run(self.python, "-c", code, cwd=self.path, ok=ok)

    def flujo(self, *arguments: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the ``flujo`` command of the venv."""
        return run(self.path / "bin" / "flujo", *arguments, cwd=self.path, ok=ok)
