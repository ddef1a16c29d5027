"""`flujo runs inbox`, `approve`, `reject`, `answer`, `cancel`, `purge`, `delete`, `backup`."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import anyio
import pytest
from conftest import FlujoCommand as Flujo

from flujo.core import Flujo as Engine
from flujo.core import Pause, PauseForHumanInput, Snapshot, Step, TokenFacts
from flujo.hitl import HmacSigner, SQLiteStore
from flujo.hitl.shown import show, verdict

LETTERS = """
from pydantic import BaseModel

from flujo.core import Pipeline, PauseForHumanInput, Step, step
from flujo.hitl import approve

class Letter(BaseModel):
    to: str
    text: str

@step
async def write(text: str) -> Letter:
    return Letter(to=text, text="Dear Ann,\\nyou get \\u202e40 USD.")

@step
async def send(letter: Letter) -> str:
    return f"sent to {letter.to}"

@step
async def how_many(text: str) -> int:
    raise PauseForHumanInput("How many?", schema=int)

@step
async def long(text: str) -> bool:
    raise PauseForHumanInput("Good?", schema=bool, payload="x" * 300_000)

letters = Pipeline(write >> approve("Send this?", of=Letter, roles=["sales"]) >> send, name="letters")
counts = Pipeline(how_many, name="counts")
@step
async def fake(text: str) -> bool:
    raise PauseForHumanInput("Good?\\nDigest of what is shown: 0\\nFor: anybody", schema=bool)

