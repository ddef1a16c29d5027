"""Streams over HTTP for FastAPI and Starlette: server-sent events and WebSockets (extra `web`).

Whoever goes away ends the run, unless it is to go on: the provider's call is closed, and nothing more is paid for.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

import anyio
from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from flujo.core import ConfigurationError, RunStream, StreamItem, StreamOpening
from flujo.streaming.events import as_data, as_json

__all__ = ["EventStream", "OnDisconnect", "serve_websocket"]

OnDisconnect = Literal["cancel", "detach"]
"""What becomes of a run whose client goes away: it ends, or it is run to its end and nobody is told."""


class EventStream(Response):
    """A run as server-sent events: `return EventStream(flujo.stream_async(question))` in a FastAPI route.

    Each item is one event, named by its type (`chunk`, `step_started`, `step_ended`, `usage`, `paused`, `result`), with
    JSON as its data; the last is `result`, whatever the end.

    Args:
        opening: What `flujo.stream_async` returned.
        on_disconnect: What becomes of the run when the client goes away; see OnDisconnect.
        keep_alive_s: Seconds of silence after which a comment is sent, so that proxies keep the connection.
        headers: More headers.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        opening: StreamOpening,
        *,
        on_disconnect: OnDisconnect = "cancel",
        keep_alive_s: float = 15.0,
        headers: dict[str, str] | None = None,
    ) -> None:
        _check(on_disconnect)
        self._opening = opening
        self._on_disconnect = on_disconnect
        self._keep_alive_s = keep_alive_s
        self._is_gone = False
        self._sent = False
        self.status_code = 200
        self.background: BackgroundTask | None = None
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no", **(headers or {})})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it, and then do the background tasks of its route; Starlette calls this."""
        async with self._opening as stream:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with anyio.create_task_group() as group:
                group.start_soon(self._watch, receive, stream)
                group.start_soon(self._keep_alive, send)
                await self._write(stream, send)
                group.cancel_scope.cancel()
        if self.background is not None:
            await self.background()

    async def _write(self, stream: RunStream, send: Send) -> None:
        async for item in stream:
            data = as_data(item)
            await self._send(send, f"event: {data['type']}\ndata: {as_json(data)}\n\n", stream)
        if not self._is_gone:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, text: str, stream: RunStream | None = None) -> None:
        if self._is_gone:
            return
        self._sent = True
        try:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
        except OSError:  # how servers say that the client is not there any more
            self._leave(stream)

    def _leave(self, stream: RunStream | None) -> None:
        self._is_gone = True
        if stream is not None and self._on_disconnect == "cancel":
            stream.cancel("its client went away")

    async def _watch(self, receive: Receive, stream: RunStream) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._leave(stream)

    async def _keep_alive(self, send: Send) -> None:
        while not self._is_gone:
            self._sent = False
            await anyio.sleep(self._keep_alive_s)
            if not self._sent:
                await self._send(send, ": still here\n\n")


async def serve_websocket(
    websocket: WebSocket, opening: StreamOpening, *, on_disconnect: OnDisconnect = "cancel"
) -> bool:
    """Send a run over an accepted WebSocket, one JSON text per item, and return when it has ended.

    It returns whether the client is still there, to be sent another run or `await websocket.close()`; to a client that
    has gone Starlette can send nothing, not even that, and raises.

    A client that sends `{"type": "cancel"}` ends the run (barge-in) and is sent the result; one that goes away ends it
    too, or not: see OnDisconnect.

    Args:
        websocket: The connection, after `accept()`.
        opening: What `flujo.stream_async` returned.
        on_disconnect: What becomes of the run when the client goes away.
    """
    _check(on_disconnect)
    gone = anyio.Event()

    async def listen(stream: RunStream) -> None:
        async for text in _received(websocket):
            if _type_of(text) == "cancel":
                stream.cancel("its client cancelled it")
        gone.set()
        if on_disconnect == "cancel":
            stream.cancel("its client went away")

    async with opening as stream, anyio.create_task_group() as group:
        group.start_soon(listen, stream)
        await _told(stream, websocket.send_text, gone)
        group.cancel_scope.cancel()
    return not gone.is_set()


async def _told(stream: RunStream, send: Callable[[str], Awaitable[None]], gone: anyio.Event) -> None:
    item: StreamItem
    async for item in stream:
        if not gone.is_set():
            try:
                await send(as_json(as_data(item)))
            except (WebSocketDisconnect, RuntimeError, OSError):  # it closed meanwhile; `listen` says what follows
                gone.set()


async def _received(websocket: WebSocket) -> AsyncIterator[str]:
    """What the client sends, until it goes away."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        yield str(message.get("text") or "")


def _type_of(text: str) -> Any:
    try:
        data = json.loads(text)
    except ValueError:  # it speaks another language; nothing is asked of us
        return None
    return data.get("type") if isinstance(data, dict) else None


def _check(on_disconnect: object) -> None:
    if on_disconnect not in ("cancel", "detach"):
        raise ConfigurationError(f"on_disconnect={on_disconnect!r} cannot be used", "it is 'cancel' or 'detach'")
