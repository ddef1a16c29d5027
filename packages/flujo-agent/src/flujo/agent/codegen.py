"""CodeGenAgent: a model writes a program, which is run in a sandbox and made again until it passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import JsonValue, SecretStr

from flujo.core import Agent, Chain, PipelineError, Price, RetryPolicy, RunContext, Step, ToolCall

from .agents import of_spec
from .errors import CodeRefused
from .judging import ALLOWED_IMPORTS, Judge, SandboxName
from .programs import CheckedProgram, Program, Verdict, given_problems
from .prompts import prompt_of
from .sandbox import SandboxLimits
from .spec import AgentSpec, OutputMode

if TYPE_CHECKING:
    from pydantic_ai.models import Model

__all__ = ["CodeGenAgent"]

MOST_REPAIRS = 3

AUTHOR = """You write a small, complete Python program for the task you are given.
Answer with its modules, tests for pytest in files called test_NAME.py, and the entry point as module:function.
Tests import the modules by their names. Paths are relative, such as 'solution.py'.
The program may import its own modules and: {imports}. It has no network, and may write only below the temporary folder.
Every test must pass; none is skipped. The code must pass ruff's rules E, F and S."""

SHOWN_TESTS = """These tests are run too; do not write their files yourself:
{tests}"""


class CodeGenAgent:
    """An agent that writes programs and gives the first one that passes, as a step: `Step(agent)`, or `>>`.

    A program passes when its files can be where they say, it compiles, does nothing that no program needs, ruff finds
    nothing (E, F, S), and its tests, the ones given and the hidden ones pass. All of that is done in a sandbox, as the
    tool call `run_program` of the step, which guards can deny and recorders see. What is wrong goes back to the model.

    Args:
        model: As for `agent`.
        instructions: What the model is told beside the rules of its answer.
        tests: Tests that the program must pass and the model is shown; texts by path, such as `test_given.py`.
        acceptance: Tests that it must pass and the model is never shown, only how many of them fail.
        max_repairs: How often a program that does not pass is made again; at most 3.
        imports: Modules that it may import, beside its own.
        sandbox: `auto` runs snippets in Monty and all else in bubblewrap; or one of these alone.
        sandbox_limits: What each run of it may use.
        environment: Folder of the virtual environment, of the running interpreter, that is shown to it read-only and
            has pytest and ruff; left out, that of this process.
        output_mode: As for `agent`.
        base_url: As for `agent`.
        api_key: As for `agent`.
        retry: As for `agent`.
        max_tokens: As for `agent`; of each program.
        temperature: As for `agent`.
        fallback: As for `agent`.
        price: As for `agent`.
        name: Name of the agent, and of its step.

    Raises:
        PipelineError: Something cannot work; all of it is told at once.
        SandboxMissing: There is no sandbox here in which a program could be run.
    """

    output_type = CheckedProgram

    def __init__(
        self,
        model: str | Model,
        *,
        instructions: str = "",
        tests: Mapping[str, str] | None = None,
        acceptance: Mapping[str, str] | None = None,
        max_repairs: int = MOST_REPAIRS,
        imports: Sequence[str] = ALLOWED_IMPORTS,
        sandbox: SandboxName = "auto",
        sandbox_limits: SandboxLimits | None = None,
        environment: str | Path | None = None,
        output_mode: OutputMode = "auto",
        base_url: str | None = None,
        api_key: str | SecretStr | None = None,
        retry: RetryPolicy | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        fallback: Sequence[str | Model] = (),
        price: Price | None = None,
        name: str = "codegen",
    ) -> None:
        given, hidden = {} if tests is None else tests, {} if acceptance is None else acceptance
        spec = AgentSpec(
            model,
            name,
            _instructions(instructions, given, imports),
            output_type=Program,
            output_mode=output_mode,
            base_url=base_url,
            api_key=api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key,
            retry=retry,
            max_tokens=max_tokens,
            temperature=temperature,
            fallback=tuple(fallback),
            price=price,
        )
        problems = [*spec.problems(), *_problems(given, hidden, max_repairs, sandbox)]
        problems += _sandbox_problems(imports, sandbox_limits, environment)
        if problems:
            raise PipelineError(f"agent {name!r} cannot be built", problems)
        self.name = name
        self._author = of_spec(spec)
        self._max_repairs = max_repairs
        folder = None if environment is None else Path(environment)
        self._judge = Judge(
            dict(given), dict(hidden), tuple(imports), sandbox, sandbox_limits or SandboxLimits(), folder
        )

    async def run(self, task: object, ctx: RunContext) -> CheckedProgram:
        """Write a program for a task.

        Args:
            task: What the program is to do; a text, or anything that pydantic writes as JSON.
            ctx: The step's; every call of the model and of the sandbox goes through it.

        Raises:
            CodeRefused: No program passes, after all repairs.
            SandboxMissing: The sandbox that is needed does not work here.
        """
        asked = prompt_of(task, self.name)
        program: Program = await self._author.run(asked, ctx)
        program, verdict = await self._judged(program, ctx)
        repairs = 0
        while not verdict.passed:
            if repairs == self._max_repairs:
                raise CodeRefused(self.name, program, verdict, repairs)
            repairs += 1
            program = await self._author.run(_again(asked, program, verdict), ctx)
            program, verdict = await self._judged(program, ctx)
        return CheckedProgram(**dict(program), verdict=verdict, repairs=repairs)

    async def _judged(self, program: Program, ctx: RunContext) -> tuple[Program, Verdict]:
        """The verdict, and the program that it is on: the one that guards have seen."""
        judged = [program]

        async def send(final: ToolCall) -> JsonValue:
            judged.append(Program.model_validate(final.arguments["program"]))
            verdict = await self._judge.judge(judged[-1])
            return verdict.model_dump(mode="json")

        hidden = {path: sha256(text.encode()).hexdigest() for path, text in self._judge.acceptance.items()}
        arguments: dict[str, Any] = {"program": program.model_dump(mode="json"), "acceptance_sha256": hidden}
        result = await ctx.call_tool(ToolCall(name="run_program", arguments=arguments), send)
        if result.is_error:
            return judged[-1], Verdict(stage="refused", problems=(str(result.content),))
        return judged[-1], Verdict.model_validate(result.content)

    def __rshift__(self, other: Step | Chain | Agent) -> Chain:
        return Step(self) >> other

    def __repr__(self) -> str:
        return f"CodeGenAgent({self.name!r})"


