"""`flujo run` of a run that waits for a human, and of steps that were skipped, kept from before, or visited often."""

from __future__ import annotations

import asyncio
import importlib
import json
import textwrap

ASKING = """
from pydantic import BaseModel
from flujo.core import Flujo, Map, Parallel, PauseForHumanInput, Pipeline, RunContext, Step, step

class Refund(BaseModel):
    amount: int

@step
async def read(text: str) -> str:
    with open("reads.txt", "a") as file:
        file.write(text + "\\n")
    return text

@step(pauses=True)
async def approve(text: str) -> bool:
    raise PauseForHumanInput(f"Approve {text}? password=hunter22", schema=bool, payload={"letter": "private"})

@step(pauses=True)
async def amount(text: str, ctx: RunContext) -> int:
    return (await ctx.ask("How much?", schema=Refund)).amount

@step
async def short(text: str) -> int:
    return len(text)

async def done(parts: dict) -> str:
    return f"{parts}"

one = read >> approve
pipeline = read >> Parallel(approve, short, amount) >> Step(done)
if_long = Step(approve, name="may", when=lambda text: len(text) > 3) >> Step(lambda value: str(value), name="end")
app = Flujo(one)
"""


def test_a_paused_run_exits_with_5_and_says_what_is_asked(cli) -> None:
    cli.write("asking.py", ASKING)
    said = cli("run", "asking.py", "--text", "it")
    assert (said.code, said.out) == (5, "")
    assert "flujo: paused, 2 questions to a human" in said.err
    questions = said.err.partition("2 questions to a human\n")[2].splitlines()
    assert questions[0] == "  parallel/approve: Approve it? password=[SECRET]"
    assert json.loads(questions[1].removeprefix("    answer: ")) == {"type": "boolean"}
    assert "--json" in questions[2]
    assert questions[3] == "  parallel/amount: How much?"
    assert json.loads(questions[4].removeprefix("    answer: "))["required"] == ["amount"]
    assert "private" not in said.err
    assert "hunter22" not in said.err
    assert "step parallel/approve: paused, asks a human" in said.err
    assert "flujo.resume_async(result, decision, pause='parallel/approve')" in said.err
    assert "only --store URL or --out DIR keep" in said.err


def test_json_holds_the_questions_and_nothing_for_people(cli) -> None:
    cli.write("asking.py", ASKING)
    said = cli("run", "asking.py", "--text", "it", "--json", "-q")
    assert (said.code, said.err) == (5, "")
    item, summary = map(json.loads, said.out.splitlines())
    assert (item["status"], item["output"], item["error"], item["snapshot"]) == ("paused", None, None, None)
    first, second = item["pauses"]
    assert (first["id"], first["step_path"]) == ("parallel/approve", "parallel/approve")
    assert (first["schema"], first["payload"]) == ({"type": "boolean"}, {"letter": "private"})
    assert (second["question"], second["payload"], second["expires_at"]) == ("How much?", None, None)
    assert len(first["shown_digest"]) == 64
    assert summary["statuses"] == {"paused": 1}
    assert summary["steps"]["parallel/approve"]["statuses"] == {"paused": 1}
    done = cli("run", "asking.py:if_long", "--text", "it", "--json", "-q")
    assert json.loads(done.out.splitlines()[0])["pauses"] == []


def test_a_run_that_out_kept_goes_on_by_the_printed_lines(cli) -> None:
    cli.write("asking.py", ASKING)
    cli.write("notes/a.txt", "it")
    cli.write("notes/b.txt", "that")
    said = cli("run", "asking.py:one", "--input", "notes", "--out", "results", "--max-tokens", "10")
    assert said.code == 5
    assert "written: 0 to results, 2 paused to results/paused" in said.err
    assert "[1/2] a.txt: paused" in said.err
    assert "flujo: b.txt: paused, 1 question to a human" in said.err
    summary = json.loads((cli.folder / "results/_summary.json").read_text())
    assert [run["snapshot"] for run in summary["runs"]] == ["results/paused/a.json", "results/paused/b.json"]
    code = textwrap.dedent(said.err.partition("and the `decision`:\n")[2])
    names = {"flujo": importlib.import_module("asking").app, "decision": True}
    exec("async def go_on():\n" + textwrap.indent(code, "    ") + "    return result\n", names)
    result = asyncio.run(names["go_on"]())
    assert (result.status, result.value) == ("completed", True)
    assert (cli.folder / "reads.txt").read_text() == "it\nthat\n", "what was done is not done again"


def test_a_run_that_no_file_takes_is_a_failure_that_says_so(cli) -> None:
    cli.write("asking.py", ASKING)
    cli.write("results/paused", "a file")
    said = cli("run", "asking.py:one", "--text", "it", "--out", "results")
    assert said.code == 3
    assert "flujo: paused run of 'text' could not be written to 'results'" in said.err
    assert "only --store URL or --out DIR keep" in said.err


