"""A run that changed its own pipeline, killed in every step: it goes on with the pipeline that it had then."""

from pathlib import Path

import pytest
from hitl_trials import child

from flujo.core import EntryData, PipelineChange
from flujo.hitl.printing import did


@pytest.mark.parametrize("killed_by", ["first", "double", "ask", "last"])
def test_a_killed_run_goes_on_with_the_pipeline_that_it_had(killed_by: str, tmp_path: Path) -> None:
    at = (tmp_path / "runs.db", tmp_path / "log")
    whole = ["first", "double", "ask", "last"]
    if killed_by != "last":
        assert child("hitl_mutating.py", *at, killed_by, check=False) == "killed"
        paused = child("hitl_mutating.py", *at, "nobody")
    else:
        paused = child("hitl_mutating.py", *at, "nobody")
    assert paused.strip() == f"paused {whole[:3]} ['first'] None"
    if killed_by == "last":
        assert child("hitl_mutating.py", *at, killed_by, 7, check=False) == "killed"
        done = child("hitl_mutating.py", *at, "nobody")
    else:
        done = child("hitl_mutating.py", *at, "nobody", 7)
    assert done.strip() == f"completed {whole} ['first'] None"
    began = (tmp_path / "log").read_text().split()
    assert began == [name for name in whole for _ in range(1 + (name == killed_by))]  # only what was killed runs again


def test_what_was_changed_is_printed_with_what_the_run_did() -> None:
    change = PipelineChange("a", "b", ("review", "sign-off"), ("publish",))
    rows = [EntryData(frame=0, node=0, kind="success", path=path, mutation=change) for path in ("draft",)]
    assert [*did(rows)][1] == "    it changed the pipeline: + review, + sign-off, - publish"
