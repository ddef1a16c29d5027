"""Where artifacts are kept: by the digest of their bytes, so that nothing is ever overwritten."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from pathlib import Path
from typing import Protocol

from flujo.core import ConfigurationError, Signer

from .artifact import Artifact
from .clients import S3Client, aws, error_code
from .sbom import signed, statement

__all__ = ["ArtifactStore", "FileArtifactStore", "S3ArtifactStore", "publish", "store_at"]

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ArtifactStore(Protocol):
    """Keeps artifacts. What was put stays as it is; a version once named stays what it is."""

    def put(self, data: bytes) -> str:
        """Keep an artifact, and return its digest."""

    def get(self, digest: str) -> bytes:
        """Read one, checked; raises ConfigurationError where it is not there, or was changed."""

    def attach(self, digest: str, kind: str, data: bytes) -> None:
        """Keep what is known of an artifact: `manifest`, `sbom`, `statement`."""

    def attached(self, digest: str, kind: str) -> bytes:
        """Read it; raises ConfigurationError where it is not there."""

    def name(self, name: str, version: str, digest: str) -> None:
        """Call an artifact by name and version; raises ConfigurationError where these mean another one."""

    def resolve(self, name: str, version: str) -> str:
        """The digest of a name and version; raises ConfigurationError where nothing is called so."""


class _Store:
    """What both kinds share: keys, and the checks of what is read."""

    def put(self, data: bytes) -> str:
        """Keep an artifact, and return its digest."""
        digest = hashlib.sha256(data).hexdigest()
        self._write(f"artifacts/sha256/{digest}.zip", data)
        return digest

    def get(self, digest: str) -> bytes:
        """Read one, checked."""
        data = self._read(f"artifacts/sha256/{_checked(digest)}.zip")
        if data is None or hashlib.sha256(data).hexdigest() != digest:
            why = "it is not there" if data is None else "its bytes were changed"
            raise ConfigurationError(f"artifact {digest[:12]} cannot be used", why, "Publish it again")
        return data

    def attach(self, digest: str, kind: str, data: bytes) -> None:
        """Keep what is known of an artifact."""
        self._write(f"artifacts/sha256/{_checked(digest)}.{_word(kind)}.json", data)

    def attached(self, digest: str, kind: str) -> bytes:
        """Read it."""
        data = self._read(f"artifacts/sha256/{_checked(digest)}.{_word(kind)}.json")
        if data is None:
            raise ConfigurationError(f"artifact {digest[:12]} has no {kind}", "it is not there", "Publish it again")
        return data

    def name(self, name: str, version: str, digest: str) -> None:
        """Call an artifact by name and version."""
        key = f"index/{_word(name)}/{_word(version)}.json"
        self._write(key, json.dumps({"sha256": _checked(digest)}).encode())
        if self.resolve(name, version) != digest:
            why = f"it is artifact {self.resolve(name, version)[:12]} already"
            raise ConfigurationError(f"{name} {version} cannot be artifact {digest[:12]}", why, "Take another version")

    def resolve(self, name: str, version: str) -> str:
        """The digest of a name and version."""
        data = self._read(f"index/{_word(name)}/{_word(version)}.json")
        if data is None:
            raise ConfigurationError(f"{name} {version} cannot be used", "it was not published here")
        return _checked(str(json.loads(data)["sha256"]))

    def _write(self, key: str, data: bytes) -> None:
        """Write what is not there yet."""
        raise NotImplementedError

    def _read(self, key: str) -> bytes | None:
        raise NotImplementedError


class FileArtifactStore(_Store):
    """Artifacts in a folder."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)

    def _write(self, key: str, data: bytes) -> None:
        path = self._folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        draft.write_bytes(data)
        try:
            os.link(draft, path)  # whole, or not at all, and never over another
        except FileExistsError:
            pass  # what is under a digest is the same; of a name, `name` finds out
        finally:
            draft.unlink()

    def _read(self, key: str) -> bytes | None:
        path = self._folder / key
        return path.read_bytes() if path.exists() else None


class S3ArtifactStore(_Store):
    """Artifacts in a bucket: AWS deploys a function from there. Written by conditional puts only.

    Attributes:
        bucket: The bucket.
        prefix: Put before each key.
    """

    def __init__(self, bucket: str, *, prefix: str = "", client: S3Client | None = None) -> None:
        self.bucket: str = bucket
        self.prefix: str = prefix
        self._client = client

    def key(self, digest: str) -> str:
        """The key of an artifact, as `Code={"S3Bucket": ..., "S3Key": ...}` wants it."""
        return f"{self.prefix}artifacts/sha256/{_checked(digest)}.zip"

    @property
    def _s3(self) -> S3Client:
        if self._client is None:
            self._client = aws("s3")
        return self._client

    def _write(self, key: str, data: bytes) -> None:
        try:
            self._s3.put_object(
                Bucket=self.bucket, Key=self.prefix + key, Body=data, IfNoneMatch="*", ChecksumAlgorithm="SHA256"
            )
        except Exception as error:  # botocore makes its classes when it runs; the code tells them apart
            if error_code(error) not in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise

    def _read(self, key: str) -> bytes | None:
        try:
            data: bytes = self._s3.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"].read()
        except Exception as error:  # as above
            if error_code(error) != "NoSuchKey":
                raise
            return None
        return data


def store_at(url: str) -> FileArtifactStore | S3ArtifactStore:
    """The store of a URL: `s3://bucket/prefix`, or a folder.

    Raises:
        ConfigurationError: It names no bucket.
    """
    if not url.startswith("s3://"):
        return FileArtifactStore(url.removeprefix("file://"))
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise ConfigurationError(f"{url!r} is no store", "it names no bucket", "Write s3://BUCKET/PREFIX")
    return S3ArtifactStore(bucket, prefix=f"{prefix.rstrip('/')}/" if prefix else "")


def publish(store: ArtifactStore, artifact: Artifact, signer: Signer) -> str:
    """Put an artifact and all that is known of it into a store, under its name and version; returns its digest.

    Raises:
        ConfigurationError: Name and version mean another artifact there already.
    """
    digest = store.put(artifact.packed.data)
    made = statement(artifact.name, digest, artifact.packed.tree, artifact.components, artifact.python)
    for kind, data in (("manifest", artifact.manifest), ("sbom", artifact.sbom), ("statement", signed(made, signer))):
        store.attach(digest, kind, data)
    store.name(artifact.name, artifact.version, digest)
    return digest


def _checked(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise ConfigurationError(f"{digest[:80]!r} is no digest", "it is no SHA-256 in hex")
    return digest


def _word(text: str) -> str:
    if not _WORD.fullmatch(text):
        why = "it has letters, digits, '.', '_', '+' and '-' only, and begins with a letter or digit"
        raise ConfigurationError(f"{text[:80]!r} cannot be a name or a version", why)
    return text