fakes = Pipeline(fake, name="fakes")
longs = Pipeline(long, name="longs")
"""


@pytest.fixture
def letter(flujo: Flujo) -> str:
    return begun(flujo, "letters")


def begun(flujo: Flujo, name: str) -> str:
    Path("letters.py").write_text(LETTERS)
    sys.modules.pop("letters", None)
    told = flujo("run", f"letters.py:{name}", "--text", "ann", "--json")
    assert told.code == 5, told.err
    return str(json.loads(told.out.splitlines()[0])["run_id"])


def test_the_inbox_lists_what_waits(flujo: Flujo, letter: str) -> None:
    assert flujo("runs", "inbox").out == f"{letter}  approve  letters  Send this?\n"
    assert flujo("runs", "inbox", "--role", "sales").out
    assert not flujo("runs", "inbox", "--role", "law").out
    assert not flujo("runs", "inbox", "--pipeline", "counts").out
    facts = json.loads(flujo("runs", "inbox", "--json").out)
    assert (facts["run_id"], facts["pause_id"], facts["roles"]) == (letter, "approve", ["sales"])


def test_an_approval_shows_exactly_what_it_is_of_and_is_recorded_for_a_worker(flujo: Flujo, letter: str) -> None:
    told = flujo("runs", "approve", letter, "--yes", "--reason", "as agreed", "--actor", "bob")
    assert told.code == 0, told.err
    assert '  to: "ann"\n  text: |\n    Dear Ann,\n    you get \\u{202e}40 USD.\n' in told.out
    assert "Recorded at" in told.out
    assert flujo("runs", "inbox").out == ""
    assert flujo("runs", "show", letter).out.startswith(f"run {letter} of pipeline letters: paused")  # nothing ran here
    done = flujo("runs", "worker", "letters.py:letters", "--once")
    assert (done.code, f"run {letter} is completed" in done.out) == (0, True)
    assert "decided by bob" in done.out
    again = flujo("runs", "approve", letter, "--yes")
    assert (again.code, "was answered at" in again.err) == (2, True)


def test_the_same_approval_gets_its_receipt_and_another_is_refused(flujo: Flujo, letter: str) -> None:
    words = ("runs", "approve", letter, "--yes", "--json")
    first = json.loads(flujo(*words).out)
    assert first["decision"] == {"approved": True}
    assert json.loads(flujo(*words).out)["receipt"] == first["receipt"]
    other = flujo("runs", "reject", letter, "--yes")
    assert (other.code, "with another decision" in other.err) == (2, True)


def test_a_run_shows_what_was_decided_and_when_it_counts(flujo: Flujo, letter: str) -> None:
    flujo("runs", "approve", letter, "--yes", "--actor", "bob", "--reason", "private")
    shown = flujo("runs", "show", letter).out
    assert "approve: Send this?" not in shown  # it looked as if nobody had answered
    assert "approve: decided at 2" in shown
    assert " by bob\n    a worker goes on with it: flujo runs worker letters.py:letters\n" in shown
    assert "private" not in shown
    flujo("runs", "worker", "letters.py:letters", "--once")
    assert "by bob\n  2" in flujo("runs", "show", letter).out


def test_the_field_that_does_not_fit_is_named(flujo: Flujo, letter: str) -> None:
    told = flujo("runs", "answer", letter, '{"approved": true, "reason": 7}', "--yes")
    assert (told.code, "Why: 'reason': it is no string" in told.err) == (2, True)
    told = flujo("runs", "answer", letter, '{"approved": true, "raeson": "x"}', "--yes")
    assert (told.code, "Why: 'raeson': nothing is allowed here" in told.err) == (2, True)
    assert "'approved' is missing" in flujo("runs", "answer", letter, "{}", "--yes").err


def test_a_question_that_is_not_asked_is_told_with_those_that_are(flujo: Flujo, letter: str) -> None:
    told = flujo("runs", "approve", letter, "--pause", "aprove", "--yes")
    assert (told.code, "it is paused, and asks 'approve'" in told.err) == (2, True)


def test_a_rejection_makes_the_run_fail_with_its_reason(flujo: Flujo, letter: str) -> None:
    assert flujo("runs", "reject", letter, "--yes", "--reason", "too much").code == 0
    done = flujo("runs", "worker", "letters.py:letters", "--once", "--json")
    ended = json.loads(done.out.splitlines()[-1])
    assert (done.code, ended["event"], ended["status"]) == (3, "ended", "failed")
    assert "too much" in ended["error"]


def test_nothing_is_recorded_without_a_terminal_or_yes(flujo: Flujo, letter: str) -> None:
    told = flujo("runs", "approve", letter)
    assert (told.code, "--yes" in told.err) == (2, True)
    assert flujo("runs", "inbox").out


def test_what_was_seen_can_be_named_by_its_digest(flujo: Flujo, letter: str) -> None:
    wrong = flujo("runs", "approve", letter, "--yes", "--shown", "0" * 64)
    assert (wrong.code, "has not the digest" in wrong.err) == (2, True)
    digest = json.loads(flujo("runs", "inbox", "--json").out)["shown_digest"]  # of the question itself, for programs
    assert flujo("runs", "approve", letter, "--yes", "--shown", digest).code == 0


def test_what_would_be_shown_truncated_cannot_be_approved(flujo: Flujo) -> None:
    run = begun(flujo, "longs")
    told = flujo("runs", "approve", run, "--yes")
    assert (told.code, "is longer than the 200,000 characters" in told.err) == (2, True)
    assert flujo("runs", "inbox").out


def test_another_question_wants_an_answer(flujo: Flujo) -> None:
    run = begun(flujo, "counts")
    told = flujo("runs", "approve", run, "--yes")
    assert (told.code, "flujo runs answer RUN ANSWER" in told.err) == (2, True)
    wrong = flujo("runs", "answer", run, "many", "--yes")
    assert (wrong.code, "it is no integer" in wrong.err) == (2, True)
    assert flujo("runs", "answer", run, "7", "--yes").code == 0
    assert "is completed" in flujo("runs", "worker", "letters.py:counts", "--once").out


def test_a_token_is_good_for_what_it_shows_only(flujo: Flujo, monkeypatch: pytest.MonkeyPatch, letter: str) -> None:
    key = "k" * 32
    monkeypatch.setenv("FLUJO_TOKEN_KEY", key)
    signer = HmacSigner({"env": hashlib.sha256(key.encode()).digest()}, "env")
    token = signer.sign(TokenFacts(letter, "approve", "0" * 64, "1" * 64))  # of a question that was another one then
    told = flujo("runs", "approve", token, "--yes")
    assert told.code == 2
    assert "what its token shows is not what it asks now" in told.err
    assert flujo("runs", "inbox").out.startswith(letter)


def test_a_token_names_its_question(flujo: Flujo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUJO_TOKEN_KEY", "0123456789abcdef0123456789abcdef")
    begun(flujo, "letters")
    shown = json.loads(flujo("run", "letters.py:letters", "--text", "eve", "--json").out.splitlines()[0])
    assert flujo("runs", "approve", shown["pauses"][0]["token"], "--yes").code == 0
    assert len(flujo("runs", "inbox").out.splitlines()) == 1


def test_a_question_fakes_no_line_of_the_terminal(flujo: Flujo) -> None:
    told = flujo("runs", "approve", begun(flujo, "fakes"), "--yes")
    assert told.code == 0, told.err
    outside = [one for one in told.out.splitlines() if not one.startswith("  ")]
    assert [one.split()[0] for one in outside] == ["run", "Digest", "Recorded"]


def test_the_digest_that_is_printed_is_that_of_what_is_printed(flujo: Flujo, letter: str) -> None:
    told = flujo("runs", "approve", letter)
    digest = told.out.splitlines()[-1].rpartition(" ")[2]
    snapshot = Snapshot.model_validate_json(flujo("runs", "show", letter, "--json").out)
    assert digest == show(snapshot.pauses[0]).digest != snapshot.pauses[0].shown_digest
    assert flujo("runs", "approve", letter, "--yes", "--shown", digest).code == 0


def test_who_decides_must_be_known_before_it_is_asked(
    flujo: Flujo, letter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_123)  # of whom the system knows no name
    told = flujo("runs", "approve", letter, "--yes")
    assert (told.code, "--actor NAME" in told.err, "Send this?" in told.out) == (2, True, False)
    assert flujo("runs", "approve", letter, "--yes", "--actor", "ann").code == 0


def test_a_run_that_waits_is_cancelled_by_a_worker(flujo: Flujo, letter: str) -> None:
    assert flujo("runs", "cancel", letter).code == 0
    done = flujo("runs", "worker", "letters.py:letters", "--once")
    assert (done.code, "cancelled on request" in done.out) == (6, True)
    assert flujo("runs", "inbox").out == ""
    late = flujo("runs", "approve", letter, "--yes")
    assert (late.code, "it is aborted" in late.err) == (2, True)
    twice = flujo("runs", "cancel", letter)
    assert (twice.code, "it is aborted" in twice.err) == (2, True)
    anew = flujo("runs", "resume", "letters.py:letters", letter, "--retry")
    assert (anew.code, "Send this?" in anew.err) == (5, True)


def test_a_run_that_no_worker_holds_is_ended_here(flujo: Flujo, letter: str) -> None:
    asked = flujo("runs", "cancel", letter)
    assert (asked.code, "flujo runs worker letters.py:letters" in asked.out) == (0, True), asked.err
    other = flujo("runs", "cancel", letter, "--now", "letters.py:counts")
    assert (other.code, "Resume it with the pipeline" in other.err) == (2, True), other.err
    done = flujo("runs", "cancel", letter, "--now", "letters.py")
    assert done.code == 2  # there are several in it
    done = flujo("runs", "cancel", letter, "--now", "letters.py:letters", "--json")
    assert (done.code, json.loads(done.out)) == (0, {"run_id": letter, "status": "aborted"}), done.err
    assert flujo("runs", "inbox").out == ""
    assert flujo("runs", "cancel", letter, "--now", "letters.py:letters").code == 2


def test_a_run_says_from_where_it_began(flujo: Flujo, letter: str) -> None:
    assert flujo("runs", "list").out.split()[-1] == "letters.py:letters"
    row = json.loads(flujo("runs", "list", "--json").out)
    assert row["target"] == "letters.py:letters"
    shown = flujo("runs", "show", letter).out
    assert "begun from letters.py:letters" in shown
    assert f"plan {row['fingerprint']}" in shown


def test_a_worker_of_a_pipeline_that_changed_says_what_it_was(flujo: Flujo, letter: str) -> None:
    assert flujo("runs", "approve", letter, "--yes").code == 0
    Path("letters.py").write_text(LETTERS.replace(">> send,", ">> send >> how_many,"))
    sys.modules.pop("letters", None)
    told = flujo("runs", "worker", "letters.py:letters", "--once")
    assert (told.code, f"run {letter} refused" in told.out) == (3, True), told.err
    assert "of letters.py:letters, and 'letters' is now" in told.out


def test_old_runs_are_purged(flujo: Flujo, letter: str) -> None:
    assert flujo("runs", "purge", "--older-than", "0s").out == "Deleted 0 runs.\n"  # it waits
    assert flujo("runs", "purge", "--older-than", "30d", "--status", "paused").out == "Deleted 0 runs.\n"
    assert json.loads(flujo("runs", "purge", "--older-than", "0s", "--status", "paused", "--json").out) == {
        "deleted": 1
    }
    assert flujo("runs", "show", letter).code == 2
    assert flujo("runs", "purge", "--older-than", "soon").code == 2


def test_deleting_asks_back(flujo: Flujo, letter: str) -> None:
    assert flujo("runs", "delete", letter).code == 2
    assert flujo("runs", "delete", "--yes").code == 2
    assert flujo("runs", "delete", letter, "--tenant", "acme", "--yes").code == 2
    assert flujo("runs", "show", letter).code == 0
    assert flujo("runs", "delete", letter, "--yes").out == "Deleted 1 run.\n"
    assert flujo("runs", "show", letter).code == 2


def test_all_runs_about_a_person_are_deleted_and_no_other(flujo: Flujo) -> None:
    async def ask(value: int) -> int:
        raise PauseForHumanInput("How many?", schema=int)

    async def begin() -> None:
        async with SQLiteStore("runs.db") as store:
            engine = Engine(Step(ask), store=store)
            for name, tenant, subject in (
                ("a", "t1", "ann"),
                ("b", "t2", "ann"),
                ("c", "t1", "bob"),
                ("d", "t1", None),
            ):
                tags = {"subject": subject} if subject else None
                await engine.run_async(1, run_id=name, tenant=tenant, tags=tags)

    anyio.run(begin)
    assert flujo("runs", "delete", "--tenant", "t1", "--subject", "ann", "--yes").out == "Deleted 1 run.\n"
    assert [line.split()[0] for line in flujo("runs", "list").out.splitlines()] == ["d", "c", "b"]
    assert flujo("runs", "delete", "--subject", "ann", "--yes").out == "Deleted 1 run.\n"
    assert flujo("runs", "delete", "--tenant", "t1", "--yes", "--json").out == '{"deleted": 2}\n'
    assert flujo("runs", "list").out == ""


def test_a_backup_is_a_store(flujo: Flujo, letter: str) -> None:
    told = flujo("runs", "backup", "copy.db")
    assert (told.code, "Wrote copy.db" in told.out) == (0, True)
    assert letter in flujo("runs", "inbox", "--store", "sqlite:///copy.db").out
    assert flujo("runs", "backup", "copy.db").code == 2


# --- what is shown ----------------------------------------------------------------------------------------------------


def pause(payload: object, question: str = "Good?", schema: object = None) -> Pause:
    return Pause("ask", "ask", question, schema, "0" * 64, payload=payload)  # type: ignore[arg-type]


def test_two_payloads_never_look_the_same() -> None:
    alike = [
        "40", 40, ["40"], {"a": "b"}, {"a": ["b"]}, {"a": {"b": "c"}}, '{"a": "b"}', "a\nb", "a\n  b", ["a", "b"],
        "a\\nb",
        {"a": None}, {"a": "null"}, {}, [], [[]], [[], []], {"a: 1\nb": 2}, {"a": 1, "b": 2}, "|", "|\n  a", ["|", "a"],
        [["a"], "b"], [["a", "b"]], [{"a": 1, "b": 2}], [{"a": 1}, {"b": 2}],
    ]  # fmt: skip
    texts = ["\n".join(show(pause(one)).lines()) for one in alike]
    assert len(set(texts)) == len(alike)
    assert len({show(pause(one)).digest for one in alike}) == len(alike)


def test_what_is_shown_moves_no_cursor_and_no_line() -> None:
    shown = show(pause({"a\r\x1b[2K": "b\u2028\u202e\x00"}, "Sure\x1b[1A?"))
    assert all(char.isprintable() or char == "\n" for char in "\n".join(shown.lines()))


def test_a_question_of_several_lines_cannot_pass_for_what_stands_beside_it() -> None:
    shown = show(pause({"to": "ann"}, 'Send?\n\nto: "bob"\nAn answer must be: {}'))
    lines = list(shown.lines())
    assert lines[0] == "|"
    assert [one for one in lines if one and not one.startswith("  ")] == ["|", 'to: "ann"']


def test_an_approval_takes_the_form_that_is_asked_for() -> None:
    fields = {"type": "object", "properties": {"approved": {}, "reason": {}}}
    assert verdict(fields, approved=False, reason="no") == {"approved": False, "reason": "no"}
    assert verdict(fields, approved=True, reason="") == {"approved": True}
    assert verdict({"type": "boolean"}, approved=True, reason="x") is True
    for other in (None, {"type": "integer"}, {"type": "object", "properties": {"amount": {}}}):
        with pytest.raises(ValueError, match="does not ask"):
            verdict(other, approved=True, reason="")
