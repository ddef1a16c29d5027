"""`flujo eval` through the real command: cases, scorers, budget, saved runs and regressions."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from functools import partial

import pytest

from flujo_cli.main import run

FLOWS = """
import asyncio
from flujo.core import Message, ModelRequest, ModelResponse, ModelUsage, Price, RunContext, step

PRICE = Price(output_usd="0.001")

async def send(request):
    return ModelResponse(content=request.messages[-1].content.upper(), usage=ModelUsage(output_tokens=10))

@step
async def pipeline(text: str, ctx: RunContext) -> str:
    print("a print of the step")
    if "bad" in text:
        raise ValueError("cannot work on this, password=hunter22")
    message = Message(role="user", content=text)
    request = ModelRequest(model="m", messages=(message,), max_tokens=10, min_tokens=10)
    return (await ctx.call_model(request, send, price=PRICE)).content

@step
async def worse(text: str) -> str:
    return text.upper() if "log" in text else "sorry"

@step
async def broken(text: str) -> str:
    raise ValueError("not today")

@step
async def add(numbers: list[int]) -> dict[str, int]:
    return {"sum": sum(numbers)}

@step
async def half_wait(text: str) -> str:
    if "slow" in text:
        print("waiting", flush=True)
        await asyncio.sleep(60)
    return text
"""

CASES = """
cases:
  - name: first
    inputs: the log
    expected_output: THE LOG
    evaluators: [EqualsExpected]
  - name: second
    inputs: the budget
evaluators:
  - Ratio: {checks: [{contains: THE}, {max_chars: 10}]}
  - Weighted: {checks: [{lacks: sorry, weight: 3}, {matches: '^[a-z]'}], name: tone}
