"""Who holds a run: a process, known well enough to tell whether it is gone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that opened a store.

    Attributes:
        place: The boot of the machine and the space of process ids it lives in; empty where neither can be told, so
            that only its lease says whether it lives.
        pid: Its process id there.
        started: When it started, in ticks since that boot: a later process with its id is another.
    """

    place: str
    pid: int
    started: str

    def is_gone(self) -> bool | None:
        """Whether it surely does not live any more; None where that cannot be told from here."""
        if not self.place or self.place != _place():
            return None
        return _started(self.pid) != self.started


def this_process() -> Owner:
    """The process that asks."""
    pid = os.getpid()
    return Owner(_place(), pid, _started(pid))


def _place() -> str:
    """Only within one boot and one space of ids does an id name a process. (Linux; elsewhere empty.)"""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Field 22 of /proc/<pid>/stat (see proc(5)); empty of a process that is not there."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]  # what stands before is the name, which may hold anything
