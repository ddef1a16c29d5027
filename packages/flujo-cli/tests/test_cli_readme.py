"""The README says what the command does: its words, options and exit codes are the real ones."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click

from flujo_cli import exits
from flujo_cli.main import root
from flujo_cli.plugin_commands import KNOWN
from flujo_cli.settings import read_settings

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_every_option_in_the_readme_exists() -> None:
    context = click.Context(root)
    commands = [root.get_command(context, name) for name in ("run", "plugins")]
    known = {option for command in commands if command is not None for one in command.params for option in one.opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    assert len(named) > 8
    assert named <= known


def test_every_command_in_the_readme_exists_and_every_command_is_there() -> None:
    named = set(re.findall(r"`flujo ([a-z]+)", README))
    ours = {"run", "validate", "graph", "plugins", "doctor"}
    assert ours <= named
    assert named <= ours | set(KNOWN)


def test_the_exit_codes_in_the_readme_are_the_ones_used() -> None:
    table = README.partition("## Exit codes")[2].partition("\n## ")[0]
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.M)}
    assert codes == {
        exits.COMPLETED,
        exits.NOTHING_RAN,
        exits.FAILED,
        exits.STOPPED,
        exits.PAUSED,
        exits.DENIED,
        exits.INTERRUPTED,
    }
    order = [int(code) for code in re.findall(r"\d+", re.search(r"in the order ([\d, ]+)\.", table)[1])]
    assert [exits.worst(order[: end + 1]) for end in range(len(order))] == order


def test_the_settings_in_the_readme_are_read(cli) -> None:
    text = re.search(r"```toml\n(.*?)```", README, re.S)[1]
    assert set(tomllib.loads(text)) == {"tool"}
    cli.write("pyproject.toml", text)
    settings = read_settings()
    assert settings.use == ("flujo-deidentifier", "flujo-audit")
    assert set(settings.allowed or ()) == {"flujo-deidentifier", "flujo-audit"}
    assert settings.plugins == {"flujo-audit": {"path": "out/audit.jsonl"}}
    assert cli("plugins", "check").code == 0