"""


@dataclass
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def flujo(tmp_path, monkeypatch, capsys):
    """`flujo` in a folder that has flows.py and cases.yaml and no settings above it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delenv("FLUJO_PLUGINS", raising=False)
    before = set(sys.modules)
    for name, text in ((".git/HEAD", ""), ("flows.py", FLOWS), ("cases.yaml", CASES)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def command(*arguments):
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err, said.err
        return Said(code, said.out, said.err)

    yield command
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def write(name, text):
    with open(name, "w") as file:
        file.write(textwrap.dedent(text))


# --- the table, the scores --------------------------------------------------------------------------------------------


def test_a_table_shows_scores_cost_and_latency_of_each_case_and_of_all(flujo):
    said = flujo("eval", "flows.py:pipeline", "cases.yaml")
    assert said.code == 0
    rows = [line.split() for line in said.out.splitlines()]
    assert rows[0] == ["case", "status", "score", "Ratio", "tone", "EqualsExpected", "cost", "latency"]
    assert rows[1][:7] == ["first", "completed", "0.92", "1.00", "0.75", "1.00", "$0.01"]
    assert rows[2][:7] == ["second", "completed", "0.88", "1.00", "0.75", "-", "$0.01"]
    assert rows[3][:6] == ["all", "0.90", "1.00", "0.75", "1.00", "$0.02"]
    assert "[2/2] second: completed, score 0.88" in said.err
    assert "a print of the step" in said.err


def test_json_has_all_of_it(flujo):
    said = flujo("eval", "flows.py:pipeline", "cases.yaml", "--json")
    found = json.loads(said.out)
    assert found["summary"]["scorers"] == {"EqualsExpected": 1.0, "Ratio": 1.0, "tone": 0.75}
    assert found["summary"]["cost_usd"] == "0.020"
    assert found["cases"][0]["reasons"]["tone"] == "not met: matches: '^[a-z]'"
    assert found["cases"][0]["tokens"] == 10
    assert "[1/2]" not in said.err


def test_a_dataset_may_be_json_and_inputs_of_any_type(flujo):
    case = {"inputs": [1, 2], "expected_output": {"sum": 3}, "evaluators": ["EqualsExpected"]}
    write("cases.json", json.dumps({"cases": [case]}))
    said = flujo("eval", "flows.py:add", "cases.json")
    assert (said.code, said.out.splitlines()[1].split()[:5]) == (0, ["Case", "1", "completed", "1.00", "1.00"])


def test_a_scorer_of_the_users_own_is_taken_and_its_failure_is_told(flujo):
    write(
        "mine.py",
        """
        from dataclasses import dataclass
        from pydantic_evals.evaluators import Evaluator

        @dataclass
        class Cheap(Evaluator):
            most: float
            def evaluate(self, ctx):
                if "log" in ctx.inputs:
                    raise LookupError("no idea, password=hunter22")
                return ctx.metrics["cost_usd"] <= self.most
        """,
    )
    write("own.yaml", CASES + "  - Cheap: {most: 0.01}\n")
    said = flujo("eval", "flows.py:pipeline", "own.yaml", "--scorer", "mine:Cheap")
    assert said.code == 1
    assert "first: not scored by Cheap: LookupError: no idea, password=[SECRET]" in said.out
    assert said.out.splitlines()[2].split()[6] == "1.00"


def test_a_model_grades_under_the_same_budget(flujo, gguf_file):
    judge = f"  - LLMJudge: {{rubric: It says something., model: 'local:{gguf_file}', include_input: true}}\n"
    write("judged.yaml", CASES + judge)
    found = json.loads(flujo("eval", "flows.py:pipeline", "judged.yaml", "--json", "--max-requests", 4).out)
    assert all(0 <= case["scores"]["LLMJudge"] <= 1 for case in found["cases"])
    assert all(case["reasons"]["LLMJudge"] for case in found["cases"])
    assert float(found["summary"]["grading_usd"]) == 0  # a model in this process is free
    said = flujo("eval", "flows.py:pipeline", "judged.yaml", "--max-requests", 3)
    assert said.code == 1
    assert "second: not scored by LLMJudge: UsageLimitExceeded" in said.out


def test_judges_are_under_the_plugins_of_the_pipeline_too(flujo, gguf_file, tmp_path, monkeypatch):
    monkeypatch.setenv("FLUJO_AUDIT_PATH", str(tmp_path / "audit.jsonl"))
    judge = f"  - LLMJudge: {{rubric: It says something., model: 'local:{gguf_file}'}}\n"
    write("judged.yaml", CASES + judge)
    assert flujo("eval", "flows.py:pipeline", "judged.yaml", "--plugin", "flujo-audit").code == 0
    entries = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert {entry["step"] for entry in entries if "model" in entry} == {"pipeline", "judge"}


# --- limits and failures ----------------------------------------------------------------------------------------------


def test_all_cases_share_one_budget_however_many_run_at_a_time(flujo):
    write("many.json", json.dumps({"cases": [{"inputs": f"case {number}"} for number in range(12)]}))
    said = flujo("eval", "flows.py:pipeline", "many.json", "--max-usd", "0.05", "--concurrency", 6, "--json")
    found = json.loads(said.out)
    statuses = [case["status"] for case in found["cases"]]
    assert said.code == 1
    assert (statuses.count("completed"), statuses.count("stopped")) == (5, 7)
    assert float(found["summary"]["cost_usd"]) == 0.05
    assert [case["name"] for case in found["cases"]] == [f"Case {number}" for number in range(1, 13)]


def test_a_case_that_fails_does_not_stop_the_rest_and_counts_zero(flujo):
    write("cases.yaml", CASES.replace("the log", "a bad log"))
    said = flujo("eval", "flows.py:pipeline", "cases.yaml")
    assert said.code == 1
    assert said.out.splitlines()[1].split()[:3] == ["first", "failed", "0.00"]
    assert "second  completed" in said.out
    assert "password=[SECRET]" in said.out
    assert "hunter22" not in said.out + said.err


# --- saved runs and regressions ---------------------------------------------------------------------------------------


def test_a_planted_regression_is_flagged_and_an_equal_run_is_not(flujo, tmp_path):
    assert flujo("eval", "flows.py:pipeline", "cases.yaml", "--save", "base.json").code == 0
    same = flujo("eval", "flows.py:pipeline", "cases.yaml", "--compare", "base.json")
    assert (same.code, same.out.splitlines()[-1]) == (0, "no regression")
    worse = flujo("eval", "flows.py:worse", "cases.yaml", "--compare", "base.json")
    assert worse.code == 1
    assert "regression: case 'second': 0.88 -> 0.38" in worse.out
    assert "regression: scorer 'tone': 0.75 -> 0.50" in worse.out
    assert "case 'first'" not in worse.out
    assert "since the saved run: cost $0.02 -> $0.00" in worse.out
    tolerant = flujo("eval", "flows.py:worse", "cases.yaml", "--compare", "base.json", "--score-tolerance", 0.7)
    assert tolerant.code == 0


def test_what_does_not_complete_any_more_or_is_gone_is_a_regression(flujo):
    flujo("eval", "flows.py:pipeline", "cases.yaml", "--save", "base.json")
    said = flujo("eval", "flows.py:broken", "cases.yaml", "--compare", "base.json", "--json")
    assert said.code == 1
    assert "case 'first': failed, was completed" in json.loads(said.out)["summary"]["regressions"]
    write("cases.yaml", CASES.replace("second", "third"))
    said = flujo("eval", "flows.py:pipeline", "cases.yaml", "--compare", "base.json")
    assert said.code == 1
    assert "regression: case 'second' is gone" in said.out
    assert "note: case 'third' is new" in said.out


def test_a_scorer_that_is_gone_is_a_regression_and_a_new_one_is_none(flujo):
    flujo("eval", "flows.py:pipeline", "cases.yaml", "--save", "base.json")
    write("cases.yaml", CASES.replace("name: tone", "name: voice"))
    said = flujo("eval", "flows.py:pipeline", "cases.yaml", "--compare", "base.json")
    assert said.code == 1
    assert "regression: case 'first': not scored by tone" in said.out
    assert "regression: scorer 'tone': 0.75 -> none" in said.out
    assert "voice" not in said.out.partition("since the saved run")[2]


def test_more_cost_is_a_regression_only_where_asked(flujo):
    flujo("eval", "flows.py:worse", "cases.yaml", "--save", "base.json")
    wide = ("--compare", "base.json", "--score-tolerance", 1)
    assert flujo("eval", "flows.py:pipeline", "cases.yaml", *wide).code == 0
    said = flujo("eval", "flows.py:pipeline", "cases.yaml", *wide, "--cost-tolerance", 0.2)
    assert said.code == 1
    assert "regression: cost: $0.000000 -> $0.020000" in said.out


def test_a_saved_run_holds_no_inputs_outputs_and_errors(flujo, tmp_path):
    write("cases.yaml", CASES.replace("the log", "a bad log"))
    flujo("eval", "flows.py:pipeline", "cases.yaml", "--save", "base.json")
    text = (tmp_path / "base.json").read_text()
    assert json.loads(text)["format"] == "flujo-eval/1"
    for word in ("bad log", "budget", "BUDGET", "cannot work"):
        assert word not in text


# --- unusable ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("flows.py:pipeline", "gone.yaml"), "'gone.yaml' cannot be read"),
        (("flows.py:gone", "cases.yaml"), "has no 'gone'"),
        (("flows.py:add", "cases.yaml"), "does not fit the pipeline"),
        (("flows.py:pipeline", "cases.yaml", "--compare", "gone.json"), "'gone.json' cannot be read"),
        (("flows.py:pipeline", "cases.yaml", "--compare", "flows.py"), "is no saved evaluation"),
        (("flows.py:pipeline", "cases.yaml", "--compare", "other.json"), "no case in common"),
        (("flows.py:pipeline", "cases.yaml", "--save", "gone/base.json"), "no such folder"),
        (("flows.py:pipeline", "cases.yaml", "--score-tolerance", "nan"), "not a number"),
        (("flows.py:pipeline", "cases.yaml", "--scorer", "gone:Scorer"), "'gone:Scorer' cannot be imported"),
        (("flows.py:pipeline", "cases.yaml", "--require", "flujo-gone"), "flujo-gone"),
    ],
)
def test_what_cannot_be_used_is_told_with_exit_code_2(flujo, arguments, words):
    case = {"name": "else", "status": "completed"}
    write("other.json", json.dumps({"format": "flujo-eval/1", "pipeline": "a", "dataset": "b", "cases": [case]}))
    said = flujo("eval", *arguments)
    assert said.code == 2
    assert words in said.err


