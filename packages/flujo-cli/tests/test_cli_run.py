"""`flujo run`: results, exit codes, limits, plugins, summaries."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

GUARD = """
from flujo.core import Allow, Deny, hookimpl

flujo_api = "1.0"

class Plugin:
    def __init__(self, word="forbidden"):
        self.word = word

    @hookimpl
    def guard_run(self, payload) -> Allow | Deny:
        payload.run.count("redactions", "PERSON", 2)
        payload.run.count("odd_things", str(payload.run.actor))
        return Deny(f"it says {self.word}") if self.word in str(payload.input) else Allow()
"""


def lines(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def test_one_text_gives_its_result_on_stdout_and_the_rest_on_stderr(cli) -> None:
    said = cli("run", "flows.py", "--text", "good", "--max-usd", "0.5", "--max-tokens", "1000", "--max-requests", "7")
    assert (said.code, said.out) == (0, "GOOD\n")
    assert "step ask: completed" in said.err
    assert "a print of the step" in said.err
    for cell in ("step", "status", "time", "tokens", "cost", "check", "ask", "completed", "$0.01"):
        assert cell in said.err
    assert "budget: $0.01 of $0.5, 10 of 1,000 tokens, 1 of 7 calls" in said.err


def test_a_folder_goes_on_after_a_failed_item_and_returns_the_worst_code(cli) -> None:
    for name, text in {"a.txt": "one", "b.txt": "bad", "c.txt": "three"}.items():
        cli.write(f"notes/{name}", text)
    said = cli("run", "flows.py", "--input", "notes")
    assert said.code == 3
    assert said.out == "--- a.txt\nONE\n--- c.txt\nTHREE\n"
    assert "[2/3] b.txt: failed" in said.err
    assert "flujo: b.txt: step 'check' failed\nWhy: ValueError: cannot work on this, password=[SECRET]" in said.err
    assert "3 items: 2 completed, 1 failed" in said.err
    assert "2 completed, 1 failed" in said.err.partition("check")[2]


def test_json_gives_an_object_per_item_and_a_summary(cli) -> None:
    cli.write("cases.jsonl", '"one"\n"bad"\n')
    said = cli("run", "flows.py", "--input", "cases.jsonl", "--json", "-q")
    first, second, summary = lines(said.out)
    assert (first["item"], first["status"], first["output"]) == ("cases-0001", "completed", "ONE")
    assert first["usage"]["cost_usd"] == "0.010"
    assert [step["path"] for step in first["steps"]] == ["check", "ask"]
    assert (second["status"], second["output"], second["error"]["type"]) == ("failed", None, "StepFailed")
    assert summary["type"] == "summary"
    assert summary["statuses"] == {"completed": 1, "failed": 1}
    assert summary["exit_code"] == said.code == 3
    assert summary["usage"]["total_tokens"] == 10


def test_all_items_share_one_budget(cli) -> None:
    cli.write("cases.jsonl", '"one"\n"two"\n"three"\n"four"\n')
    said = cli("run", "flows.py", "--input", "cases.jsonl", "--json", "-q", "--max-usd", "0.02", "--concurrency", "4")
    *items, summary = lines(said.out)
    assert said.code == 4
    assert sorted(item["status"] for item in items) == ["completed", "completed", "stopped", "stopped"]
    assert summary["usage"]["cost_usd"] == "0.020"
    assert summary["limits"]["cost_usd"] == "0.02"


def test_a_stopped_single_run_says_which_limit_and_what_to_do(cli) -> None:
    said = cli("run", "flows.py", "--text", "good", "--max-tokens", "5")
    assert (said.code, said.out) == (4, "")
    assert "flujo: total_tokens_limit of 5 tokens reached" in said.err
    assert "Do: Raise the limit" in said.err


def test_the_concurrency_is_what_was_asked_for(cli) -> None:
    cli.write(
        "crowd.py",
        """
        import asyncio
        from flujo.core import step
        running = most = 0
        @step
        async def crowd(text: str) -> int:
            global running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.02)
            running -= 1
            return most
        """,
    )
    cli.write("cases.jsonl", '"x"\n' * 9)
    outputs = [
        item["output"]
        for item in lines(cli("run", "crowd.py", "--input", "cases.jsonl", "--json", "--concurrency", 3).out)[:-1]
    ]
    assert (len(outputs), max(outputs)) == (9, 3)
    assert cli("run", "crowd.py", "--text", "x", "--concurrency", "0").code == 2


def test_a_deadline_aborts(cli) -> None:
    said = cli("run", "flows.py:wait", "--text", "x", "--deadline", "0.05")
    assert said.code == 6
    assert "deadline" in said.err


@pytest.mark.parametrize(
    "option", ["--max-usd=-1", "--max-usd=NaN", "--max-usd=inf", "--max-usd=x", "--max-tokens=-1", "--max-requests=-5"]
)
def test_a_limit_that_is_no_amount_is_called_by_its_option(cli, option: str) -> None:
    said = cli("run", "flows.py", "--text", "x", option)
    assert said.code == 2
    assert option.partition("=")[0] in said.err
    assert "a print of the step" not in said.err


def test_wrong_usage_runs_nothing(cli) -> None:
    assert cli("run", "flows.py", "--text", "x", "--input", "y").code == 2
    assert cli("run", "flows.py").code == 2
    assert cli("run").code == 2
    assert cli("run", "flows.py", "--text", "x", "--max-tokens", "many").code == 2
    said = cli("run", "flows.py", "--text", "x", "--deadline=nan")
    assert said.code == 2
    assert "deadline_s=nan" in said.err


def test_all_problems_of_a_pipeline_are_listed_and_nothing_runs(cli) -> None:
    cli.write("wrong.py", "from flujo.core import *\n@step(inputs={'x': 'nobody'})\nasync def a(x: int) -> str: ...\n")
    said = cli("run", "wrong.py", "--text", "x")
    assert said.code == 2
    assert "'nobody'" in said.err


# --- files ----------------------------------------------------------------------------------------------------------


def test_out_gets_one_whole_file_per_item_and_a_summary(cli) -> None:
    cli.write("notes/a.txt", "one")
    cli.write("notes/b.md", "bad")
    said = cli("run", "flows.py", "--input", "notes", "--out", "results")
    assert (said.code, said.out) == (3, "")
    assert "written: 1 to results" in said.err
    assert sorted(path.name for path in (cli.folder / "results").iterdir()) == ["_summary.json", "a.txt"]
    assert (cli.folder / "results/a.txt").read_text() == "ONE\n"
    summary = json.loads((cli.folder / "results/_summary.json").read_text())
    assert [run["status"] for run in summary["runs"]] == ["completed", "failed"]
    assert "output" not in summary["runs"][0]


def test_a_result_that_no_file_takes_is_not_lost(cli) -> None:
    cli.write("notes/a.txt", "one")
    cli.write("notes/b.txt", "two")
    (cli.folder / "results/a.txt").mkdir(parents=True)
    said = cli("run", "flows.py", "--input", "notes", "--out", "results")
    assert said.code == 3
    assert said.out == "--- a.txt\nONE\n"
    assert (cli.folder / "results/b.txt").read_text() == "TWO\n"
    assert not [path for path in (cli.folder / "results").iterdir() if path.name.startswith(".")]


def test_out_must_be_a_folder_that_can_be_written_and_is_not_the_input(cli) -> None:
    cli.write("notes/a.txt", "one")
    assert "input folder" in cli("run", "flows.py", "--input", "notes", "--out", "notes").err
    said = cli("run", "flows.py", "--input", "notes", "--out", "notes/a.txt")
    assert said.code == 2
    assert "a print of the step" not in said.err


# --- Flujo objects --------------------------------------------------------------------------------------------------


def test_options_only_narrow_the_limits_of_a_flujo(cli) -> None:
    cli.write("app_flow.py", "from flows import *\napp = Flujo(pipeline, limits=UsageLimits(total_tokens_limit=30))\n")
    cli.write("cases.jsonl", '"one"\n"two"\n')
    assert cli("run", "app_flow.py:app", "--input", "cases.jsonl").code == 0
    assert cli("run", "app_flow.py:app", "--input", "cases.jsonl", "--max-tokens", "100000").code == 0
    said = cli("run", "app_flow.py:app", "--input", "cases.jsonl", "--max-tokens", "35", "--json", "-q")
    assert said.code == 4
    assert [item.get("status") for item in lines(said.out)[:2]] == ["completed", "stopped"]


def test_a_flujo_with_a_budget_keeps_it(cli) -> None:
    source = (
        "from flows import *\nfrom flujo.core import Budget\napp = Flujo(pipeline, limits=Budget(UsageLimits(0.01)))\n"
    )
    cli.write("app_flow.py", source)
    cli.write("cases.jsonl", '"one"\n"two"\n')
    said = cli("run", "app_flow.py:app", "--input", "cases.jsonl", "--json", "-q")
    assert [item.get("status") for item in lines(said.out)[:2]] == ["completed", "stopped"]
    assert lines(said.out)[-1]["limits"]["cost_usd"] == "0.01"
    said = cli("run", "app_flow.py:app", "--input", "cases.jsonl", "--json", "-q", "--max-usd", "0.005")
    assert [item.get("status") for item in lines(said.out)[:2]] == ["stopped", "stopped"]
    said = cli("run", "app_flow.py:app", "--input", "cases.jsonl", "--json", "-q", "--max-usd", "5")
    assert [item.get("status") for item in lines(said.out)[:2]] == ["completed", "stopped"]


def test_resources_of_a_flujo_are_opened_once_for_all_items(cli) -> None:
    cli.write(
        "app_flow.py",
        """
        from contextlib import asynccontextmanager
        from flujo.core import Flujo, Resource, Resources, step
        class Db(str): ...
        @asynccontextmanager
        async def open_db():
            print("open")
            yield Db("db")
            print("closed")
        class Things(Resources):
            db: Db = Resource(open_db, scope="app")
        @step
        async def use(text: str, db: Db) -> str:
            return text + db
        app = Flujo(use, resources=Things())
        """,
    )
    cli.write("cases.jsonl", '"one "\n"two "\n')
    said = cli("run", "app_flow.py:app", "--input", "cases.jsonl")
    assert said.code == 0
    assert (said.err.count("open"), said.err.count("closed")) == (1, 1)
    said = cli("run", "app_flow.py:use", "--text", "x")
    assert said.code == 2
    assert "'db'" in said.err


def test_a_resource_that_does_not_open_means_that_nothing_ran(cli) -> None:
    cli.write(
        "app_flow.py",
        """
        from contextlib import asynccontextmanager
        from flujo.core import Flujo, Resource, Resources, step
        class Db(str): ...
        @asynccontextmanager
        async def open_db():
            raise OSError("no database")
            yield Db("db")
        class Things(Resources):
            db: Db = Resource(open_db, scope="app")
        @step
        async def use(text: str, db: Db) -> str:
            return text + db
        app = Flujo(use, resources=Things())
        """,
    )
    said = cli("run", "app_flow.py:app", "--text", "x")
    assert said.code == 2
    assert "db" in said.err


# --- plugins --------------------------------------------------------------------------------------------------------


def test_a_plugin_acts_when_it_is_named_and_not_before(cli) -> None:
    cli.plugin("acme-guard", GUARD)
    assert cli("run", "flows.py", "--text", "forbidden").code == 0
    said = cli("run", "flows.py", "--text", "forbidden", "--plugin", "Acme_Guard")
    assert (said.code, said.out) == (6, "")
    assert "acme-guard" in said.err
    assert "it says forbidden" in said.err


def test_what_plugins_counted_stands_in_the_summary(cli) -> None:
    cli.plugin("acme-guard", GUARD)
    cli.write("cases.jsonl", '"one"\n"two"\n')
    said = cli("run", "flows.py", "--input", "cases.jsonl", "--plugin", "acme-guard", "--actor", "ana", "--tenant", "t")
    assert said.code == 0
    assert "redacted: PERSON 4\n" in said.err
    assert "odd things: ana 2\n" in said.err


def test_settings_name_plugins_and_give_them_their_settings(cli) -> None:
    cli.plugin("acme-guard", GUARD)
    cli.write("pyproject.toml", '[tool.flujo]\nuse = ["acme-guard"]\n[tool.flujo.plugins.acme-guard]\nword = "other"\n')
    assert cli("run", "flows.py", "--text", "forbidden").code == 0
    assert cli("run", "flows.py", "--text", "other").code == 6
    cli.write("pyproject.toml", '[tool.flujo]\nuse = ["acme-guard"]\n[tool.flujo.plugins.acme-guard]\nnoword = 1\n')
    said = cli("run", "flows.py", "--text", "x")
    assert said.code == 2
    assert "[tool.flujo.plugins.acme-guard]" in said.err


@pytest.mark.parametrize("how", ["option", "policy", "settings"])
def test_without_a_required_plugin_nothing_runs(cli, how: str) -> None:
    options: list[str | Path] = []
    if how == "option":
        options = ["--require", "acme-missing"]
    elif how == "policy":
        options = ["--policy", cli.write("policy.toml", 'require = ["acme-missing"]\n')]
    else:
        cli.write("pyproject.toml", '[tool.flujo.policy]\nrequire = ["acme-missing"]\n')
    said = cli("run", "flows.py", "--text", "x", *options)
    assert (said.code, said.out) == (2, "")
    assert "pip install acme-missing" in said.err
    assert "a print of the step" not in said.err


def test_a_policy_file_adds_to_the_settings_and_a_broken_one_stops(cli) -> None:
    cli.plugin("acme-guard", GUARD)
    cli.write("pyproject.toml", '[tool.flujo.policy]\nrequire = ["acme-guard"]\n')
    policy = cli.write("policy.toml", "guard_timeout_s = 2\n")
    assert cli("run", "flows.py", "--text", "forbidden", "--policy", policy).code == 6
    cli.write("policy.toml", "guard_timeout = 2\n")
    said = cli("run", "flows.py", "--text", "x", "--policy", policy)
    assert said.code == 2
    assert "guard_timeout" in said.err
    assert cli("run", "flows.py", "--text", "x", "--policy", "nowhere.toml").code == 2


def test_a_plugin_on_top_of_a_flujo_acts_beside_its_own(cli) -> None:
    cli.plugin("acme-guard", GUARD)
    cli.plugin("acme-second", GUARD)
    cli.write(
        "app_flow.py",
        "from flows import pipeline\nfrom flujo.core import Flujo\nfrom acme_guard import Plugin\n"
        "app = Flujo(pipeline, plugins=[Plugin('own')])\n",
    )
    assert cli("run", "app_flow.py:app", "--text", "own").code == 6
    assert (
        cli("run", "app_flow.py:app", "--text", "forbidden", "--plugin", "acme-guard").code == 0
    )  # it has one already
    assert cli("run", "app_flow.py:app", "--text", "forbidden", "--plugin", "acme-second").code == 6
    assert cli("run", "app_flow.py:app", "--text", "own", "--plugin", "acme-second").code == 6


def test_an_allow_list_of_the_settings_holds_for_the_users_own_code(cli) -> None:
    cli.plugin("acme-guard", GUARD)
    cli.write("pyproject.toml", '[tool.flujo]\nplugins = ["flujo-audit"]\n')
    cli.write(
        "app_flow.py",
        "from flows import pipeline\nfrom flujo.core import Flujo\napp = Flujo(pipeline, plugins=['acme-guard'])\n",
    )
    for spec in (["app_flow.py:app"], ["flows.py", "--plugin", "acme-guard"]):
        said = cli("run", *spec, "--text", "x")
        assert said.code == 2
        assert "allow-list" in said.err


def test_debug_shows_what_a_step_raised(cli) -> None:
    said = cli("run", "flows.py", "--text", "bad", "--debug")
    assert said.code == 3
    assert "Traceback" in said.err
    assert 'raise ValueError("cannot work' in said.err


# --- the less common ------------------------------------------------------------------------------------------------


def test_what_is_out_of_the_ordinary_is_said_whatever_the_number_of_items(cli) -> None:
    cli.write(
        "odd_flow.py",
        """
        from flows import ask
        from flujo.core import RetryPolicy, RunContext, step
        @step(retry=RetryPolicy(max_attempts=2, backoff_s=0.01))
        async def flaky(text: str, ctx: RunContext) -> str:
            if ctx.attempt == 1:
                raise OSError("not yet")
            ctx.usage.record(tokens=9, cost_usd="0.009")
            return text
        """,
    )
    cli.write("cases.jsonl", '"one"\n"two"\n')
    said = cli("run", "odd_flow.py:flaky", "--input", "cases.jsonl", "--max-usd", "0.01")
    assert "cases-0001: step flaky: attempt 1 failed (OSError), again in" in said.err
    assert "total_cost_usd_limit is used to 90%" in said.err


def test_quiet_says_only_results_and_errors(cli) -> None:
    cli.write("cases.jsonl", '"one"\n"bad"\n')
    said = cli("run", "flows.py:check", "--input", "cases.jsonl", "-q")
    assert said.out == "--- cases-0001\none\n"
    assert said.err.startswith("flujo: cases-0002: step 'check' failed\nWhy: ")
    assert said.err.count("\n") == 3


def test_an_output_that_is_no_json_is_shown_and_makes_the_command_fail(cli) -> None:
    cli.write(
        "loop_flow.py",
        """
        from flujo.core import step
        @step
        async def loop(text: str) -> list:
            found = []
            found.append(found)
            return found
        """,
    )
    for options in ([], ["--json"], ["--out", "results"]):
        said = cli("run", "loop_flow.py", "--text", "x", *options)
        assert said.code == 3
        assert "[[...]]" in said.out
    assert [path.name for path in (cli.folder / "results").iterdir()] == ["_summary.json"]


def test_calls_that_were_estimated_or_have_no_price_are_counted_in_the_summary(cli) -> None:
    cli.write(
        "blind_flow.py",
        """
        from flujo.core import Message, ModelRequest, ModelResponse, RunContext, step
        async def send(request):
            return ModelResponse(content="x")
        @step
        async def blind(text: str, ctx: RunContext) -> str:
            request = ModelRequest(model="nobody:knows", messages=(Message(role="user", content=text),), max_tokens=5)
            return (await ctx.call_model(request, send)).content
        """,
    )
    said = cli("run", "blind_flow.py", "--text", "x", "--max-tokens", "100")
    assert said.code == 0, said.err
    assert "not in the cost: 1 calls to models of unknown price" in said.err
    assert "estimated at their most: 1 calls" in said.err
    said = cli("run", "blind_flow.py", "--text", "x", "--max-usd", "1")
    assert said.code == 4


# --- nothing lost, nothing silent -------------------------------------------------------------------------------------


def test_a_step_that_calls_sys_exit_fails_its_item_only(cli) -> None:
    cli.write(
        "quits.py",
        """
        import sys
        from flujo.core import step
        @step
        async def quits(text: str) -> str:
            if "two" in text:
                sys.exit(0)
            return text
        """,
    )
    cli.write("cases.jsonl", '"one"\n"two"\n"three"\n')
    process = cli.start("run", "quits.py", "--input", "cases.jsonl", "--json")
    out, err = process.communicate(timeout=240)
    *items, summary = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == summary["exit_code"] == 3
    assert [item["status"] for item in items] == ["completed", "failed", "completed"]
    assert b"Traceback" not in err


@pytest.mark.parametrize("name", ["a.txt", "_summary.json"])
def test_an_output_never_replaces_its_input(cli, name: str) -> None:
    cli.write(f"notes/{name}", "mine\n")
    said = cli("run", "flows.py:check", "--input", f"notes/{name}", "--out", "notes")
    assert said.code == 2
    assert "--out 'notes' holds the input" in said.err
    assert (cli.folder / "notes" / name).read_text() == "mine\n"
    assert cli("run", "flows.py:check", "--input", f"notes/{name}", "--out", "other").code == 0


def test_a_file_whose_name_is_no_text_is_run_and_reported_like_others(cli) -> None:
    folder = os.fsencode(cli.folder / "odd")
    os.mkdir(folder)
    for name in (b"bad\xff.txt", b"good.txt"):
        with open(os.path.join(folder, name), "w") as file:
            file.write("text")
    said = cli("run", "flows.py:check", "--input", "odd", "--json", "--out", "results")
    assert said.code == 0
    *items, summary = [json.loads(line) for line in said.out.splitlines()]
    assert [item["item"] for item in items] == ["bad\\xff.txt", "good.txt"]
    assert summary["items"] == 2
    assert json.loads((cli.folder / "results/_summary.json").read_text())["items"] == 2


def test_megabytes_are_a_number(cli) -> None:
    said = cli("run", "flows.py:check", "--text", "x", "--max-input-mb", "nan")
    assert said.code == 2
    assert "--max-input-mb is not a number" in said.err


def test_an_output_that_cannot_be_written_says_so(cli) -> None:
    command = [sys.executable, "-m", "flujo_cli", "run", "flows.py:check", "--text", "x", "--quiet"]
    with open("/dev/full", "wb") as full:  # a device that is always full
        done = subprocess.run(command, cwd=cli.folder, stdout=full, stderr=subprocess.PIPE, check=False, timeout=240)
    assert done.returncode == 3
    assert b"the output cannot be written" in done.stderr
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_closed_stdin_is_no_input(cli) -> None:
    command = f"exec {shlex.quote(sys.executable)} -m flujo_cli run flows.py:check --input - <&-"
    done = subprocess.run(["sh", "-c", command], cwd=cli.folder, stderr=subprocess.PIPE, check=False, timeout=240)
    assert done.returncode == 2
    assert b"input 'stdin' cannot be used\nWhy: it is closed" in done.stderr


SENTINEL = """
from pathlib import Path
Path({path!r}).write_text("imported")
flujo_api = "1.0"
class Plugin: ...
"""


@pytest.mark.parametrize("rule", ["['flujo-audit']", "['acme-evil<1']", "[]"])
@pytest.mark.parametrize("where", ["option", "settings"])
def test_what_the_policy_does_not_allow_is_never_imported_not_even_by_the_users_own_file(
    cli, rule: str, where: str
) -> None:
    sentinel = cli.folder / "sentinel"
    cli.plugin("acme-evil", SENTINEL.format(path=str(sentinel)))
    cli.write("own.py", "from flows import pipeline\nfrom flujo.core import Flujo\n"
              "flujo = Flujo(pipeline, plugins=['acme-evil'])\n")  # fmt: skip
    options: list[str | Path] = []
    if where == "option":
        options = ["--policy", cli.write("policy.toml", f"allow_plugins = {rule}\n")]
    else:
        cli.write("pyproject.toml", f"[tool.flujo.policy]\nallow_plugins = {rule}\n")
    named = [] if where == "option" else [["flows.py", "--plugin", "acme-evil"]]
    for target in (["own.py:flujo"], *named):
        said = cli("run", *target, "--text", "x", *options)
        assert (said.code, said.out) == (2, "")
        assert "'acme-evil'" in said.err
        assert "allow" in said.err
    cli("plugins") if where == "settings" else None
    cli("unheard-of-command") if where == "settings" else None
    assert not sentinel.exists()


def test_a_policy_holds_models_and_limits_of_the_file(cli) -> None:
    policy = cli.write("policy.toml", "allow_models = ['openai:*']\n")
    said = cli("run", "flows.py", "--text", "x", "--policy", policy)
    assert said.code == 6
    assert "model 'm' is not allowed; allowed are: openai:*" in said.err
    cli.write("policy.toml", "[max_limits]\ntotal_cost_usd_limit = '0.001'\n")
    assert cli("run", "flows.py", "--text", "x", "--policy", policy).code == 4
    cli.write("own.py", "from flows import *\nflujo = Flujo(pipeline, limits=UsageLimits('0.50'))\n")
    said = cli("run", "own.py:flujo", "--text", "x", "--policy", policy)
    assert said.code == 2
    assert "total_cost_usd_limit=0.50 of limits cannot be used" in said.err
