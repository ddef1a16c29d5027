"""Programs that a scripted model writes are read, linted and run for real, and made again with what failed."""

import ast
import re
import shutil
from pathlib import Path

import pytest
from pydantic_ai import messages as pai
from pydantic_ai.models.function import FunctionModel

import flujo.agent.sandbox
from flujo.agent import CodeGenAgent, CodeRefused, SandboxLimits, SandboxMissing
from flujo.agent.inside import code_problems
from flujo.agent.programs import Program, layout_problems
from flujo.core import Allow, Deny, Flujo, GuardToolCall, OnToolCall, PipelineError, Step, UsageLimits, hookimpl

pytestmark = [pytest.mark.sandbox, pytest.mark.usefixtures("bwrap")]

ADD = "def add(a: int, b: int) -> int:\n    return a + b\n"
WRONG = ADD.replace("+", "-")
TESTS = "from solution import add\n\n\ndef test_add():\n    assert add(1, 2) == 3\n"
WITH_PYTEST = """import pytest
from solution import add


@pytest.mark.parametrize(("a", "b", "c"), [(1, 2, 3), (0, 0, 0)])
def test_add(a, b, c):
    assert add(a, b) == c
"""


def wrote(text=ADD, tests=TESTS, *, entry_point="solution:add", **more):
    files = [{"path": "solution.py", "text": text}, *({"path": p, "text": t} for p, t in more.get("files", {}).items())]
    given = {"test_solution.py": tests} if isinstance(tests, str) else tests
    return {
        "files": files,
        "tests": [{"path": path, "text": body} for path, body in given.items()],
        "entry_point": entry_point,
    }


def scripted(*answers):
    """A model that gives these programs in order, and all that it was told."""
    left, told = list(answers), []

    def function(messages, info):
        told.append("\n".join([info.instructions or "", *(str(part.content) for m in messages for part in m.parts)]))
        return pai.ModelResponse(parts=[pai.ToolCallPart(info.output_tools[0].name, left.pop(0))])

    return FunctionModel(function), told


def solve(*answers, task="add two numbers", plugins=(), hooks=(), **options):
    model, told = scripted(*answers)
    return Flujo(CodeGenAgent(model, **options), plugins=plugins, hooks=hooks).run(task), told


def fault(result):
    return result.error.__cause__


# --- what passes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tests", "where"), [(TESTS, "monty"), (WITH_PYTEST, "bubblewrap")])
def test_a_program_that_passes_is_given_with_its_verdict(tests, where):
    result, _ = solve(wrote(tests=tests))
    assert result.status == "completed", result.error
    assert (result.output.verdict.stage, result.output.verdict.sandbox) == ("passed", where)
    assert (result.output.repairs, result.output.files[0].text) == (0, ADD)


@pytest.mark.parametrize("sandbox", ["monty", "bubblewrap", "auto"])
def test_a_wrong_program_is_made_again_with_what_failed(sandbox):
    result, told = solve(wrote(WRONG), wrote(), sandbox=sandbox)
    assert result.status == "completed", result.error
    assert result.output.repairs == 1
    assert result.usage.requests == 2
    assert "test_solution.py" in told[1]
    assert "assert -1 == 3" in told[1]
    assert "a - b" in told[1]


def test_a_package_with_data_is_a_program_too():
    files = {"shop/__init__.py": "", "shop/tax.py": "RATE = 2\n", "data.json": '{"a": 1}'}
    main = (
        "import json\nfrom pathlib import Path\n\nfrom shop.tax import RATE\n\n\n"
        "def add() -> int:\n    return RATE + json.loads(Path('data.json').read_text())['a']\n"
    )
    body = "def test_it(tmp_path):\n    (tmp_path / 'x').write_text('y')\n    assert add() == 3\n"
    tests = {"tests/test_all.py": f"from solution import add\n\n\n{body}"}
    result, _ = solve(wrote(main, tests, files=files))
    assert result.status == "completed", result.error


def test_generators_run_in_bubblewrap_though_monty_has_none():
    source = "from collections.abc import Iterator\n\n\ndef add() -> Iterator[int]:\n    yield 1\n"
    tests = "from solution import add\n\n\ndef test_add():\n    assert list(add()) == [1]\n"
    result, _ = solve(wrote(source, tests))
    assert result.output.verdict.sandbox == "bubblewrap"
    refused, _ = solve(wrote(source, tests), sandbox="monty", max_repairs=0)
    assert "yield" in str(refused.error)


# --- what does not ----------------------------------------------------------------------------------------------------

