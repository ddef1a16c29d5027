"""Judging a program: its layout, its code, its tests, and tests that its author has not seen."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from .errors import SandboxMissing
from .programs import Program, Report, SourceFile, Verdict, is_test, layout_problems
from .sandbox import BOX, Bubblewrap, Ran, SandboxLimits
from .snippets import CannotRun, Snippets

SandboxName = Literal["auto", "bubblewrap", "monty"]
"""`auto` takes Monty for snippets and bubblewrap for all else, and for what Monty does not pass."""

_INSIDE = "/flujo/inside.py"

ALLOWED_IMPORTS = (
    *(
        "__future__",
        "abc",
        "array",
        "base64",
        "bisect",
        "calendar",
        "cmath",
        "collections",
        "contextlib",
        "copy",
        "csv",
    ),
    *(
        "dataclasses",
        "datetime",
        "decimal",
        "difflib",
        "enum",
        "fractions",
        "functools",
        "graphlib",
        "hashlib",
        "heapq",
    ),
    *("html", "io", "itertools", "json", "math", "numbers", "operator", "pathlib", "random", "re", "secrets"),
    *("statistics", "string", "struct", "textwrap", "time", "types", "typing", "unicodedata", "uuid", "zoneinfo"),
)
"""Modules that a program may import where nothing else is said."""


class _Found(BaseModel):
    problems: tuple[str, ...]


@dataclass(slots=True)
class Judge:
    """Judges programs.

    Attributes:
        tests: Tests that each must pass, and whose author may see them; texts by path.
        acceptance: Tests that each must pass, and of which its author learns how many fail.
        imports: Modules that it may import.
        sandbox: Where it runs.
        limits: What each run may use.
        environment: As for `Bubblewrap`; None is its default.
    """

    tests: Mapping[str, str] = field(default_factory=dict)
    acceptance: Mapping[str, str] = field(default_factory=dict)
    imports: Sequence[str] = ALLOWED_IMPORTS
    sandbox: SandboxName = "auto"
    limits: SandboxLimits = field(default_factory=SandboxLimits)
    environment: Path | None = None
    _monty: Snippets | None = field(init=False, default=None)
    _bwrap: Bubblewrap | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.sandbox != "bubblewrap" and Snippets.installed():
            self._monty = Snippets(self.limits)
        if self.sandbox != "monty" and Bubblewrap.installed():
            self._bwrap = Bubblewrap(self.limits, Path(sys.prefix) if self.environment is None else self.environment)
        if self._monty is None and self._bwrap is None:
            wanted = "neither bubblewrap nor Monty is" if self.sandbox == "auto" else f"{self.sandbox} is not"
            raise SandboxMissing(f"{wanted} installed")

    async def judge(self, program: Program) -> Verdict:
        """What is wrong with a program; nothing of it runs outside of a sandbox.

        Raises:
            SandboxMissing: No sandbox that is there can run it.
        """
        problems = list(layout_problems(program, {**self.tests, **self.acceptance}))
        if problems:
            return Verdict(stage="layout", problems=tuple(problems))
        problems = await self._code_problems(program)
        if problems:
            return Verdict(stage="code", problems=tuple(problems), sandbox="bubblewrap")
        ran, report = await self._tested(program, {**_texts(program.tests), **self.tests})
        if report.failed:
            return Verdict(stage="tests", problems=report.problems, sandbox=ran, tests_passed=report.passed)
        hidden = Report()
        if self.acceptance:
            ran, hidden = await self._tested(program, self.acceptance)
        return Verdict(
            stage="acceptance" if hidden.failed else "passed",
            problems=(_hidden(hidden),) if hidden.failed else (),
            sandbox=ran,
            tests_passed=report.passed,
            acceptance_passed=hidden.passed,
        )

    async def _code_problems(self, program: Program) -> list[str]:
        """Parsed and linted in bubblewrap, where a parser can be attacked in vain; Monty parses by itself."""
        if self._bwrap is None:
            return []
        ran = await self._inside(self._bwrap, "check", program, _texts(program.tests))
        try:
            return list(_Found.model_validate_json(ran.output).problems)
        except ValidationError:
            return [_without_report("it could not be read", ran)]

    async def _tested(self, program: Program, tests: Mapping[str, str]) -> tuple[str, Report]:
        """Where tests of a program ran, and their report."""
        if self._monty is not None:
            try:
                report = await self._monty.test(program, tests)
            except CannotRun as reason:
                if self.sandbox == "monty":
                    return "monty", Report(failed=1, problems=(f"only Monty runs it, which cannot: {reason}",))
                if self._bwrap is None:
                    raise SandboxMissing(f"bubblewrap is not installed, and Monty cannot run it: {reason}") from reason
            else:
                if self._bwrap is None or not report.failed:
                    return "monty", report
        assert self._bwrap is not None
        ran = await self._inside(self._bwrap, "test", program, tests)
        try:
            return "bubblewrap", Report.model_validate_json(ran.output)
        except ValidationError:
            return "bubblewrap", Report(failed=1, problems=(_without_report("its tests did not end", ran),))

    async def _inside(self, bwrap: Bubblewrap, what: str, program: Program, tests: Mapping[str, str]) -> Ran:
        texts = {**_texts(program.files), **tests}
        files = {f"{BOX}/{path}": text.encode(errors="surrogatepass") for path, text in texts.items()}
        files[_INSIDE] = Path(__file__).with_name("inside.py").read_bytes()
        task = {
            "files": [file.path for file in program.files],
            "tests": [path for path in tests if is_test(path)],
            "entry_point": program.entry_point,
            "imports": list(self.imports),
        }
        return await bwrap.run(files, [bwrap.python, "-I", "-B", _INSIDE, what, json.dumps(task)])


def _texts(files: Sequence[SourceFile]) -> dict[str, str]:
    return {file.path: file.text for file in files}


def _hidden(report: Report) -> str:
    count = report.passed + report.failed
    return f"{report.failed} of {count} acceptance tests fail; they follow from the task, and cannot be shown to you"


def _without_report(what: str, ran: Ran) -> str:
    why = ran.stopped or f"exit code {ran.exit_code}; a limit on its time, memory, files or processes may have been met"
    said = ran.errors.decode(errors="replace").strip()[-800:]
    return f"{what}: {why}" + (f"\n{said}" if said else "")
