"""Runs kept in PostgreSQL: `pip install flujo-hitl[postgres]`."""

from __future__ import annotations

from flujo.core import PayloadCodec, TokenSigner

from .database import Database
from .postgres_database import PostgresDatabase
from .store import SqlStore

__all__ = ["PostgresStore"]


class PostgresStore(SqlStore):
    """Keeps runs in a schema of a PostgreSQL database, for any number of machines; see HitlStore.

    What is acknowledged was committed by the server: it is as durable as that makes it, with `synchronous_commit` never
    off. A server that goes away is waited for; whether a commit counted whose answer was lost is found out then, so
    that nothing is lost and nothing is there twice. Leases go by the server's clock.

    The driver is used in threads, as the one of SQLite is, so that one set of rules serves both, on asyncio and trio.

    Args:
        url: `postgresql://user@host/database`.
        schema: Name of the schema; it is made where it is not there.
        codec: Every payload goes through it; None writes them as they are.
        signer: Signs the tokens of pauses; None gives them none.
        lease_s: Seconds after which another process may take over what nobody renewed.
        patience_s: Seconds that a server which is away, or a lock, is waited for, before StoreUnavailable.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = "flujo",
        codec: PayloadCodec | None = None,
        signer: TokenSigner | None = None,
        lease_s: float = 30.0,
        patience_s: float = 30.0,
    ) -> None:
        self._url = url
        self._schema = schema
        self._patience_s = patience_s
        writer = PostgresDatabase(url, schema, writes=True, patience_s=patience_s)
        super().__init__(writer, self._new_reader(), codec=codec, signer=signer, lease_s=lease_s)

    def _new_reader(self) -> Database:
        return PostgresDatabase(self._url, self._schema, patience_s=self._patience_s)
