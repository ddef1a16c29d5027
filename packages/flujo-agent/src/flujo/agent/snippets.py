"""A sandbox for snippets: Monty, a Python interpreter of its own with no way to files, network or processes.

It runs one module and tests that are plain functions with asserts, in a millisecond and on any system. It knows a part
of Python (no `yield`) and of the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from .programs import Program, Report
from .sandbox import SandboxLimits

if TYPE_CHECKING:
    import pydantic_monty

__all__ = ["Snippets"]

_TEST = re.compile(r"^def (test_\w*)\(\s*\)", re.MULTILINE)
_OTHER_TEST = re.compile(r"^@|^\s*async def test_|^def test_\w*\(\s*[^)\s]|^class Test|\bpytest\b", re.MULTILINE)
_MOST_CHARACTERS = 1_500


class CannotRun(Exception):
    """It needs a part of Python that Monty does not have."""


class Snippets:
    """The sandbox.

    Args:
        limits: Of it hold `cpu_s`, for each test, and `wall_s` and `memory_bytes`.
    """

    def __init__(self, limits: SandboxLimits) -> None:
        self._limits = limits

    @staticmethod
    def installed() -> bool:
        """Whether Monty is there."""
        return find_spec("pydantic_monty") is not None

    async def test(self, program: Program, tests: Mapping[str, str]) -> Report:
        """Run tests of a program.

        Raises:
            CannotRun: The program or a test is more than a snippet.
        """
        module, source = _module(program)
        bodies = {path: _plain(path, text, module) for path, text in tests.items()}
        passed, problems = 0, list[str]()
        for path, (body, names) in bodies.items():
            failed = await self._run([source, body], names)
            passed += len(names) - len(failed)
            problems += [f"{path}::{name}: {said[-_MOST_CHARACTERS:]}" for name, said in failed.items()]
        return Report(passed=passed, failed=len(problems), problems=tuple(problems))

    async def _run(self, sources: Sequence[str], names: Sequence[str]) -> dict[str, str]:
        """What each test that fails says."""
        import pydantic_monty as monty  # here: an optional dependency

        limits = monty.ResourceLimits(
            max_feed_duration_secs=self._limits.cpu_s, max_memory=self._limits.memory_bytes, max_recursion_depth=500
        )
        failed: dict[str, str] = {}
        async with monty.AsyncMonty(max_processes=1, request_timeout=self._limits.wall_s) as pool:
            for name in names:  # each in a fresh interpreter: one that a limit stopped is of no use to the next
                try:
                    async with pool.checkout(limits=limits) as session:
                        for code in (*sources, f"{name}()"):
                            await session.feed_run(code, print_callback=_unheard)
                except (monty.MontyError, monty.MontyCrashedError) as error:
                    _raise_if_unknown(error)
                    failed[name] = str(error)
        return failed


def _module(program: Program) -> tuple[str, str]:
    if len(program.files) != 1 or "/" in program.files[0].path or not program.files[0].path.endswith(".py"):
        raise CannotRun("it has more than one module")
    return PurePosixPath(program.files[0].path).stem, program.files[0].text


def _plain(path: str, text: str, module: str) -> tuple[str, list[str]]:
    """A file of tests without its imports of the module, in whose names it will run, and the names of its tests."""
    if _OTHER_TEST.search(text):
        raise CannotRun(f"{path} needs pytest")
    body = re.sub(rf"^from {re.escape(module)} import [\w, ]+$", "", text, flags=re.MULTILINE)
    names = _TEST.findall(body)
    if not names:
        raise CannotRun(f"{path} has no test that is a plain function")
    return body, names


def _unheard(stream: str, text: str) -> None:
    """Drops what a snippet prints, which may be without end."""


def _raise_if_unknown(error: pydantic_monty.MontyError | pydantic_monty.MontyCrashedError) -> None:
    """Tell a fault of the program from what Monty does not have.

    Raises:
        CannotRun: It is the latter.
    """
    inner = error.exception() if hasattr(error, "exception") else None
    if isinstance(inner, (NotImplementedError, ImportError)):
        raise CannotRun(str(error)) from error
