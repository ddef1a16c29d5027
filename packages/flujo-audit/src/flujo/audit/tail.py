"""Where a log ends: finds the last whole record of a file, and what a killed writer may have left behind it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import AuditLogDamaged
from .files import read_at
from .format import GENESIS, MAX_LINE, Envelope, log_id_of, parse_line

__all__ = ["Tail", "find_tail"]

# Most last lines fit the first span; the second holds a torn line and two whole ones of any permitted length.
_SPANS = (16 * 1024, 3 * MAX_LINE + 1)


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a log.

    Attributes:
        log: The log's identity; empty when no record was ever completed.
        end: Bytes up to the end of the last good record.
        last: The last good record; None when there is none.
        debris: What follows it: nothing, a line without its end (`torn`), or a whole line that is not what its hash
            says (`damaged`: blocks of a write that a power cut left half on the disk, or an edit).
    """

    log: str
    end: int
    last: Envelope | None
    debris: Literal["", "torn", "damaged"]


def find_tail(fd: int, size: int, path: Path) -> Tail:
    """Find the end of the log in an open file.

    At most one line is ever called debris. More than that is no crash of a writer, and is refused.

    Raises:
        AuditLogDamaged: The file is no audit log, or its last two lines are both bad.
    """
    beginning = read_at(fd, len(GENESIS) + 64, 0)
    log = log_id_of(beginning)
    if log is None:
        if len(beginning) == size and (GENESIS.startswith(beginning) or beginning.startswith(GENESIS)):
            return Tail("", 0, None, "torn" if size else "")
        raise AuditLogDamaged(path, "its beginning is not that of a Flujo audit log")
    for span in _SPANS:
        start = max(0, size - span)
        *lines, torn = read_at(fd, size - start, start).split(b"\n")
        if start > 0:
            del lines[:1]  # its beginning lies before what was read
        if len(lines) >= 2 or start == 0:
            return _judge(log, size, lines, torn, path)
    raise AuditLogDamaged(path, f"its end holds no line of at most {MAX_LINE} bytes")


def _judge(log: str, size: int, lines: list[bytes], torn: bytes, path: Path) -> Tail:
    end = size - len(torn)
    if not lines:
        return Tail("", 0, None, "torn")
    last = parse_line(lines[-1] + b"\n")
    if last is not None:
        return Tail(log, end, last, "torn" if torn else "")
    end -= len(lines[-1]) + 1
    if len(lines) == 1 and not torn:
        return Tail("", 0, None, "damaged")
    last = parse_line(lines[-2] + b"\n") if len(lines) > 1 else None
    if torn or last is None:
        raise AuditLogDamaged(path, "more than its last line is damaged")
    return Tail(log, end, last, "damaged")
