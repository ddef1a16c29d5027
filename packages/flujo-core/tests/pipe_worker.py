"""A worker process that speaks JSON over its pipes.

A line to it is the number of a task and the task, `cancel`, or `more`; one from it is that number and an answer, or `+`
and a chunk, after which it waits for `more`.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module

import anyio
import anyio.to_thread

from flujo.core import Worker


async def main(plugins: str) -> None:
    module, _, name = plugins.partition(":")
    given = getattr(import_module(module), name)() if plugins else ()
    scopes: dict[str, anyio.CancelScope] = {}
    wanted: dict[str, anyio.Event] = {}

    def say(number: str, what: str) -> None:
        sys.stdout.write(f"{number} {what}\n")
        sys.stdout.flush()

    async def work(number: str, line: str) -> None:
        async def give(chunk: str) -> None:
            wanted[number] = anyio.Event()
            say(number, f"+{chunk}")
            await wanted[number].wait()

        answer = "cancelled"
        with anyio.CancelScope() as scopes[number]:
            answer = await worker.execute(line, give)
        say(number, answer)

    async with Worker(plugins=given, engine="pipe") as worker, anyio.create_task_group() as group:
        while line := await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            number, _, rest = line.rstrip("\n").partition(" ")
            if rest == "cancel":
                scopes[number].cancel()
            elif rest == "more":
                wanted[number].set()
            else:
                group.start_soon(work, number, rest)


if __name__ == "__main__":
    try:
        anyio.run(main, sys.argv[1])
    except BaseException:  # a thread reads on, and would keep the process alive
        traceback.print_exc()
        os._exit(70)
