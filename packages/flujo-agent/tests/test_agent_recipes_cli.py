"""`flujo solve` and `flujo chat` on a real server with a real, if tiny, model; questions are answered as humans do."""

import io
import json
import os
import pty
import select
import subprocess
import sys

import pytest

from flujo_cli.main import run as flujo

ASKING = """
from flujo.agent import Recipe, agent
from flujo.core import PauseForHumanInput, Pipeline, Step, hookimpl, run_input

flujo_api = "1.0"

def make(model, *, instructions="", **options):
    talk = Step(agent(model, output_type=str, **options), name="talk")

    async def ask(text: str) -> int:
        raise PauseForHumanInput("How good is it?", schema=int, payload={"text": text})

    async def marked(task: str, mark: int) -> str:
        return f"{task}: {mark}"

    asked = Step(ask)
    return Pipeline(talk >> asked, Step(marked, inputs={"task": run_input(), "mark": asked}), name="asking")

@hookimpl
def register_recipes():
    return [Recipe("asking", "Asks how good it is.", make)]
"""


class Keyboard(io.StringIO):
    """What a human types at a terminal."""

    def isatty(self) -> bool:
        return True

    def readline(self, *sizes: int) -> str:
        line = super().readline(*sizes)
        if line == "^C\n":
            raise KeyboardInterrupt
        return line


