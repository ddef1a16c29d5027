"""Webhooks: signed, tried again, once for each question, and never to an address inside."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anyio
import pytest
from hitl_trials import paused, question

from flujo.core import ConfigurationError
from flujo.hitl import SQLiteStore
from flujo.hitl.web.webhooks import Webhooks, waits

pytestmark = pytest.mark.anyio

SECRET = "0123456789abcdef0123456789abcdef"


def test_what_is_not_answered_is_tried_for_half_an_hour() -> None:
    assert 30 * 60 <= sum(waits(2.0)) < 40 * 60


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Receiver:
    """A real server that keeps what it is told, and answers with these codes, the last one for ever."""

    def __init__(self, codes: list[int]) -> None:
        self.told: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.told.append(({key.lower(): value for key, value in self.headers.items()}, body))
                self.send_response(codes.pop(0) if len(codes) > 1 else codes[0])
                self.send_header("location", f"http://127.0.0.1:{receiver.port}/elsewhere")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/hook"


@pytest.fixture
def receiver() -> Iterator[Callable[[list[int]], Receiver]]:
    made: list[Receiver] = []

    def make(codes: list[int]) -> Receiver:
        made.append(Receiver(codes))
        return made[-1]

    yield make
    for one in made:
        one.server.shutdown()
        one.server.server_close()


async def ran(store: SQLiteStore, url: str, until: Callable[[], object], **options: Any) -> None:
    hook = Webhooks(store, url, SECRET, "http://127.0.0.1:8321", poll_s=0.02, **options)
    async with anyio.create_task_group() as group:
        group.start_soon(hook.run)
        with anyio.fail_after(20):
            while not until():
                await anyio.sleep(0.01)
        await anyio.sleep(0.1)  # what would come twice comes now
        group.cancel_scope.cancel()


async def test_each_new_question_is_told_once_and_signed(store: SQLiteStore, receiver: Any) -> None:
    await paused(store, "r1", question("Private?", payload="private", roles=["law"]))
    here = receiver([204])
    await ran(store, here.url, lambda: here.told, allow_private=True)
    ((headers, body),) = here.told
    data = json.loads(body)["data"]
    assert (data["run_id"], data["pause_id"], data["roles"]) == ("r1", "ask", ["law"])
    assert data["url"] == "http://127.0.0.1:8321/question?run=r1&id=ask"
    assert b"rivate" not in body
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{mac}"
    assert headers["host"] == f"localhost:{here.port}"
    await ran(store, here.url, lambda: len(here.told) > 1, allow_private=True)  # after a new start
    assert here.told[1][0]["webhook-id"] == headers["webhook-id"]


async def test_what_was_not_taken_is_told_again_and_a_redirect_is_not_followed(
    store: SQLiteStore, receiver: Any
) -> None:
    await paused(store, "r1")
    here = receiver([500, 302, 200])
    await ran(store, here.url, lambda: len(here.told) == 3, allow_private=True)
    assert len({headers["webhook-id"] for headers, _ in here.told}) == 1
    assert len(here.told) == 3


async def test_an_address_inside_is_refused(
    store: SQLiteStore, receiver: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await paused(store, "r1")
    here = receiver([200])
    url = here.url.replace("http:", "https:")
    with caplog.at_level(logging.WARNING):
        await ran(store, url, lambda: "is private" in caplog.text)
    assert not here.told


@pytest.mark.parametrize(
    ("url", "secret", "why"),
    [
        ("http://example.org/hook", SECRET, "without TLS"),
        ("ftp://example.org", SECRET, "no http URL"),
        ("https://user:word@example.org", SECRET, "no http URL"),
        ("https://example.org/hook", "short", "fewer than 32"),
    ],
)
async def test_what_is_not_safe_is_refused(store: SQLiteStore, url: str, secret: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Webhooks(store, url, secret, "http://127.0.0.1:8321")
