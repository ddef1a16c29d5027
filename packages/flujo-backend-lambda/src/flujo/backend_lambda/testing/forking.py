"""Processes of a function that are forked from a template, instead of started from nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

__all__ = ["Process", "Template", "kill"]

_SCRIPT = Path(__file__).with_name("template.py")


class Process(Protocol):
    """What is asked of a process, whoever started it."""

    @property
    def pid(self) -> int:
        """Its id, and that of its group."""

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs, a signal's number below 0."""

    async def wait(self) -> int:
        """Wait for its end."""


def kill(process: Process) -> None:
    """Kill it and all that it started."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


class _Forked:
    """A child of the template."""

    def __init__(self, pid: int) -> None:
        self.pid: int = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()

    async def wait(self) -> int:
        """Wait for its end."""
        await self._ended.wait()
        return self.returncode or 0

    def end(self, status: int) -> None:
        """Take note of it."""
        self.returncode = status
        self._ended.set()


class Template:
    """One process that has loaded what every process of a function loads, and forks them.

    Args:
        python: The interpreter.
        handler: The function's handler, which is not loaded here.
        modules: What is.
        folder: Where the function's code lies.
        env: What of the environment is the same for all processes of the function.
    """

    def __init__(self, python: str, handler: str, modules: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
        # -P: the script's folder is not the function's, and has modules with names of the standard library.
        self._command = (python, "-P", str(_SCRIPT), handler, *modules)
        self._folder = folder
        self._env = dict(env)
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._listening: asyncio.Task[None] | None = None
        self._asked: dict[int, asyncio.Future[_Forked | None]] = {}
        self._running: dict[int, _Forked] = {}
        self._last = 0
        self._is_gone = False

    async def fork(self, env: Mapping[str, str], log: Path) -> Process | None:
        """A new process with `env` besides the function's own, that writes to `log`; None where no template lives."""
        async with self._starting:
            if self._process is None and not self._is_gone:
                await self._start()
        if self._is_gone or self._process is None or self._process.stdin is None:
            return None
        self._last += 1
        asked: asyncio.Future[_Forked | None] = asyncio.get_running_loop().create_future()
        self._asked[self._last] = asked
        self._process.stdin.write(json.dumps({"id": self._last, "env": dict(env), "log": str(log)}).encode() + b"\n")
        return await asked

    async def close(self) -> None:
        """End it, and whom nobody else has ended."""
        self._is_gone = True
        if self._process is not None:
            kill(self._process)
            await self._process.wait()
        if self._listening is not None:
            await self._listening

    async def _start(self) -> None:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=self._folder,
            env=self._env,
            stdin=pipe,
            stdout=pipe,
            stderr=asyncio.subprocess.DEVNULL,  # why it cannot load, the process that is started instead says
            start_new_session=True,
        )
        self._listening = asyncio.ensure_future(self._listen(self._process))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            told = json.loads(line)
            if "pid" in told:
                forked = self._running[told["id"]] = _Forked(told["pid"])
                asked = self._asked.pop(told["id"])
                if asked.cancelled():
                    kill(forked)
                else:
                    asked.set_result(forked)
            elif told["id"] in self._running:
                self._running.pop(told["id"]).end(told["status"])
            elif not (asked := self._asked.pop(told["id"])).cancelled():  # it died before it was one
                asked.set_result(None)
        self._is_gone = True
        for forked in self._running.values():
            kill(forked)
            forked.end(-signal.SIGKILL)
        for asked in self._asked.values():
            if not asked.done():
                asked.set_result(None)
