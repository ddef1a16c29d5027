"""What runs inside the sandbox: reads programs, and runs their tests. It knows nothing of Flujo.

`python -I inside.py check|test JSON`; the last line of its standard output is its report, as JSON. What a program
writes goes to standard error, so that it cannot be taken for the report.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import pytest

MOST_CHARACTERS = 1_500
"""What is told of each problem; pytest's summary is at the end of it."""
MOST_PROBLEMS = 12

_CALLS = {"exec", "eval", "compile", "__import__", "globals", "locals", "vars", "breakpoint", "input"}
_BY_NAME = {"getattr", "setattr", "delattr", "attrgetter", "methodcaller"}
_NAMES = {"pytest_plugins", "__builtins__", "__loader__", "__spec__"}
_ATTRIBUTES = {
    *("__base__", "__bases__", "__mro__", "__subclasses__", "__globals__", "__builtins__", "__code__", "__closure__"),
    *("__getattribute__", "__import__", "__loader__", "__spec__", "__reduce__", "__reduce_ex__", "__self__"),
    *("f_back", "f_builtins", "f_globals", "f_locals", "gi_frame", "cr_frame", "ag_frame", "tb_frame"),
    *("sys", "os", "builtins", "gc", "inspect", "ctypes", "importlib", "subprocess"),
}


class Task(TypedDict):
    """What is asked for."""

    files: list[str]
    tests: list[str]
    entry_point: str
    imports: list[str]


# --- reading ----------------------------------------------------------------------------------------------------------


def check(task: Task) -> list[str]:
    """What is wrong with the files of a program; none of it is run."""
    problems: list[str] = []
    trees: dict[str, ast.Module] = {}
    own = {path.split("/")[0].removesuffix(".py") for path in (*task["files"], *task["tests"])}
    for path in (*task["files"], *task["tests"]):
        if not path.endswith(".py"):
            continue
        try:
            trees[path] = ast.parse(Path(path).read_bytes(), path)
            compile(trees[path], path, "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            problems.append(f"{path}: {type(error).__name__}: {error}")
            continue
        allowed = {*task["imports"], *own, *(("pytest",) if path in task["tests"] else ())}
        problems += [f"{path}:{line}: {said}" for line, said in code_problems(trees[path], allowed)]
    return problems or [*_entry_problems(task["entry_point"], trees), *_ruff(task["tests"])]


def code_problems(tree: ast.Module, allowed: Iterable[str]) -> Iterator[tuple[int, str]]:
    """What a module does that no program here needs. Most of it is how tests are cheated; the sandbox is the boundary.

    Args:
        tree: The module.
        allowed: Modules it may import, by their first or full name.
    """
    names, imported = set(allowed), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((node.lineno, said) for said in _import_problems(node, names))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in _CALLS | _NAMES:
            yield node.lineno, f"uses {node.id!r}, which is not allowed"
        elif isinstance(node, ast.Attribute) and _hidden(node, imported):
            yield node.lineno, f"uses the attribute {node.attr!r}, which is not allowed"
        elif isinstance(node, ast.Call) and not _named_openly(node):
            yield node.lineno, "asks for an attribute by a name that cannot be read here"


def _import_problems(node: ast.Import | ast.ImportFrom, allowed: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        wanted = [alias.name for alias in node.names]
    else:
        wanted = [node.module or ""] if not node.level else []
        for alias in node.names:
            if alias.name in _ATTRIBUTES | _BY_NAME or (alias.name.startswith("_") and node.module != "__future__"):
                yield f"takes {alias.name!r} from another module, which is not allowed"
    for name in wanted:
        if not {name, name.split(".")[0]} & allowed:
            yield f"imports {name!r}, which is not allowed; allowed are {', '.join(sorted(allowed))}"


def _hidden(node: ast.Attribute, imported: set[str]) -> bool:
    of_module = isinstance(node.value, ast.Name) and node.value.id in imported
    return node.attr in _ATTRIBUTES or (of_module and node.attr.startswith("_"))


def _named_openly(call: ast.Call) -> bool:
    function = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    if function not in _BY_NAME:
        return True
    given = call.args[1:2] if function.endswith("attr") and function != "attrgetter" else call.args
    words = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return len(words) == len(given) and not any(part.startswith("_") for word in words for part in word.split("."))


def _entry_problems(entry_point: str, trees: dict[str, ast.Module]) -> Iterator[str]:
    module, _, name = entry_point.partition(":")
    folder = module.replace(".", "/")
    tree = trees.get(f"{folder}.py", trees.get(f"{folder}/__init__.py"))
    if tree is not None and name not in set(_defined(tree)):
        yield f"entry_point={entry_point!r}: the module defines no {name!r}"


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _ruff(tests: list[str]) -> list[str]:
    command = [sys.executable, "-I", "-m", "ruff", "check", "--isolated", "--no-cache", "--output-format", "json"]
    command += ["--select", "E,F,S", "--ignore", "E501"]
    if tests:
        command += ["--per-file-ignores", ",".join(f"{path}:S101" for path in tests)]
    done = subprocess.run([*command, "."], capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1}:
        return [f"ruff failed: {done.stderr.strip()[-MOST_CHARACTERS:]}"]
    here = f"{Path.cwd()}/"
    return [
        f"{found['filename'].removeprefix(here)}:{found['location']['row']}: {found['code']} {found['message']}"
        for found in json.loads(done.stdout)
    ]


# --- running ----------------------------------------------------------------------------------------------------------


class Watcher:
    """Counts what pytest reports."""

    def __init__(self) -> None:
        self.passed: int = 0
        self.failed: int = 0
        self.problems: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test began, ran, or ended."""
        if report.failed:
            self._failed(report.nodeid, report.longreprtext)
        elif report.skipped or hasattr(report, "wasxfail"):  # it proves nothing
            self._failed(report.nodeid, "it did not pass: tests are neither skipped nor expected to fail")
        elif report.when == "call":
            self.passed += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file was read."""
        if not report.passed:
            self._failed(report.nodeid, report.longreprtext)

    def _failed(self, name: str, text: str) -> None:
        self.failed += 1
        self.problems.append(f"{name}: {text[-MOST_CHARACTERS:]}")


def test(paths: list[str]) -> dict[str, object]:
    """Run tests, and say how they ended."""
    import pytest  # here: only who tests needs it

    watcher = Watcher()
    sys.path.insert(0, str(Path.cwd()))
    options = ["-q", "--noconftest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(Path.cwd())]
    code = int(pytest.main([*options, "--import-mode=importlib", "--tb=short", *paths], plugins=[watcher]))
    if code not in {0, 1} and not watcher.problems:
        watcher.failed += 1
        watcher.problems.append("there is no test in it" if code == 5 else f"pytest could not run it: exit code {code}")
    return {"passed": watcher.passed, "failed": watcher.failed, "problems": watcher.problems[:MOST_PROBLEMS]}


def main(what: str, task: Task) -> None:
    """Do what is asked for, and write the report."""
    out = os.dup(1)
    os.dup2(2, 1)
    found = {"problems": check(task)[:MOST_PROBLEMS]} if what == "check" else test(task["tests"])
    os.write(out, json.dumps(found).encode())


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
