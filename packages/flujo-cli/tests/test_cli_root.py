"""The root: what is imported when, plugins' commands, hints, and errors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

from flujo_cli import exits
from flujo_cli.plugin_commands import KNOWN, Known

COMMAND = """
import click
from flujo.core import Command, hookimpl

flujo_api = "1.0"

@hookimpl
def register_commands():
    return [Command("greet", "Say hello.", "{module}:greet")]

@click.command()
@click.argument("name")
def greet(name):
    click.echo(f"hello {{name}}")
    raise SystemExit(0)
"""


def test_help_imports_neither_pydantic_nor_rich_nor_core() -> None:
    code = (
        "import json, sys\nfrom flujo_cli.main import run\nrun(['--help'])\n"
        "print(json.dumps([m for m in ('pydantic', 'rich', 'flujo.core', 'anyio') if m in sys.modules]))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=True)
    assert json.loads(said.stdout.splitlines()[-1]) == []
    for word in ("run", "validate", "graph", "plugins", "doctor", "audit", "pii"):
        assert f"\n  {word} " in said.stdout


def test_every_command_has_a_help_with_examples(cli) -> None:
    for word in ("run", "validate", "graph", "plugins", "doctor"):
        said = cli(word, "--help")
        assert (said.code, said.err) == (0, "")
        assert "Examples:" in said.out


def test_an_unknown_command_is_answered_with_the_nearest_one(cli) -> None:
    said = cli("vaildate", "flows.py")
    assert said.code == 2
    assert "Did you mean 'validate'?" in said.err


def test_a_known_command_without_its_package_says_how_to_install_it(cli, monkeypatch) -> None:
    monkeypatch.setitem(KNOWN, "later", Known("flujo-later", "Is not written yet."))
    said = cli("later")
    assert said.code == 2
    assert "pip install flujo-later" in said.err


def test_version_names_both_packages(cli) -> None:
    said = cli("--version")
    assert said.code == 0
    assert said.out.startswith("flujo-cli ")
    assert "flujo-core " in said.out


def test_a_command_of_our_own_plugin_runs_with_its_own_exit_code(cli) -> None:
    said = cli("audit", "verify", "nothing.jsonl")
    assert said.code == 2
    assert "nothing.jsonl" in said.out + said.err


def test_a_command_of_a_foreign_plugin_is_listed_and_runs(cli) -> None:
    cli.plugin("acme-tools", COMMAND.format(module="acme_tools"))
    assert re.search(r"\n  greet +Say hello\.", cli("--help").out)
    said = cli.process("greet", "world", PYTHONPATH=f"{cli.folder}:{':'.join(sys.path)}")
    assert (said.code, said.out) == (0, "hello world\n")


def test_a_plugin_that_fails_to_load_costs_one_line_and_no_command(cli) -> None:
    cli.plugin("acme-broken", "raise RuntimeError('api_key=abcdef123456')")
    said = cli("--help")
    assert said.code == 0
    assert "acme-broken" in said.err
    assert len(said.err.splitlines()) == 1
    assert "abcdef123456" not in said.err
    assert cli("validate", "flows.py").err == ""


def test_a_blocked_plugin_is_neither_imported_nor_listed(cli, monkeypatch) -> None:
    cli.plugin("acme-side", "import pathlib\npathlib.Path('imported').touch()")
    monkeypatch.setenv("FLUJO_PLUGINS", "flujo-audit")
    said = cli("--help")
    assert "audit" in said.out
    assert "pii" not in said.out
    said = cli("pii")
    assert said.code == 2
    assert "FLUJO_PLUGINS" in said.err
    assert not (cli.folder / "imported").exists()


def test_a_command_whose_target_is_broken_names_its_package(cli) -> None:
    source = COMMAND.format(module="acme_gone_away")
    cli.plugin("acme-target", source)
    said = cli("greet")
    assert said.code == 2
    assert "acme-target" in said.err


def test_a_broken_policy_stops_commands_but_not_the_help(cli) -> None:
    cli.plugin("acme-tools", COMMAND.format(module="acme_tools"))
    cli.write("pyproject.toml", "[tool.flujo.policy]\nrequires = ['flujo-audit']\n")
    said = cli("--help")
    assert said.code == 0
    assert "audit" in said.out
    assert "greet" not in said.out  # whether it may be imported nobody knows
    assert "requires" in said.err
    assert cli("greet").code == 2


def test_broken_settings_stop_commands_but_not_the_help(cli) -> None:
    cli.write("pyproject.toml", "[tool.flujo]\nuse = 3\n")
    said = cli("--help")
    assert said.code == 0
    assert "'use'" in said.err
    assert cli("plugins").code == 2


def test_the_worst_of_several_codes_is_the_one_to_look_at_first() -> None:
    assert exits.worst([]) == 0
    assert exits.worst([0, 5, 0]) == 5
    assert exits.worst([4, 5]) == 4
    assert exits.worst([4, 3, 0]) == 3
    assert exits.worst([3, 6, 4]) == 6
    assert exits.worst([6, 130]) == 130


def test_a_reader_that_is_gone_is_no_finding(cli) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "flujo_cli", "plugins"]
    done = subprocess.run(command, cwd=cli.folder, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=240)
    os.close(writer)
    assert done.returncode == 130
    assert b"Traceback" not in done.stderr
