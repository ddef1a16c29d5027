"""The log file as a chain: finds its end under the lock, appends a batch, and acknowledges what is durable."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from . import files
from .errors import AuditLogDamaged
from .format import Stamp, build_line, encode_record, format_time, make_event_id
from .tail import Tail, find_tail

__all__ = ["Chain", "Head", "Receipt"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof for the writer that a record is durable: keep it elsewhere and it works like a checkpoint.

    Attributes:
        seq: Number of the record in the log, from 1; also its line number.
        event_id: A UUID (version 7), unique to the record.
        hash: The record's hash, which covers all records before it.
    """

    seq: int
    event_id: str
    hash: str


@dataclass(frozen=True, slots=True)
class Head:
    """The last record of the log that this writer knows of. `size` is the length of the file up to it, in bytes."""

    log: str
    seq: int
    hash: bytes
    ts: str
    size: int


_NOTHING = Head("", 0, b"", "", 0)


class Chain:
    """Appends batches of records to one file. Not thread-safe: its owner calls it from one thread at a time.

    Several objects and processes may append to one path: each batch holds the file's lock from the search for the end
    of the log to the sync, so lines never interleave and every `prev` is the hash of the line before.
    """

    def __init__(self, path: Path, clock: Callable[[], int] = time.time_ns) -> None:
        """Nothing is opened yet. `clock` gives nanoseconds since the epoch."""
        self.path = path
        self.head: Head | None = None
        self._clock = clock
        self._fd: int | None = None
        self._writer_id = _new_writer_id()

    def append(self, bodies: Sequence[bytes]) -> list[Receipt]:
        """Write records as one batch; they are durable on return.

        Raises:
            OSError: Nothing of the batch is in the log. The file was closed: the next call opens it again and starts
                from what it finds, because after a failed sync an open file no longer tells what is on the disk.
            AuditLogDamaged: The file is no longer the log this object wrote to.
        """
        try:
            fd = self._open_locked()
            head, debris = self._find_head(fd)
            if debris is not None:
                bodies = [self._move_aside(fd, head, debris), *bodies]
            lines, receipts, after = self._chain_on(head, bodies, recovered=debris is not None)
            self._write(fd, head.size, b"".join(lines))
            if head.size == 0:
                files.sync_folder(self.path.resolve().parent)
            files.unlock(fd)
        except BaseException:
            self.close()
            raise
        self.head = after
        return receipts if debris is None else receipts[1:]

    def close(self) -> None:
        """Close the file, and with it give the lock back. A later append opens it again."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def forget(self) -> None:
        """In a forked child: let go of the parent's open file, whose lock the child would otherwise keep alive."""
        self.close()
        self._writer_id = _new_writer_id()

    def _open_locked(self) -> int:
        while True:
            fd = self._open() if self._fd is None else self._fd
            self._fd = fd
            files.lock(fd)
            if files.same_file(fd, self.path):
                return fd
            self.close()
            if self.head is not None:
                raise AuditLogDamaged(self.path, "it was removed or replaced while in use")

    def _open(self) -> int:
        if self.head is None:
            files.make_folder(self.path.parent)
            return files.append_file(self.path, create=True)
        try:
            return files.append_file(self.path, create=False)
        except FileNotFoundError:
            raise AuditLogDamaged(self.path, "it was removed while in use") from None

    def _find_head(self, fd: int) -> tuple[Head, Tail | None]:
        """The record to continue from, and what to move aside first when the end of the file is not whole."""
        known = self.head
        size = os.fstat(fd).st_size
        if known is not None and size == known.size:
            return known, None
        tail = find_tail(fd, size, self.path)
        last = tail.last
        head = Head(tail.log, last.seq, last.hash, last.ts, tail.end) if last is not None else _NOTHING
        if known is not None and (head.log != known.log or head.seq < known.seq):
            raise AuditLogDamaged(self.path, "records that were written to it are gone")
        if known is not None and head.seq == known.seq and head.hash != known.hash:
            raise AuditLogDamaged(self.path, f"record {known.seq} is no longer the one that was written")
        return head, tail if tail.debris else None

    def _move_aside(self, fd: int, head: Head, tail: Tail) -> bytes:
        """Copy what follows the last good record to a side file, then cut it off; the record that tells of it."""
        debris = files.read_at(fd, os.fstat(fd).st_size - head.size, head.size)
        side = self.path.with_name(f"{self.path.name}.torn-{head.seq + 1}-{secrets.token_hex(4)}")
        files.create_file(side, debris)
        os.ftruncate(fd, head.size)
        return encode_record(
            {
                "event": "recovered",
                "kind": tail.debris,
                "bytes": len(debris),
                "sha256": sha256(debris).hexdigest(),
                "side_file": side.name,
            }
        )

    def _chain_on(
        self, head: Head, bodies: Sequence[bytes], *, recovered: bool
    ) -> tuple[list[bytes], list[Receipt], Head]:
        log = head.log or secrets.token_hex(32)
        seq, digest, ts, size = head.seq, head.hash or log.encode("ascii"), head.ts, head.size
        lines: list[bytes] = []
        receipts: list[Receipt] = []
        for body in bodies:
            now = self._clock()
            stamp = Stamp(format_time(now), time.monotonic_ns(), self._writer_id, make_event_id(now, os.urandom(10)))
            marks = ["recovered"] if recovered and not lines else []
            if stamp.ts < ts:
                marks.append("clock_back")
            seq += 1
            line, digest = build_line(seq, digest, stamp, body, marks)
            ts = stamp.ts
            size += len(line)
            lines.append(line)
            receipts.append(Receipt(seq, stamp.event_id, digest.decode("ascii")))
        return lines, receipts, Head(log, seq, digest, ts, size)

    def _write(self, fd: int, end: int, data: bytes) -> None:
        try:
            files.write_all(fd, data)
            files.sync(fd)
        except OSError:
            # Take back what was written of the batch: nobody was told it is in. If even that fails, the next batch
            # finds either whole records (which stay, in the chain) or a torn one (which is moved aside).
            with suppress(OSError):
                os.ftruncate(fd, end)
            raise


def _new_writer_id() -> str:
    return f"{os.getpid()}-{secrets.token_hex(4)}"
