"""The first signal ends the work well, the second at once. Real processes, real signals."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import subprocess
import sys
import threading
import time

import pytest

from flujo_cli.interrupts import Interrupts


def wait_for(process: subprocess.Popen[bytes], word: bytes) -> bytes:
    """Read the error stream up to `word`."""
    assert process.stderr is not None
    seen = b""
    while word not in seen:
        line = process.stderr.readline()
        assert line, f"the process ended before it said {word!r}: {seen.decode()}"
        seen += line
    return seen


def end(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=20)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_keeps_what_is_done_and_prints_the_summary(cli, number: signal.Signals) -> None:
    cli.write("cases.jsonl", '"one"\n"slow"\n"three"\n')
    process = cli.start("run", "flows.py:half_wait", "--input", "cases.jsonl", "--json", "--out", "results")
    wait_for(process, b"waiting")
    process.send_signal(number)
    code, out, err = end(process)
    assert code == 130
    *items, summary = [json.loads(line) for line in out.splitlines()]
    assert [item["status"] for item in items] == ["completed", "aborted"]
    assert summary["statuses"] == {"completed": 1, "aborted": 1, "not started": 1}
    assert (cli.folder / "results/cases-0001.txt").read_text() == "one\n"
    assert json.loads((cli.folder / "results/_summary.json").read_text())["exit_code"] == 130
    assert "2 of 3 not completed" in err
    assert "Traceback" not in err


def test_an_interrupted_run_that_is_kept_is_gone_on_with_by_the_line_that_is_printed(cli) -> None:
    cli.write(
        "slow_once.py",
        """
        from pathlib import Path
        import anyio
        from flujo.core import step
        @step
        async def count(text: str) -> int:
            print("counted", flush=True)
            return len(text)
        @step
        async def wait(value: int) -> int:
            if not Path("waited").exists():
                Path("waited").touch()
                print("waiting", flush=True)
                await anyio.sleep(60)
            return value + 1
        pipeline = count >> wait
        """,
    )
    process = cli.start("run", "slow_once.py", "--text", "abc", "--store", "sqlite:///runs.db")
    wait_for(process, b"waiting")
    process.send_signal(signal.SIGINT)
    code, _, err = end(process)
    assert code == 130
    (line,) = [line.strip() for line in err.splitlines() if "flujo runs resume" in line]
    assert line.endswith(" --retry")
    done = cli.process(*shlex.split(line)[1:])
    assert (done.code, done.out.strip()) == (0, "4")
    assert "counted" not in done.out + done.err


def test_the_second_signal_ends_the_process_at_once(cli) -> None:
    cli.write(
        "stubborn.py",
        """
        import anyio
        from flujo.core import step
        @step
        async def stubborn(text: str) -> str:
            print("waiting", flush=True)
            with anyio.CancelScope(shield=True):
                await anyio.sleep(60)
            return text
        """,
    )
    process = cli.start("run", "stubborn.py", "--text", "x")
    wait_for(process, b"waiting")
    process.send_signal(signal.SIGINT)
    wait_for(process, b"interrupted; ending")
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    code, _, err = end(process)
    assert code == 130
    assert "stopped at once" in err
    assert time.monotonic() - began < 5


def test_a_thread_that_cannot_be_stopped_does_not_keep_the_process(cli) -> None:
    process = cli.start("run", "flows.py:block", "--text", "x")
    wait_for(process, b"waiting")
    process.send_signal(signal.SIGTERM)
    code, _, err = end(process)
    assert code == 130
    assert "block" in err
    assert cli.process("run", "flows.py:block_briefly", "--text", "x").code == 3


def test_a_signal_while_the_file_is_imported_runs_nothing(cli) -> None:
    cli.write("slow_import.py", "import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    process = cli.start("run", "slow_import.py", "--text", "x")
    wait_for(process, b"importing")
    process.send_signal(signal.SIGINT)
    code, out, err = end(process)
    assert (code, out) == (130, "")
    assert "interrupted" in err
    assert "Traceback" not in err


def test_a_signal_wakes_a_loop_that_sleeps_whichever_thread_receives_it() -> None:
    """The kernel may hand a signal to another thread, or between the last check and the sleep."""

    def strike() -> None:
        time.sleep(0.2)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    async def work() -> float:
        ended = asyncio.Event()
        began = time.monotonic()
        with interrupts.telling(ended.set):
            thread = threading.Thread(target=strike)
            thread.start()
            await asyncio.wait_for(ended.wait(), 30)
        thread.join()
        return time.monotonic() - began

    before = signal.getsignal(signal.SIGTERM)
    with Interrupts() as interrupts:
        assert asyncio.run(work()) < 10
        assert interrupts.seen
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_reader_that_leaves_ends_the_work(cli) -> None:
    cli.write("cases.jsonl", '"one"\n"slow"\n')
    process = cli.start("run", "flows.py:half_wait", "--input", "cases.jsonl")
    assert process.stdout is not None
    with process:
        process.stdout.close()
        err = process.stderr.read().decode()
    code = process.returncode
    assert code == 130
    assert "BrokenPipe" not in err
    assert "1 aborted" in err or "1 not started" in err


LATE = """
import sys, threading, time
from flujo_cli import launcher, main
threading.Thread(target=time.sleep, args=(60,)).start()
leave, calls = main._leave, []
def interrupted(code, grace_s):
    calls.append(code)
    if len(calls) == 1:
        raise KeyboardInterrupt
    leave(code, grace_s)
main._leave = interrupted
sys.argv = ["flujo", "--version"]
launcher.main()
"""


def test_a_signal_between_the_end_of_the_work_and_the_wait_for_threads_ends_the_process_too() -> None:
    """Python then waited for the blocked thread, until it returned."""
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, "Traceback" in done.stderr) == (130, False)


def test_a_second_signal_while_a_thread_is_waited_for_leaves_no_traceback(cli) -> None:
    process = cli.start("run", "flows.py:block", "--text", "x")
    wait_for(process, b"waiting")
    process.send_signal(signal.SIGINT)
    wait_for(process, b"not completed")
    process.send_signal(signal.SIGINT)
    code, _, err = end(process)
    assert code == 130
    assert "Traceback" not in err