def test_the_worst_of_paused_and_failed_is_failed(cli) -> None:
    source = "from asking import approve\nfrom flows import check\npipeline = check >> approve\n"
    cli.write("asking.py", ASKING)
    cli.write("mixed.py", source)
    cli.write("cases.jsonl", '"good"\n"bad"\n')
    said = cli("run", "mixed.py", "--input", "cases.jsonl")
    assert said.code == 3
    assert "2 items: 1 paused, 1 failed" in said.err


# --- other ends of steps --------------------------------------------------------------------------------------------

STATUSES = """
from flujo.core import Branch, Loop, Map, Step, step

@step(cache=True)
async def size(text: str) -> int:
    return len(text)

@step(when=lambda size: size > 3)
async def shrink(size: int) -> int:
    return 3

@step
async def count(size: int) -> int:
    return size + 1

pipeline = size >> shrink >> Step(count)
looped = size >> Loop(count, until=lambda size: size > 5)
split = Step(lambda text: text.split(), name="split", inline=True)
mapped = split >> Map(Loop(size >> count, max_iterations=1, on_limit="return"), limit=1)
numbered = size >> Branch(lambda size: 1, {1: Step(lambda size: [size] * 3, name="fan") >> Map(count)}, name="by")
"""


def test_skipped_and_cached_steps_are_told_apart(cli) -> None:
    cli.write("statuses.py", STATUSES)
    cli.write("cases.jsonl", '"abc"\n"abc"\n"abcd"\n')
    said = cli("run", "statuses.py", "--input", "cases.jsonl")
    assert said.code == 0
    rows = {line.split()[0]: " ".join(line.split()) for line in said.err.splitlines() if line.strip()}
    assert rows["size"].startswith("size 2 completed, 1 cached")
    assert rows["shrink"].startswith("shrink 2 skipped, 1 completed")
    *items, summary = map(
        json.loads, cli("run", "statuses.py", "--input", "cases.jsonl", "--json", "-q").out.splitlines()
    )
    assert [item["steps"][0]["cached"] for item in items] == [False, True, False]
    assert [item["steps"][1]["status"] for item in items] == ["skipped", "skipped", "completed"]
    assert (summary["steps"]["size"]["statuses"], summary["steps"]["size"]["cached"]) == ({"completed": 3}, 1)


def test_lines_count_the_steps_and_say_where_the_total_is_unknown(cli) -> None:
    cli.write("statuses.py", STATUSES)
    said = cli("run", "statuses.py", "--text", "abc").err
    assert "[1/3] step size: completed" in said
    assert "[2/3] step shrink: skipped\n" in said
    assert "[3/3] step count: completed" in said
    said = cli("run", "statuses.py:looped", "--text", "abc").err
    assert "[1/?] step size: completed" in said
    assert "[4/?] step loop#3/count: completed" in said
    said = cli("run", "statuses.py:mapped", "--text", "one two one").err
    assert "step map[2]/loop#1/size: cached" in said


def test_visits_of_one_step_are_one_row(cli) -> None:
    cli.write("statuses.py", STATUSES)
    said = cli("run", "statuses.py:mapped", "--text", "one two one three", "--json", "-q")
    item, summary = map(json.loads, said.out.splitlines())
    assert {path: row["statuses"]["completed"] for path, row in summary["steps"].items()} == {
        "split": 1,
        "map[*]/loop#*/size": 4,
        "map[*]/loop#*/count": 4,
    }
    assert "map[3]/loop#1/count" in [step["path"] for step in item["steps"]]
    assert "4 completed" not in cli("run", "statuses.py:mapped", "--text", "one").err
    assert "3 completed, 1 cached" in cli("run", "statuses.py:mapped", "--text", "one two one three").err


def test_a_case_that_is_called_by_a_number_stays_a_case(cli) -> None:
    cli.write("statuses.py", STATUSES)
    said = cli("run", "statuses.py:numbered", "--text", "abc", "--json", "-q")
    steps = json.loads(said.out.splitlines()[1])["steps"]
    assert list(steps) == ["size", "by[1]/fan", "by[1]/map[*]/count"]


def test_a_pipeline_of_combinators_that_take_nothing_needs_no_input(cli) -> None:
    cli.write("free.py", "from flujo.core import *\n@step\nasync def now() -> str:\n    return 'now'\n"
              "@step\nasync def same(text: str) -> str:\n    return text\n"
              "free = Pipeline(Parallel(now, Pipeline(Fallback(now, Step(now, name='b')), name='p')))\n"
              "taken = Pipeline(Parallel(now, Pipeline(Fallback(now, same), name='p')))\n")  # fmt: skip
    said = cli("run", "free.py:free", "-q")
    assert (said.code, json.loads(said.out)) == (0, {"now": "now", "p": "now"})
    said = cli("run", "free.py:taken", "-q")
    assert said.code == 2
    assert "the pipeline needs an input" in said.err
