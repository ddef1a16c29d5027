"""What goes wrong, said in three lines: what happened, why, and what to do next."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import click

from .exits import FAILED, NOTHING_RAN

__all__ = ["Problem", "State", "note", "report", "say"]


class State:
    """What the whole command line knows: filled by the options `--debug` and `--json` wherever they stand."""

    def __init__(self) -> None:
        self.debug = False
        self.json = False


class Problem(click.ClickException):
    """Something that keeps a command from doing its work; nothing ran.

    Attributes:
        what: What happened, naming the object.
        why: The cause.
        do: The next act; empty when there is none.
    """

    exit_code = NOTHING_RAN

    def __init__(self, what: str, why: str = "", do: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.do = do

    def show(self, file: object = None) -> None:
        """Print the three lines."""
        say(self.what, self.why, self.do)


def say(what: str, why: str = "", do: str = "", *, label: str = "flujo") -> None:
    """Print an error for people, on the error stream. Lists in `why` start with a line break and keep their shape."""
    click.echo(f"{label}: {what}", err=True)
    if why:
        click.echo(f"Why: {why}" if not why.startswith("\n") else f"Why:{why}", err=True)
    if do:
        click.echo(f"Do: {do}", err=True)


def note(text: str) -> None:
    """Print one line that is no error, on the error stream."""
    click.echo(f"flujo: {text}", err=True)


def report(error: Exception, state: State) -> int:
    """Print an error that reached the top, as a traceback only where `--debug` asks for it.

    Returns:
        The exit code.
    """
    if state.debug:
        click.echo(_clean("".join(traceback.format_exception(error))), err=True)
    if isinstance(error, click.ClickException):
        error.show()
        return NOTHING_RAN
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:  # a task group's wrapping says nothing
        error = error.exceptions[0]
    known = _flujo_error(error)
    if known is not None:
        say(*known)
        return NOTHING_RAN
    if isinstance(error, OSError):
        what = "the output cannot be written" if error.filename is None else f"{str(error.filename)!r} cannot be used"
        say(what, error.strerror or type(error).__name__, "Check the disk, the path and your rights")
        return FAILED if error.filename is None else NOTHING_RAN
    do = "" if state.debug else "See where it happened: flujo --debug ..."
    say(f"unexpected {type(error).__name__}", _clean(str(error)), do)
    return FAILED


def _flujo_error(error: Exception) -> tuple[str, str, str] | None:
    """The three parts of a FlujoError; such an error can only exist where its package is loaded already."""
    core = sys.modules.get("flujo.core")
    root = getattr(core, "FlujoError", None)  # None, too, where the package failed half-way through its import
    if root is None or not isinstance(error, root):
        return None
    known: Any = error  # its type cannot be named here without importing the package
    return known.what, known.why, known.do


def _clean(text: str) -> str:
    """A foreign text without secrets. Where the scrubber is not loaded, no code of others has run yet."""
    scrub = getattr(sys.modules.get("flujo.core"), "scrub", None)
    return text if scrub is None else str(scrub(text))
