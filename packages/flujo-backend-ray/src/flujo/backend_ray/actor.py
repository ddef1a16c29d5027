"""What runs in the processes of the cluster. It is imported there, and never in the process of a run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib import import_module

import anyio

from flujo.core import GiveChunk, Worker

__all__ = ["StepActor"]


class StepActor:
    """One process of the cluster: tasks come and go as JSON; what it opens for them stays open between them.

    Args:
        paths: Where modules are found, beside where this Python looks anyway.
        worker: `package.module:name` of a function that makes the Worker; empty makes one without any settings.
    """

    def __init__(self, paths: Sequence[str], worker: str = "") -> None:
        sys.path += [path for path in paths if path not in sys.path]
        module, _, name = worker.partition(":")
        self._worker: Worker = getattr(import_module(module), name)() if worker else Worker(engine="ray")
        self._scopes: dict[int, anyio.CancelScope] = {}

    async def run(self, tasks: Sequence[tuple[int, str]]) -> AsyncIterator[list[tuple[int, str]]]:
        """Run tasks side by side; answers come as they are there, together those that came together.

        An answer is empty where its task was cancelled, or ended with what is no error of the step.
        """
        answers: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        self._scopes.update({number: anyio.CancelScope() for number, _ in tasks})  # a cancel may come before its turn
        running = [asyncio.ensure_future(self._one(number, task, answers)) for number, task in tasks]
        left = len(running)
        try:
            while left:
                there = [await answers.get()]
                while not answers.empty():
                    there.append(answers.get_nowait())
                left -= len(there)
                yield there
        finally:
            await self._ended(dict(zip((number for number, _ in tasks), running, strict=True)))

    async def _one(
        self, number: int, task: str, answers: asyncio.Queue[tuple[int, str]], give: GiveChunk | None = None
    ) -> None:
        answer = ""
        try:
            with self._scopes[number]:
                answer = await self._worker.execute(task, give)
        finally:
            del self._scopes[number]
            answers.put_nowait((number, answer))

    async def stream(self, number: int, task: str) -> AsyncIterator[tuple[bool, str]]:
        """Run a streaming step: its chunks, each when the one before was fetched, and its answer, which is the last.

        An item says whether it is the answer, which is as that of `run`.
        """
        self._scopes[number] = anyio.CancelScope()
        chunks: asyncio.Queue[str] = asyncio.Queue()
        wanted = asyncio.Semaphore(0)

        async def give(chunk: str) -> None:
            chunks.put_nowait(chunk)
            await wanted.acquire()

        answers: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        running = asyncio.ensure_future(self._one(number, task, answers, give))
        there: asyncio.Future[str] | None = None
        try:
            while True:
                there = asyncio.ensure_future(chunks.get())
                await asyncio.wait([there, running], return_when=asyncio.FIRST_COMPLETED)
                if not there.done():
                    break
                yield False, there.result()
                wanted.release()
            yield True, answers.get_nowait()[1]
        finally:
            if there is not None:
                there.cancel()
            await self._ended({number: running})

    async def _ended(self, running: Mapping[int, asyncio.Future[None]]) -> None:
        """Cancel what still runs where nobody reads its answers any more, and wait until its sources are closed."""
        left = {number: task for number, task in running.items() if not task.done()}
        for number in left:
            await self.cancel(number)
        if left:
            await asyncio.wait(left.values())

    async def cancel(self, number: int) -> None:
        """Cancel a task; `run` or `stream` gives its answer when it has ended."""
        if number in self._scopes:
            self._scopes[number].cancel()

    async def close(self) -> None:
        """Close what was opened."""
        await self._worker.aclose()
