"""The guard trips on a deliberate slow-down of the steps, and only when every attempt is slow."""

from time import process_time

import pytest
from benchmarks import chain, guard

from flujo.core import Step

BURN_S = 5e-6


async def burn(value: int) -> int:
    until = process_time() + BURN_S
    while process_time() < until:
        pass
    return value


def slow_step(index: int) -> Step:
    return Step(burn, name=f"slow_{index}")


@pytest.fixture(scope="module")
def baseline() -> float:
    return chain.measure(100).value


@pytest.mark.alone
def test_guard_trips_on_a_deliberate_slow_down(baseline: float) -> None:
    verdict = guard.check(baseline, lambda: chain.measure(100, slow_step, rounds=3).value)
    assert verdict.worse, verdict
    assert len(verdict.measured) == guard.ATTEMPTS


@pytest.mark.alone
def test_guard_passes_what_it_was_set_to(baseline: float) -> None:
    verdict = guard.check(baseline, lambda: chain.measure(100).value)
    assert not verdict.worse, verdict


def test_one_good_attempt_clears_two_noisy_ones() -> None:
    attempts = iter([25.0, 13.0, 11.9, 99.0])
    verdict = guard.check(10.0, lambda: next(attempts))
    assert not verdict.worse
    assert verdict.measured == (25.0, 13.0, 11.9)


def test_twenty_percent_is_allowed_and_more_is_not() -> None:
    assert not guard.check(10.0, lambda: 12.0).worse
    assert guard.check(10.0, lambda: 12.01).worse


def test_a_python_without_a_baseline_is_an_error_that_says_what_to_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert guard.main([], python="3.99") == 2
    assert "--update" in capsys.readouterr().err
