"""A run that changed its own pipeline, killed in every step: it goes on with the pipeline that it had then."""

import shlex
import sys
from pathlib import Path

import pytest
from conftest import FlujoCommand
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


FLOW = """
from flujo.core import PauseForHumanInput, PipelineMutation, step

@step
async def draft(text: str) -> PipelineMutation[str]:
    return PipelineMutation(text, insert_after={"draft": sign_off})

@step
async def sign_off(text: str) -> str:
    raise PauseForHumanInput("Good?", schema=str)

@step
async def publish(text: str) -> str:
    return text + " Published."

pipeline = draft >> publish
"""


def test_the_command_that_is_told_goes_on_with_a_changed_run(flujo: FlujoCommand) -> None:
    Path("changing.py").write_text(FLOW)
    told = flujo("run", "changing.py", "--text", "abc", "--experimental", "--store", "sqlite:///runs.db")
    command = shlex.split(told.err.splitlines()[-1])
    assert (command[:3], "--experimental" in command) == (["flujo", "runs", "resume"], True)
    without = flujo(*[word for word in command[1:] if word != "--experimental"], "Signed.")
    assert (without.code, "experimental={'mutation'}" in without.err) == (2, True)
    run_id = command[4]
    waits = flujo("runs", "show", run_id, "--store", "sqlite:///runs.db")
    assert "it changed the pipeline: + sign_off" in waits.out
    assert flujo("runs", "answer", run_id, "Signed.", "--yes", "--store", "sqlite:///runs.db").code == 0
    done = flujo("runs", "worker", "changing.py", "--once", "--experimental", "--store", "sqlite:///runs.db")
    assert done.code == 0
    same = flujo("runs", "replay", "changing.py", run_id, "--experimental", "--store", "sqlite:///runs.db")
    assert same.code == 0, same.err
    sys.modules.pop("changing", None)


def test_what_was_changed_is_printed_with_what_the_run_did() -> None:
    change = PipelineChange("a", "b", ("review", "sign-off"), ("publish",))
    rows = [EntryData(frame=0, node=0, kind="success", path=path, mutation=change) for path in ("draft",)]
    assert [*did(rows)][1] == "    it changed the pipeline: + review, + sign-off, - publish"
