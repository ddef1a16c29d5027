"""Killed at every point: no effect is lost, and none is done twice, or it is a human who says so."""

import json
import signal
from typing import Any

import pytest
from hitl_trials import child

POINTS = [
    *[f"{when}_{what}  1" for what in ("create", "claim", "release") for when in ("before", "after")],
    *[f"{point}  {visit}" for point in ("before_save", "after_save") for visit in (1, 2)],
    *[
        f"{point}_{what} {step} 1"
        for point in ("before", "after")
        for what in ("step", "write")
        for step in ("pay", "ship")
    ],
]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    lines = child("hitl_matrix.py", tmp_path_factory.mktemp("matrix")).splitlines()
    return {case["case"]: case for case in map(json.loads, lines)}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("effect", ["idempotent", "at_most_once"])
def test_a_run_that_was_killed_is_gone_on_with(matrix: dict[str, dict[str, Any]], effect: str, point: str) -> None:
    case = matrix[f"{effect} {point}"]
    assert case["ends"] == [-signal.SIGKILL, 0], case
    assert (case["status"], case["output"], case["diverged"]) == ("completed", [42], "None"), case
    names = [line.split()[0] for line in case["effects"]]
    if effect == "at_most_once":
        assert names == ["pay", "ship"], case  # each once, whatever happened
    else:
        assert len(set(case["effects"])) == 2, case  # a step that is done again has the same key
        assert set(names) == {"pay", "ship"}, case
    written = point.startswith(
        ("before_create", "after_create", "after_write", "before_save", "after_save", "after_claim")
    )
    if written:
        assert names == ["pay", "ship"], case  # what was kept is not done again
        assert "reconcile" not in case["asked"], case


def test_the_matrix_is_whole(matrix: dict[str, dict[str, Any]]) -> None:
    assert set(matrix) == {f"{effect} {point}" for effect in ("idempotent", "at_most_once") for point in POINTS}
    assert any("reconcile" in case["asked"] for case in matrix.values())
