"""Build an artifact: the user's modules and everything they need, for the Python and the machine of the function."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flujo.core import ConfigurationError

from .packing import Packed, pack
from .sbom import Component, Origin, components_in, sbom
from .scan import PRIVATE_KEY
from .versions import PYTHON

__all__ = ["PLATFORMS", "Artifact", "build", "word"]

PLATFORMS = {"x86_64": "x86_64-manylinux_2_28", "arm64": "aarch64-manylinux_2_28"}
"""What AWS calls a machine, and what uv does."""

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact and what is known of it.

    Attributes:
        name: Its name.
        version: Its version.
        python: Minor version of the Python it was built for.
        packed: The zip, and what is in it.
        components: Distributions in it.
        machine: `x86_64` or `arm64`.

    Raises:
        ConfigurationError: Name or version cannot be part of a file's name.
    """

    name: str
    version: str
    python: str
    packed: Packed
    components: tuple[Component, ...]
    machine: str = "x86_64"

    def __post_init__(self) -> None:
        word(self.name)
        word(self.version)

    @property
    def origin(self) -> Origin:
        """What is signed of it."""
        packed = self.packed
        return Origin(
            name=self.name,
            version=self.version,
            digest=packed.digest,
            tree=packed.tree,
            python=self.python,
            machine=self.machine,
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the zip: its address."""
        return self.packed.digest

    @property
    def manifest(self) -> bytes:
        """What is in it: every file with its digest."""
        told = {
            "format": "flujo-artifact/1",
            "name": self.name,
            "version": self.version,
            "python": self.python,
            "machine": self.machine,
            "sha256": self.digest,
            "tree": self.packed.tree,
            "size": len(self.packed.data),
            "unzipped": self.packed.unzipped,
            "files": dict(self.packed.files),
        }
        return json.dumps(told, indent=1, sort_keys=True).encode() + b"\n"

    @property
    def sbom(self) -> bytes:
        """What it is made of, as CycloneDX."""
        return sbom(self.name, self.version, self.packed.tree, self.components)

    def write(self, folder: Path) -> Path:
        """Write zip, manifest and bill of materials into a folder, and return the path of the zip."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}-{self.version}.zip"
        path.write_bytes(self.packed.data)
        path.with_suffix(".manifest.json").write_bytes(self.manifest)
        path.with_suffix(".sbom.json").write_bytes(self.sbom)
        return path


def build(
    project: Path,
    *,
    name: str | None = None,
    version: str = "0",
    python: str = PYTHON,
    machine: str = "x86_64",
    requirements: Path | None = None,
    find_links: Sequence[Path] = (),
) -> Artifact:
    """Build the artifact of a project, with uv.

    Its dependencies are those of `uv.lock` where it has one, by their hashes; else those of `requirements`, or of its
    `requirements.txt`. The modules and packages of its folder (of `src`, where there is one) come along.

    Args:
        project: Folder with the modules of the steps.
        name: Name of the artifact; that of the folder where left out.
        version: Its version.
        python: Minor version of the function's Python.
        machine: `x86_64` or `arm64`.
        requirements: Instead of the project's lock.
        find_links: Folders with wheels that no index has.

    Raises:
        ConfigurationError: uv is missing or fails, the artifact would be too large, a file of the project holds a
            private key, or name or version cannot be part of a file's name.
    """
    called = (word(name or project.resolve().name), word(version))  # before the work, not after it
    if machine not in PLATFORMS:
        raise ConfigurationError(f"machine={machine!r} cannot be used", f"it is none of {', '.join(PLATFORMS)}")
    with tempfile.TemporaryDirectory(prefix="flujo-build-") as made:
        target = Path(made, "target")
        target.mkdir()
        wanted = _requirements(project, requirements, Path(made))
        how = _how(wanted, python, PLATFORMS[machine], find_links)
        _uv("pip", "install", *how, "--target", str(target), "-r", str(wanted), cwd=project)
        _copy(project / "src" if (project / "src").is_dir() else project, target)
        if python == PYTHON:
            _compile(target)
        components = tuple(components_in(target))
        packed = pack(target)
    return Artifact(*called, python, packed, components, machine)


def word(text: str) -> str:
    """A name or a version, if it can be one: it becomes part of the names of files and of keys.

    Raises:
        ConfigurationError: It cannot.
    """
    if not _WORD.fullmatch(text):
        why = "it has letters, digits, '.', '_', '+' and '-' only, and begins with a letter or digit"
        do = "Take another one: --name, --version"
        raise ConfigurationError(f"{text[:80]!r} cannot be a name or a version", why, do)
    return text


def _requirements(project: Path, given: Path | None, drafts: Path) -> Path:
    """The file of what is wanted, where it lies: it may name others beside it (`-r base.txt`)."""
    if given is None and (project / "uv.lock").exists():
        exported = drafts / "requirements.txt"
        export = ("export", "--frozen", "--no-dev", "--no-emit-project", "--no-header", "-q")
        exported.write_text(_uv(*export, cwd=project), "utf-8")
        return exported
    path = given or project / "requirements.txt"
    if not path.exists():
        why = f"there is neither {project / 'uv.lock'} nor {path}"
        raise ConfigurationError("the artifact cannot be built", why, "Lock the project: uv lock")
    return path.resolve()


def _how(wanted: Path, python: str, platform: str, find_links: Sequence[Path]) -> list[str]:
    """The options by which uv installs for the function, and not for this machine."""
    hashed = ["--require-hashes"] if "--hash=" in wanted.read_text("utf-8") else []
    links = [part for folder in find_links for part in ("--find-links", str(folder.resolve()))]
    links += ["--refresh"] if links else []  # uv keeps a wheel of a folder by its name, however it was rebuilt
    for_whom = ["--python-version", python, "--python-platform", platform, "--only-binary", ":all:"]
    how = ["--no-installer-metadata", "--no-compile-bytecode", "--link-mode", "copy", "-q"]
    return [*how, *for_whom, *hashed, *links]


def _compile(target: Path) -> None:
    """Compile all modules, where this Python is the function's: that halves the cold start, as nothing can be written
    beside the code there. In a process of its own, and unchecked: so the same source is the same bytes each time.
    """
    how = ["--invalidation-mode", "unchecked-hash", "-s", str(target), "-p", "/var/task", "-q", "-q"]
    # What cannot be compiled (a template that is called .py) is not imported either: the exit code says nothing.
    subprocess.run([sys.executable, "-I", "-S", "-m", "compileall", *how, str(target)], check=False)


def _copy(code: Path, target: Path) -> None:
    """The modules and packages of a folder. Tests are left out, and hidden files (a `.env`) and virtual environments,
    whatever they are called and wherever they lie.

    Raises:
        ConfigurationError: A private key is among them.
    """
    hidden = _hidden(str(code), [path.name for path in code.iterdir()])
    for path in sorted(code.iterdir()):
        named = path.name.startswith(("test_", "conftest")) or path.name in ("tests", "dist", "build")
        if named or path.name in hidden:
            continue
        if path.is_dir() and any(path.rglob("*.py")):
            shutil.copytree(path, target / path.name, dirs_exist_ok=True, ignore=_hidden, copy_function=_copied)
        elif path.suffix == ".py":
            _copied(path, target / path.name)


def _copied(source: str | Path, target: str | Path) -> None:
    """Copy one file, unless it holds a private key: all who read the artifact would have it, as long as it is kept."""
    if PRIVATE_KEY.search(Path(source).read_bytes()):
        why = f"{source} holds a private key, which all who can read the artifact would have"
        do = "Move it out of the project's packages; what the steps need of it they take as a secret"
        raise ConfigurationError("the artifact cannot be built", why, do)
    shutil.copy2(source, target)


def _hidden(folder: str, names: Sequence[str]) -> set[str]:
    return {name for name in names if name.startswith(".") or Path(folder, name, "pyvenv.cfg").exists()}


def _uv(*arguments: str, cwd: Path) -> str:
    found = shutil.which("uv")
    if found is None:
        raise ConfigurationError("the artifact cannot be built", "it takes uv, which is not there", "pip install uv")
    done = subprocess.run([found, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigurationError("the artifact cannot be built", f"uv {arguments[0]} said: {done.stderr.strip()}")
    return done.stdout