@pytest.fixture
def cli(server, tmp_path, monkeypatch, capsys):
    """Runs a command on the server, and gives its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLUJO_MODEL", "openai:tiny")
    monkeypatch.setenv("FLUJO_BASE_URL", server.base_url)
    monkeypatch.setenv("PYDANTIC_AI_NO_BANNER", "1")
    monkeypatch.delenv("FLUJO_STORE", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    tmp_path.joinpath("asking_recipe.py").write_text(ASKING)
    info = tmp_path / "asking_recipe-1.0.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: asking-recipe\nVersion: 1.0\n")
    info.joinpath("entry_points.txt").write_text("[flujo]\nasking = asking_recipe\n")

    def run(*arguments, given=None, typed=None):
        monkeypatch.setattr(sys, "stdin", Keyboard(typed) if typed is not None else io.StringIO(given or ""))
        capsys.readouterr()
        code = flujo([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err, said.err
        return code, said.out, said.err

    yield run
    sys.modules.pop("asking_recipe", None)


SHORT = ("--output-tokens", 6, "--temperature", 0)

# --- solve ------------------------------------------------------------------------------------------------------------


def test_solve_runs_the_default_recipe_and_says_what_each_role_took(cli, server):
    before = server.counted()
    code, out, err = cli("solve", "the audit log", "--output-mode", "native", "--output-tokens", 300, "--json")
    told = json.loads(out)
    after = server.counted()
    # random weights satisfy no checklist: what matters is that every role was played, under one count
    assert (code, told["status"]) in ((3, "failed"), (0, "completed"))
    assert err == ""
    assert told["usage"]["input_tokens"] == after[0] - before[0]
    assert told["usage"]["output_tokens"] == after[1] - before[1]
    assert told["steps"][0]["path"] == "review"
    code, out, err = cli("solve", "the audit log", "--max-requests", 1, "--output-mode", "native", *SHORT)
    assert out == ""
    assert "failed" in err or "stopped" in err
    assert code in (3, 4)


def test_solve_reviews_an_answer_on_a_model_that_approves_it(cli, write_model, tmp_path, monkeypatch):
    monkeypatch.delenv("FLUJO_BASE_URL")
    codes = []
    for seed in (2, 3, 5, 7, 8, 11):  # random weights that were seen to approve their own babble
        file = write_model(tmp_path / f"{seed}.gguf", seed)
        model = ("-m", f"local:{file}", "--output-tokens", 300, "--temperature", 0, "--max-usd", "0.05")
        code, out, err = cli("solve", "-", "--recipe", "review", *model, given="fix: no crash on an empty file")
        codes.append(code)
        if code == 0:
            break
    assert codes[-1] == 0, err
    assert out.strip()
    assert "generate: " in err
    assert err.splitlines()[-1].startswith("completed: ")


def test_a_question_is_answered_in_the_terminal_and_asked_again_where_the_answer_does_not_fit(cli):
    code, out, err = cli("solve", "the log", "--recipe", "asking", *SHORT, typed="good\n\n7\n")
    assert (code, out) == (0, "the log: 7\n")
    assert err.count("How good is it?") == 2
    assert '"text": ' in err
    assert "talk: " in err


def test_without_a_terminal_a_run_is_left_paused_and_gone_on_with_from_its_store(cli):
    ask = ("solve", "--recipe", "asking", *SHORT, "--store", "sqlite:///runs.db")
    code, out, err = cli(*ask, "the log")
    assert (code, out) == (5, "")
    run_id = err.rsplit("--resume ", 1)[1].split()[0]
    assert cli(*ask, "--resume", run_id)[0] == 5
    code, out, err = cli(*ask, "--resume", run_id, typed="")
    assert (code, err.count("How good is it?")) == (5, 2), "the end of the input leaves it paused"
    code, out, err = cli(*ask, "--resume", run_id, "--answer", "9")
    assert (code, out) == (0, "the log: 9\n")
    code, out, err = cli(*ask, "--resume", run_id, "--answer", "8")
    assert (code, out) == (2, ""), "it was answered"
    code, out, err = cli(*ask, "--json", "the log")
    assert (code, json.loads(out)["pauses"][0]["payload"].keys()) == (5, {"text"})
    code, out, err = cli(*ask, "--resume", json.loads(out)["run_id"], typed="3\n")
    assert (code, out) == (0, "the log: 3\n")


def test_limits_have_their_exit_code_and_nothing_is_asked_of_the_model(cli, server):
    before = server.counted()
    code, out, err = cli("solve", "x", "--max-requests", 0)
    assert (code, out, server.counted()) == (4, "", before)
    assert "requests_limit" in err
    code, out, err = cli("chat", "x", "--max-usd", 0, "--price", "1/2")
    assert (code, out, server.counted()) == (4, "", before)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["solve"], "Give a TASK"),
        (["solve", " "], "empty"),
        (["solve", "x", "--answer", "y"], "--resume"),
        (["solve", "x", "--recipe", "nope"], "conversation, default, loop, review"),
        (["solve", "x", "--price", "cheap"], "0.15/0.60"),
        (["solve", "x", "--max-usd", "1"], "--price"),
        (["solve", "x", "--api-key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY"),
        (["solve", "x", "-m", "tiny"], "'tiny' is no name"),
        (["solve", "x", "--require", "flujo-nothing"], "flujo-nothing"),
        (["solve", "--resume", "x"], "--store"),
        (["chat"], "Nothing was said"),
        (["chat", "x", "--memory", "1"], "--memory"),
    ],
)
def test_what_cannot_run_is_told_and_runs_nothing(cli, server, arguments, words):
    before = server.counted()
    code, out, err = cli(*arguments)
    assert (code, out, server.counted()) == (2, "", before)
    assert words in err


@pytest.mark.parametrize("command", ["solve", "chat"])
def test_the_help_teaches_with_examples_and_exit_codes(cli, command):
    code, out, _ = cli(command, "--help")
    assert code == 0
    assert out.count(f"flujo {command} ") >= 4
    for word in ("--max-usd", "--base-url", "--resume", "5 paused", "130 interrupted", "local:"):
        assert word in out
    assert command in cli("--help")[1]


# --- chat -------------------------------------------------------------------------------------------------------------


def test_each_line_is_a_message_and_what_was_said_is_remembered(cli, server):
    before = server.counted()
    code, out, err = cli("chat", *SHORT, given="the audit log\n\nand the plan\n/bye\nnever read\n")
    assert (code, len(out.splitlines())) == (0, 2), err
    assert err.splitlines()[-1].startswith("completed: 2 requests, ")
    once = server.counted()[0] - before[0]
    # the second request holds the first message and its answer beside its own
    cli("chat", "the audit log", *SHORT)
    cli("chat", "and the plan", *SHORT)
    assert once > server.counted()[0] - before[0] - once


def test_a_chat_goes_on_where_a_store_keeps_it_under_the_limits_of_the_whole(cli):
    talk = ("chat", *SHORT, "--store", "sqlite:///runs.db", "--json")
    code, out, _ = cli(*talk, "hello", "--max-requests", 2)
    first, told = map(json.loads, out.splitlines())
    assert (code, told["status"], first["agent"].strip()) == (5, "paused", told["pauses"][0]["question"])
    code, out, _ = cli(*talk, "and then?", "--resume", told["run_id"], given="and then?\n")
    assert len(out.splitlines()) == 2
    assert code == 4, out
    told = json.loads(out.splitlines()[-1])
    assert (told["status"], told["usage"]["requests"]) == ("stopped", 2)


def test_who_interrupts_a_chat_is_told_how_to_go_on(cli):
    talk = ("chat", *SHORT, "--store", "sqlite:///runs.db")
    code, _, err = cli(*talk, typed="hello\n^C\n")
    assert code == 130
    assert "Go on: --resume " in err
    code, out, err = cli(*talk, "/bye", "--resume", err.split("--resume ")[1].strip())
    assert (code, out) == (0, ""), err
    code, _, err = cli("chat", *SHORT, typed="hello\n^C\n")  # nothing keeps it
    assert (code, "--resume" in err) == (130, False)


def test_the_last_answer_that_max_turns_allows_is_printed(cli):
    code, out, _ = cli("chat", "hello", "--max-turns", 1, *SHORT)
    assert (code, len(out.splitlines())) == (0, 1)
    code, out, _ = cli("chat", "hello", "--max-turns", 1, "--json", *SHORT)
    answer, told = map(json.loads, out.splitlines())
    assert told["output"]["turns"][-1]["text"] == answer["agent"]


def test_chat_at_a_real_terminal(cli, server, tmp_path):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "flujo_cli", "chat", "--output-tokens", "5"]
    env = {**os.environ, "TERM": "xterm"}
    env.pop("PYDANTIC_AI_NO_BANNER")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=theirs, stderr=theirs, stdout=pipe, cwd=tmp_path, env=env) as process:
        os.close(theirs)
        shown, typed = b"", [b"hello\n", b"/bye\n"]
        while True:
            ready, _, _ = select.select([ours], [], [], 60)
            try:
                got = os.read(ours, 4096) if ready else b""
            except OSError:  # its end is closed
                break
            if not got:
                break
            shown += got
            if typed and shown.count(b"> ") > 2 - len(typed):
                os.write(ours, typed.pop(0))
        answer = process.stdout.read().decode()
    os.close(ours)
    assert process.returncode == 0, shown
    assert len(answer.splitlines()) == 1
    assert b"reply ..." in shown
    assert b"completed: 1 request, " in shown
    assert b"pydantic-ai v" not in shown
