"""Random nested pipelines with random outcomes, delays, failures, pauses and cancels, on the real engine.

Held against a reference without tasks or time: every due step runs once per visit, none before what it depends on;
end, context, history and errors are the reference's; pausing, the JSON of snapshots and any number of resumes change
nothing; a process that is gone at any point neither loses nor repeats what was kept, and what may happen at most once
never happens twice; a failed run that is tried again repeats nothing that ended well; nothing goes on after a cancel;
a replay calls no step and diverges nowhere. What exactly is compared stands in `fuzz_check.py` and `fuzz_kept.py`, and
what the pipelines are like in `test_fuzz_reference.py`.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from fuzz_check import hold
from fuzz_make import seeded

BY_DEFAULT = {"asyncio": 100, "trio": 50}
IN_SOAK = {"asyncio": 2000, "trio": 500}
"""So many seeds, from 0 on; the soak leaves out those of the default run."""

NEW = {"asyncio": 250, "trio": 250}
"""So many are others in each soak."""

AT_ONCE = 50
"""So many are one test, for several workers to share them."""


def parts(first: dict[str, int], last: dict[str, int]) -> list[Any]:
    """The seeds from `first` up to, not including, `last` of each event loop, in parts."""
    return [
        pytest.param(backend, range(start, min(start + AT_ONCE, end)), id=f"{backend}-{start}")
        for backend, end in last.items()
        for start in range(first[backend], end, AT_ONCE)
    ]


NONE = dict.fromkeys(BY_DEFAULT, 0)


@pytest.mark.parametrize(("backend", "seeds"), parts(NONE, BY_DEFAULT))
def test_random_pipelines_do_what_the_reference_says(backend: str, seeds: range) -> None:
    for seed in seeds:
        hold(backend, seeded(seed))


@pytest.mark.soak
@pytest.mark.parametrize(("backend", "seeds"), parts(BY_DEFAULT, IN_SOAK))
def test_further_pipelines_do_what_the_reference_says(backend: str, seeds: range) -> None:
    for seed in seeds:
        hold(backend, seeded(seed))


@pytest.mark.soak
@pytest.mark.parametrize(("backend", "seeds"), parts(NONE, NEW))
def test_pipelines_that_no_test_has_seen_do_what_the_reference_says(backend: str, seeds: range) -> None:
    chance = random.SystemRandom()
    for _ in seeds:
        hold(backend, seeded(chance.getrandbits(64)))
