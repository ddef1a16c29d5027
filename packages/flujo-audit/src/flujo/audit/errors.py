"""Errors of the audit log.

FlujoError
├── AuditError              the root of all errors of flujo-audit
│   ├── AuditWriteError     a record could not be made durable: disk full, sync failed; it was not acknowledged
│   ├── AuditRecordError    a record that cannot be written as JSON (also a ValueError)
│   ├── AuditLogDamaged     the file is not this log, or no longer continues what was written to it
│   └── AuditLogClosed      the log was closed before (also a RuntimeError)
└── ConfigurationError      (of flujo.core) a key or a checkpoint that cannot be used
"""

from __future__ import annotations

from pathlib import Path

from flujo.core import FlujoError

__all__ = ["AuditError", "AuditLogClosed", "AuditLogDamaged", "AuditRecordError", "AuditWriteError"]


class AuditError(FlujoError):
    """The root of all errors of flujo-audit."""


class AuditWriteError(AuditError):
    """A record is not durable. Nothing of it stays in the log; the same log works again once the cause is gone.

    Attributes:
        errno: The system's error number, e.g. `errno.ENOSPC`; None where the cause was no system error.
    """

    def __init__(self, path: Path, cause: BaseException) -> None:
        system = cause if isinstance(cause, OSError) else None
        self.errno: int | None = system.errno if system is not None else None
        why = (system.strerror if system is not None else None) or type(cause).__name__
        do = "Treat the work as unrecorded, make the disk writable, then try again"
        super().__init__(f"audit log {str(path)!r} cannot be written", why, do)


class AuditRecordError(AuditError, ValueError):
    """A record that is not JSON, too long, or uses a name the log needs itself. Nothing was written."""

    def __init__(self, why: str, do: str) -> None:
        super().__init__("audit record cannot be written", why, do)


class AuditLogDamaged(AuditError):
    """The file cannot be continued: writing on would hide what happened to it."""

    def __init__(self, path: Path, why: str) -> None:
        do = "Run `flujo audit verify` on it, keep it aside as evidence, and start a new log"
        super().__init__(f"audit log {str(path)!r} cannot be continued", why, do)


class AuditLogClosed(AuditError, RuntimeError):
    """A record was given to a log after its `close`."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"audit log {str(path)!r} is closed", "`close` was called", "Make a new AuditLog")