def test_the_policy_of_the_settings_holds(flujo):
    write("pyproject.toml", '[tool.flujo.policy]\nrequire = ["flujo-gone"]\n')
    said = flujo("eval", "flows.py:pipeline", "cases.yaml")
    assert said.code == 2
    assert "flujo-gone" in said.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cases: []", "it has no cases"),
        ("cases: [", "while parsing"),
        ("cases: [{input: a}]", "cases.0.inputs"),
        ("cases: [{inputs: a, name: b}, {inputs: c, name: b}]", "Duplicate case name"),
    ],
)
def test_a_dataset_that_is_none_is_told(flujo, text, words):
    write("wrong.yaml", text)
    said = flujo("eval", "flows.py:pipeline", "wrong.yaml")
    assert said.code == 2
    assert words in said.err


@pytest.mark.parametrize(
    ("scorer", "words"),
    [
        ("Ratio: {checks: [{weight: 2}]}", "a check says what to look for"),
        ("Ratio: {checks: []}", "checks"),
        ("Weighted: {checks: [{matches: '('}]}", "checks.0.matches"),
        ("Unknown", "Unknown"),
        ("LLMJudge: {rubric: Good.}", "model"),
        ("GEval: {criteria: a, evaluation_steps: [b]}", "no limit counts"),
    ],
)
def test_a_scorer_that_cannot_work_is_told_before_anything_runs(flujo, scorer, words):
    write("wrong.yaml", f"cases:\n  - inputs: a\nevaluators:\n  - {scorer}\n")
    said = flujo("eval", "flows.py:pipeline", "wrong.yaml")
    assert said.code == 2
    assert words in said.err
    assert "a print of the step" not in said.err


