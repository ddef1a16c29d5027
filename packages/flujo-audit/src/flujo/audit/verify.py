"""Checks a log, on its raw bytes, in one pass."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Literal

from flujo.core import ConfigurationError

from .checkpoint import Checkpoint, read_checkpoints
from .files import share_lock, unlock
from .format import MARK, MAX_LINE, TAIL, line_start, log_id_of, looks_like_log, parse_line
from .keys import Key, read_key

__all__ = ["Verification", "verify_log"]

_BUFFER = 1 << 20
_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check found.

    Attributes:
        ok: Whether nothing speaks against the log.
        records: How many records are good, counted from the beginning.
        first_bad: Number of the first record that is not as it was written; None where none is.
        reason: The verdict in words, for a person.
        verdict: `intact`, `tampered`, or `unusable` when the file or a checkpoint could not be judged at all.
        log: The log's identity, as checkpoints name it.
        head: Hash of the last good record.
        head_ts: When that record was written.
        recoveries: How often a writer moved aside what a crash had left behind the last whole record.
        clock_steps: How often the clock had been set back; the order is that of the records all the same.
    """

    ok: bool
    records: int
    first_bad: int | None
    reason: str
    verdict: Literal["intact", "tampered", "unusable"]
    log: str = ""
    head: str = ""
    head_ts: str = ""
    recoveries: int = 0
    clock_steps: int = 0

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The head of the log that was checked; None unless it is intact."""
        return Checkpoint(self.log, self.records, self.head, self.head_ts) if self.ok else None


class _Broken(Exception):
    """Ends the walk at the first record that is not as it was written."""

    def __init__(self, first_bad: int, reason: str) -> None:
        self.first_bad = first_bad
        self.reason = reason
        super().__init__(reason)


class _Foreign(Exception):
    """The file is not an audit log at all."""


def verify_log(path: Path, checkpoint: str | os.PathLike[str] | Checkpoint | None, key: Key | None) -> Verification:
    """See AuditLog.verify."""
    walk = _Walk()
    try:
        points = _expected(checkpoint, key)
        with path.open("rb", buffering=_BUFFER) as file:
            walk.follow(_lines(file, _settled_size(file)), points)
    except OSError as error:
        return _unusable(f"{str(path)!r} cannot be read: {error.strerror}")
    except ConfigurationError as error:
        return _unusable(str(error))
    except _Foreign:
        return _unusable(f"{str(path)!r} is not a Flujo audit log")
    except _Broken as broken:
        return walk.verdict("tampered", broken.first_bad, broken.reason)
    if walk.records == 0:
        return _unusable(f"{str(path)!r} is empty: it holds no record")
    return walk.verdict("intact", None, _praise(walk, points))


def _expected(checkpoint: str | os.PathLike[str] | Checkpoint | None, key: Key | None) -> list[Checkpoint]:
    secret = None if key is None else read_key(key)
    if checkpoint is not None:
        return read_checkpoints(checkpoint, secret)
    if secret is not None:
        why = "it checks the signature of checkpoints, and none is given"
        raise ConfigurationError("the key has no use", why, "Name a checkpoint, or leave out the key")
    return []


def _settled_size(file: BinaryIO) -> int:
    """Length of the file while no batch is half written; what is appended later belongs to a later check."""
    # A writer keeps the lock only for a batch. One that is stuck is not waited for: its torn line is then found.
    if share_lock(file.fileno(), _PATIENCE_S):
        size = os.fstat(file.fileno()).st_size
        unlock(file.fileno())
        return size
    return os.fstat(file.fileno()).st_size


def _lines(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0 and (line := file.readline(min(size, MAX_LINE + 1))):
        size -= len(line)
        yield line


class _Walk:
    """Goes from record to record and keeps what was learnt."""

    def __init__(self) -> None:
        self.records = 0
        self.log = ""
        self.recoveries = 0
        self.clock_steps = 0
        self._hash = b""
        self._last = b""

    def follow(self, lines: Iterator[bytes], points: list[Checkpoint]) -> None:
        """Follow the chain to its end, past every checkpoint; raises _Broken or _Foreign."""
        waiting = iter(points)
        point = next(waiting, None)
        for line in lines:
            seq = self.records + 1
            if seq == 1:
                self._begin(line, points)
            start = line_start(seq, self._hash)
            digest = sha256(line[:-TAIL]).hexdigest().encode("ascii")
            if not (line.startswith(start) and line.endswith(b',"hash":"%b"}\n' % digest)):
                raise _diagnose(line, seq, self._hash)
            if line.startswith(MARK, len(start)):
                self._notice(line[len(start) + len(MARK) :])
            self.records, self._hash, self._last = seq, digest, line
            while point is not None and point.seq == seq:
                self._compare(point)
                point = next(waiting, None)
        if point is not None:
            why = f"the end was cut: there are {self.records} records, a checkpoint saw {points[-1].seq}"
            raise _Broken(self.records + 1, why)

    def verdict(self, verdict: Literal["intact", "tampered"], first_bad: int | None, reason: str) -> Verification:
        """What was found, as the user gets it."""
        last = parse_line(self._last)
        return Verification(
            ok=verdict == "intact",
            records=self.records,
            first_bad=first_bad,
            reason=reason,
            verdict=verdict,
            log=self.log,
            head=self._hash.decode("ascii") if self.records else "",
            head_ts=last.ts if last is not None else "",
            recoveries=self.recoveries,
            clock_steps=self.clock_steps,
        )

    def _begin(self, line: bytes, points: list[Checkpoint]) -> None:
        if not looks_like_log(line):
            raise _Foreign
        log = log_id_of(line)
        if log is None:
            raise _diagnose(line, 1, b"")
        self.log = log
        self._hash = log.encode("ascii")
        if any(point.log != log for point in points):
            why = "a checkpoint is of another log: the wrong one was named, or the log was replaced as a whole"
            raise _Broken(1, why)

    def _notice(self, rest: bytes) -> None:
        marks = rest[: rest.find(b'"')].split(b",")
        self.recoveries += b"recovered" in marks
        self.clock_steps += b"clock_back" in marks

    def _compare(self, point: Checkpoint) -> None:
        if point.head.encode("ascii") != self._hash:
            why = f"record {point.seq} is not the one a checkpoint saw: it or a record before it was rewritten"
            raise _Broken(point.seq, why)


def _diagnose(line: bytes, seq: int, prev: bytes) -> _Broken:
    """Name what is wrong with the line found where record `seq` should be."""
    if not line.endswith(b"\n") and len(line) <= MAX_LINE:
        why = f"record {seq} has no end: its writer was killed (the next one will move it aside), or the end was cut"
        return _Broken(seq, why)
    found = parse_line(line)
    if found is None:
        return _Broken(seq, f"record {seq} was changed: its bytes do not have its hash")
    if found.seq > seq:
        return _Broken(seq, f"record {seq} is missing: record {found.seq} stands in its place")
    if found.seq < seq:
        return _Broken(found.seq, f"record {found.seq} stands there twice")
    # The line is consistent in itself and vouches for another predecessor than the one that is there.
    return _Broken(seq - 1, f"record {seq - 1} was rewritten: record {seq} is chained to another one")


def _praise(walk: _Walk, points: list[Checkpoint]) -> str:
    text = f"consistent up to record {walk.records}"
    if points:
        text += f"; agrees with {len(points)} checkpoint{'s' * (len(points) > 1)}, the last at record {points[-1].seq}"
    if walk.recoveries:
        text += f"; {walk.recoveries} recovered after a crash"
    if walk.clock_steps:
        text += f"; the clock was set back {walk.clock_steps} times"
    return text


def _unusable(reason: str) -> Verification:
    return Verification(ok=False, records=0, first_bad=None, reason=reason, verdict="unusable")
