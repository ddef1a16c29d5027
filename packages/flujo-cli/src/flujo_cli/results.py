"""Hands out each result as soon as it is there: to stdout, or to files."""

from __future__ import annotations

import codecs
import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import click

from flujo.core import SnapshotError, StepFailed, scrub

from .batch import Ended
from .outputs import OutputFolder, as_text, json_of
from .problems import say
from .progress import Progress
from .questions import asked, going_on
from .summary import Summary, item_facts

__all__ = ["Results"]

_ESCAPED = "flujo.escaped"


def _escaped(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(_ESCAPED, _escaped)


class Results:
    """Where results go.

    Args:
        stream: What they are printed on.
        folder: Where they are written instead, one file per item.
        progress: Makes way while something is printed.
        as_json: One JSON object per line.
        many: Whether there are several items, so that each needs a heading.
        debug: Whether a failed item shows the traceback of what its step raised.
        resume: Gives the command that goes on with a run, where a store keeps them.

    Attributes:
        troubled: A result could not be written where it should be.
        reader_gone: Whoever read our stdout left; there is no point in paying for more.
        on_reader_gone: Called then, once.
        files: How many results were written to the folder.
    """

    def __init__(
        self,
        stream: TextIO,
        folder: OutputFolder | None,
        progress: Progress,
        *,
        as_json: bool,
        many: bool,
        debug: bool,
        resume: Callable[[str], str] | None = None,
    ) -> None:
        self.troubled = False
        self.reader_gone = False
        self.files = 0
        self.on_reader_gone: Callable[[], object] = _nothing
        self._kept: dict[int, Path | None] = {}
        self._waiting: Ended | None = None
        self._stream = stream
        self._folder = folder
        self._progress = progress
        self._json = as_json
        self._many = many
        self._debug = debug
        self._resume = resume
        self._streamed: list[str] = []

    def chunk(self, name: str, value: object) -> None:
        """Print what a streaming step gave, right after what it gave before."""
        heading = f"--- {name}\n" if self._many and not self._streamed else ""
        self._streamed.append(value if isinstance(value, str) else as_text(value) + "\n")
        self._write(heading + self._streamed[-1])

    def emit(self, ended: Ended) -> None:
        """Hand out what one item gave, or say why it gave nothing."""
        was_streamed = self._was_streamed(ended)
        stored = self._store(ended)
        if ended.status == "paused":
            self._kept[ended.index] = self._keep(ended)
        if self._json:
            self._print_json(ended, stored)
        elif ended.status == "completed" and not stored and not was_streamed:
            heading = f"--- {ended.name}\n" if self._many else ""
            self._print(heading + self._text(ended))
        if ended.error is not None and not self._json:
            with self._progress.paused():
                self._say(ended)
        if ended.status == "paused" and not self._json:
            with self._progress.paused():
                self._ask(ended)

    def _was_streamed(self, ended: Ended) -> bool:
        """Whether all of its output was printed while it came; ends the line of what was."""
        told, self._streamed = "".join(self._streamed), []
        if told and not told.endswith("\n"):
            self._write("\n")
        return bool(told) and ended.status == "completed" and self._text(ended) == told

    def conclude(self, summary: Summary) -> None:
        """Hand out what became of all of them."""
        if self._json:
            self._print(json_of(summary.facts()))
        if self._folder is not None:
            items = [item_facts(ended, output=False, kept=self._kept.get(ended.index)) for ended in summary.ended]
            self._guarded(lambda folder: folder.write_summary(json_of({**summary.facts(), "runs": items}, indent=2)))

    def say_how_to_go_on(self) -> None:
        """Say how a run that paused is gone on with, if there is one."""
        if self._waiting is not None and self._waiting.result is not None:
            command = None if self._resume is None else self._resume(self._waiting.result.run_id)
            for line in going_on(self._waiting.result.pauses[0], self._kept[self._waiting.index], command):
                click.echo(line, err=True)

    @property
    def kept(self) -> int:
        """How many paused runs were written to the folder."""
        return sum(path is not None for path in self._kept.values())

    def _store(self, ended: Ended) -> bool:
        """Write the output to its file; False where it must go to stdout instead."""
        if ended.result is None or ended.status != "completed":
            return False
        value = ended.result.value
        stored = self._guarded(lambda folder: folder.write(ended.name, value))
        self.files += stored
        return stored

    def _keep(self, ended: Ended) -> Path | None:
        """Write a paused run to the folder; None where there is none, or it cannot be written."""
        if self._folder is None or ended.result is None:
            return None
        try:
            return self._folder.write_paused(ended.name, ended.result.snapshot().model_dump_json())
        except (OSError, SnapshotError) as error:
            self.troubled = True
            do = error.do if isinstance(error, SnapshotError) else "Choose another folder, and run it again"
            with self._progress.paused():
                say(f"paused run of {ended.name!r} could not be written to {str(self._folder.path)!r}", str(error), do)
        return None

    def _guarded(self, write: Callable[[OutputFolder], object]) -> bool:
        if self._folder is None:
            return False
        try:
            write(self._folder)
        except (OSError, ValueError) as error:
            self.troubled = True
            with self._progress.paused():
                say(f"--out {str(self._folder.path)!r} could not take a result", str(error), "It is on stdout instead")
            return False
        return True

    def _print_json(self, ended: Ended, stored: bool) -> None:
        facts = item_facts(ended, output=not stored, kept=self._kept.get(ended.index))
        try:
            line = json_of(facts)
        except ValueError as error:
            self._complain(ended, error)
            line = json_of({**facts, "output": repr(facts["output"])})
        self._print(line)

    def _text(self, ended: Ended) -> str:
        value = None if ended.result is None else ended.result.value
        try:
            return as_text(value)
        except ValueError as error:
            self._complain(ended, error)
            return repr(value)

    def _complain(self, ended: Ended, error: ValueError) -> None:
        self.troubled = True
        with self._progress.paused():
            say(f"output of {ended.name!r} is no JSON", str(error), "Let the last step return plain data or a model")

    def _print(self, text: str) -> None:
        self._write(text if text.endswith("\n") else text + "\n")

    def _write(self, text: str) -> None:
        if self.reader_gone:
            return
        encoding = self._stream.encoding or "utf-8"
        # What the terminal does not know is escaped, and half a pair too, which nothing can take; JSON stays JSON.
        shown = text.encode(encoding, errors=_ESCAPED).decode(encoding)
        try:
            with self._progress.paused():
                self._stream.write(shown)
                self._stream.flush()
        except BrokenPipeError:
            self.reader_gone = True
            # Python flushes stdout once more when it ends, and would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            self.on_reader_gone()

    def _say(self, ended: Ended) -> None:
        assert ended.error is not None
        label = f"flujo: {ended.name}" if self._many else "flujo"
        if self._debug:
            click.echo(scrub("".join(traceback.format_exception(ended.error))), err=True)
        do = ended.error.do
        if not do and not self._debug and isinstance(ended.error, StepFailed):
            do = "Correct the step or its input; --debug shows where it was raised"
        say(ended.error.what, ended.error.why, do, label=label)

    def _ask(self, ended: Ended) -> None:
        """Say what a paused run waits for."""
        assert ended.result is not None
        self._waiting = self._waiting or ended
        label, number = f"flujo: {ended.name}" if self._many else "flujo", len(ended.result.pauses)
        say(f"paused, {number} question{'s'[: number != 1]} to a human", label=label)
        for line in asked(ended.result.pauses):
            click.echo(line, err=True)


def _nothing() -> None: ...
