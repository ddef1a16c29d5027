"""Pyright's verdict on our public types, with the ways in which it passes silently turned into failures.

``python tests/house/public_types.py DIST`` installs the wheels of the folder DIST into a fresh venv, asks how much of
each library's interface has a known type, and checks the examples as a user's code. In an editable install pyright
sees no symbol at all, with a pattern that matches nothing it checks no file, and it calls both a success.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fresh_venv import ROOT, FreshVenv

LEAVES = {
    "flujo-core": "flujo.core",
    "flujo-agent": "flujo.agent",
    "flujo-audit": "flujo.audit",
    "flujo-backend-lambda": "flujo.backend_lambda",
    "flujo-backend-ray": "flujo.backend_ray",
    "flujo-deidentifier": "flujo.deidentifier",
    "flujo-hitl": "flujo.hitl",
    "flujo-streaming": "flujo.streaming",
}


class GateError(Exception):
    """The types are wrong, or nothing was looked at."""


def pyright(*arguments: str | Path, python: Path) -> dict[str, Any]:
    """Run pyright for the packages of ``python`` and give its JSON report. Its exit code is no verdict."""
    command = [sys.executable, "-m", "pyright", "--outputjson", *map(str, arguments)]
    # --verifytypes ignores --pythonpath and takes the first python on PATH; and pyright looks for packages from its
    # working directory too, where it would find the sources instead.
    env = os.environ | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(command, cwd=empty, env=env, capture_output=True, text=True, check=False)
    if not done.stdout.startswith("{"):
        raise GateError(f"pyright did not report: {done.stdout}{done.stderr}")
    return dict(json.loads(done.stdout))


def check_exports(module: str, python: Path) -> str:
    """Check that every symbol that ``module`` exports, as installed for ``python``, has a known type.

    Raises:
        GateError: a symbol has none, or there is no symbol.
    """
    found = pyright("--verifytypes", module, "--ignoreexternal", python=python)["typeCompleteness"]
    counts = found["exportedSymbolCounts"]
    if not any(counts.values()):
        raise GateError(f"pyright sees no symbol in {module}: is it installed from a wheel, with py.typed?")
    if counts["withUnknownType"] or counts["withAmbiguousType"]:
        unclear = [s for s in found["symbols"] if s["isExported"] and not s["isTypeKnown"]]
        raise GateError("\n".join(f"{s['name']}: {d['message']}" for s in unclear for d in s["diagnostics"]))
    return f"pyright: {module} exports {counts['withKnownType']} symbols, all with a known type"


def check_user_code(folder: Path, python: Path) -> str:
    """Check every Python file below ``folder``, its tests apart, as code that uses what ``python`` has installed.

    Raises:
        GateError: pyright finds errors, or did not look at every file.
    """
    files = sorted(file for file in folder.rglob("*.py") if not file.name.startswith(("test_", "conftest")))
    report = pyright("--pythonpath", python, *files, python=python)
    errors = [d for d in report["generalDiagnostics"] if d["severity"] == "error"]
    if errors:
        raise GateError("\n".join(f"{d['file']}:{d['range']['start']['line'] + 1}: {d['message']}" for d in errors))
    seen = report["summary"]["filesAnalyzed"]
    if not files or seen != len(files):
        raise GateError(f"pyright looked at {seen} of {len(files)} files in {folder}")
    return f"pyright: {seen} files of {folder.name}, no error"


def check_wheels(dist: Path, user_code: Path) -> list[str]:
    """Check the exports of every library in a folder of wheels, and code that uses them."""
    with tempfile.TemporaryDirectory() as folder:
        venv = FreshVenv.create(Path(folder) / "venv", dist.resolve())
        venv.install_locked_dependencies_of(
            *LEAVES, extras=["eval", "code", "sql", "postgres", "web"]
        )  # its types are part of ours
        venv.uv_install_ours(*LEAVES)
        # of examples
        venv.uv_install_ours("flujo-streaming")
        venv.uv_install("psycopg-pool", "boto3", "numpy", "pocketsphinx", "sounddevice", "click", "rich")
        exports = [check_exports(leaf, venv.python) for leaf in LEAVES.values()]
        return [*exports, check_user_code(user_code, venv.python)]


def main(argv: list[str]) -> int:
    """Check the wheels in the folder ``argv[0]``; give 1 and the reasons when a check fails."""
    try:
        lines = check_wheels(Path(argv[0]), ROOT / "examples")
    except GateError as error:
        sys.stdout.write(f"{error}\n")
        return 1
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
