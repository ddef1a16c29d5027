"""A backend of another process, with nothing but JSON on the pipes to it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread

import anyio
import anyio.to_thread

from flujo.core import Capabilities, Failure, StepExecutionRequest, StepOutcome, WorkerLost

HERE = Path(__file__).parent


class PipeProcess:
    """A worker process, which works on any number of tasks at a time."""

    def __init__(self, plugins: str = "") -> None:
        path = os.pathsep.join([str(HERE), *filter(None, sys.path)])
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "pipe_worker.py"), plugins],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self.is_over = False
        self._numbers = count(1)
        self._lock = Lock()
        self._asked: dict[str, SimpleQueue[str]] = {}
        self._reader = Thread(target=self._read)
        self._reader.start()

    def ask(self, task: str) -> tuple[str, SimpleQueue[str]]:
        """Send a task; its number, and where its answer comes, empty where the process goes away."""
        number, answers = str(next(self._numbers)), SimpleQueue[str]()
        with self._lock:
            self._asked[number] = answers
            if self.is_over:
                answers.put("")
        self.tell(number, task)
        return number, answers

    def tell(self, number: str, what: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._lock:
            self.process.stdin.write(f"{number} {what}\n")
            self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            number, _, answer = line.rstrip("\n").partition(" ")
            self._asked[number].put(answer)
        with self._lock:
            self.is_over = True
            for answers in self._asked.values():
                answers.put("")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class Pool:
    """The worker process, and the next when it is gone; it knows nothing of the runs that it works for."""

    def __init__(self, plugins: str = "") -> None:
        self._plugins = plugins
        self.all: list[PipeProcess] = []

    @property
    def process(self) -> PipeProcess:
        if not self.all or self.all[-1].is_over:
            self.all.append(PipeProcess(self._plugins))
        return self.all[-1]

    def close(self) -> None:
        for process in self.all:
            process.kill()


class PipeBackend:
    """Runs steps in a worker process.

    Attributes:
        changed: What is made of an answer on its way, for tests of answers that cannot be trusted.
        sent: All tasks, as they were sent.
    """

    capabilities = Capabilities(remote=True, streams=True)

    def __init__(self, pool: Pool, *, changed: Callable[[str], str] = str) -> None:
        self.pool = pool
        self.changed = changed
        self.sent: list[str] = []

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        self.sent.append(request.task().model_dump_json())
        process = self.pool.process
        number, answers = process.ask(self.sent[-1])
        limiter = anyio.CapacityLimiter(1)
        try:
            while True:
                answer = await anyio.to_thread.run_sync(answers.get, abandon_on_cancel=True, limiter=limiter)
                if not answer.startswith("+"):
                    break
                await request.give(self.changed(answer[1:]))
                process.tell(number, "more")
        except BaseException:  # a cancel, or a chunk that does not fit: it ends there before it ends here
            over = process._asked[number] = SimpleQueue[str]()
            while not answers.empty():  # it had ended, and its answer waited
                over.put(answers.get())
            answers.put("")  # lets the thread go
            process.tell(number, "cancel")
            with anyio.CancelScope(shield=True):
                while (await anyio.to_thread.run_sync(lambda: over.get(timeout=10))).startswith("+"):
                    pass
            raise
        if not answer:
            return StepOutcome(Failure(WorkerLost(request.ctx.step_path, "its process went away")))
        return request.outcome(self.changed(answer))
