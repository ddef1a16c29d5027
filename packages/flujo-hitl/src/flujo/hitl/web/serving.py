"""The app on a socket, with what else runs beside it, until it is told to end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import anyio
import uvicorn
from fastapi import FastAPI

from .webhooks import Webhooks

__all__ = ["Serving"]


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the command, which has a worker to end too."""
        yield


class Serving:
    """Serves an app.

    Args:
        app: The app.
        host: The address to listen at.
        port: The port.
        hooks: Who is told of new questions.
    """

    def __init__(self, app: FastAPI, host: str, port: int, hooks: Sequence[Webhooks] = ()) -> None:
        self._app = app
        self._hooks = hooks
        # no access log: the way back from a provider has a code in its URL. Its word for who sends a request is not
        # believed: a proxy that signs people in is known by the address of its own.
        config = uvicorn.Config(
            app, host=host, port=port, access_log=False, proxy_headers=False, server_header=False, log_level="warning",
            timeout_graceful_shutdown=5,
        )  # fmt: skip
        self._server = _Server(config)

    def end(self) -> None:
        """Let what was asked be answered, and close what is followed; `run` returns then."""
        self._app.state.is_ending = True
        self._server.should_exit = True

    async def run(self) -> None:
        """Serve until `end`."""
        async with anyio.create_task_group() as group:
            for hook in self._hooks:
                group.start_soon(hook.run)
            await self._server.serve()
            group.cancel_scope.cancel()
