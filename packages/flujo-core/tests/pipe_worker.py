"""A worker process that speaks JSON lines over its pipes: one task at a time, and a line `cancel` ends it."""

from __future__ import annotations

import sys

import anyio
import anyio.to_thread

from flujo.core import Worker


async def main() -> None:
    plugins = []
    if len(sys.argv) > 1:
        from importlib import import_module

        module, name = sys.argv[1].split(":")
        plugins = getattr(import_module(module), name)()
    async with Worker(plugins=plugins, engine="pipe") as worker, anyio.create_task_group() as group:
        scope: anyio.CancelScope | None = None

        async def work(line: str, scope: anyio.CancelScope) -> None:
            answer = "cancelled"
            with scope:
                answer = await worker.execute(line)
            sys.stdout.write(answer + "\n")
            sys.stdout.flush()

        while line := await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            if line == "cancel\n":
                assert scope is not None
                scope.cancel()
            else:
                scope = anyio.CancelScope()
                group.start_soon(work, line, scope)
        group.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
