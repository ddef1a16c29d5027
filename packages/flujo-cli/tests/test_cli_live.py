"""The display on a real terminal (a pty), and plain lines elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

SLOWLY = """
import asyncio
from flows import check, ask
from flujo.core import step

@step
async def linger(text: str) -> str:
    await asyncio.sleep(0.4)
    return text

pipeline = check >> linger >> ask
"""
ESCAPE = "\x1b"


def on_terminal(cli, *arguments: str, stdout: int | None = None, **environment: str) -> tuple[int, str]:
    """Run on a terminal; returns the exit code and everything the terminal received."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40", **environment}
    command = [sys.executable, "-m", "flujo_cli", *arguments]
    process = subprocess.Popen(
        command, cwd=cli.folder, stdin=theirs, stdout=theirs if stdout is None else stdout, stderr=theirs, env=env
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux: the other side is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    return process.wait(timeout=240), seen.decode()


def plain(text: str) -> str:
    """What a person reads: without escape sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_a_terminal_shows_items_steps_money_and_budget_while_they_change(cli) -> None:
    cli.write("slow_flow.py", SLOWLY)
    cli.write("cases.jsonl", '"one"\n"two"\n')
    code, seen = on_terminal(cli, "run", "slow_flow.py", "--input", "cases.jsonl", "--max-usd", "0.5")
    assert code == 0
    text = plain(seen)
    assert "0 of 2" in text
    assert "1 of 2" in text
    assert re.search(r"cases-000[12]: linger", text)
    assert "$0.01 spent, 10 tokens, 1 calls, of $0.5" in text
    assert "2 items: 2 completed" in text
    assert seen.count(f"{ESCAPE}[?25l") == seen.count(f"{ESCAPE}[?25h"), "the cursor must come back"
    assert "ONE" in text.replace("\r", "").split("\n")
    assert "[1/2]" not in text


def test_results_go_through_a_pipe_while_the_terminal_shows_progress(cli) -> None:
    with (cli.folder / "out.jsonl").open("wb") as file:
        code, seen = on_terminal(cli, "run", "flows.py", "--text", "x", "--json", stdout=file.fileno())
    assert code == 0
    assert (cli.folder / "out.jsonl").read_text().count("\n") == 2
    assert '"type"' not in seen


def test_no_color_and_a_dumb_terminal_are_respected(cli) -> None:
    _, seen = on_terminal(cli, "run", "flows.py", "--text", "x", NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", seen)
    _, seen = on_terminal(cli, "run", "flows.py", "--text", "x", TERM="dumb")
    assert ESCAPE not in seen
    assert "step ask: completed" in seen


def test_without_a_terminal_there_is_no_escape_sequence(cli) -> None:
    said = cli.process("run", "flows.py", "--text", "x", FORCE_COLOR="1", TERM="xterm-256color")
    assert f"{ESCAPE}[?25l" not in said.err
    assert "step ask: completed" in said.err
    assert ESCAPE not in cli.process("run", "flows.py", "--text", "x").err


def test_graph_draws_boxes_on_a_terminal(cli) -> None:
    code, seen = on_terminal(cli, "graph", "flows.py")
    assert code == 0
    assert "text <- check" in plain(seen)
    assert "flowchart" not in seen


def test_a_terminal_shows_that_a_run_waits_for_a_human(cli) -> None:
    cli.write("slow_flow.py", SLOWLY)
    cli.write(
        "asking.py",
        """
        from flujo.core import PauseForHumanInput, step
        from slow_flow import linger
        @step(pauses=True)
        async def approve(text: str) -> bool:
            raise PauseForHumanInput("Good?", schema=bool)
        pipeline = linger >> approve
        """,
    )
    cli.write("cases.jsonl", '"one"\n"two"\n')
    code, seen = on_terminal(cli, "run", "asking.py", "--input", "cases.jsonl")
    assert code == 5
    text = plain(seen)
    assert "1 of 2, 1 paused" in text
    assert "cases-0002: linger  (0 of 2 steps done)" in text
    assert "cases-0001: step approve asks a human" in text
    assert "2 items: 2 paused" in text
