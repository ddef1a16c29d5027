"""`flujo run --store` and `flujo runs`: what a user does with runs that are kept."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import FlujoCommand as Flujo

from flujo.hitl.printing import pasted


def paused(flujo: Flujo) -> str:
    told = flujo("run", "flows.py:pay", "--text", "abc")
    assert told.code == 5
    assert "flujo runs resume flows.py:pay " in told.err
    return told.err.partition("flujo runs resume flows.py:pay ")[2].split()[0]


def test_what_is_told_of_a_paused_run_can_be_pasted(flujo: Flujo) -> None:
    told = flujo("run", "flows.py:pay", "--text", "abc", "--store", "sqlite:///other.db")
    command = shlex.split(told.err.splitlines()[-1])
    assert command[:3] == ["flujo", "runs", "resume"]
    nothing = flujo(*command[1:])  # an answer is typed, never pasted with it
    assert (nothing.code, "requires an argument" in nothing.err) == (2, True)
    done = flujo(*command[1:], "7")
    assert (done.code, done.out) == (0, "paid 7\n")


def test_a_run_that_pauses_again_says_how_it_goes_on(flujo: Flujo) -> None:
    Path("twice.py").write_text(TWICE)
    store = ("--store", "sqlite:///other.db")
    told = flujo("run", "twice.py", "--text", "abc", *store)
    for answer in ("1", "2"):
        command = shlex.split(told.err.splitlines()[-1])
        assert command[:4] == ["flujo", "runs", "resume", "twice.py"]
        told = flujo(*command[1:], answer)
    assert (told.code, told.out) == (0, "[1, 2]\n")
    sys.modules.pop("twice", None)


TWICE = """
from flujo.core import RunContext, step

@step(pauses=True)
async def ask(ctx: RunContext, text: str) -> list[int]:
    first = await ctx.ask("How many?", schema=int)
    return [first, await ctx.ask(f"{first}, and then?", schema=int)]
"""


def test_to_look_at_a_store_that_is_not_there_makes_none(flujo: Flujo) -> None:
    for words in (
        ["list"],
        ["inbox"],
        ["show", "r"],
        ["approve", "r"],
        ["purge", "--older-than", "1d"],
        ["cancel", "r"],
    ):
        told = flujo("runs", *words, "--store", "sqlite:///away/typo.db")
        assert told.code == 2
        assert "no such file" in told.err
    assert not Path("away").exists()


@pytest.mark.parametrize(
    "words", [["resume", "flows.py:pay", "r"], ["recover", "flows.py:pay"], ["replay", "flows.py:pay", "r"]]
)
def test_to_go_on_in_a_store_that_is_not_there_makes_none(flujo: Flujo, words: list[str]) -> None:
    told = flujo("runs", *words, "--store", "sqlite:///away/typo.db")
    assert (told.code, "no such file" in told.err) == (2, True)
    assert not Path("away").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["runs", "list"],
        ["runs", "show", "r"],
        ["runs", "resume", "flows.py:pay", "r"],
        ["runs", "recover", "flows.py:pay"],
        ["runs", "replay", "flows.py:pay", "r"],
        ["runs", "worker", "flows.py:pay", "--once"],
        ["hitl", "serve"],
        ["hitl", "serve", "flows.py:pay"],
    ],
)
def test_an_empty_file_is_not_taken_for_a_new_store(
    flujo: Flujo, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse battery staple\n"))
    flujo("hitl", "user", "add", "ann", "--password-stdin")
    Path("empty.db").touch()  # one of its own: who kept runs in this process may still be closing theirs
    told = flujo(*words, "--store", "sqlite:///empty.db")
    assert (told.code, "'empty.db'" in told.err, "it is empty" in told.err, "backup" in told.err) == (
        2,
        True,
        True,
        True,
    )
    assert Path("empty.db").stat().st_size == 0


def test_a_worker_may_be_there_before_the_first_run(flujo: Flujo) -> None:
    told = flujo("runs", "worker", "flows.py:pay", "--once")
    assert (told.code, "There is no 'runs.db' yet" in told.err) == (0, True)
    assert paused(flujo)


def test_a_token_names_its_run_and_is_not_printed(flujo: Flujo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUJO_TOKEN_KEY", "k" * 32)
    ran = flujo("run", "flows.py:pay", "--text", "abc", "--json")
    (pause,) = json.loads(ran.out.splitlines()[0])["pauses"]
    shown = flujo("runs", "show", pause["token"])
    assert shown.code == 0
    replayed = flujo("runs", "replay", "flows.py:pay", pause["token"])
    assert replayed.code == 0
    assert pause["token"] not in shown.out + replayed.out
    for words in (["cancel", pause["token"]], ["delete", pause["token"], "--yes"]):
        assert "is the id of a run" in flujo("runs", *words).err


def test_a_command_to_be_pasted_tells_no_password() -> None:
    url = "postgresql://ann:secret@db/flujo?sslpassword=secret&sslmode=require"
    told = "flujo runs worker flows.py --store 'postgresql://ann@db/flujo?sslmode=require'"
    assert pasted("flujo", "runs", "worker", "flows.py", url=url) == told


def test_a_run_that_paused_goes_on_with_an_answer(flujo: Flujo) -> None:
    one = paused(flujo)
    shown = flujo("runs", "show", one)
    assert shown.code == 0
    assert "ask: Pay 3?" in shown.out
    assert "private" not in shown.out
    done = flujo("runs", "resume", "flows.py:pay", one, "--answer", "7")
    assert (done.code, done.out) == (0, "paid 7\n")


def test_no_answer_is_no_answer(flujo: Flujo) -> None:
    Path("any.py").write_text(ANY)
    told = flujo("run", "any.py", "--text", "abc", "--json")
    one = json.loads(told.out.splitlines()[0])["run_id"]
    none = flujo("runs", "resume", "any.py", one)
    assert (none.code, "'ask' waits for an answer" in none.err, "--answer" in none.err) == (2, True, True)
    assert flujo("runs", "resume", "any.py", one, "--answer", "null").out == "null\n"  # one may say so
    sys.modules.pop("any", None)


ANY = """
from typing import Any
from flujo.core import PauseForHumanInput, step

