"""Programs that a model writes, and what is found wrong with them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["CheckedProgram", "Program", "SourceFile", "Verdict"]

Stage = Literal["layout", "code", "tests", "acceptance", "refused", "passed"]

MOST_FILES = 64
_PATH = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]*/)*[A-Za-z_][A-Za-z0-9_]*\.(?:py|txt|md|json|csv|toml)")
_ENTRY_POINT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*")
_OF_PYTEST = {"conftest.py", "pytest.py", "pyproject.toml", "pytest.toml", "sitecustomize.py", "usercustomize.py"}


class SourceFile(BaseModel):
    """A file of a program.

    Attributes:
        path: Where it is, from the program's folder, with `/` between folders.
        text: All of it.
    """

    path: Annotated[str, Field(max_length=120)]
    text: Annotated[str, Field(max_length=60_000)]


class Program(BaseModel):
    """A program that a model wrote.

    Attributes:
        files: Its modules and data.
        tests: Its own tests, `test_*.py` for pytest.
        entry_point: What its user calls, as `module:function`.
    """

    files: Annotated[list[SourceFile], Field(min_length=1, max_length=MOST_FILES)]
    tests: Annotated[list[SourceFile], Field(min_length=1, max_length=MOST_FILES)]
    entry_point: Annotated[str, Field(max_length=200)]


class Verdict(BaseModel):
    """What was found when a program was checked and run.

    Attributes:
        stage: Where it was refused, or `passed`.
        problems: What is wrong, as the model is told.
        sandbox: Where its tests ran: `bubblewrap`, `monty`, or nowhere.
        tests_passed: Tests that passed, its own and those the model was shown.
        acceptance_passed: Hidden tests that passed.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    stage: Stage
    problems: tuple[str, ...] = ()
    sandbox: str = ""
    tests_passed: int = 0
    acceptance_passed: int = 0

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return self.stage == "passed"


class CheckedProgram(Program):
    """A program that passed.

    Attributes:
        verdict: What was found.
        repairs: How often it was made again before.
    """

    verdict: Verdict
    repairs: int = 0


class Report(BaseModel):
    """What a run of tests says of itself.

    Attributes:
        passed: Tests that passed.
        failed: Tests that failed or could not begin.
        problems: What was seen of those, one text each.
    """

    passed: int = 0
    failed: int = 0
    problems: tuple[str, ...] = ()


def layout_problems(program: Program, given: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the files, as far as can be told without reading them.

    Args:
        program: The program.
        given: Tests that it must leave alone, by their path.
    """
    paths = [file.path for file in (*program.files, *program.tests)]
    if len(paths) > MOST_FILES:
        yield f"{len(paths)} files are too many: {MOST_FILES} at most"
    for path in sorted({path.lower() for path in paths if [one.lower() for one in paths].count(path.lower()) > 1}):
        yield f"{path!r} is there more than once"
    for path in paths:
        if not _PATH.fullmatch(path):
            yield f"{path!r} is no path of a module or data file; write it like 'package/module.py'"
        elif PurePosixPath(path).name in _OF_PYTEST or _top(path) in sys.stdlib_module_names or path in given:
            yield f"{path!r} takes the place of a module or file that is not the program's; give it another name"
    for file in program.tests:
        if not is_test(file.path):
            yield f"{file.path!r} is no file of tests; call it 'test_NAME.py'"
    if not _ENTRY_POINT.fullmatch(program.entry_point):
        yield f"entry_point={program.entry_point!r} must be 'module:function'"
    elif not set(_module_files(program.entry_point)) & {file.path for file in program.files}:
        yield f"entry_point={program.entry_point!r} is in no module of the program"


def given_problems(tests: object, word: str) -> Iterator[str]:
    """What is wrong with tests that a user gives."""
    if not isinstance(tests, Mapping):
        yield f"{word}= is a mapping of paths to texts"
        return
    for path, text in tests.items():
        if not (isinstance(path, str) and isinstance(text, str)):
            yield f"{word}= is a mapping of paths to texts"
        elif not _PATH.fullmatch(path) or PurePosixPath(path).name in _OF_PYTEST:
            yield f"{word}= has {path!r}, which is no path like 'test_module.py'"
    if tests and not any(is_test(str(path)) for path in tests):
        yield f"{word}= has no file called 'test_NAME.py'"


def is_test(path: str) -> bool:
    """Whether it is a file in which pytest looks for tests."""
    return re.fullmatch(r"test_\w+\.py", PurePosixPath(path).name) is not None


def _top(path: str) -> str:
    return PurePosixPath(path).parts[0].removesuffix(".py")


def _module_files(entry_point: str) -> tuple[str, str]:
    folder = entry_point.partition(":")[0].replace(".", "/")
    return f"{folder}.py", f"{folder}/__init__.py"
