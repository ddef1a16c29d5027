"""The demo: many invocations at once from the command line, each with real work and another answer."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FLUJO = Path(sys.executable).parent / "flujo"


@pytest.mark.parametrize("template", ["template.yaml", "main.tf"])
def test_what_a_template_says_to_build_is_of_the_python_that_it_deploys(template: str) -> None:
    text = (HERE / template).read_text()
    [built] = re.findall(r"flujo lambda build .*--python (3\.\d+)", text)
    [deployed] = re.findall(r'(?i)runtime\s*[:=]\s*"?python(3\.\d+)', text)
    assert built == deployed


@pytest.mark.parametrize("many", [6, pytest.param(100, marks=pytest.mark.soak)])
def test_many_invocations_at_once_from_the_command_line(many: int, tmp_path: Path) -> None:
    ids = [f"patient-{number:04d}" for number in range(many)]
    (tmp_path / "ids.jsonl").write_text("".join(f'"{one}"\n' for one in ids))
    on_lambda = [
        FLUJO,
        "run",
        HERE / "pseudonyms.py",
        "--backend",
        "lambda",
        "--input",
        tmp_path / "ids.jsonl",
        "--concurrency",
        str(many),
    ]
    command = [sys.executable, HERE / "local.py", "--", *on_lambda, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=110)
    assert done.returncode == 0, done.stderr
    assert f"{many} invocations" in done.stderr
    rows = [row for row in map(json.loads, done.stdout.splitlines()) if row["type"] == "item"]
    answers = {row["index"]: row["output"] for row in rows}
    assert len(answers) == len({answer["pseudonym"] for answer in answers.values()}) == many
    here = [FLUJO, "run", HERE / "pseudonyms.py", "--text", ids[-1], "--json"]
    env = {**os.environ, "PSEUDONYM_PEPPER": "only for trying out"}
    local = subprocess.run(here, capture_output=True, text=True, cwd=tmp_path, timeout=60, env=env, check=True)
    [same] = [row for row in map(json.loads, local.stdout.splitlines()) if row["type"] == "item"]
    assert same["output"]["pseudonym"] == answers[many - 1]["pseudonym"]
