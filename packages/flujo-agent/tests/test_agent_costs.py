"""What a call cost: cached input, dearer service tiers, prices that begin on a day to come."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ConditionalPrice, ModelPrice, StartDateConstraint
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.usage import RequestUsage

from flujo.agent import Cassette, GenaiPriceBook, agent, prices, wrap
from flujo.core import Flujo, Price, PriceTable, UsageLimits

MONEY = UsageLimits(total_cost_usd_limit=1)
CACHED = {"prompt_tokens": 10_000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 8000}}
PLAIN = {"prompt_tokens": 10_000, "completion_tokens": 100}


class _Provider(BaseHTTPRequestHandler):
    """Answers what its server is set to, whole or in pieces."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(asked)
        said = {"role": "assistant", "content": "well"}
        facts = {"id": "1", "created": 1, "model": "gpt-4o", **self.server.facts}
        if asked.get("stream"):
            choice = {"index": 0, "finish_reason": "stop", "delta": said}
            piece = json.dumps({**facts, "object": "chat.completion.chunk", "choices": [choice]})
            text, kind = f"data: {piece}\n\ndata: [DONE]\n\n", "text/event-stream"
        else:
            choice = {"index": 0, "finish_reason": "stop", "message": said}
            text, kind = json.dumps({**facts, "object": "chat.completion", "choices": [choice]}), "application/json"
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def provider(usage, **facts) -> Iterator[tuple[OpenAIChatModel, list]]:
    """OpenAI's gpt-4o, as far as prices go, and what it was asked."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Provider) as server:
        server.daemon_threads, server.asked = True, []
        server.facts = {"usage": {**usage, "total_tokens": sum(usage[name] for name in PLAIN)}, **facts}
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/v1"
            yield OpenAIChatModel("gpt-4o", provider=OpenAIProvider(base_url=url, api_key="x")), server.asked
        finally:
            server.shutdown()
            thread.join()


def by_list(context=None, **used) -> Decimal:
    info = get_snapshot().find_provider_model("gpt-4o", None, "openai", None)[1]
    usage = RequestUsage(input_tokens=10_000, output_tokens=100, **used)
    return info.get_prices(datetime.now(UTC), context).calc_price(usage)["total_price"]


HALF = by_list(cache_read_tokens=8000)


def test_the_list_has_a_price_for_what_was_cached_and_one_for_a_dearer_tier():
    assert HALF < by_list() < by_list({"service_tier": "priority"})


@pytest.mark.parametrize("limits", [None, MONEY])
def test_cached_input_costs_what_the_list_says(limits):
    with provider(CACHED) as (model, _):
        result = Flujo(agent(model, max_tokens=200), limits=limits).run("x" * 10_000)
    assert (result.status, result.total_cost_usd) == ("completed", HALF), result.error
    assert (result.usage.input_tokens, result.usage.unpriced) == (10_000, 0)


def test_cached_input_costs_what_the_list_says_where_an_answer_is_streamed():
    from flujo.streaming import StreamingStep

    with provider(CACHED) as (model, _):
        result = Flujo(StreamingStep(agent(model, max_tokens=200)), limits=MONEY).run("x" * 10_000)
    assert (result.status, result.total_cost_usd) == ("completed", HALF), result.error


def test_a_price_of_the_users_own_is_no_matter_of_the_list(tmp_path):
    own = Decimal(10_100) * Decimal("0.000001")
    with provider(CACHED) as (model, _):
        told = Flujo(agent(model, price=Price(Decimal("0.000001"), Decimal("0.000001")))).run("hello")
        file = tmp_path / "prices.json"
        row = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "1"}
        table = {"format": "flujo-prices", "version": 1, "name": "ours", "models": {"openai:gpt-4o": row}}
        file.write_text(json.dumps(table))
        by_table = Flujo(agent(model), plugins=[PriceTable.load(file)]).run("hello")
    assert told.total_cost_usd == by_table.total_cost_usd == own


def test_more_that_was_cached_than_there_was_costs_as_if_nothing_were():
    with provider({**CACHED, "prompt_tokens_details": {"cached_tokens": 10**6}}) as (model, _):
        assert Flujo(agent(model)).run("hello").total_cost_usd == by_list()


def test_a_replay_costs_what_the_recording_did(tmp_path):
    with provider(CACHED, service_tier="priority") as (model, asked):
        made = agent(model, max_tokens=200)
        with Cassette(tmp_path / "calls.json", mode="record"):
            first = Flujo(made).run("hello")
        with Cassette(tmp_path / "calls.json"):
            again = Flujo(made).run("hello")
    assert len(asked) == 1
    assert first.total_cost_usd == again.total_cost_usd == by_list({"service_tier": "priority"}, cache_read_tokens=8000)


def with_setting(model, name, value, **options):
    return wrap(Agent(model, name="a", model_settings={name: value, "max_tokens": 200}), **options)


DEARER = [
    ("service_tier", "priority"),
    ("openai_service_tier", "priority"),
    ("openai_service_tier", "ultrafast"),
    ("anthropic_speed", "fast"),
    ("bedrock_service_tier", {"type": "priority"}),
    ("bedrock_performance_configuration", {"latency": "optimized"}),
    ("google_cloud_service_tier", "pt_then_priority"),
]


@pytest.mark.parametrize(("name", "value"), DEARER)
def test_a_setting_that_makes_tokens_dearer_is_refused_under_a_limit_of_money(name, value):
    """What was reserved by the standard tier's price would be less than the bill: the limit would be none."""
    with provider(PLAIN, service_tier="priority") as (model, asked):
        result = Flujo(with_setting(model, name, value), limits=MONEY).run("x" * 10_000)
        assert (result.status, asked) == ("failed", [])
        assert name in str(result.error)
        assert "price=" in str(result.error)
        dear = Price(Decimal("0.00001"), Decimal("0.00001"))
        result = Flujo(with_setting(model, name, value, price=dear), limits=MONEY).run("x" * 10_000)
        assert (result.status, result.total_cost_usd) == ("completed", dear.cost(10_000, 100)), result.error


