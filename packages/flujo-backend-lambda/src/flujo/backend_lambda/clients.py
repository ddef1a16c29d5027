"""boto3, imported when it is first needed: it takes 0.2 s, which a worker that needs no AWS service must not pay.

boto3 has no types of its own; what stands here is what is used of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, cast

from flujo.core import ConfigurationError

__all__ = [
    "SETTINGS",
    "Answer",
    "Body",
    "DynamoClient",
    "LambdaClient",
    "S3Client",
    "SecretsClient",
    "aws",
    "error_code",
    "refusals",
    "secrets_manager",
]

Answer = Mapping[str, Any]

SETTINGS = "Set AWS_DEFAULT_REGION (or region=, --region) and credentials, or AWS_PROFILE; `aws configure` writes them"
"""The next act where AWS cannot be asked."""


class Body(Protocol):
    """What is read of an answer."""

    def read(self, amount: int = -1) -> bytes:
        """At most `amount` bytes."""

    def iter_chunks(self, chunk_size: int = 1024) -> Iterator[bytes]:
        """All of it, in parts."""


class LambdaClient(Protocol):
    """boto3's client of Lambda."""

    @property
    def meta(self) -> Any:
        """How it is configured."""

    def invoke(self, **arguments: object) -> Answer:
        """Invoke a function."""

    def get_function_configuration(self, **arguments: object) -> Answer:
        """How it is deployed."""

    def get_function_concurrency(self, **arguments: object) -> Answer:
        """What is reserved for it."""

    def get_account_settings(self) -> Answer:
        """What the account may run."""

    def create_function(self, **arguments: object) -> Answer:
        """Deploy one that is not there yet."""

    def update_function_code(self, **arguments: object) -> Answer:
        """Deploy other code."""

    def update_function_configuration(self, **arguments: object) -> Answer:
        """Change how it is run."""

    def publish_version(self, **arguments: object) -> Answer:
        """Keep what is deployed as a version."""

    def get_waiter(self, name: str) -> Any:
        """What waits until a change is done."""


class S3Client(Protocol):
    """boto3's client of S3."""

    def put_object(self, **arguments: object) -> Answer:
        """Write an object."""

    def get_object(self, **arguments: object) -> Answer:
        """Read one."""

    def head_object(self, **arguments: object) -> Answer:
        """Ask whether it is there."""


class DynamoClient(Protocol):
    """boto3's client of DynamoDB."""

    def put_item(self, **arguments: object) -> Answer:
        """Write an item."""

    def get_item(self, **arguments: object) -> Answer:
        """Read one."""


class SecretsClient(Protocol):
    """boto3's client of Secrets Manager."""

    def get_secret_value(self, **arguments: object) -> Answer:
        """Read a secret."""


def aws(service: str, *, region: str | None = None, **config: object) -> Any:
    """A client of its own session, for making one from the shared session is not safe in threads.

    Args:
        service: Its name in boto3.
        region: Where; None leaves that to boto3.
        config: Arguments of botocore's Config.

    Raises:
        ConfigurationError: It cannot be made of AWS's settings: no region, an unknown profile.
    """
    import boto3  # heavy: 0.2 s
    from botocore.config import Config  # heavy, like boto3
    from botocore.exceptions import BotoCoreError  # heavy, like boto3

    try:
        return boto3.Session(region_name=region).client(service, config=Config(**config))
    except BotoCoreError as error:
        raise ConfigurationError(f"AWS ({service}) cannot be asked", str(error), SETTINGS) from error


def refusals() -> tuple[type[Exception], ...]:
    """What boto3 raises where AWS, or its own settings, let something not through; for an `except` clause."""
    from botocore.exceptions import BotoCoreError, ClientError  # heavy, like boto3

    return BotoCoreError, ClientError


def secrets_manager(client: object = None) -> SecretsClient:
    """The client given, or a new one."""
    return cast(SecretsClient, client or aws("secretsmanager"))


def error_code(error: Exception) -> str:
    """The code of an error of AWS, e.g. `PreconditionFailed`; empty where it is another error."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, Mapping) else ""
