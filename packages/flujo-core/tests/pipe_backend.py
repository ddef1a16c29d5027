"""A backend of other processes, with nothing but JSON on the pipes to them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread

from flujo.core import Capabilities, Failure, StepExecutionRequest, StepOutcome, WorkerLost

HERE = Path(__file__).parent


class PipeProcess:
    """One worker process."""

    def __init__(self, plugins: str) -> None:
        path = os.pathsep.join([str(HERE), *filter(None, sys.path)])
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "pipe_worker.py"), *([plugins] if plugins else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def ask(self, line: str) -> str:
        """Send a line and wait for one; empty where the process went away."""
        self.tell(line)
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class PipeBackend:
    """Runs each attempt in a process of its own, which is used again for the next.

    Attributes:
        changed: What is made of an answer on its way, for tests of answers that cannot be trusted.
        sent: All tasks that left, as they were sent.
        busy: Processes that run something.
    """

    capabilities = Capabilities(remote=True)

    def __init__(self, *, plugins: str = "", changed: Callable[[str], str] = str) -> None:
        self._plugins = plugins
        self._idle: list[PipeProcess] = []
        self._all: list[PipeProcess] = []
        self._limiter: anyio.CapacityLimiter | None = None
        self.changed = changed
        self.sent: list[str] = []
        self.busy: list[PipeProcess] = []

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        self._limiter = self._limiter or anyio.CapacityLimiter(100)
        task = request.task().model_dump_json()
        self.sent.append(task)
        process = self._idle.pop() if self._idle else await anyio.to_thread.run_sync(self._started)
        self.busy.append(process)
        answer: list[str] = []
        over = anyio.Event()
        async with anyio.create_task_group() as group:

            async def ask() -> None:
                with anyio.CancelScope(shield=True):
                    answer.append(await anyio.to_thread.run_sync(process.ask, task, limiter=self._limiter))
                    over.set()

            group.start_soon(ask)
            try:
                await over.wait()
            except BaseException:  # a cancel: it ends there before it ends here
                with anyio.move_on_after(5, shield=True):
                    process.tell("cancel")
                    await over.wait()
                if not answer:
                    process.kill()
                raise
            finally:
                self.busy.remove(process)
                if answer and answer[0]:
                    self._idle.append(process)
        if not answer[0]:
            return StepOutcome(Failure(WorkerLost(request.ctx.step_path, "its process went away")))
        return request.outcome(self.changed(answer[0]))

    def _started(self) -> PipeProcess:
        self._all.append(PipeProcess(self._plugins))
        return self._all[-1]

    def close(self) -> None:
        for process in self._all:
            process.kill()
