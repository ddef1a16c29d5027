"""Who holds runs: one row for each store object that writes, renewed while it lives."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from time import monotonic

from .database import Row, Tx

__all__ = ["Owner"]

_LEAST_WAIT_S = 0.2
_COLUMNS = "id, host, pid, started, beat, lease, expires"


@cache
def _host() -> str:
    """Names this boot of this machine and this space of process ids; empty where the system cannot tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        # a process id means something only among those who share it: containers may share a file, and not this
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> int:
    """When a process started, in ticks since the boot; 0 where there is none, or one that has ended."""
    try:
        state, *rest = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
        return 0 if state in "ZX" else int(rest[18])
    except (OSError, ValueError, IndexError):
        return 0


class Owner:
    """What this store is to the others, and what it knows of them.

    A lease is renewed by the monotonic clock. For others its end is written as wall time, with a number that grows:
    who reads an end that is further away than a lease can be knows that a clock was set, and looks at the number.

    Args:
        lease_s: Seconds after which a hold is lost that nobody renewed.
    """

    def __init__(self, lease_s: float) -> None:
        self.lease_s = lease_s
        self.holds: set[tuple[str, int]] = set()
        self._watched: dict[int, tuple[int, float]] = {}
        self.forget()

    def forget(self) -> None:
        """Be somebody new: at the start, and in a forked child."""
        self.id: int = secrets.randbits(62)
        self._beat = 0
        self._next = 0.0
        self.holds.clear()

    # --- a Beat ---

    def wait_s(self) -> float | None:
        """See Beat: only what is held must be renewed though nothing is written."""
        return max(_LEAST_WAIT_S, self._next - monotonic()) if self.holds else None

    def due(self) -> bool:
        """See Beat."""
        return monotonic() >= self._next

    def __call__(self, tx: Tx) -> None:
        """Say that this store lives. Should it have been buried, it stands up with the number it had."""
        if not self._beat:
            self._bury(tx)
        now, lease = tx.now_us(), int(self.lease_s * 1e6)
        sql = f"INSERT INTO owners ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
        then = " ON CONFLICT (id) DO UPDATE SET beat = excluded.beat, expires = excluded.expires"
        pid = os.getpid()
        tx.change(sql + then, (self.id, _host(), pid, _started(pid), self._beat + 1, lease, now + lease))

    def done(self) -> None:
        """See Beat."""
        self._beat, self._next = self._beat + 1, monotonic() + self.lease_s / 3

    def leave(self, tx: Tx) -> None:
        """Give everything back."""
        if self._beat:
            tx.change("DELETE FROM owners WHERE id = ?", (self.id,))

    # --- others ---

    def gone(self, tx: Tx, ids: Sequence[int]) -> set[int]:
        """Which of these owners hold nothing any more."""
        lost = set(ids)
        for row in tx.rows(f"SELECT {_COLUMNS} FROM owners WHERE id IN ({', '.join('?' * len(ids))})", tuple(ids)):
            if not self._is_gone(row, tx.now_us()):
                lost.discard(int(row[0]))
        return lost

    def _bury(self, tx: Tx) -> None:
        for row in tx.rows(f"SELECT {_COLUMNS} FROM owners"):
            if self._is_gone(row, tx.now_us()):
                tx.change("DELETE FROM owners WHERE id = ? AND beat = ?", (row[0], row[4]))

    def _is_gone(self, row: Row, now: int) -> bool:
        number, host, pid, started, beat, lease, expires = row
        if number == self.id:
            return False
        if host and host == _host() and _started(pid) != started:
            return True
        if expires <= now:
            return True
        return expires - now > lease and self._is_silent(number, beat, lease)

    def _is_silent(self, number: int, beat: int, lease: int) -> bool:
        """Whether an owner was seen with this beat a lease ago: the only proof where the clock was set back."""
        seen, since = self._watched.setdefault(number, (beat, monotonic()))
        if seen != beat:
            self._watched[number] = (beat, monotonic())
            return False
        return monotonic() - since > lease / 1e6
