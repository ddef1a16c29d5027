"""The root of the command line: which commands there are, and what an error looks like.

Nothing is imported before it is called: `flujo --help` loads neither pydantic, rich nor flujo.core, unless a plugin of
somebody else must be asked for its commands.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
import threading
import time
from difflib import get_close_matches

import click

from . import exits
from .host import Host
from .options import debug_option
from .problems import report

__all__ = ["main", "root", "run"]

_GRACE_S = 1.0

_BUILT_IN = {
    "run": ("flujo_cli.run:run", "Run a pipeline on text, a file, a folder or JSONL."),
    "validate": ("flujo_cli.validate:validate", "Check a pipeline without running it; lists every problem."),
    "graph": ("flujo_cli.graph:graph", "Draw a pipeline, here or as Mermaid."),
    "plugins": ("flujo_cli.plugins:plugins", "List installed plugins; `plugins check` tests them."),
    "doctor": ("flujo_cli.doctor:doctor", "Say what is installed, what is in force, and what is wrong."),
}


class _Root(click.Group):
    """Knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All words that may follow `flujo`."""
        return [*_BUILT_IN, *(name for name, _ in _plugin_commands())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command behind a word; None when there is none."""
        if cmd_name in _BUILT_IN:
            module, _, attribute = _BUILT_IN[cmd_name][0].partition(":")
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        from .plugin_commands import find  # reads settings and entry points: only for a word that is not ours

        return find(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a hint for a word that nobody knows."""
        word = args[0]
        command = self.get_command(ctx, word)
        if command is not None:
            return word, command, args[1:]
        if word.startswith("-"):
            ctx.fail(f"No such option: {word}")
        from .plugin_commands import KNOWN  # loaded already by get_command

        close = get_close_matches(word, {*self.list_commands(ctx), *KNOWN}, n=1)
        ctx.fail(f"No such command {word!r}." + (f" Did you mean {close[0]!r}?" if close else " See: flujo --help"))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from what is known without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _BUILT_IN.items()])
        rows = _plugin_commands()
        if rows:
            with formatter.section("Commands of plugins"):
                formatter.write_dl(rows)


def _plugin_commands() -> list[tuple[str, str]]:
    from .plugin_commands import listed  # reads settings and entry points: not for our own commands

    return listed()


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        names = ("flujo-cli", "flujo-core")
        click.echo(", ".join(f"{name} {importlib.metadata.version(name)}" for name in names))
        ctx.exit()


_EPILOG = """\b
Examples:
  flujo run pipeline.py --input notes/ --max-usd 0.50
  flujo run pipeline.py:summary --text "a short text" --plugin flujo-audit
  flujo validate pipeline.py && flujo graph pipeline.py

\b
Exit codes:
  0 completed   2 nothing ran   3 failed   4 stopped by a limit
  5 paused      6 denied or aborted        130 interrupted
"""


@click.group(cls=_Root, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show versions.")
@debug_option
def root() -> None:
    """Run pipelines of AI agents, and answer for what they did."""


def run(arguments: list[str]) -> int:
    """Run one command line.

    Returns:
        The exit code.
    """
    state, stdout = Host(), sys.stdout
    try:
        code = root.main(arguments, prog_name="flujo", standalone_mode=False, obj=state)
    except SystemExit as left:
        # Where the reader is gone, rich and click exit with 1, which of a checker would be a finding; click puts a
        # stdout in place before, that swallows the rest.
        if sys.stdout is not stdout or isinstance(left.__context__, BrokenPipeError):
            return exits.INTERRUPTED
        raise
    except click.Abort:
        click.echo("flujo: interrupted", err=True)
        return exits.INTERRUPTED
    except Exception as error:  # the top: every error becomes three lines and an exit code, here and nowhere else
        return report(error, state)
    return code if isinstance(code, int) else exits.COMPLETED


def main() -> None:
    """Run the command line of this process, and exit."""
    try:
        code = run(sys.argv[1:])
        _leave(code, _GRACE_S)
    except KeyboardInterrupt:  # once more, while threads were waited for or just before
        code = exits.INTERRUPTED
        _leave(code, 0.0)
    raise SystemExit(code)


def _leave(code: int, grace_s: float) -> None:
    """End the process where a sync step that timed out or was cancelled still blocks its thread.

    Python would wait for such a thread to return, which may be never. Without one this does nothing.
    """
    main = threading.main_thread()
    others = [thread for thread in threading.enumerate() if thread is not main and not thread.daemon]
    deadline = time.monotonic() + grace_s
    for thread in others:  # idle workers need a moment to notice that their event loop is gone
        thread.join(max(0.0, deadline - time.monotonic()))
    # By their frames: a thread whose join a signal interrupted may say that it is not alive (bpo-45274).
    if any(thread.ident in sys._current_frames() for thread in others):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
