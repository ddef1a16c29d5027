"""The same worker over HTTP, as Cloud Run and its like call it: `python -m flujo.backend_lambda.serve`.

It listens on `$PORT` (8080 where that is not set), takes a signed task by POST, and answers as on AWS. `GET` answers
200, for a health check. Nothing is let through that is not signed, but who may call it at all is the platform's work.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType
from typing import Any

from .worker import Call, LambdaWorker, worker_from

__all__ = ["MOST_BYTES", "Server", "main", "server_for"]

MOST_BYTES = 32 * 1024 * 1024
"""Bytes of a request; Cloud Run takes no more over HTTP/1."""

IDLE_S = 620.0
"""Seconds for which a connection may say nothing: longer than Google's front end keeps one that is idle."""

_log = logging.getLogger("flujo.backend_lambda")


class Server(ThreadingHTTPServer):
    """Waits for its threads when it is closed: a task that was begun is ended, and answered."""

    daemon_threads = False
    block_on_close = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], worker: LambdaWorker) -> None:
        super().__init__(address, _Handler)
        self.worker: LambdaWorker = worker
        self._open: set[socket.socket] = set()

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """Serve a connection in its thread."""
        assert isinstance(request, socket.socket)
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        """Close a connection."""
        assert isinstance(request, socket.socket)
        self._open.discard(request)
        super().shutdown_request(request)

    def stop(self) -> None:
        """Take nothing more. A connection that is only kept open would hold its thread, and so the end, for ever."""
        self.shutdown()
        for connection in [*self._open]:
            with suppress(OSError):  # it was closed by the other side
                connection.shutdown(socket.SHUT_RD)


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    server: Server

    def do_GET(self) -> None:
        """Say that the worker is there."""
        self._answer(200, {"status": "ok"})

    def do_POST(self) -> None:
        """Serve a task."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > 9 or int(length) > MOST_BYTES:  # int() refuses thousands of digits
            self.close_connection = True
            self._answer(413 if length.isdecimal() else 411, {"why": f"a task has a length of at most {MOST_BYTES}"})
            return
        try:
            event = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            self._answer(400, {"why": "a task is JSON"})
            return
        trace = self.headers.get("X-Cloud-Trace-Context", "")
        try:
            reply = self.server.worker.handle(event, Call(trace.partition("/")[0]))
        except Exception as error:  # of a store, or a fault of ours: who asked is told so, as AWS tells it
            _log.exception("task not answered")
            self._answer(500, {"why": type(error).__name__})
            return
        self._answer(403 if reply["status"] == "rejected" else 200, reply)

    def _answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the platform logs requests itself."""


def server_for(env: Mapping[str, str], worker: LambdaWorker | None = None) -> Server:
    """The server that an environment describes; `serve_forever()` runs it.

    Raises:
        ConfigurationError: The worker cannot be one; see `worker_from`.
    """
    return Server(("0.0.0.0", int(env.get("PORT", "8080"))), worker or worker_from(env))


def main() -> None:
    """Serve until SIGTERM, after which what was begun is ended: Cloud Run waits 10 s for that."""
    server = server_for(os.environ)

    def stop(number: int, frame: FrameType | None) -> None:
        # In a thread: it waits for serve_forever, which this handler has interrupted.
        threading.Thread(target=server.stop).start()

    signal.signal(signal.SIGTERM, stop)
    server.serve_forever()
    server.server_close()


if __name__ == "__main__":
    main()
