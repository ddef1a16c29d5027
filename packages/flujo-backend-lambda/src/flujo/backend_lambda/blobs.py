"""What is too large for an invocation: written to S3 under its digest, and checked against it when it is read."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field

from .clients import S3Client, aws, error_code, refusals
from .errors import Refusal

__all__ = ["MAX_BLOB", "Blob", "BlobStore", "S3Blobs", "packed", "unpacked"]

MAX_BLOB = 256 * 1024 * 1024
"""Bytes of the largest blob that is read; what claims to be larger is refused before it is fetched."""

_KEY = re.compile(r"blobs/sha256/[0-9a-f]{64}")


class Blob(BaseModel):
    """Bytes that travel in the text itself, or lie under a key; either way their digest is in the signed part.

    Attributes:
        sha256: Digest of the bytes, in hex.
        size: How many there are.
        text: Them, as text, where they travel along; bytes that are no UTF-8 are in `key`'s place.
        key: Where they lie.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]
    text: str | None = None
    key: str | None = None


class BlobStore(Protocol):
    """Where blobs lie."""

    def put(self, key: str, data: bytes) -> None:
        """Write them; what is there under the key already is the same, for the key is its digest."""

    def get(self, key: str, size: int) -> bytes:
        """Read them, at most `size` and one byte."""


class S3Blobs:
    """Blobs in a bucket.

    Args:
        bucket: Its name.
        prefix: Put before each key.
        client: A client of S3; None makes one when it is first used.
    """

    def __init__(self, bucket: str, *, prefix: str = "flujo/", client: S3Client | None = None) -> None:
        self.bucket: str = bucket
        self.prefix: str = prefix
        self._client = client

    def __str__(self) -> str:
        return f"bucket {self.bucket!r}"

    @property
    def client(self) -> S3Client:
        """The client of S3."""
        if self._client is None:
            self._client = aws("s3")
        return self._client

    def put(self, key: str, data: bytes) -> None:
        """Write them."""
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data, ChecksumAlgorithm="SHA256")

    def get(self, key: str, size: int) -> bytes:
        """Read at most `size` and one byte, whatever lies there."""
        try:
            found = self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)
        except refusals() as error:  # the code tells them apart
            code = error_code(error)
            if not code:
                raise
            raise Refusal("E_BLOB", f"blob {key!r} cannot be read: {code}", "Check the role's rights") from error
        data: bytes = found["Body"].read(size + 1)
        return data


def packed(data: bytes, store: BlobStore | None, *, spill: bool) -> Blob:
    """What stands for `data` in an envelope; with `spill` it is written to the store."""
    digest = hashlib.sha256(data).hexdigest()
    if spill and store is not None:
        key = f"blobs/sha256/{digest}"
        store.put(key, data)
        return Blob(sha256=digest, size=len(data), key=key)
    return Blob(sha256=digest, size=len(data), text=data.decode())


def unpacked(blob: Blob, store: BlobStore | None, limit: int = MAX_BLOB) -> bytes:
    """The bytes that a blob stands for, checked.

    Raises:
        Refusal: E_SIZE, E_DIGEST, E_BLOB.
    """
    if blob.size > limit:
        raise Refusal("E_SIZE", f"a blob of {blob.size:,} bytes is announced, {limit:,} are the most")
    if blob.text is not None:
        data = blob.text.encode("utf-8", "surrogatepass")
    elif blob.key is None or not _KEY.fullmatch(blob.key) or not blob.key.endswith(blob.sha256):
        raise Refusal("E_BLOB", "the key of a blob is not its digest")
    elif store is None:
        raise Refusal("E_BLOB", "a part lies in a bucket, and none is configured", "Set FLUJO_LAMBDA_BUCKET")
    else:
        data = store.get(blob.key, blob.size)
    if len(data) != blob.size or hashlib.sha256(data).hexdigest() != blob.sha256:
        raise Refusal("E_DIGEST", "a blob is not what was signed")
    return data
