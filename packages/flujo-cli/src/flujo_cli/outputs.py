"""What the runs give, as text or JSON, on the screen or in files that are whole or not there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pydantic_core import PydanticSerializationError, to_json

from flujo.core import scrub

from .problems import Problem

__all__ = ["PAUSED", "OutputFolder", "as_text", "json_of"]

SUMMARY = "_summary.json"
PAUSED = "paused"
_SUFFIXES = (".txt", ".json")


def as_text(value: object) -> str:
    """An output for people: a text as it is, anything else as indented JSON."""
    return value if isinstance(value, str) else json_of(value, indent=2)


def json_of(value: object, indent: int | None = None) -> str:
    """Any value as JSON. What JSON does not know becomes its repr, without secrets; NaN and infinity become texts
    (in a pydantic model: what its config says, null by default).

    Raises:
        ValueError: It holds itself, or text that is no Unicode.
    """
    try:
        return to_json(value, indent=indent, fallback=lambda other: scrub(repr(other)), inf_nan_mode="strings").decode()
    except PydanticSerializationError as error:
        raise ValueError(f"the output cannot be written as JSON: {error}") from error


class OutputFolder:
    """A folder with one file per item: `.txt` for a text, `.json` for anything else. A run that paused is kept as JSON
    in the folder `paused` below it.

    A file appears when all of it is on the disk, and never in part.
    """

    def __init__(self, path: Path, names: Iterable[str], source: str | None) -> None:
        self.path = path
        self._stems = _stems(list(names))
        if source is not None and os.path.isdir(source) and os.path.realpath(source) == os.path.realpath(path):
            raise Problem(f"--out {str(path)!r} is the input folder", "outputs would mix with inputs", "Choose another")
        if source is not None and any(_same(path / name, source) for name in self._names()):
            raise Problem(
                f"--out {str(path)!r} holds the input", "the output would replace it", "Choose another folder"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / f".flujo-{os.getpid()}.tmp"
            probe.touch()
            probe.unlink()
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise Problem(f"--out {str(path)!r} cannot be written", why, "Choose a folder you may write to") from error

    def _names(self) -> Iterable[str]:
        """Every file name that may be written."""
        yield SUMMARY
        for stem in self._stems.values():
            yield from (stem + suffix for suffix in _SUFFIXES)
            yield f"{PAUSED}/{stem}.json"

    def write(self, name: str, value: object) -> Path:
        """Write an item's output.

        Raises:
            OSError: The disk is full, or the folder is gone.
            ValueError: The value cannot be written as JSON.
        """
        suffix = _SUFFIXES[not isinstance(value, str)]
        return self._whole(self.path / (self._stems[name] + suffix), as_text(value))

    def write_paused(self, name: str, snapshot: str) -> Path:
        """Write an item's run that waits for a human, as its snapshot."""
        folder = self.path / PAUSED
        folder.mkdir(exist_ok=True)
        return self._whole(folder / f"{self._stems[name]}.json", snapshot)

    def write_summary(self, text: str) -> Path:
        """Write what became of every item."""
        return self._whole(self.path / SUMMARY, text)

    def _whole(self, path: Path, text: str) -> Path:
        partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with partial.open("wb") as file:
                file.write(text.encode("utf-8", "backslashreplace"))
                if not text.endswith("\n"):
                    file.write(b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
        return path


def _same(path: Path, source: str) -> bool:
    return os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source)


def _stems(names: list[str]) -> dict[str, str]:
    """File names without suffix: an item's own stem, or its whole name where stems are not unique."""
    stems = {name: Path(name).stem for name in names}
    # Without case: some file systems know none.
    taken = Counter(stem.casefold() for stem in stems.values())
    unique = len(taken) == len(stems) and Path(SUMMARY).stem not in taken
    return stems if unique else {name: name for name in names}
