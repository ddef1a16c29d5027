"""What the runs are given: text, a file, a folder or JSONL, read and checked in full before anything runs."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from flujo.core import Plan, type_name

from .describe import input_used
from .problems import Problem, note

__all__ = ["Item", "read_items"]

MEGABYTE = 1024 * 1024
_MOST_NAMED = 10
"""So many bad files or lines are named one by one; the rest is counted."""

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Item:
    """The input of one run, and what it is called in progress, results and files."""

    name: str
    value: object


class _Bad(Exception):
    """One file, line or text that cannot be used: why, and what to do about it."""

    def __init__(self, why: str, do: str) -> None:
        super().__init__(why)
        self.why = why
        self.do = do


def read_items(value: str | None, text: str | None, max_mb: float, plan: Plan) -> list[Item]:
    """Read the inputs of a command.

    Args:
        value: `--input`: an existing path, `-` for stdin, or else the text itself.
        text: `--text`: the text itself, whatever it looks like.
        max_mb: Most megabytes (2**20 bytes) of one file, or of stdin.
        plan: The plan whose input type everything must fit.

    Raises:
        Problem: Any of it cannot be used; every file or line that cannot is named.
    """
    parser = _Parser(plan)
    limit = int(max_mb * MEGABYTE)
    if text is not None or value is None:
        return [Item("text", parser.argument("--text", text) if text is not None else parser.nothing())]
    if value == "-" and sys.stdin is None:
        raise Problem("input 'stdin' cannot be used", "it is closed", "Pipe something into it, or give --input FILE")
    if value == "-":
        return _from_file("stdin", lambda: sys.stdin.buffer.read(limit + 1), limit, parser)
    path = Path(value)
    if not os.path.exists(value):  # unlike Path.exists it takes any text for a path, however long
        if re.fullmatch(r"\S*[\\/]\S*|\S+\.[a-z]{2,5}", value):
            note(f"{value!r} is no existing path, so it is taken as text; --text says so on purpose")
        return [Item("text", parser.argument("--input", value))]
    if path.is_dir():
        return _from_folder(path, limit, parser)
    if path.suffix == ".jsonl":
        return _from_lines(path, limit, parser)
    return _from_file(str(path), lambda: _read(path, limit), limit, parser, _shown(path.name))


# --- where it comes from --------------------------------------------------------------------------------------------


def _from_file(label: str, read: Callable[[], bytes], limit: int, parser: _Parser, name: str = "stdin") -> list[Item]:
    try:
        return [Item(name, parser.text(_decoded(read(), limit)))]
    except _Bad as bad:
        raise Problem(f"input {label!r} cannot be used", bad.why, bad.do) from bad


def _from_folder(folder: Path, limit: int, parser: _Parser) -> list[Item]:
    """One item per file, sorted by name. Hidden files and folders inside are left out; the latter are mentioned."""
    entries = sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)
    files = [path for path in entries if not path.is_dir()]
    if len(files) < len(entries):
        note(f"{len(entries) - len(files)} folder(s) inside {str(folder)!r} are not read; give them one by one")
    if not files:
        raise Problem(f"input folder {str(folder)!r} is empty", "it holds no file that is not hidden", "Check the path")
    items, bad = [], []
    for path in files:
        try:
            _must_be_regular(path)
            items.append(Item(_shown(path.name), parser.text(_decoded(_read(path, limit), limit))))
        except _Bad as problem:
            bad.append((str(path), problem))
    _stop_on(bad, f"input folder {str(folder)!r}", "files")
    return items


def _from_lines(path: Path, limit: int, parser: _Parser) -> list[Item]:
    """One item per line that is not blank."""
    items, bad = [], []
    try:
        lines = _decoded(_read(path, limit), limit).split("\n")
    except _Bad as problem:
        raise Problem(f"input {str(path)!r} cannot be used", problem.why, problem.do) from problem
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            items.append(Item(f"{path.stem}-{number:04}", parser.json(line)))
        except _Bad as problem:
            bad.append((f"line {number}", problem))
    _stop_on(bad, f"input {str(path)!r}", "lines")
    return items


def _stop_on(bad: list[tuple[str, _Bad]], label: str, kind: str) -> None:
    if not bad:
        return
    listed = "".join(f"\n  - {name}: {problem.why}" for name, problem in bad[:_MOST_NAMED])
    more = f"\n  and {len(bad) - _MOST_NAMED} more" if len(bad) > _MOST_NAMED else ""
    what = f"{label} cannot be used: {len(bad)} bad {kind if len(bad) > 1 else kind[:-1]}; nothing ran"
    raise Problem(what, listed + more, bad[0][1].do)


def _shown(name: str) -> str:
    """A file's name as text that can be printed, whatever bytes it has."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


