"""Runs kept in one SQLite file."""

from __future__ import annotations

import os
from pathlib import Path

from flujo.core import ConfigurationError, PayloadCodec, TokenSigner

from .copying import copy
from .owner import Me
from .readers import Readers
from .reads import RunReads
from .schema import Durability
from .store import KeepingStore
from .transactions import Transactions
from .writes import RunWrites

__all__ = ["SQLiteStore"]


class SQLiteStore(KeepingStore):
    """A HitlStore in one file, for any number of tasks, threads and processes of one machine.

    Nothing is opened before it is used. It holds two threads and the file until `close`, or until it is forgotten.

    Args:
        path: The file; it is made where there is none. Two more lie beside it while it is used.
        durability: `full` survives a power cut; `normal` a crash of the process, and of the machine but for what was
            written last.
        codec: Encrypts payloads; None writes them as they are.
        signer: Signs the tokens of pauses; None gives them none.
        lease_s: Seconds after which runs of a process can be taken over that does not renew its lease and cannot be
            shown to be gone otherwise.
        wait_s: Seconds to wait where another process keeps the file locked.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "full",
        codec: PayloadCodec | None = None,
        signer: TokenSigner | None = None,
        lease_s: float = 30.0,
        wait_s: float = 5.0,
    ) -> None:
        if durability not in ("full", "normal"):
            raise ConfigurationError(f"durability={durability!r} cannot be used", "it is neither 'full' nor 'normal'")
        self._options = (durability, lease_s, wait_s)
        super().__init__(Path(path), codec, signer, lease_s=lease_s, wait_s=wait_s)

    def _start(self) -> None:
        durability, lease_s, wait_s = self._options
        transactions = Transactions(self.path, durability, Me(lease_s), wait_s)
        readers = Readers(self.path, wait_s)
        reads = RunReads(readers, self._payloads, transactions.beats)
        self._use(transactions, RunWrites(transactions, self._payloads), readers, reads)

    async def backup(self, path: str | Path) -> None:
        """See HitlStore.

        Raises:
            StoreWriteError: The copy cannot be written, or a file is there.
        """
        await self._read(copy, self.path, Path(path), self._options[2])