LAYOUTS = [
    ({"../out.py": ""}, "no path"),
    ({"/etc/x.py": ""}, "no path"),
    ({"a/../../x.py": ""}, "no path"),
    ({".pth": ""}, "no path"),
    ({"x.pth": ""}, "no path"),
    ({"a\nb.py": ""}, "no path"),
    ({"conftest.py": ""}, "takes the place"),
    ({"sub/conftest.py": ""}, "takes the place"),
    ({"json.py": ""}, "takes the place"),
    ({"pytest.py": ""}, "takes the place"),
    ({"sitecustomize.py": ""}, "takes the place"),
    ({"solution.py": ""}, "more than once"),
    ({"SOLUTION.py": ""}, "more than once"),
    ({"test_given.py": ""}, "takes the place"),
    ({f"m{n}.py": "" for n in range(63)}, "too many"),
]


@pytest.mark.parametrize(("files", "why"), LAYOUTS)
def test_files_that_are_not_the_programs_are_refused_before_anything_is_written(files, why):
    problems = list(layout_problems(Program.model_validate(wrote(files=files)), {"test_given.py": ""}))
    assert why in "\n".join(problems)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"entry_point": "add"}, "module:function"),
        ({"entry_point": "nowhere:add"}, "no module"),
        ({"tests": {"checks.py": TESTS}}, "test_NAME.py"),
    ],
)
def test_entry_points_and_tests_have_their_form(more, why):
    assert why in "\n".join(layout_problems(Program.model_validate(wrote(**more)), {}))


CODE = [
    ("import os\n", "imports 'os'"),
    ("import json, subprocess\n", "imports 'subprocess'"),
    ("from importlib import import_module\n", "imports 'importlib'"),
    ("import os.path\n", "imports 'os.path'"),
    ("def f():\n    import ctypes\n", "imports 'ctypes'"),
    ("from dataclasses import sys\n", "takes 'sys'"),
    ("from random import _os\n", "takes '_os'"),
    ("from operator import attrgetter as a\n", "takes 'attrgetter'"),
    ("import dataclasses\ndataclasses.sys.exit(0)\n", "attribute 'sys'"),
    ("import random\nrandom._os._exit(0)\n", "attribute '_os'"),
    ("exec('1')\n", "'exec'"),
    ("e = eval\n", "'eval'"),
    ("__import__('os')\n", "'__import__'"),
    ("__builtins__\n", "'__builtins__'"),
    ("().__class__.__base__.__subclasses__()\n", "'__subclasses__'"),
    ("(lambda: 0).__globals__\n", "'__globals__'"),
    ("getattr(1, '__cl' + 'ass__')\n", "cannot be read"),
    ("getattr(1, '__class__')\n", "cannot be read"),
    ("import operator\noperator.attrgetter('a.__class__')\n", "cannot be read"),
    ("pytest_plugins = ['solution']\n", "'pytest_plugins'"),
    ("import pytest\n", "imports 'pytest'"),
]


@pytest.mark.parametrize(("source", "why"), CODE)
def test_what_no_program_needs_is_found_in_its_code(source, why):
    allowed = {"json", "dataclasses", "random", "operator"}
    assert why in "\n".join(said for _, said in code_problems(ast.parse(source), allowed))


def test_plain_code_is_let_through():
    source = """
from __future__ import annotations
import json
from dataclasses import dataclass, field
@dataclass
class A:
    _x: int = 0
    def __post_init__(self):
        self._x = getattr(self, "y", 1)
    def __repr__(self):
        return f"{type(self).__name__}({self.__class__.__name__}, {json.dumps(self._x)})"
class B(A):
    def __init__(self):
        super().__init__()
"""
    assert list(code_problems(ast.parse(source), {"__future__", "json", "dataclasses"})) == []


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (wrote("def add(:\n"), "SyntaxError"),
        (wrote("x = " + "(" * 5000 + ")" * 5000), "solution.py"),
        (wrote("x = 1\0"), "solution.py"),
        (wrote("return 1\n"), "SyntaxError"),
        (wrote("def other():\n    return 1\n"), "defines no 'add'"),
        (wrote("import json\n\n\n" + ADD), "F401"),
        (wrote("import random\n\n\ndef add():\n    return random.random()\n"), "S311"),
        (wrote("import os\n\n\n" + ADD), "imports 'os'"),
    ],
)
def test_code_is_read_and_linted_before_it_runs(program, why):
    result, _ = solve(program, max_repairs=0)
    assert fault(result).verdict.stage == "code"
    assert why in str(result.error)


