"""Tamper-evident audit log: append-only, hash-chained, durable before it is acknowledged."""

from .chain import Receipt
from .checkpoint import Checkpoint
from .errors import AuditError, AuditLogClosed, AuditLogDamaged, AuditRecordError, AuditWriteError
from .log import AuditLog
from .verify import Verification

__all__ = [
    "AuditError",
    "AuditLog",
    "AuditLogClosed",
    "AuditLogDamaged",
    "AuditRecordError",
    "AuditWriteError",
    "Checkpoint",
    "Receipt",
    "Verification",
]