@step(pauses=True)
async def ask(text: str) -> Any:
    raise PauseForHumanInput("What of it?")
"""


def test_an_answer_that_is_recorded_is_not_asked_for_again(flujo: Flujo) -> None:
    one = paused(flujo)
    assert flujo("runs", "answer", one, "7", "--yes").code == 0
    said = flujo("runs", "resume", "flows.py:pay", one)
    assert (said.code, "waits for an answer" in said.err, "flujo runs worker" in said.err) == (2, False, True)


def test_an_answer_counts_once(flujo: Flujo) -> None:
    one = paused(flujo)
    assert flujo("runs", "resume", "flows.py:pay", one, "--answer", "7").code == 0
    again = flujo("runs", "resume", "flows.py:pay", one, "--answer", "7", "--pause", "ask")
    assert (again.code, "with the same decision" in again.err) == (2, True)
    other = flujo("runs", "resume", "flows.py:pay", one, "--answer", "8", "--pause", "ask")
    assert (other.code, "with another decision" in other.err) == (2, True)


def test_an_answer_that_does_not_fit_leaves_the_question_open(flujo: Flujo) -> None:
    one = paused(flujo)
    wrong = flujo("runs", "resume", "flows.py:pay", one, "--answer", "many")
    assert (wrong.code, "does not fit" in wrong.err) == (2, True)
    assert flujo("runs", "resume", "flows.py:pay", one, "--answer", "7").code == 0


def test_another_pipeline_is_refused(flujo: Flujo) -> None:
    one = paused(flujo)
    told = flujo("runs", "resume", "flows.py:fails", one, "--answer", "7")
    assert (told.code, "is another or has changed" in told.err) == (2, True)


def test_a_run_that_failed_is_tried_again(flujo: Flujo) -> None:
    told = flujo("run", "flows.py:fails", "--text", "abc", "--json")
    one = json.loads(told.out.splitlines()[0])["run_id"]
    assert told.code == 3
    refused = flujo("runs", "resume", "flows.py:fails", one)
    assert (refused.code, "Pass retry=True" in refused.err) == (2, True)
    Path("again").touch()
    done = flujo("runs", "resume", "flows.py:fails", one, "--retry", "--json")
    assert (done.code, json.loads(done.out)["output"]) == (0, "paid 3")


SLOW = """
import anyio
from pathlib import Path
from flujo.core import step