@pytest.mark.parametrize(
    ("tests", "why"),
    [
        ("def helper():\n    return 1\n", "no test"),
        ("import pytest\n\n\n@pytest.mark.skip\ndef test_add():\n    assert False\n", "neither skipped"),
        ("import pytest\n\n\n@pytest.mark.xfail\ndef test_add():\n    assert 1 == 2\n", "neither skipped"),
        ("from solution import add\n\n\ndef test_add():\n    while True:\n        add(1, 2)\n", "limit"),
        (
            "def test_it(tmp_path):\n    x = [tmp_path]\n    while True:\n        x += [bytearray(10**6)]\n",
            "MemoryError",
        ),
        ("def test_it(tmp_path):\n    open('/etc/passwd').read()\n", "FileNotFoundError"),
        ("raise SystemExit(0)\n\n\ndef test_it(tmp_path):\n    pass\n", ""),
    ],
)
def test_tests_that_prove_nothing_or_use_too_much_do_not_pass(tests, why):
    result, _ = solve(wrote(tests=tests), max_repairs=0, sandbox_limits=SandboxLimits(wall_s=6, cpu_s=2))
    assert result.status == "failed"
    assert fault(result).verdict.stage == "tests", result.error
    assert why in str(result.error)


def test_a_program_that_ends_the_interpreter_has_not_passed():
    source = "import types\n\n\ndef add(a: int, b: int) -> int:\n    return a + b\n\n\nraise SystemExit(0)\n"
    result, _ = solve(wrote(source.replace("import types\n\n\n", ""), WITH_PYTEST), max_repairs=0)
    assert fault(result).verdict.stage == "tests"


def test_repairs_end():
    result, told = solve(*[wrote(WRONG)] * 4, max_repairs=3)
    assert result.status == "failed"
    assert isinstance(fault(result), CodeRefused)
    assert len(told) == result.usage.requests == 4
    assert fault(result).program.files[0].text == WRONG


def test_repairs_are_under_the_limits_of_the_run():
    model, told = scripted(*[wrote(WRONG)] * 4)
    result = Flujo(CodeGenAgent(model), limits=UsageLimits(requests_limit=2)).run("add")
    assert result.status == "stopped"
    assert len(told) == result.usage.requests == 2


# --- given and hidden tests -------------------------------------------------------------------------------------------


def test_given_tests_are_shown_and_hidden_ones_never():
    given = {"test_given.py": "from solution import add\n\n\ndef test_given_name():\n    assert add(2, 2) == 4\n"}
    hidden = {
        "test_hidden.py": "from solution import add\n\n\ndef test_quietly():\n    assert add(-1, 1) == 0, 'unseen'\n"
    }
    cheat = "def add(a: int, b: int) -> int:\n    return {(1, 2): 3, (2, 2): 4}.get((a, b), 7)\n"
    for sandbox in ("monty", "bubblewrap"):
        result, told = solve(wrote(cheat), wrote(), tests=given, acceptance=hidden, sandbox=sandbox)
        assert result.status == "completed", result.error
        assert result.output.verdict.acceptance_passed == 1
        assert result.output.verdict.tests_passed == 2
        assert "test_given_name" in told[0]
        assert "1 of 1 acceptance tests fail" in told[1]
        assert [word for word in ("quietly", "unseen", "test_hidden", "add(-1") if word in "".join(told)] == []


def test_what_a_program_prints_of_the_hidden_tests_is_told_to_nobody():
    spy = (
        "from pathlib import Path\n\n\ndef add(a: int, b: int) -> int:\n"
        "    raise ValueError([path.read_text() for path in Path('.').glob('test_*.py')])\n"
    )
    hidden = {
        "test_hidden.py": "from solution import add\n\n\ndef test_quietly(tmp_path):\n    assert add(1, 2) == 3\n"
    }
    plain = "def test_add(tmp_path):\n    assert tmp_path\n"
    result, told = solve(wrote(spy, plain), wrote(spy, plain), acceptance=hidden, max_repairs=1)
    assert fault(result).verdict.stage == "acceptance"
    assert "quietly" not in "".join(told) + str(result.error)


# --- under the run ----------------------------------------------------------------------------------------------------


class NoCode:
    @hookimpl
    def guard_tool_call(self, payload: GuardToolCall) -> Allow | Deny:
        return Deny("no code is run here") if payload.call.name == "run_program" else Allow()


def test_a_guard_can_deny_that_programs_run():
    result, _ = solve(wrote(), plugins=[NoCode()])
    assert result.status == "aborted"
    assert "no code is run here" in str(result.error)


