"""Amounts: what is accepted as money and counts, what is refused and how, and sums without drift."""

from __future__ import annotations

import decimal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flujo.core import ConfigurationError, Price, Usage, UsageLimits
from flujo.core.usage import Charge, Room, money


class NumpyLike(float):
    """A float whose repr is no number, as numpy's."""

    def __repr__(self) -> str:
        return f"np.float64({float(self)})"


@contextmanager
def rounding_program() -> Iterator[None]:
    """A program whose own decimals are rounded to three digits, and never fail."""
    with decimal.localcontext() as context:
        context.prec = 3
        context.traps[decimal.InvalidOperation] = False
        yield


@pytest.mark.parametrize(
    ("given_amount", "amount"),
    [
        ("0.50", "0.50"),
        (2, "2"),
        (0.1, "0.1"),
        (1e-7, "1E-7"),
        (0.1 + 0.2, "0.30000000000000004"),
        (NumpyLike(0.25), "0.25"),
        (Decimal("1.005"), "1.005"),
        (0, "0"),
    ],
)
def test_money_is_read_exactly_and_a_float_by_its_repr(given_amount: Any, amount: str) -> None:
    assert money(given_amount) == Decimal(amount)
    assert UsageLimits(given_amount).total_cost_usd_limit == Decimal(amount)


NO_AMOUNTS: list[Any] = [-1, "-0.01", Decimal("-0.001"), float("nan"), float("inf"), float("-inf"), "NaN", "sNaN"]
NO_AMOUNTS += ["Infinity", True, "ten", "", b"1", [1], (0, (1,), 0), None, 1j, "1e40", "1e-40", "1" * 41]


@pytest.mark.parametrize("wrong", NO_AMOUNTS)
@pytest.mark.parametrize("program", [nullcontext, rounding_program])
def test_what_is_no_amount_is_refused_by_name_with_the_next_act(wrong: Any, program: Any) -> None:
    with program(), pytest.raises(ConfigurationError) as caught:
        money(wrong, "total_cost_usd_limit")
    assert str(caught.value).startswith(f"total_cost_usd_limit={wrong!r} cannot be used: ")
    assert "'0.50'" in caught.value.do
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("field", ["total_tokens_limit", "requests_limit"])
@pytest.mark.parametrize("wrong", [-1, True, 1.0, 1.5, float("nan"), "10", Decimal(3)])
def test_counts_are_whole_numbers_of_0_or_more(field: str, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{field}=.*whole number.*Give an int; .*None"):
        UsageLimits(**{field: wrong})


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan"), float("inf"), True, "0.8", None])
def test_warn_at_is_a_share(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^warn_at=.*between 0 and 1. Give for instance 0.8"):
        UsageLimits(1, warn_at=wrong)


def test_an_unknown_word_for_unknown_prices_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Write 'refuse' or 'warn'"):
        UsageLimits(1, on_unknown_price="ignore")  # type: ignore[arg-type]


def test_none_is_unlimited_and_zero_is_not() -> None:
    assert UsageLimits().unlimited
    assert not any(limits.unlimited for limits in (UsageLimits(0), UsageLimits(None, 0), UsageLimits(None, None, 0)))


def test_prices_are_exact_whatever_the_program_does_with_its_decimals() -> None:
    price = Price(input_usd="0.00000015", output_usd=0.0000006, request_usd=1)  # type: ignore[arg-type]
    with rounding_program():
        cost = price.cost(1234567, 7654321)
    assert cost == 1 + Decimal("0.18518505") + Decimal("4.5925926")
    assert price.cost(1234567, 7654321) == Decimal("5.77777765")
    assert Price().cost(10**9, 10**9) == 0


@pytest.mark.parametrize("field", ["input_usd", "output_usd", "request_usd"])
def test_a_wrong_price_names_its_field(field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{field}=-1"):
        Price(**{field: -1})  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5])
def test_a_model_answers_with_one_token_or_more(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^max_output_tokens="):
        Price(max_output_tokens=wrong)


@pytest.mark.parametrize("settles", [10**5, pytest.param(10**6, marks=pytest.mark.soak)])
def test_a_tally_has_no_drift_over_very_many_settles(settles: int) -> None:
    total, one = Usage(), Usage(1, 2, 1, money(0.1), overshoot_usd=money("1e-39"))
    with rounding_program():
        for _ in range(settles):
            total.add(one)
    assert total.cost_usd == Decimal(settles // 10)
    assert total.overshoot_usd == settles * Decimal("1e-39")
    assert (total.input_tokens, total.total_tokens, total.requests) == (settles, 3 * settles, settles)


FINEST = st.integers(0, 10**40 - 1).map(lambda number: Decimal(f"{number}e-39"))
LARGEST = st.integers(0, 10**40 - 1).map(Decimal)


@settings(deadline=None)
@given(st.lists(FINEST | LARGEST, max_size=8))
def test_sums_of_the_largest_and_the_smallest_amounts_are_exact(amounts: list[Decimal]) -> None:
    total = Usage()
    for amount in amounts:
        total.add(Usage(cost_usd=money(amount)))
    assert Fraction(total.cost_usd) == sum(map(Fraction, amounts))


def test_a_charge_fits_where_each_part_fits_and_a_part_of_zero_always_does() -> None:
    room = Room(Decimal(1), 10, None)
    assert room.holds(Charge(Decimal(1), 10, 99))
    assert not room.holds(Charge(Decimal("1.01"), 1, 1))
    assert not room.holds(Charge(Decimal(0), 11, 1))
    assert Room(Decimal(-1), -5, 0).holds(Charge())
    assert room.spares(Charge(Decimal(0), 0, 5))
    assert not room.spares(Charge(Decimal(0), 1, 0))


def test_the_smaller_room_counts_in_every_part() -> None:
    assert Room(Decimal(1), None, 5).within(Room(Decimal(2), 7, 3)) == Room(Decimal(1), 7, 3)
    assert Room().within(Room()) == Room()
