"""The page that says how a plugin is written: exactly its text, built, installed into an empty venv, and run."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from fresh_venv import ROOT, FreshVenv, clean_environment

PAGE = (ROOT / "docs/how-to/write-a-plugin.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## As a package") : PAGE.index("## What a fault means")]
BLOCKS = re.findall(r"^```(python|toml|bash)\n(.*?)^```", SECTION, re.M | re.S)


@pytest.fixture(scope="module")
def venv(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> FreshVenv:
    """A venv with our command line and the plugin of the page, whose files are laid out as the page says."""
    folder = tmp_path_factory.mktemp("guide")
    (_, module), (_, project), (_, flows), _, _ = BLOCKS
    (package := folder / "acme-audit" / "src" / "acme_audit").mkdir(parents=True)
    (package / "__init__.py").write_text(module)
    (folder / "acme-audit" / "pyproject.toml").write_text(project)
    (folder / "flows.py").write_text(flows)
    made = FreshVenv.create(folder / "venv", wheelhouse)
    made.install_locked_dependencies_of("flujo-cli")
    made.uv_install_ours("flujo-cli", str(folder / "acme-audit"))
    return made


def run(venv: FreshVenv, command: str) -> tuple[int, str]:
    """Run a line of the page in the folder that it is about."""
    import subprocess

    env = clean_environment(PATH=f"{venv.path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    done = subprocess.run(
        command, shell=True, cwd=venv.path.parent, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_the_page_has_one_file_one_line_and_the_commands() -> None:
    assert [kind for kind, _ in BLOCKS] == ["python", "toml", "python", "bash", "toml"]
    assert "acme-audit/src/acme_audit/__init__.py" in SECTION
    assert BLOCKS[1][1].count('acme-audit = "acme_audit"') == 1


def test_every_command_of_the_page_works_and_the_plugin_writes_what_happened(venv: FreshVenv) -> None:
    install, *commands = BLOCKS[3][1].splitlines()
    assert install == "uv pip install ./acme-audit"  # done above, with the wheels of this checkout instead of an index
    said = {command: run(venv, command) for command in commands}
    assert {code for code, _ in said.values()} == {0}, said
    assert "record_intent              acme-audit" in said["flujo plugins --order --plugin acme-audit"][1]
    assert "HELLO" in said["flujo run flows.py --text hello --require acme-audit"][1]
    lines = [json.loads(line) for line in said["cat acme-audit.jsonl"][1].splitlines()]
    assert [(line["event"], line["kind"]) for line in lines] == [
        ("begin", "run"), ("begin", "step"), ("end", "step"), ("end", "run"),
    ]  # fmt: skip
    assert {line["status"] for line in lines if line["event"] == "end"} == {"completed"}
    assert lines[0]["id"] == lines[3]["id"]


def test_where_it_is_required_and_cannot_write_nothing_runs(venv: FreshVenv) -> None:
    settings = BLOCKS[4][1].replace("today.jsonl", "no/such/folder/today.jsonl")
    (venv.path.parent / "pyproject.toml").write_text(settings)
    try:
        code, said = run(venv, "flujo run flows.py --text hello --require acme-audit")
        assert (code, "HELLO" in said) == (6, False), said
        code, said = run(venv, "flujo run flows.py --text hello --plugin acme-audit")
        assert (code, "HELLO" in said) == (0, True), said
    finally:
        (venv.path.parent / "pyproject.toml").unlink()


def test_a_policy_without_it_does_not_import_it(venv: FreshVenv) -> None:
    (venv.path.parent / "policy.toml").write_text("allow_plugins = ['acme-audit<1']\n")
    code, said = run(venv, "flujo run flows.py --text hello --plugin acme-audit --policy policy.toml")
    assert code == 2
    assert "the allow-list has acme-audit<1, installed is 1.0" in said
