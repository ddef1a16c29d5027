"""Random nested pipelines with random outcomes, delays, failures, pauses and cancels, on the real engine.

Held against a reference without tasks or time: every due step runs once per visit, none before what it depends on;
end, context, history and errors are the reference's; pausing, the JSON of snapshots and any number of resumes change
nothing; a failed run that is tried again repeats nothing that ended well; nothing goes on after a cancel; a replay
calls no step and diverges nowhere. What exactly is compared stands in `fuzz_check.py`.
"""

from __future__ import annotations

import pytest
from fuzz_check import check_on
from fuzz_make import seeded, specs
from fuzz_specs import Spec
from hypothesis import given, settings

COUNTS = {"asyncio": 2000, "trio": 500}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("backend", COUNTS)
def test_random_pipelines_do_what_the_reference_says(backend: str) -> None:
    @settings(max_examples=COUNTS[backend], derandomize=True, database=None, deadline=None)
    @given(specs())
    def hold(spec: Spec) -> None:
        check_on(backend, spec)

    hold()


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_further_pipelines_do_what_the_reference_says() -> None:
    for seed in range(2_000, 5_000):
        check_on("asyncio", seeded(seed))
