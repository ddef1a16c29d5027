"""The audit log as users meet it: append a record, check a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread

from .chain import Chain, Receipt
from .checkpoint import Checkpoint, export
from .errors import AuditError, AuditLogDamaged, AuditWriteError
from .format import encode_record
from .keys import Key, read_key
from .verify import Verification, verify_log
from .writer import GroupCommit, Ticket

__all__ = ["AuditLog"]


class AuditLog:
    """An append-only file of JSON lines in which every record is chained to all before it.

    Any number of tasks, threads, event loops (asyncio and trio), AuditLog objects and processes may append to one path.
    An idle log holds no thread and no open file.

    Args:
        path: The file. It and its folders are created at the first record, readable by the owner only.
        checkpoint_to: A file to which `close` and `export_checkpoint` add the log's head. Keep it where those who can
            write the log cannot write.
        key: Signs these checkpoints: at least 16 bytes or characters, or the path of a file that holds them.

    Raises:
        ConfigurationError: The key cannot be used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        checkpoint_to: str | os.PathLike[str] | None = None,
        key: Key | None = None,
    ) -> None:
        # Absolute at once: a later change of the working directory must not begin a second log.
        self.path: Path = Path(path).absolute()
        self._checkpoint_to = None if checkpoint_to is None else Path(checkpoint_to).absolute()
        self._key = None if key is None else read_key(key)
        self._chain = Chain(self.path)
        self._writer = GroupCommit(self._chain)

    async def append(self, record: Mapping[str, object]) -> Receipt:
        """Write a record; it is durable on return.

        Cancelling the wait does not take the record back: it was queued and will be written, only not acknowledged.

        Args:
            record: JSON values by name. They are written as they are: keep secrets and personal data out.

        Raises:
            AuditRecordError: The record is not JSON, too long, or uses a name of the log itself.
            AuditWriteError: It could not be made durable and is not in the log.
            AuditLogDamaged: The file is not this log, or was cut, replaced or rewritten while in use.
            AuditLogClosed: The log was closed.
        """
        ticket = Ticket(encode_record(record))
        try:
            self._writer.submit(ticket)
        except RuntimeError as error:
            if isinstance(error, AuditError):
                raise
            raise AuditWriteError(self.path, error) from error
        await ticket.done.wait()
        if ticket.receipt is not None:
            return ticket.receipt
        cause = ticket.error
        if isinstance(cause, AuditLogDamaged):
            # A fresh one for each of the tasks that shared the batch: an exception carries the traceback of one.
            raise AuditLogDamaged(self.path, cause.why) from cause
        raise AuditWriteError(self.path, cause or RuntimeError()) from cause

    def checkpoint(self) -> Checkpoint | None:
        """The newest durable record this object knows of; None before its first. All records before are covered."""
        head = self._chain.head
        return None if head is None else Checkpoint(head.log, head.seq, head.hash.decode("ascii"), head.ts)

    async def export_checkpoint(self) -> Checkpoint | None:
        """Add `checkpoint()` to the file named as `checkpoint_to`, durable on return.

        Raises:
            AuditWriteError: The checkpoint could not be written.
        """
        point = self.checkpoint()
        if point is not None and self._checkpoint_to is not None:
            target = self._checkpoint_to
            try:
                await anyio.to_thread.run_sync(export, point, target, self._key)
            except OSError as error:
                raise AuditWriteError(target, error) from error
        return point

    async def close(self) -> None:
        """Wait until all queued records are written, then export a checkpoint where one is wanted.

        Not needed to free anything. Further records are refused; closing twice is allowed.

        Raises:
            AuditWriteError: The checkpoint could not be written.
        """
        already = self._writer.closed
        # Shielded: a cancelled run must not lose the checkpoint of what it did. The wait is one batch long.
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._writer.close)
            if not already:
                await self.export_checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @staticmethod
    def verify(
        path: str | os.PathLike[str],
        *,
        checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
        key: Key | None = None,
    ) -> Verification:
        """Check a log from its first byte to its last. Reads in one pass and constant memory; blocks.

        Args:
            path: The log; it may be in use.
            checkpoint: What was exported earlier: a file of checkpoints, one as text (it begins with a brace), or the
                object. Without it, a log whose end was cut, or that was rewritten as a whole, looks intact.
            key: The key the checkpoints were signed with; then unsigned or wrongly signed ones are not accepted.

        Returns:
            The verdict; a file that cannot be judged (missing, empty, foreign) has the verdict `unusable`.
        """
        return verify_log(Path(path), checkpoint, key)
