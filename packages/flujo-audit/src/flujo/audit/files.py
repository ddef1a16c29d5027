"""The few system calls the log needs: open, lock, write all, sync. POSIX only."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

__all__ = [
    "append_file",
    "create_file",
    "lock",
    "make_folder",
    "read_at",
    "same_file",
    "share_lock",
    "sync",
    "sync_folder",
    "unlock",
    "write_all",
]

PRIVATE = 0o600

# flock on the log itself, for two reasons. It belongs to the open file, not to the process: two AuditLog objects in one
# process exclude each other like two processes do (POSIX record locks would not, and any close would drop them). And
# the system frees it when its holder is killed: no stale lock file, nothing to clean up.


def lock(fd: int) -> None:
    """Wait for the exclusive lock of an open file."""
    fcntl.flock(fd, fcntl.LOCK_EX)


def unlock(fd: int) -> None:
    """Give the lock back."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def share_lock(fd: int, patience_s: float) -> bool:
    """Wait at most `patience_s` seconds until no writer holds the lock; whether that came true."""
    end = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        except OSError:
            return False  # a file system without locks, such as some network mounts: nobody can hold one there
        else:
            return True


def write_all(fd: int, data: bytes) -> None:
    """Write every byte, or raise: a full disk takes a part first and refuses the rest at the next call."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def read_at(fd: int, count: int, offset: int) -> bytes:
    """Read `count` bytes at `offset`; fewer at the end of the file."""
    parts: list[bytes] = []
    while count > 0 and (part := os.pread(fd, count, offset)):
        parts.append(part)
        offset += len(part)
        count -= len(part)
    return b"".join(parts)


def sync(fd: int) -> None:
    """Wait until the file's content is on the device, as far as the system can tell."""
    if hasattr(fcntl, "F_FULLFSYNC"):
        # macOS: fsync alone leaves the data in the drive's cache.
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(fd)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: syncing a new file does not sync its entry."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Create a folder with its parents, each with a durable name."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def append_file(path: Path, *, create: bool) -> int:
    """Open for reading and appending, close-on-exec; a new file is readable by its owner only."""
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT if create else 0), PRIVATE)


def create_file(path: Path, content: bytes) -> None:
    """Write a new file, durable with its name; FileExistsError when the name is taken."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    try:
        write_all(fd, content)
        sync(fd)
    finally:
        os.close(fd)
    sync_folder(path.parent)


def same_file(fd: int, path: Path) -> bool:
    """Whether `path` still names the open file."""
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), named)
