"""`flujo run --stream`: what streaming steps give goes to stdout as it comes."""

from __future__ import annotations

import json
import os
import signal

FLOWS = """
import asyncio
from collections.abc import AsyncIterator
from flujo.core import Stage, StreamStep, step

async def words(topic: str) -> AsyncIterator[str]:
    for place in range(3):
        yield f"{topic}{place} "

async def endless(topic: str) -> AsyncIterator[str]:
    while True:
        yield "word "
        await asyncio.sleep(0.01)

async def halves(topic: str) -> AsyncIterator[str]:
    for piece in (chr(0xE9) + " ", chr(0xD83D), " ok"):
        yield piece

async def broken(topic: str) -> AsyncIterator[str]:
    yield "half "
    raise LookupError("no more")

@step
async def length(text: str) -> int:
    return len(text)

def streaming(function):
    return StreamStep((Stage.of(function.__name__, function),), name=function.__name__)

talk = streaming(words)
counted = streaming(words) >> length
forever = streaming(endless)
fails = streaming(broken)
cut = streaming(halves)
"""


def test_chunks_go_to_stdout_and_the_result_is_not_said_twice(cli) -> None:
    cli.write("talk.py", FLOWS)
    said = cli("run", "talk.py:talk", "--text", "w", "--stream")
    assert (said.code, said.out) == (0, "w0 w1 w2 \n")


def test_a_result_that_is_something_else_follows(cli) -> None:
    cli.write("talk.py", FLOWS)
    said = cli("run", "talk.py:counted", "--text", "w", "--stream")
    assert (said.code, said.out) == (0, "w0 w1 w2 \n9\n")


def test_several_items_have_headings(cli) -> None:
    cli.write("talk.py", FLOWS)
    cli.write("in/a.txt", "a")
    cli.write("in/b.txt", "b")
    said = cli("run", "talk.py:talk", "--input", "in", "--stream")
    assert said.out == "--- a.txt\na0 a1 a2 \n--- b.txt\nb0 b1 b2 \n"


def test_what_came_before_a_failure_stays(cli) -> None:
    cli.write("talk.py", FLOWS)
    said = cli("run", "talk.py:fails", "--text", "w", "--stream")
    assert said.code == 3
    assert said.out == "half \n"
    assert "no more" in said.err


def test_a_pipeline_without_streaming_steps_gives_its_result(cli) -> None:
    said = cli("run", "flows.py:check", "--text", "w", "--stream")
    assert (said.code, said.out) == (0, "w\n")


def test_what_stdout_cannot_take_is_escaped(cli) -> None:
    cli.write("talk.py", FLOWS)
    for more in (["--stream"], []):
        said = cli("run", "talk.py:cut", "--text", "w", *more)
        assert (said.code, said.out) == (0, "\u00e9 \\ud83d ok\n")


def test_json_stays_json_where_stdout_cannot_take_a_letter(cli) -> None:
    said = cli.process("run", "flows.py:check", "--text", "\u00e9 \U0001f600", "--json", PYTHONIOENCODING="ascii")
    assert said.code == 0, said.err
    assert json.loads(said.out.splitlines()[0])["output"] == "\u00e9 \U0001f600"


def test_it_goes_to_stdout_only_and_one_at_a_time(cli) -> None:
    for more in (["--json"], ["--out", "folder"], ["--concurrency", "2"]):
        said = cli("run", "flows.py:check", "--text", "w", "--stream", *more)
        assert said.code == 2
        assert "leave out --json" in said.err


def test_the_first_words_are_there_while_it_goes_on_and_an_interrupt_ends_it(cli) -> None:
    cli.write("talk.py", FLOWS)
    process = cli.start("run", "talk.py:forever", "--text", "w", "--stream")
    assert process.stdout is not None
    assert process.stdout.read(5) == b"word "
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 130
    assert b"interrupted" in err
    assert out.endswith(b"\n")
