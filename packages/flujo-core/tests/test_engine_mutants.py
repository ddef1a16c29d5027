"""Bugs that are put into the real engine, each found by the pipelines of the fuzz; see `fuzz_mutants.py`."""

from __future__ import annotations

import pytest
from fuzz_check import fault
from fuzz_make import seeded
from fuzz_mutants import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_seeded_bug_is_found_by_one_of_2000_pipelines(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.install(monkeypatch)
    found = next((seed for seed in range(2000) if fault("asyncio", seeded(seed))), None)
    monkeypatch.undo()
    assert found is not None
    assert fault("asyncio", seeded(found)) is None, "it is no fault of the mutant"
