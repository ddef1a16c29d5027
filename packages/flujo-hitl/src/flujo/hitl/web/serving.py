"""The app on a socket, with what else runs beside it, until it is told to end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import anyio
import uvicorn
from fastapi import FastAPI

from flujo.core import ConfigurationError
from flujo.hitl.errors import NeedsAsyncio

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

    Raises:
        ConfigurationError: The address cannot be listened at.
    """

    def __init__(self, app: FastAPI, host: str, port: int, hooks: Sequence[Webhooks] = ()) -> None:
        self._app = app
        self._hooks = hooks
        # no access log: the way back from a provider has a code in its URL. A proxy's word for who sends a request is
        # not put in the place of its own address, by which it is known; Access asks for it where tries are counted.
        config = uvicorn.Config(
            app, access_log=False, proxy_headers=False, server_header=False, log_level="warning",
            timeout_graceful_shutdown=5,
        )  # fmt: skip
        try:  # uvicorn would end the process
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family, backlog=config.backlog)
        except OSError as error:
            what, do = f"{host}:{port} cannot be served at", "Choose another --host or --port"
            raise ConfigurationError(what, error.strerror or str(error), do) from error
        self._server = _Server(config)

    def end(self) -> None:
        """Let what was asked be answered, and close what is followed; `run` returns then."""
        self._app.state.is_ending = True
        self._server.should_exit = True

    def close(self) -> None:
        """Let go of the address; `run` does so at its end."""
        self._socket.close()

    async def run(self) -> None:
        """Serve until `end`; raises NeedsAsyncio elsewhere than on asyncio."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise NeedsAsyncio from None
        async with anyio.create_task_group() as group:
            for hook in self._hooks:
                group.start_soon(hook.run)
            await self._server.serve([self._socket])
            group.cancel_scope.cancel()
