"""Random nested pipelines with random outcomes, delays, failures, pauses and cancels, on the real engine.

Held against a reference without tasks or time: every due step runs once per visit, none before what it depends on;
end, context, history and errors are the reference's; pausing, the JSON of snapshots and any number of resumes change
nothing; a process that is gone at any point neither loses nor repeats what was kept, and what may happen at most once
never happens twice; a failed run that is tried again repeats nothing that ended well; nothing goes on after a cancel;
a replay calls no step and diverges nowhere. What exactly is compared stands in `fuzz_check.py` and `fuzz_kept.py`, and
what the pipelines are like in `test_fuzz_reference.py`.
"""

from __future__ import annotations

import pytest
from fuzz_check import hold
from fuzz_make import specs
from fuzz_specs import Spec
from hypothesis import HealthCheck, Phase, given, settings

BACKENDS = ("asyncio", "trio")


def search(backend: str, count: int) -> None:
    """Check so many pipelines, always the same ones; the first that fails is made smaller and told."""

    # Without hypothesis' own shrinking: it knows bytes only, and takes minutes where `fuzz_shrink` takes seconds.
    @settings(
        max_examples=count, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        report_multiple_bugs=False, suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    @given(specs())
    def one(spec: Spec) -> None:
        hold(backend, spec)

    one()


@pytest.mark.parametrize(("backend", "count"), [("asyncio", 500), ("trio", 150)])
def test_random_pipelines_do_what_the_reference_says(backend: str, count: int) -> None:
    search(backend, count)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backend", BACKENDS)
def test_2000_random_pipelines_do_what_the_reference_says(backend: str) -> None:
    search(backend, 2000)
