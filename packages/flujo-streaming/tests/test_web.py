"""Server-sent events and WebSockets on a real server: what a client is sent, and what becomes of a run it leaves."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from threading import Thread

import anyio
import fastapi
import httpx
import pytest
import uvicorn
from starlette.testclient import TestClient
from websockets.sync.client import connect

from flujo.core import ConfigurationError, Flujo
from flujo.streaming import StreamingStep
from flujo.streaming.web import EventStream, serve_websocket


class Talker:
    """Talks slowly, and knows whether it was closed."""

    def __init__(self) -> None:
        self.made = self.closed = 0

    async def talk(self, number: int) -> AsyncIterator[str]:
        try:
            for place in range(number):
                await anyio.sleep(0.005)
                self.made += 1
                yield f"w{place} "
        finally:
            self.closed += 1


def test_the_background_tasks_of_a_route_are_done_when_its_stream_has_ended():
    app, talker, done = fastapi.FastAPI(), Talker(), []
    flujo = Flujo(StreamingStep(talker.talk, name="talk"))

    @app.get("/talk")
    async def talk(tasks: fastapi.BackgroundTasks) -> EventStream:
        tasks.add_task(lambda: done.append(talker.closed))
        return EventStream(flujo.stream_async(3))

    answer = TestClient(app).get("/talk")
    assert list(events(iter(answer.text.splitlines())))[-1]["type"] == "result"
    assert done == [1]


@contextmanager
def served(talker: Talker, on_disconnect: str = "cancel", keep_alive_s: float = 15) -> Iterator[str]:
    app = fastapi.FastAPI()
    flujo = Flujo(StreamingStep(talker.talk, name="talk"))

    @app.get("/talk/{number}")
    async def talk(number: int) -> EventStream:
        opening = flujo.stream_async(number)
        return EventStream(opening, on_disconnect=on_disconnect, keep_alive_s=keep_alive_s)

    @app.websocket("/ws/{number}")
    async def ws(websocket: fastapi.WebSocket, number: int) -> None:
        await websocket.accept()
        if await serve_websocket(websocket, flujo.stream_async(number), on_disconnect=on_disconnect):
            await websocket.close()

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="auto"))
    thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


def events(lines: Iterator[str]) -> Iterator[dict]:
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def until(condition, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_a_client_is_sent_each_item_as_an_event():
    talker = Talker()
    with served(talker) as url, httpx.stream("GET", f"{url}/talk/3") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        got = list(events(response.iter_lines()))
    assert [event["type"] for event in got] == ["step_started", "chunk", "chunk", "chunk", "step_ended", "result"]
    assert [event["value"] for event in got[1:4]] == ["w0 ", "w1 ", "w2 "]
    assert (got[-1]["status"], got[-1]["output"]) == ("completed", "w0 w1 w2 ")


def test_half_a_pair_reaches_the_client_who_joins_it():
    class Cutting(Talker):
        async def talk(self, number: int) -> AsyncIterator[str]:
            for piece in ("\u00e9 ", "\ud83d", "\ude00"):  # a model's pieces may end within a character
                yield piece

    with served(Cutting()) as url, httpx.stream("GET", f"{url}/talk/1") as response:
        got = list(events(response.iter_lines()))
    told = "".join(event["value"] for event in got if event["type"] == "chunk")
    assert told.encode("utf-16", "surrogatepass").decode("utf-16") == "\u00e9 \U0001f600"
    assert got[-1]["status"] == "completed"


def test_what_is_no_number_of_json_is_sent_as_null():
    class Measuring(Talker):
        async def talk(self, number: int) -> AsyncIterator[float]:
            for value in (1.5, float("nan"), float("-inf")):
                yield value

    with served(Measuring()) as url, httpx.stream("GET", f"{url}/talk/1") as response:
        got = list(events(response.iter_lines()))
    assert [event["value"] for event in got if event["type"] == "chunk"] == [1.5, None, None]
    assert got[-1]["output"] == [1.5, None, None]


def test_check_23_a_client_that_goes_away_ends_its_run():
    talker = Talker()
    with served(talker) as url:
        with httpx.stream("GET", f"{url}/talk/100000") as response:
            for event in events(response.iter_lines()):
                if event["type"] == "chunk":
                    break
        assert until(lambda: talker.closed == 1)
        assert talker.made < 5000


def test_check_23_a_run_that_is_detached_goes_on_without_its_client():
    talker = Talker()
    with served(talker, on_disconnect="detach") as url:
        with httpx.stream("GET", f"{url}/talk/60") as response:
            for event in events(response.iter_lines()):
                if event["type"] == "chunk":
                    break
        assert until(lambda: talker.closed == 1)
    assert talker.made == 60


def test_silence_is_broken_for_proxies():
    class Silent(Talker):
        async def talk(self, number: int) -> AsyncIterator[str]:
            await anyio.sleep(0.3)
            yield "late"

    with served(Silent(), keep_alive_s=0.05) as url, httpx.stream("GET", f"{url}/talk/1") as response:
        lines = list(response.iter_lines())
    assert lines.count(": still here") >= 2


class Socket:
    """A WebSocket as an ASGI server gives it, played by hand: the client is the test."""

    def __init__(self) -> None:
        self.sent: list[dict] = []
        self.incoming: asyncio.Queue[dict] = asyncio.Queue()

    async def receive(self) -> dict:
        return await self.incoming.get()

    async def send(self, message: dict) -> None:
        if message["type"] == "websocket.send":
            self.sent.append(json.loads(message["text"]))


async def over_socket(talker: Talker, act, on_disconnect: str = "cancel") -> list[dict]:
    played = Socket()
    websocket = fastapi.WebSocket({"type": "websocket", "headers": []}, played.receive, played.send)
    played.incoming.put_nowait({"type": "websocket.connect"})
    await websocket.accept()
    opening = Flujo(StreamingStep(talker.talk, name="talk")).stream_async(40)
    serving = asyncio.create_task(serve_websocket(websocket, opening, on_disconnect=on_disconnect))
    await act(played)
    await asyncio.wait_for(serving, 20)
    return played.sent


def test_a_websocket_is_sent_each_item_and_may_cancel():
    async def nothing(played: Socket) -> None:
        pass

    async def cancel(played: Socket) -> None:
        while not any(item["type"] == "chunk" for item in played.sent):
            await asyncio.sleep(0.01)
        played.incoming.put_nowait({"type": "websocket.receive", "text": "no json"})
        played.incoming.put_nowait({"type": "websocket.receive", "text": '{"type": "cancel"}'})

    got = asyncio.run(over_socket(Talker(), nothing))
    assert [item["type"] for item in got][-2:] == ["step_ended", "result"]
    assert got[-1]["status"] == "completed"
    talker = Talker()
    got = asyncio.run(over_socket(talker, cancel))
    assert (got[-1]["type"], got[-1]["status"]) == ("result", "aborted")
    assert "its client cancelled it" in got[-1]["error"]
    assert talker.closed == 1
    assert talker.made < 40


@pytest.mark.parametrize("on_disconnect", ["cancel", "detach"])
def test_check_23_a_websocket_that_closes_ends_the_run_or_not(on_disconnect):
    async def leave(played: Socket) -> None:
        while not any(item["type"] == "chunk" for item in played.sent):
            await asyncio.sleep(0.01)
        played.incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})

    talker = Talker()
    got = asyncio.run(over_socket(talker, leave, on_disconnect))
    assert talker.closed == 1
    assert (talker.made == 40) == (on_disconnect == "detach")
    assert got[-1]["type"] != "result"


def test_check_23_a_websocket_on_a_real_server_is_sent_each_item():
    talker = Talker()
    with served(talker) as url, connect(f"{url.replace('http', 'ws')}/ws/3") as client:
        got = [json.loads(text) for text in client]
    assert [item["type"] for item in got] == ["step_started", "chunk", "chunk", "chunk", "step_ended", "result"]
    assert [item["value"] for item in got[1:4]] == ["w0 ", "w1 ", "w2 "]
    assert got[-1]["status"] == "completed"
    assert talker.closed == 1


@pytest.mark.parametrize("how", ["closed", "aborted", "cancelled"])
@pytest.mark.parametrize("on_disconnect", ["cancel", "detach"])
def test_check_23_a_websocket_client_that_goes_ends_its_run_on_a_real_server(how, on_disconnect):
    talker = Talker()
    number = 60 if on_disconnect == "detach" else 100_000
    with served(talker, on_disconnect=on_disconnect) as url:
        with connect(f"{url.replace('http', 'ws')}/ws/{number}", close_timeout=1) as client:
            while json.loads(client.recv())["type"] != "chunk":
                pass
            if how == "aborted":  # without the closing handshake: the socket is reset
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.socket.close()
            elif how == "cancelled":
                client.send('{"type": "cancel"}')
                last = [json.loads(text) for text in client][-1]
                assert (last["type"], last["status"]) == ("result", "aborted")
        assert until(lambda: talker.closed == 1)
    assert (talker.made == 60) == (on_disconnect == "detach" and how != "cancelled")
    assert talker.made < 5000


def test_check_23_a_slow_websocket_client_holds_the_run_up():
    class Shouter(Talker):
        async def talk(self, number: int) -> AsyncIterator[str]:
            try:
                for _ in range(number):
                    self.made += 1
                    yield "x" * 10_000
            finally:
                self.closed += 1

    talker = Shouter()
    with served(talker) as url:
        with connect(f"{url.replace('http', 'ws')}/ws/20000", max_queue=1, compression=None, close_timeout=1) as client:
            client.recv()

            def stands() -> bool:
                before = talker.made
                time.sleep(0.5)
                return talker.made == before > 0

            assert until(stands)
            assert talker.made < 5_000  # what the sockets take, and not 200 MB
        assert until(lambda: talker.closed == 1)


def test_another_word_for_disconnect_is_refused():
    with pytest.raises(ConfigurationError, match="detach"):
        EventStream(Flujo(StreamingStep(Talker().talk)).stream_async(1), on_disconnect="ignore")
