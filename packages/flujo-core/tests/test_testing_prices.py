"""The rules for price books: one broken book for each."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest

from flujo.core import Price, PriceBook
from flujo.core.testing import NotConforming, assert_conforms
from flujo.core.testing.price_rules import PRICE_RULES


class Book:
    def price(self, model: str) -> Price | None:
        return Price("0.001", "0.002") if model == "acme:small" else None


class Guesses(Book):
    def price(self, model: str) -> Price | None:
        return super().price(model) or Price()


class KeyErrors(Book):
    def price(self, model: str) -> Price | None:
        _provider, _name = model.split(":")
        return super().price(model)


class Ignorant(Book):
    def price(self, model: str) -> Price | None:
        return None


class Floats(Book):
    def price(self, model: str) -> Price | None:
        return (0.001, 0.002) if model == "acme:small" else None  # type: ignore[return-value]


class Bends(Book):
    """Gets an amount past the check of Price."""

    amount: object = Decimal("-1")

    def price(self, model: str) -> Price | None:
        price = super().price(model)
        if price is not None:
            object.__setattr__(price, "output_usd", self.amount)
        return price


class Infinite(Bends):
    amount = Decimal("inf")


class FloatInside(Bends):
    amount = 0.002


class Drifts(Book):
    asked = 0

    def price(self, model: str) -> Price | None:
        self.asked += 1
        return Price(self.asked) if model == "acme:small" else None


class Slow(Book):
    def price(self, model: str) -> Price | None:
        time.sleep(0.003)
        return super().price(model)


class Async(Book):
    async def price(self, model: str) -> Price | None:  # type: ignore[override]
        return super().price(model)


BOOKS: list[tuple[type[Book], str, str]] = [
    (Guesses, "unknown_is_none", "a guess would be billed"),
    (KeyErrors, "never_raises", "ValueError"),
    (Ignorant, "known_models", "no price for acme:small"),
    (Floats, "amounts", "gave a tuple"),
    (Bends, "amounts", "output_usd of 'acme:small' is Decimal('-1')"),
    (Infinite, "amounts", "Infinity"),
    (FloatInside, "amounts", "is 0.002"),
    (Drifts, "stable", "the price of acme:small is another"),
    (Slow, "cheap_repeats", "ms each time"),
    (Async, "never_raises", "price is async"),
]


@pytest.mark.parametrize("book", [Book(), Book, lambda: Book()])
def test_a_price_book_holds_every_rule(book: object) -> None:
    assert assert_conforms(book, models=["acme:small"]) == tuple(rule.__name__ for rule in PRICE_RULES)


@pytest.mark.parametrize(("book", "rule", "why"), BOOKS, ids=[seed[0].__name__ for seed in BOOKS])
def test_each_rule_finds_a_price_book_that_breaks_it(book: type[Book], rule: str, why: str) -> None:
    with pytest.raises(NotConforming, match="rules of PriceBook") as caught:
        assert_conforms(book(), PriceBook, models=["acme:small"])
    assert why in caught.value.broken[rule]


def test_every_rule_has_a_broken_price_book() -> None:
    assert {rule for _, rule, _ in BOOKS} == {rule.__name__ for rule in PRICE_RULES}
