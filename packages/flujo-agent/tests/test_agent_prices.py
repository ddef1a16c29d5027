"""The price book: the list of genai-prices, its tiers, and that it is found without being named."""

import hashlib
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import genai_prices.data
import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai.usage import RequestUsage

from flujo.agent import GenaiPriceBook
from flujo.agent.plugin import register_price_books
from flujo.core import Flujo, Message, ModelRequest, ModelResponse, ModelUsage, RunContext, UsageLimits, step

BOOK = GenaiPriceBook()


def of_genai_prices(provider: str, name: str, input_tokens: int, output_tokens: int) -> Decimal:
    usage = RequestUsage(input_tokens=input_tokens, output_tokens=output_tokens)
    return get_snapshot().calc(usage, name, provider, None, datetime.now(UTC)).total_price


@pytest.mark.parametrize(
    ("provider", "name"), [("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4-5"), ("google", "gemini-2.5-pro")]
)
@given(st.integers(0, 10**6), st.integers(0, 10**5))
def test_a_call_costs_what_genai_prices_says(provider, name, input_tokens, output_tokens):
    price = BOOK.price(f"{provider}:{name}")
    assert price.cost(input_tokens, output_tokens) == of_genai_prices(provider, name, input_tokens, output_tokens)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**5))
def test_more_input_never_costs_less_so_that_what_was_reserved_for_more_is_enough(fewer, more, output_tokens):
    price = BOOK.price("google:gemini-2.5-pro")
    fewer, more = sorted((fewer, more))
    assert price.cost(fewer, output_tokens) <= price.cost(more, output_tokens)
    assert price.cost(fewer, output_tokens) <= price.input_usd * fewer + price.output_usd * output_tokens


@pytest.mark.parametrize(
    ("provider", "name"), [("anthropic", "claude-sonnet-4-5"), ("google", "gemini-2.5-pro"), ("openai", "gpt-4o")]
)
@given(st.data())
def test_a_call_never_costs_more_than_what_was_reserved_for_as_many_tokens_whatever_was_cached(provider, name, data):
    inputs, outputs = data.draw(st.integers(0, 10**6)), data.draw(st.integers(0, 10**5))
    written = data.draw(st.integers(0, inputs))
    read = data.draw(st.integers(0, inputs - written))
    usage = RequestUsage(input_tokens=inputs, output_tokens=outputs, cache_write_tokens=written, cache_read_tokens=read)
    billed = get_snapshot().calc(usage, name, provider, None, datetime.now(UTC)).total_price
    price, more = BOOK.price(f"{provider}:{name}"), data.draw(st.integers(0, 10**5))
    assert billed <= price.worst(inputs + more, outputs)
    assert price.cost(inputs, outputs) <= price.worst(inputs + more, outputs + more)


def test_what_is_written_to_a_cache_is_reserved_at_its_dearer_rate():
    price = BOOK.price("anthropic:claude-sonnet-4-5")
    usage = RequestUsage(input_tokens=10_000, output_tokens=10, cache_write_tokens=10_000)
    billed = get_snapshot().calc(usage, "claude-sonnet-4-5", "anthropic", None, datetime.now(UTC)).total_price
    assert price.cost(10_000, 10) < billed <= price.worst(10_000, 10)


def test_no_price_of_the_list_reserves_less_than_it_costs():
    for provider in get_snapshot().providers:
        for model in provider.models:
            price = BOOK.price(f"{provider.id}:{model.id}")
            for inputs in () if price is None else (0, 1000, 10**6):
                worst = price.worst(inputs, 1000)
                assert price.cost(inputs, 1000) <= worst <= price.worst(inputs, 0) + price.output_usd * 1000


def test_every_entry_of_the_list_can_be_read():
    prices = [
        BOOK.price(f"{provider.id}:{model.id}") for provider in get_snapshot().providers for model in provider.models
    ]
    assert len(prices) > 1000
    assert sum(price is not None for price in prices) > 0.8 * len(prices)


@pytest.mark.parametrize(
    "name", ["openai:tiny", "compatible:gpt-4o", "local:gpt-4o.gguf", "nobody:gpt-4o", "function:x:", ""]
)
def test_a_model_that_is_not_in_the_list_has_no_price(name):
    assert BOOK.price(name) is None


def test_where_the_time_of_day_matters_the_highest_price_counts():
    price = BOOK.price("deepseek:deepseek-chat")
    model = get_snapshot().find_provider_model("deepseek-chat", None, "deepseek", None)[1]
    assert price.output_usd == max(conditional.prices.output_mtok for conditional in model.prices) / 1_000_000


def test_the_list_is_named_by_its_digest():
    data = BOOK.data
    assert data.source.startswith("genai-prices ")
    assert data.sha256 == hashlib.sha256(Path(genai_prices.data.__file__).read_bytes()).hexdigest()


@pytest.mark.alone
def test_a_known_model_is_looked_up_in_less_than_5_microseconds():
    BOOK.price("openai:gpt-4o")
    started = time.perf_counter()
    for _ in range(10_000):
        BOOK.price("openai:gpt-4o")
    assert time.perf_counter() - started < 10_000 * 5e-6


@pytest.mark.alone
def test_the_first_price_takes_less_than_a_second_of_cpu(run_python):
    code = """
import time
from flujo.agent import GenaiPriceBook
started = time.process_time()
assert GenaiPriceBook().price("openai:gpt-4o") is not None
print(time.process_time() - started)
"""
    assert float(run_python(code)) < 1


def test_the_book_is_asked_without_being_named(monkeypatch):
    @step
    async def ask(question: str, ctx: RunContext) -> str:
        request = ModelRequest(model="openai:gpt-4o", messages=(Message(role="user", content=question),), max_tokens=10)

        async def send(request: ModelRequest) -> ModelResponse:
            return ModelResponse(content="yes", usage=ModelUsage(input_tokens=10, output_tokens=10))

        return (await ctx.call_model(request, send)).content

    result = Flujo(ask, limits=UsageLimits(total_cost_usd_limit=1)).run("well?")
    assert result.status == "completed"
    assert result.total_cost_usd == Decimal("0.000125")
    monkeypatch.setenv("FLUJO_PLUGINS", "")
    assert Flujo(ask, limits=UsageLimits(total_cost_usd_limit=1)).run("well?").status == "stopped"


def test_the_plugin_gives_one_book():
    [book] = register_price_books()
    assert book.price("openai:gpt-4o") == BOOK.price("openai:gpt-4o")
    assert "flujo.agent.plugin" in sys.modules
