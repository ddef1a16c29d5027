"""Just enough HTTP/1.1 for boto3 and the runtime client to talk to: one request after the other on a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["Handle", "Reply", "Request", "serve"]

_MOST = 64 * 1024 * 1024
"""Bytes of a body; enough to send what the service must refuse, small enough not to fill the memory."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request, read to its end. Names of headers are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; the length is added."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The answer as it goes out."""
        phrase = HTTPStatus(self.status).phrase
        # A 204 has no body and must not announce one.
        length = {} if self.status == HTTPStatus.NO_CONTENT else {"Content-Length": str(len(self.body))}
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{k}: {v}" for k, v in {**self.headers, **length}.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


Handle = Callable[[Request], Awaitable[Reply]]


async def serve(handle: Handle) -> tuple[asyncio.Server, int]:
    """Listen on a free port of this machine; close the server when done."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await _read(reader, writer)) is not None:
                writer.write((await handle(request)).encode())
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side is gone: a client that gave up, or a process that was killed
        except asyncio.CancelledError:
            pass  # the server stops; nobody waits for this task, and asyncio 3.11 logs a cancelled one as a fault
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, backlog=1024)
    return server, server.sockets[0].getsockname()[1]


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    first = await reader.readline()
    if not first.strip():
        return None
    method, target, _ = first.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    while line := (await reader.readline()).decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    length = int(headers.get("content-length", "0"))
    if length > _MOST:
        raise ConnectionError(f"a body of {length} bytes is more than this server reads")
    body = await reader.readexactly(length)
    parts = urlsplit(target)
    query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    return Request(method, unquote(parts.path), query, headers, body)