@step
async def slow(text: str) -> str:
    await anyio.sleep(0 if Path("quick").exists() else 20)
    return text
"""


def test_what_its_deadline_ended_goes_on_with_another(flujo: Flujo) -> None:
    Path("slow.py").write_text(SLOW)
    told = flujo("run", "slow.py", "--text", "abc", "--deadline", "0.1", "--json")
    one = json.loads(told.out.splitlines()[0])["run_id"]
    again = flujo("runs", "resume", "slow.py", one, "--retry", "--deadline", "0.05")
    assert (told.code, again.code, "0.05 s" in again.err) == (told.code, told.code, True), again.err
    Path("quick").touch()
    done = flujo("runs", "resume", "slow.py", one, "--retry", "--deadline", "60")
    assert (done.code, done.out) == (0, "abc\n"), done.err
    assert flujo("runs", "resume", "slow.py", one, "--retry", "--deadline", "-1").code == 2
    sys.modules.pop("slow", None)


def test_a_run_that_was_killed_is_recovered(flujo: Flujo, tmp_path: Path) -> None:
    program = "import sys; from flujo_cli.main import run; run(['run', 'flows.py:hangs', '--text', 'abcd'])"
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "hanging" not in (line := process.stderr.readline()):
            assert line
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGKILL)
    assert "left behind" in flujo("runs", "recover", "flows.py:pay").err
    Path("again").touch()
    told = flujo("runs", "recover", "flows.py:hangs")
    assert (told.code, told.out) == (0, "paid 4\n")
    assert "left behind" in flujo("runs", "recover", "flows.py:hangs").err


def test_a_run_is_replayed(flujo: Flujo) -> None:
    one = paused(flujo)
    assert flujo("runs", "resume", "flows.py:pay", one, "--answer", "7").code == 0
    assert flujo("runs", "replay", "flows.py:pay", one).code == 0


def test_what_a_run_did_is_there_as_json(flujo: Flujo) -> None:
    facts = json.loads(flujo("runs", "show", paused(flujo), "--json").out)
    assert [row["path"] for row in facts["journal"]] == ["measure", "ask"]
    assert facts["checkpoint"]["pauses"][0]["payload"] == {"private": "words"}


def test_the_store_may_stand_in_the_settings(flujo: Flujo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLUJO_STORE")
    Path("pyproject.toml").write_text('[tool.flujo]\nstore = "sqlite:///deep/kept.db"\n')
    one = paused(flujo)
    assert Path("deep/kept.db").exists()
    assert flujo("runs", "show", one).code == 0
    Path("pyproject.toml").write_text("[tool.flujo]\nstore = 7\n")
    assert flujo("runs", "show", one).code == 2


def test_without_a_store_it_says_how_to_name_one(flujo: Flujo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLUJO_STORE")
    told = flujo("runs", "show", "x")
    assert (told.code, "--store sqlite:///runs.db" in told.err) == (2, True)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://here", "no plugin knows stores of 'redis'"),
        ("sqlite://host/runs.db", "it names no file"),
        ("sqlite:///", "it names no file"),
        ("sqlite:///a.db?mode=ro", "no option 'mode'"),
        ("sqlite:///a.db?durability=some", "not 'some'"),
    ],
)
def test_a_url_that_names_no_store_is_refused(flujo: Flujo, url: str, why: str) -> None:
    told = flujo("run", "flows.py:pay", "--text", "abc", "--store", url)
    assert (told.code, why in told.err) == (2, True)


def test_an_unknown_run_is_told(flujo: Flujo) -> None:
    paused(flujo)
    told = flujo("runs", "show", "nobody")
    assert (told.code, "does not know it" in told.err, "resumed" in told.err) == (2, True, False)


def test_the_help_teaches(flujo: Flujo) -> None:
    told = flujo("runs", "--help")
    assert told.code == 0
    assert "flujo runs resume flows.py" in told.out


def test_tokens_of_a_store_by_url_are_signed(flujo: Flujo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUJO_TOKEN_KEY", "0123456789abcdef0123456789abcdef")
    told = flujo("run", "flows.py:pay", "--text", "abc", "--json")
    token = json.loads(told.out.splitlines()[0])["pauses"][0].get("token")
    assert token is not None
    assert token.startswith("fp1.env.")
    assert flujo("runs", "resume", "flows.py:pay", token, "--answer", "7").out == "paid 7\n"
