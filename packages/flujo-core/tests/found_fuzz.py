"""Found by the fuzz on pipelines that no test had seen; not mended yet, so not collected.

Where a fan with on_failure="collect" loses a branch, what follows the fan may begin while a step of that branch is
still being cancelled, if another branch ends in the same turn of the event loop: `Running.cancel_closed` holds back
what is due by the failure itself, not what becomes due later, when the fan ends. The mend: keep the part with each set
of workers that are ending, and hold back what becomes due in the entry with which that part ends.
"""

from __future__ import annotations

import pytest
from fuzz_check import check_on
from fuzz_specs import Each, Fan, Row, Spec, Work

INNER = Fan(
    name="par12",
    branches=(
        Work(name="s6", fails_on=2, delay=5),
        Row(nodes=(Work(name="s9", delay=2), Work(name="s10", delay=2, once="step"))),
    ),
)
OTHER = Row(nodes=(Work(name="s21"), Work(name="s22", delay=3, tool=True)))
BODY = Fan(name="par24", branches=(INNER, OTHER), collect=True)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_map_keeps_its_limit_where_a_closed_branch_cleans_up(backend: str) -> None:
    nodes = (Work(name="s26", ends="list", size=3), Each(name="map25", body=BODY, limit=1))
    check_on(backend, Spec(root=Row(nodes=nodes), start=2, picks=(0, 0, 5, 1)))