def test_recorders_and_observers_see_the_program_and_its_verdict_and_hidden_tests_as_digests():
    seen = []

    def note(payload: OnToolCall) -> None:
        seen.append(payload)

    hidden = {"test_hidden.py": TESTS}
    result, _ = solve(wrote(WRONG), wrote(), hooks=[note], acceptance=hidden)
    assert result.status == "completed", result.error
    assert [one.result.content["stage"] for one in seen] == ["tests", "passed"]
    assert seen[0].call.arguments["program"]["files"][0]["text"] == WRONG
    assert len(seen[0].call.arguments["acceptance_sha256"]["test_hidden.py"]) == 64


def test_a_program_goes_on_to_the_next_step():
    async def count(program: Program) -> int:
        return len(program.files)

    model, _ = scripted(wrote())
    assert Flujo(CodeGenAgent(model) >> Step(count)).run("add").output == 1


def test_the_readmes_example_gives_a_program_that_passes(capsys):
    readme = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "CodeGenAgent" in block]
    slug = "import re\n\n\ndef slug(title: str) -> str:\n    return {}\n"
    tests = {"test_solution.py": "from solution import slug\n\n\ndef test_slug():\n    assert slug('a') == 'a'\n"}
    right = "'-'.join(re.findall('[a-z0-9]+', title.lower()))"
    model, told = scripted(
        wrote(slug.format("re.sub(' ', '-', title)"), tests, entry_point="solution:slug"),
        wrote(slug.format(right), tests, entry_point="solution:slug"),
    )
    names = {"model": model}
    exec(compile(code.replace('"openai:gpt-4o"', "model"), "README.md", "exec"), names)
    result = names["pipeline"].run("slug(title): a title in lower case, its words joined by hyphens")
    assert result.status == "completed", result.error
    assert (result.output.repairs, result.output.verdict.acceptance_passed) == (1, 1)
    assert "acceptance tests fail" in told[1]


# --- where it cannot work ---------------------------------------------------------------------------------------------


def test_everything_that_is_wrong_is_told_at_once():
    with pytest.raises(PipelineError) as caught:
        CodeGenAgent("gpt", tests={"checks.py": ""}, acceptance={"../test_x.py": ""}, max_repairs=4, sandbox="docker")
    told = "\n".join(caught.value.problems)
    assert [
        word for word in ("'gpt'", "tests=", "'../test_x.py'", "max_repairs=4", "'docker'") if word not in told
    ] == []


def without(monkeypatch, *missing):
    """Hide parts: bubblewrap from the search for programs, Monty from that for modules."""
    which, find = shutil.which, flujo.agent.snippets.find_spec
    monkeypatch.setattr(
        flujo.agent.sandbox.shutil, "which", lambda name, **more: None if name in missing else which(name, **more)
    )
    monkeypatch.setattr(flujo.agent.snippets, "find_spec", lambda name: None if name in missing else find(name))


def test_without_any_sandbox_it_is_refused_with_the_apt_line(monkeypatch):
    without(monkeypatch, "bwrap", "pydantic_monty")
    with pytest.raises(SandboxMissing, match="apt-get install bubblewrap"):
        CodeGenAgent(scripted()[0])


def test_without_bubblewrap_snippets_run_and_all_else_is_refused(monkeypatch):
    without(monkeypatch, "bwrap")
    assert solve(wrote())[0].output.verdict.sandbox == "monty"
    assert solve(wrote(WRONG), wrote())[0].output.repairs == 1
    result, told = solve(wrote(tests=WITH_PYTEST))
    assert isinstance(fault(result), SandboxMissing)
    assert "apt-get install bubblewrap" in str(result.error)
    assert len(told) == 1


SNIPPETS = [
    "open('/etc/passwd').read()",
    "open('/tmp/flujo-was-here', 'w')",
    "__import__('os').system('id')",
    "().__class__.__base__.__subclasses__()",
    "[0] * 10**10",
    "[x for x in iter(int, 1)]",
    "(lambda f: f(f))(lambda f: f(f))",
    "globals()['__builtins__']",
]


@pytest.mark.parametrize("expression", SNIPPETS)
def test_monty_contains_what_a_snippet_tries(expression):
    tests = f"def test_it():\n    assert [{expression}]\n"
    limits = SandboxLimits(wall_s=5, cpu_s=1, memory_bytes=64 * 1024**2)
    result, _ = solve(wrote(tests=tests), sandbox="monty", max_repairs=0, sandbox_limits=limits)
    assert result.status == "failed"
    assert fault(result).verdict.stage == "tests"