def test_a_dearer_tier_costs_what_the_list_says_of_it_where_no_money_is_limited():
    with provider(PLAIN, service_tier="priority") as (model, asked):
        result = Flujo(with_setting(model, "service_tier", "priority")).run("hello")
    assert asked[0]["service_tier"] == "priority"
    assert result.total_cost_usd == by_list({"service_tier": "priority"})


@pytest.mark.parametrize("tier", ["auto", "default", "flex"])
def test_a_tier_that_is_no_dearer_is_sent(tier):
    with provider(PLAIN, service_tier="default") as (model, asked):
        result = Flujo(with_setting(model, "service_tier", tier), limits=MONEY).run("x" * 10_000)
    assert (result.status, asked[0]["service_tier"]) == ("completed", tier), result.error
    assert result.total_cost_usd == by_list()


def test_a_price_that_begins_on_a_day_to_come_holds_from_then_on(monkeypatch):
    """A service runs for months."""
    first, later = datetime(2026, 12, 31, 23, 59, tzinfo=UTC), datetime(2027, 1, 1, 0, 1, tzinfo=UTC)
    now = [first]
    new = ConditionalPrice(
        constraint=StartDateConstraint(later.date()), prices=ModelPrice(input_mtok=Decimal(2), output_mtok=Decimal(4))
    )
    old = ConditionalPrice(constraint=None, prices=ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(2)))
    info = get_snapshot().find_provider_model("gpt-4o", None, "openai", None)[1]
    monkeypatch.setattr(info, "prices", [old, new])
    monkeypatch.setattr(prices, "time", lambda: now[0].timestamp())
    monkeypatch.setattr(prices, "datetime", SimpleNamespace(now=lambda zone: now[0]))
    book = GenaiPriceBook()
    assert book.price("openai:gpt-4o").input_usd == Decimal("0.000001")
    now[0] = later
    assert book.price("openai:gpt-4o").input_usd == Decimal("0.000002")
