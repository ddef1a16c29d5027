"""Who holds runs: a store of one process, and how others find out that it is gone.

It is gone where its process is, provably: another one, or none, has its number on the same kernel. Else it is once its
lease ended. On the same kernel that is told by the monotonic clock, which all its processes share and nobody can set.
Elsewhere (the machine was started anew) it is told by the wall clock, and, where that was set back, by watching for a
whole lease that nothing beats.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

__all__ = ["Beats", "Me", "Owner", "is_gone"]


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:  # no Linux, or not to be seen from here
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _started(pid: int) -> tuple[str, int]:
    """State and start time of a process; empty where they cannot be seen."""
    fields = _read(f"/proc/{pid}/stat").rpartition(") ")[2].split()
    return (fields[0], int(fields[19])) if len(fields) > 19 else ("", 0)


@cache
def _kernel() -> tuple[str, str]:
    boot = _read("/proc/sys/kernel/random/boot_id")
    return boot and f"{boot} {_link('/proc/self/ns/time')}", _link("/proc/self/ns/pid")


@dataclass(frozen=True, slots=True)
class Owner:
    """What is written of a holder. `beat` counts how often its lease was renewed."""

    id: int
    boot: str
    space: str
    pid: int
    started: int
    lease_s: float
    beat: int
    beat_mono: float
    beat_wall: float


@dataclass(slots=True)
class Me:
    """This store of this process."""

    lease_s: float
    id: int = field(default_factory=lambda: secrets.randbits(62))
    beats: int = 0
    last: float = field(default_factory=lambda: -float("inf"))

    def is_due(self) -> bool:
        """Whether its lease should be renewed; a third of it is the pace."""
        return time.monotonic() - self.last >= self.lease_s / 3

    def beat(self) -> Owner:
        """What is written to renew it; `kept` is told once it is."""
        boot, space = _kernel()
        pid = os.getpid()
        times = (self.beats + 1, time.monotonic(), time.time())
        return Owner(self.id, boot, space, pid, _started(pid)[1], self.lease_s, *times)

    def unsettle(self) -> None:
        """Renew it with the next transaction: it is not sure that the last one was kept."""
        self.last = -float("inf")

    def kept(self, owner: Owner) -> None:
        """It was renewed."""
        self.beats, self.last = owner.beat, owner.beat_mono


@dataclass(slots=True)
class Beats:
    """What was seen of other owners, by our own clock."""

    seen: dict[int, tuple[int, float]] = field(default_factory=dict)

    def is_silent(self, owner: Owner) -> bool:
        """Whether it was watched for a whole lease and did not beat."""
        now = time.monotonic()
        beat, since = self.seen.setdefault(owner.id, (owner.beat, now))
        if beat != owner.beat:
            self.seen[owner.id] = (owner.beat, now)
            return False
        return now - since > owner.lease_s


def _process_is_gone(owner: Owner) -> bool:
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is there, and another user's
        return False
    state, started = _started(owner.pid)
    return state in ("Z", "X") or bool(started and owner.started and started != owner.started)


def is_gone(owner: Owner, beats: Beats) -> bool:
    """Whether who held a run does so no more."""
    boot, space = _kernel()
    if boot and boot == owner.boot:
        if space and space == owner.space and _process_is_gone(owner):
            return True
        return time.monotonic() > owner.beat_mono + owner.lease_s
    return time.time() > owner.beat_wall + owner.lease_s or beats.is_silent(owner)
