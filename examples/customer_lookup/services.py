"""What the pipeline needs from outside: secrets, a pool of database connections, and the words that must not leave.

Each is a protocol or a class that a step, a factory or a plugin asks for by its type; which one it gets is decided
where the Flujo is made.
"""

import os
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import anyio.to_thread
from psycopg_pool import AsyncConnectionPool
from pydantic import SecretStr

# --- secrets ----------------------------------------------------------------------------------------------------------


class SecretManager(Protocol):
    """Where passwords come from."""

    async def get(self, name: str) -> SecretStr:
        """The secret of that name; raises LookupError where there is none."""
        ...


class EnvSecrets:
    """Secrets in the environment: `database-url` is `DATABASE_URL`."""

    async def get(self, name: str) -> SecretStr:
        """See SecretManager."""
        variable = name.upper().replace("-", "_")
        if variable not in os.environ:
            raise LookupError(f"the environment has no {variable}")
        return SecretStr(os.environ[variable])


class FileSecrets:
    """One file for each secret, as Docker and Kubernetes mount them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def get(self, name: str) -> SecretStr:
        """See SecretManager."""
        if not re.fullmatch(r"[a-z0-9-]+", name):  # no way out of the folder
            raise LookupError(f"{name!r} is no name of a secret")
        try:
            text = await anyio.Path(self._folder / name).read_text()
        except FileNotFoundError:
            raise LookupError(f"{str(self._folder)!r} has no file {name!r}") from None
        return SecretStr(text.strip())


class AwsSecrets:
    """AWS Secrets Manager. Region, keys and endpoint are those that boto3 finds."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def get(self, name: str) -> SecretStr:
        """See SecretManager."""
        try:
            answer = await anyio.to_thread.run_sync(partial(self._client.get_secret_value, SecretId=name))
        except self._client.exceptions.ResourceNotFoundException:
            raise LookupError(f"AWS Secrets Manager has no {name!r}") from None
        return SecretStr(answer["SecretString"])


@asynccontextmanager
async def open_aws_secrets() -> AsyncIterator[AwsSecrets]:
    """Open a client and close it."""
    import boto3  # takes half a second, and only who uses AWS needs it

    client = await anyio.to_thread.run_sync(partial(boto3.client, "secretsmanager"))
    try:
        yield AwsSecrets(client)
    finally:
        client.close()


# --- the database -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_pool(secrets: SecretManager) -> AsyncIterator[AsyncConnectionPool]:
    """A pool of connections; its factory takes another resource, the secrets, by type."""
    url = (await secrets.get("database-url")).get_secret_value()
    pool: AsyncConnectionPool = AsyncConnectionPool(url, min_size=1, max_size=4, open=False, timeout=10)
    async with pool:
        await pool.wait(timeout=10)  # a wrong address is found now, not in the middle of a run
        yield pool


# --- words that must not leave ----------------------------------------------------------------------------------------


class Patterns(Protocol):
    """Finds what must not go to a model."""

    def find(self, text: str) -> list[str]:
        """Names of the patterns that are in the text."""
        ...


class RegexPatterns:
    """Patterns as regular expressions."""

    def __init__(self, patterns: Iterable[tuple[str, str]] = (("iban", r"\b[A-Z]{2}\d{2}[A-Z0-9]{11,30}\b"),)) -> None:
        self._patterns = [(name, re.compile(pattern)) for name, pattern in patterns]

    def find(self, text: str) -> list[str]:
        """See Patterns."""
        return [name for name, pattern in self._patterns if pattern.search(text)]