def _instructions(own: str, tests: object, imports: object) -> str:
    modules = imports if isinstance(imports, Sequence) else ()
    said = [AUTHOR.format(imports=", ".join(map(str, modules))), str(own)]
    if isinstance(tests, Mapping) and tests:
        listed = "\n\n".join(f"{path}:\n```python\n{text}\n```" for path, text in tests.items())
        said.append(SHOWN_TESTS.format(tests=listed))
    return "\n\n".join(part for part in said if part)


def _problems(tests: object, acceptance: object, max_repairs: object, sandbox: object) -> Iterator[str]:
    yield from given_problems(tests, "tests")
    yield from given_problems(acceptance, "acceptance")
    if not isinstance(max_repairs, int) or isinstance(max_repairs, bool) or not 0 <= max_repairs <= MOST_REPAIRS:
        yield f"max_repairs={max_repairs!r} must be a whole number from 0 to {MOST_REPAIRS}"
    if sandbox not in get_args(SandboxName):
        yield f"sandbox={sandbox!r} must be one of {get_args(SandboxName)}"


def _sandbox_problems(imports: object, limits: object, environment: object) -> Iterator[str]:
    listed = (
        isinstance(imports, Sequence) and not isinstance(imports, str) and {type(name) for name in imports} <= {str}
    )
    if not listed:
        yield f"imports={imports!r} is no list of names of modules"
    if not isinstance(limits, (SandboxLimits, type(None))):
        yield "sandbox_limits= is a SandboxLimits(...)"
    if not isinstance(environment, (str, Path, type(None))):
        yield f"environment={environment!r} is no folder"


def _again(asked: str, program: Program, verdict: Verdict) -> str:
    wrong = "\n\n".join(f"- {problem}" for problem in verdict.problems)
    answer = program.model_dump_json(indent=1)
    return f"{asked}\n\nYour last program:\n{answer}\n\nWhat is wrong with it:\n{wrong}\n\nAnswer again, in full."
