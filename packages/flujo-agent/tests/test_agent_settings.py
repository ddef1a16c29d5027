"""Settings of an agent or its model do not reach past guards, policies and limits."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from flujo.agent import wrap
from flujo.core import Flujo, Policy, Price, UsageLimits

CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "well"}}
ANSWER = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [CHOICE]}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        text = json.dumps(ANSWER).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def provider() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads, server.bodies = True, []
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
    ("extra", "unwanted"),
    [
        ({"model": "dear"}, lambda body: body["model"] != "cheap"),
        ({"tools": [{"type": "web_search"}]}, lambda body: "tools" in body),
        ({"max_tokens": 10**6, "max_completion_tokens": 10**6}, lambda body: 10**6 in body.values()),
    ],
    ids=["model", "tools at the provider", "max_tokens"],
)
def test_settings_do_not_reach_past_what_was_guarded_and_reserved(extra, unwanted):
    """Only allowed models are called, tools at the provider are off, an answer is as long as was reserved for it."""
    with provider() as server:
        model = OpenAIChatModel("cheap", provider=OpenAIProvider(base_url=url(server), api_key="x"))
        made = Agent(model, name="a", model_settings={"extra_body": extra})
        policy, limits = Policy(allow_models=frozenset({"openai:cheap"})), UsageLimits(total_tokens_limit=5000)
        result = Flujo(wrap(made, price=Price()), policy=policy, limits=limits).run("hello")
    assert "extra_body" in str(result.error)
    assert not [body for body in server.bodies if unwanted(body)]


def test_headers_are_refused_that_a_gateway_may_choose_a_model_by():
    with provider() as server:
        model = OpenAIChatModel("cheap", provider=OpenAIProvider(base_url=url(server), api_key="x"))
        made = Agent(model, name="a", model_settings={"extra_headers": {"x-model": "dear"}})
        result = Flujo(wrap(made, price=Price())).run("hello")
    assert "extra_headers" in str(result.error)
    assert not server.bodies


def test_tools_at_the_provider_are_off_where_settings_name_them():
    """SEMANTICS 6: they are off unless `Policy.allow_provider_tools`."""
    with provider() as server:
        model = OpenAIResponsesModel("cheap", provider=OpenAIProvider(base_url=url(server), api_key="x"))
        made = Agent(model, name="a", model_settings={"openai_native_tools": [{"type": "web_search"}]})
        result = Flujo(wrap(made, price=Price())).run("hello")
    assert "openai_native_tools" in str(result.error)
    assert not [body for body in server.bodies if body.get("tools")]


@pytest.mark.parametrize(
    "setting",
    [
        *("openai_previous_response_id", "openai_conversation_id", "google_cached_content"),
        *("openai_context_management", "anthropic_context_management", "bedrock_additional_model_requests_fields"),
        *("bedrock_inference_profile", "openrouter_preset", "xai_agent_count"),
        *("anthropic_container", "bedrock_prompt_variables", "openai_prediction"),
    ],
)
def test_settings_that_put_unseen_messages_or_another_model_into_a_request_are_refused(setting):
    with provider() as server:
        model = OpenAIChatModel("cheap", provider=OpenAIProvider(base_url=url(server), api_key="x"))
        made = Agent(model, name="a", model_settings={setting: "x"})
        result = Flujo(wrap(made, price=Price())).run("hello")
    assert setting in str(result.error)
    assert not server.bodies
