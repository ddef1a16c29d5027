"""Tables of prices: read exactly, refused when malformed, and named in every run they priced."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest

from flujo.core import (
    ConfigurationError,
    Flujo,
    Message,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    Price,
    PriceBook,
    PriceTable,
    RunContext,
    Snapshot,
    Step,
    UsageLimits,
    hookimpl,
)
from flujo.core.testing import assert_conforms

pytestmark = pytest.mark.anyio

SMALL = {"input_usd_per_mtok": "2.50", "output_usd_per_mtok": "10", "request_usd": "0.001", "max_output_tokens": 50}


def table(**changes: Any) -> dict[str, Any]:
    made = {"format": "flujo-prices", "version": 1, "name": "acme-2026-11", "models": {"acme:small": SMALL}, **changes}
    return {name: value for name, value in made.items() if value is not None}


def written(folder: Path, content: object) -> Path:
    file = folder / "prices.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return file


def test_a_table_is_read_exactly_and_knows_its_digest(tmp_path: Path) -> None:
    file = written(tmp_path, table())
    prices = PriceTable.load(file)
    assert prices.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    price = prices.price("acme:small")
    assert price == Price(Decimal("0.0000025"), Decimal("0.00001"), Decimal("0.001"), 50)
    assert price is not None
    assert price.source == f"acme-2026-11 sha256:{prices.sha256}"
    assert prices.price("acme:large") is None
    assert prices.price("ACME:small") is None
    number = table(models={"m": {"input_usd_per_mtok": 0.1, "output_usd_per_mtok": 0}})
    assert PriceTable(json.dumps(number).encode()).price("m") == Price(Decimal("1E-7")), "a number of JSON is no float"


def test_a_table_conforms_to_the_rules_of_price_books(tmp_path: Path) -> None:
    assert "known_models" in assert_conforms(
        PriceTable.load(written(tmp_path, table())), PriceBook, models=["acme:small"]
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"[]", "valid dictionary"),
        (b"{\x80}", "codec"),
        (b"[" * 100_000, "recursion"),
        (table(format="prices"), "format: "),
        (table(format=None), "format: Field required"),
        (table(version=2), "version: "),
        (table(name=""), "name: "),
        (table(name="x" * 61), "name: "),
        (table(name="a\nb"), "name: "),
        (table(models=None), "models: Field required"),
        (table(currency="EUR"), "currency: Extra inputs"),
        (table(models={"m": {}}), "models.m.input_usd_per_mtok: Field required"),
        (table(models={"m": {**SMALL, "input_usd_per_mtok": "-1"}}), "models.m.input_usd_per_mtok: "),
        (table(models={"m": {**SMALL, "input_usd_per_mtok": "NaN"}}), "models.m.input_usd_per_mtok: "),
        (table(models={"m": {**SMALL, "output_usd_per_mtok": "Infinity"}}), "models.m.output_usd_per_mtok: "),
        (table(models={"m": {**SMALL, "output_usd_per_mtok": "free"}}), "models.m.output_usd_per_mtok: "),
        (table(models={"m": {**SMALL, "output_usd_per_mtok": "1e-50"}}), "40 digits"),
        (table(models={"m": {**SMALL, "max_output_tokens": 0}}), "models.m.max_output_tokens: "),
        (table(models={"m": {**SMALL, "input": "1"}}), "models.m.input: Extra inputs"),
        (json.dumps(table(models={"m": SMALL})).replace('"m":', '"m": {}, "m":').encode(), "stands twice"),
        (json.dumps(table()).replace('"2.50"', "NaN").encode(), "models.acme:small.input_usd_per_mtok: "),
    ],
)
def test_a_malformed_table_is_refused_with_the_cause(tmp_path: Path, content: object, told: str) -> None:
    file = written(tmp_path, content)
    with pytest.raises(ConfigurationError) as caught:
        PriceTable.load(file)
    assert str(file) in caught.value.what
    assert told in caught.value.why


def test_a_table_that_is_not_there_or_not_the_one_that_was_pinned_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        PriceTable.load(tmp_path / "prices.json")
    file = written(tmp_path, table())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert PriceTable.load(file, sha256=digest.upper()).name == "acme-2026-11"
    file.write_bytes(file.read_bytes() + b"\n")
    with pytest.raises(ConfigurationError, match=f"wanted is {digest}"):
        PriceTable.load(file, sha256=digest)


async def send(request: ModelRequest) -> ModelResponse:
    return ModelResponse(content="ok", usage=ModelUsage(input_tokens=100, output_tokens=50))


async def ask(model: str, ctx: RunContext) -> str:
    request = ModelRequest(model=model, messages=(Message(role="user", content="h" * 100),))
    return (await ctx.call_model(request, send)).content


async def test_a_run_is_priced_by_the_table_it_is_given_and_names_it(tmp_path: Path) -> None:
    prices = PriceTable.load(written(tmp_path, table()))
    flujo = Flujo(Step(ask) >> Step(lambda text: "acme:small", name="m") >> Step(ask, name="b"), plugins=[prices],
                  limits=UsageLimits("1"))  # fmt: skip
    result = await flujo.run_async("acme:small")
    assert result.status == "completed"
    assert result.total_cost_usd == 2 * (100 * Decimal("0.0000025") + 50 * Decimal("0.00001") + Decimal("0.001"))
    by = {f"acme-2026-11 sha256:{prices.sha256}": 2}
    assert result.counts["priced_by"] == by
    snapshot = Snapshot.model_validate_json(result.snapshot().model_dump_json())
    assert snapshot.counts["priced_by"] == by
    assert (await flujo.run_async("acme:large")).status == "stopped"


async def test_the_table_that_was_given_comes_before_what_is_installed_and_a_price_in_the_call_before_it(
    tmp_path: Path,
) -> None:
    class Other:
        def price(self, model: str) -> Price:
            return Price(request_usd=Decimal(9))

        @hookimpl
        def register_price_books(self) -> list[Other]:
            return [self]

    prices = PriceTable.load(written(tmp_path, table()))
    flujo = Flujo(Step(ask), plugins=[prices, Other()])
    assert (await flujo.run_async("acme:small")).total_cost_usd < 1
    assert (await flujo.run_async("other")).total_cost_usd == 9

    async def knows(model: str, ctx: RunContext) -> str:
        request = ModelRequest(model=model, messages=(Message(role="user", content="hi"),))
        return (await ctx.call_model(request, send, price=Price())).content

    result = await Flujo(Step(knows), plugins=[prices]).run_async("acme:small")
    assert (result.total_cost_usd, result.counts) == (0, {})


def test_prices_do_not_depend_on_the_decimals_of_the_program() -> None:
    small = table(models={"acme:small": {**SMALL, "input_usd_per_mtok": "2.55"}})
    with localcontext(prec=2):
        price = PriceTable(json.dumps(small).encode()).price("acme:small")
    assert price is not None
    assert price.input_usd == Decimal("0.00000255")


async def test_what_a_list_knows_of_a_call_counts_only_where_its_price_holds(tmp_path: Path) -> None:
    """Cached input, another service tier: tokens alone do not say what such a call cost."""
    prices = PriceTable.load(written(tmp_path, table()))

    async def cached(model: str, ctx: RunContext) -> str:
        async def sent(request: ModelRequest) -> ModelResponse:
            listed = {f"{prices.name} sha256:{prices.sha256}": Decimal("0.25"), "another list": Decimal(7)}
            return ModelResponse(content="x", usage=ModelUsage(input_tokens=10, output_tokens=10, listed_usd=listed))

        request = ModelRequest(model=model, messages=(Message(role="user", content="hi"),))
        own = Price(Decimal("0.1")) if model == "own" else None
        return (await ctx.call_model(request, sent, price=own)).content

    flujo = Flujo(Step(cached), plugins=[prices])
    assert (await flujo.run_async("acme:small")).total_cost_usd == Decimal("0.25")
    assert (await flujo.run_async("own")).total_cost_usd == 1
    unknown = await flujo.run_async("nobody:x")
    assert (unknown.total_cost_usd, unknown.usage.unpriced) == (0, 1)
