"""What goes over the wire: one request per attempt, and what is booked when a server fails in a real way."""

import gc
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flujo.agent import agent
from flujo.agent.running import Runner
from flujo.core import Flujo, Price, RetryPolicy, UsageLimits

FREE = Price()
ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "well"}}],
}


class Failing(ThreadingHTTPServer):
    """Answers with these statuses in order, then with 200; keeps what it was sent."""

    daemon_threads = True

    def __init__(self, statuses: list[int], answer: dict) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses, self.answer = statuses, answer
        self.bodies: list[dict] = []
        self.keys: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    server: Failing
    protocol_version = "HTTP/1.1"  # connections stay open, so that one that is left is seen

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.server.keys.append(self.headers["authorization"])
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        text = json.dumps(self.server.answer if status == 200 else {"error": {"message": "no"}}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def failing(*statuses: int, answer: dict = ANSWER) -> Iterator[Failing]:
    with Failing(list(statuses), answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def url(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/v1"


@pytest.mark.parametrize(
    ("status", "error"),
    [(500, "ModelFault"), (429, "ModelUnavailable"), (401, "ModelRejected"), (400, "ModelRejected")],
)
def test_the_clients_own_retries_are_off(status, error):
    with failing(*[status] * 5) as server:
        result = Flujo(agent("openai:m", base_url=url(server))).run("hello")
    assert (result.status, result.error.error_type) == ("failed", error)
    assert len(server.bodies) == 1


def test_each_attempt_is_one_request_and_one_reservation():
    with failing(
        429, 500, answer={**ANSWER, "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}
    ) as server:
        asks = agent("openai:m", base_url=url(server), retry=RetryPolicy(max_attempts=3, backoff_s=0), price=FREE)
        result = Flujo(asks, limits=UsageLimits(requests_limit=2)).run("hello")
    assert (result.status, result.output, len(server.bodies)) == ("completed", "well", 3)
    assert (result.usage.requests, result.usage.unmeasured) == (2, 1)


def test_what_could_not_be_reserved_is_not_sent():
    with failing(500, 500) as server:
        asks = agent("openai:m", base_url=url(server), retry=RetryPolicy(max_attempts=3, backoff_s=0), price=FREE)
        result = Flujo(asks, limits=UsageLimits(requests_limit=1)).run("hello")
    assert (result.status, len(server.bodies)) == ("stopped", 1)


def test_max_tokens_on_the_wire_is_what_was_reserved():
    with failing() as server:
        asks = agent("openai:m", base_url=url(server), max_tokens=5000, price=FREE)
        Flujo(asks, limits=UsageLimits(total_tokens_limit=100)).run("hello")
    [body] = server.bodies
    most = body.get("max_completion_tokens", body.get("max_tokens"))
    assert 0 < most < 100 - len("hello")


def test_an_answer_without_usage_is_booked_in_full():
    with failing() as server:
        result = Flujo(
            agent("openai:m", base_url=url(server), max_tokens=40, price=FREE),
            limits=UsageLimits(total_tokens_limit=1000),
        ).run("hi")
    assert result.status == "completed"
    assert result.usage.unmeasured == 1
    assert result.usage.total_tokens >= 40


def test_a_server_that_is_not_there_costs_nothing():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers there
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        result = Flujo(
            agent("openai:m", base_url=address, max_tokens=40, price=FREE), limits=UsageLimits(requests_limit=1)
        ).run("hello")
    assert (result.status, result.error.error_type) == ("failed", "ModelUnavailable")
    assert (result.usage.requests, result.usage.total_tokens) == (0, 0)


def test_a_key_goes_only_where_it_was_given_and_into_no_text(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment-0123456789abcdef")
    with failing(401, 401) as server:
        without = Flujo(agent("openai:m", base_url=url(server))).run("hello")
        asks = agent("openai:m", base_url=url(server), api_key="given-key-1234")
        with_key = Flujo(asks).run("hello")
    assert server.keys == ["Bearer api-key-not-set", "Bearer given-key-1234"]
    for text in (str(without.error), str(with_key.error), repr(asks)):
        assert "given-key-1234" not in text
        assert "sk-environment" not in text


def test_a_provider_that_refuses_our_words_cannot_flood_the_error():
    with failing(400, answer=ANSWER) as server:
        server.answer = {}
        result = Flujo(agent("openai:m", base_url=url(server))).run("hello " * 1000)
    assert result.status == "failed"
    assert len(str(result.error)) < 1000


def test_connections_of_a_model_that_a_transform_chose_are_closed(run_python):
    with failing() as server:
        code = f"""
import asyncio, gc, os
os.environ.update(OPENAI_API_KEY="x", OPENAI_BASE_URL={url(server)!r})
from flujo.agent import agent
from flujo.core import Flujo, TransformModelRequest, hookimpl

class Cheaper:
    @hookimpl
    def transform_model_request(self, payload: TransformModelRequest):
        return payload.value.model_copy(update={{"model": "openai-chat:cheaper"}})

flujo = Flujo(agent("openai:m", base_url={url(server)!r}), plugins=[Cheaper()])

async def main():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert (await flujo.run_async("hello")).status == "completed"
    await asyncio.sleep(0.1)
    gc.collect()
    print(len(os.listdir("/proc/self/fd")) - before)

asyncio.run(main())
"""
        assert int(run_python(code)) <= 1  # that of the agent's own model
    assert [body["model"] for body in server.bodies] == ["cheaper"] * 5


def test_an_agent_that_runs_on_one_loop_after_another_keeps_none_of_them():
    with failing() as server:
        flujo = Flujo(agent("openai:m", base_url=url(server)))
        for _ in range(4):
            assert flujo.run("hello").status == "completed"
        gc.collect()
        runners = [one for one in gc.get_objects() if isinstance(one, Runner) and one.agent.name == "m"]
    assert len(runners) == 1