# --- bytes ----------------------------------------------------------------------------------------------------------


def _read(path: Path, limit: int) -> bytes:
    """Read a file, but never more than decides that it is too large."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise Problem(f"input {str(path)!r} cannot be read", why, "Check the path and your rights") from error


def _must_be_regular(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _Bad(f"it cannot be read ({error.strerror})", "Remove or repair it") from error
    if not stat.S_ISREG(mode):
        raise _Bad("it is no regular file", "Move it out of the folder")


def _decoded(data: bytes, limit: int) -> str:
    if len(data) > limit:
        size = f"{limit / MEGABYTE:g} MB"
        raise _Bad(f"it is larger than {size}", "Split it, or raise the limit: --max-input-mb N")
    if data.startswith(_UTF16):
        raise _Bad("it is UTF-16, not UTF-8", "Convert it: iconv -f UTF-16 -t UTF-8")
    if b"\0" in data:
        raise _Bad("it is binary (it holds NUL bytes)", "Extract its text first, and give the text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        do = "Convert it, e.g.: iconv -f ISO-8859-1 -t UTF-8"
        raise _Bad(f"it is not valid UTF-8 (byte {error.start}, line {line})", do) from error
    if not text.strip():
        raise _Bad("it is empty", "Give an input with text in it")
    return text


# --- types ----------------------------------------------------------------------------------------------------------


class _Parser:
    """Turns text into the plan's input type: as it is where text fits, else as JSON."""

    def __init__(self, plan: Plan) -> None:
        self.type = plan.input_type
        self.adapter = _adapter(plan.input_type)
        self.needed = input_used(plan)
        self.takes_text = self._fits("")

    def _fits(self, value: object) -> bool:
        try:
            self.adapter.validate_python(value, strict=True)
        except ValidationError as error:
            # A str with a pattern or a least length, or a Literal, takes text, though not this one.
            kinds = {item["type"] for item in error.errors(include_input=False)} - {"string_type"}
            return any(kind.startswith(("string_", "literal_")) for kind in kinds)
        return True

    def nothing(self) -> object:
        """The input where none was given."""
        if self.needed and (self.type is Any or not self._fits(None)):
            do = "Give --input FILE, FOLDER or '-', or --text TEXT"
            raise Problem("the pipeline needs an input", f"it takes {type_name(self.type)}", do)
        return None

    def argument(self, option: str, text: str) -> object:
        """An input that stands on the command line itself."""
        if not text.strip():
            raise Problem(f"the text of {option} is empty", "there is nothing to work on", "Give some text, or a path")
        try:
            return self.text(text)
        except _Bad as bad:
            raise Problem(f"the text of {option} cannot be used", bad.why, bad.do) from bad

    def text(self, text: str) -> object:
        """A whole text as one input."""
        if not self.takes_text:
            return self.json(text)
        return self._checked(lambda: self.adapter.validate_python(text, strict=True))

    def json(self, text: str) -> object:
        """JSON as one input."""
        return self._checked(lambda: self.adapter.validate_json(text))

    def _checked(self, validate: Callable[[], object]) -> object:
        try:
            return validate()
        except ValidationError as error:
            # The value itself is not shown: it may be private.
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            why = f"{place}: {first['msg']}" if place else first["msg"]
            raise _Bad(why, f"Give {type_name(self.type)}" + ("" if self.takes_text else " as JSON")) from error


def _adapter(hint: object) -> TypeAdapter[Any]:
    for options in ({"config": ConfigDict(arbitrary_types_allowed=True)}, {}):
        try:
            return TypeAdapter(hint, **options)  # type: ignore[arg-type]
        except (PydanticUserError, PydanticSchemaGenerationError):
            continue  # a model brings its own config and refuses ours
    why = f"no text can be read as {type_name(hint)}"
    raise Problem("the input of the pipeline cannot be given here", why, "Let it take str or a pydantic model")
