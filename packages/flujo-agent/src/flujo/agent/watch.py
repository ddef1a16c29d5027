"""What all the processes of a sandbox use together: a resource limit holds for each of them by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_KIB = 1024
_ANONYMOUS = ("RssAnon:", "RssShmem:")


def memory_of(pid: int, limit: int) -> int:
    """Bytes of memory that the descendants of a process hold, in proportion where they share it.

    Args:
        pid: The process that they come from; it does not count itself.
        limit: Bytes below which a cheap upper bound will do.
    """
    members = list(descendants(pid))
    most = sum(_resident(member) for member in members)
    return most if most <= limit else sum(_proportional(member) for member in members)


def files_of(pid: int, folders: tuple[str, ...], size: int) -> int:
    """Number of files in the file systems of a sandbox.

    Args:
        pid: The process that its processes come from.
        folders: Where they are mounted, as the sandbox sees it.
        size: Bytes that each can hold, by which they are told from what is there before the sandbox is made.
    """
    found = 0
    for member in descendants(pid):
        found = max(found, sum(_files(_PROC / str(member) / "root" / folder.lstrip("/"), size) for folder in folders))
    return found


def descendants(pid: int) -> Iterator[int]:
    """Children of a process, their children, and so on; one that ends meanwhile may be left out."""
    for child in _children(pid):
        yield child
        yield from descendants(child)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in (_PROC / str(pid) / "task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        pass
    return found


def _resident(pid: int) -> int:
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * _KIB for line in lines if line.startswith(_ANONYMOUS))


def _proportional(pid: int) -> int:
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    except PermissionError:  # a hardened kernel: what it shares counts for each
        return _resident(pid)
    return sum(int(line.split()[1]) * _KIB for line in lines if line.startswith("Pss_Anon:"))


def _files(folder: Path, size: int) -> int:
    try:
        facts = os.statvfs(folder)
    except OSError:  # it has ended
        return 0
    return facts.f_files - facts.f_ffree if facts.f_blocks * facts.f_frsize == size else 0
