"""When a failed attempt is made again, and after how long."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flujo.core import ConfigurationError, GuardDenied, RetryPolicy, RunAborted, UsageLimitExceeded


def test_all_attempts_count_and_only_the_named_errors_are_tried_again() -> None:
    policy = RetryPolicy(max_attempts=3, retry_on=(TimeoutError, ConnectionError))
    assert [policy.applies(TimeoutError(), attempt) for attempt in (1, 2, 3)] == [True, True, False]
    assert policy.applies(BrokenPipeError(), 1), "a subclass is one too"
    assert not policy.applies(ValueError(), 1)


@pytest.mark.parametrize(
    "decision",
    [UsageLimitExceeded("l", "1", "w"), GuardDenied("p", "h", "r"), RunAborted("r")],
    ids=lambda e: type(e).__name__,
)
def test_a_decision_is_never_tried_again(decision: Exception) -> None:
    assert not RetryPolicy(max_attempts=9).applies(decision, 1)
    assert not RetryPolicy(max_attempts=9, retry_on=(type(decision),)).applies(decision, 1)


def test_waits_grow_up_to_the_longest_and_jitter_only_shortens_them() -> None:
    policy = RetryPolicy(max_attempts=9, backoff_s=1, factor=3, max_backoff_s=20, jitter=0.5)
    assert [policy.delay_s(attempt, 0) for attempt in (1, 2, 3, 4, 5)] == [1, 3, 9, 20, 20]
    assert policy.delay_s(2, 1) == 1.5
    assert RetryPolicy(jitter=0, backoff_s=0).delay_s(1, 1) == 0


@settings(deadline=None)
@given(
    st.integers(1, 10**6),
    st.floats(0, 1),
    st.floats(0, 1e300),
    st.floats(1, 1e300),
    st.floats(0, 1e300),
    st.floats(0, 1),
)
def test_no_attempt_waits_longer_than_the_longest_whatever_the_numbers(
    attempt: int, chance: float, backoff: float, factor: float, longest: float, jitter: float
) -> None:
    wait = RetryPolicy(10**6, backoff, factor, longest, jitter).delay_s(attempt, chance)
    assert 0 <= wait <= longest
    assert math.isfinite(wait)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("max_attempts", 0),
        ("max_attempts", True),
        ("max_attempts", 2.5),
        ("max_attempts", "3"),
        ("backoff_s", -1),
        ("backoff_s", math.nan),
        ("backoff_s", math.inf),
        ("backoff_s", "1"),
        ("factor", 0.5),
        ("factor", math.inf),
        ("max_backoff_s", math.inf),
        ("max_backoff_s", None),
        ("jitter", 1.1),
        ("jitter", math.nan),
        ("jitter", True),
        ("retry_on", ValueError),
        ("retry_on", ["ValueError"]),
        ("retry_on", ("ValueError",)),
        ("retry_on", (KeyboardInterrupt,)),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_the_rule(name: str, wrong: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RetryPolicy(**{name: wrong})
    assert str(caught.value).startswith(f"RetryPolicy cannot be used: {name}={wrong!r} must be ")
    assert "; " not in str(caught.value).replace("; 1 ", " ").replace("; 0 ", " "), "only this one is wrong"


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"max_attempts=0 .*; jitter=2 "):
        RetryPolicy(max_attempts=0, jitter=2)
