"""The store keeps the promises of core's RunStore, on asyncio and trio."""

from itertools import count
from pathlib import Path

import pytest

from flujo.core.testing import assert_conforms
from flujo.hitl import SQLiteStore


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_a_store_of_its_own_for_each_rule_conforms(tmp_path: Path, durability: str) -> None:
    number = count()

    def make() -> SQLiteStore:
        return SQLiteStore(tmp_path / f"{next(number)}.db", durability=durability)  # type: ignore[arg-type]

    assert "a_run_goes_on_by_its_id" in assert_conforms(make)


def test_one_store_for_all_rules_and_loops_conforms(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "runs.db")
    assert "one_claim_wins" in assert_conforms(store)
    store.close()