# --- as a process -----------------------------------------------------------------------------------------------------


def test_an_interrupt_shows_what_is_done_and_saves_nothing(flujo, tmp_path):
    write("slow.json", json.dumps({"cases": [{"name": "quick", "inputs": "a"}, {"name": "late", "inputs": "slow"}]}))
    command = [sys.executable, "-m", "flujo_cli", "eval", "flows.py:half_wait", "slow.json", "--save", "base.json"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a job in the background of a shell ignores it
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    with process:
        while "waiting" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "quick  completed" in out
    assert "interrupted" in err
    assert not (tmp_path / "base.json").exists()


def test_on_a_terminal_the_table_is_drawn(flujo):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "flujo_cli", "eval", "flows.py:pipeline", "cases.yaml"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=environment)
    os.close(theirs)
    drawn = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not part:
            break
        drawn += part
    os.close(ours)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "────" in drawn.decode()


def test_the_help_teaches_and_loads_neither_pydantic_ai_nor_pydantic_evals(run_python):
    code = (
        "import sys; from flujo_cli.main import run; run(['eval', '--help']);"
        "print([name for name in ('pydantic_ai', 'pydantic_evals') if name in sys.modules])"
    )
    said = run_python(code)
    assert said.splitlines()[-1] == "[]"
    for word in ("Examples:", "LLMJudge", "--compare", "Exit codes:", "regression"):
        assert word in said
