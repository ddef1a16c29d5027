"""Where artifacts are kept: by the digest of their bytes, so that nothing is ever overwritten."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from flujo.core import ConfigurationError, Signer, Verifier

from .artifact import Artifact, word
from .clients import S3Client, aws, error_code
from .sbom import Asked, Origin, signed, statement, verified

__all__ = ["ArtifactStore", "FileArtifactStore", "S3ArtifactStore", "origin", "publish", "store_at"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


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

    def name(self, name: str, version: str, digest: str, statement: bytes) -> None:
        """Call an artifact by name and version, by a signed statement that says so; raises ConfigurationError where
        these mean another one.
        """

    def resolve(self, name: str, version: str) -> str:
        """The digest of a name and version; raises ConfigurationError where nothing is called so.

        It is the word of who can write the store; `origin` says what was signed.
        """

    def statement(self, name: str, version: str) -> bytes:
        """The statement of a name and version, unchecked; raises ConfigurationError where nothing is called so."""


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
        self._write(f"artifacts/sha256/{_checked(digest)}.{word(kind)}.json", data)

    def attached(self, digest: str, kind: str) -> bytes:
        """Read it."""
        data = self._read(f"artifacts/sha256/{_checked(digest)}.{word(kind)}.json")
        if data is None:
            raise ConfigurationError(f"artifact {digest[:12]} has no {kind}", "it is not there", "Publish it again")
        return data

    def name(self, name: str, version: str, digest: str, statement: bytes) -> None:
        """Call an artifact by name and version."""
        # One object, so that no version is ever without its statement, or has that of who failed to publish it.
        entry = {"sha256": _checked(digest), "statement": json.loads(statement)}
        self._write(_index(name, version), json.dumps(entry).encode())
        there = self.resolve(name, version)
        if there != digest:
            why = f"it is artifact {there[:12]} already"
            raise ConfigurationError(f"{name} {version} cannot be artifact {digest[:12]}", why, "Take another version")

    def resolve(self, name: str, version: str) -> str:
        """The digest of a name and version."""
        return self._entry(name, version)[0]

    def statement(self, name: str, version: str) -> bytes:
        """The statement of a name and version, unchecked."""
        return self._entry(name, version)[1]

    def _entry(self, name: str, version: str) -> tuple[str, bytes]:
        key, what = _index(name, version), f"{name} {version} cannot be used"
        data = self._read(key)
        if data is None:
            raise ConfigurationError(what, "it was not published here")
        try:
            told = json.loads(data)
            return _checked(told["sha256"]), json.dumps(told["statement"]).encode()
        except (ValueError, LookupError, TypeError) as error:
            why = f"{key} of the store is damaged: it holds no digest with its statement"
            do = "Publish it as another version, or remove that entry and publish it again"
            raise ConfigurationError(what, why, do) from error

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
            if self._code(error) not in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise

    def _read(self, key: str) -> bytes | None:
        try:
            data: bytes = self._s3.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"].read()
        except Exception as error:  # as above
            if self._code(error) != "NoSuchKey":
                raise
            return None
        return data

    def _code(self, error: Exception) -> str:
        code = error_code(error)
        if code == "NoSuchBucket":
            do = f"Make it (aws s3 mb s3://{self.bucket}), or name another one"
            raise ConfigurationError(f"bucket {self.bucket!r} cannot be used", "it is not there", do) from error
        return code


def store_at(url: str) -> FileArtifactStore | S3ArtifactStore:
    """The store of a URL: `s3://bucket/prefix`, or a folder.

    Raises:
        ConfigurationError: It names no bucket, or something else than either.
    """
    scheme = _SCHEME.match(url)
    if scheme and not url.startswith(("s3://", "file://")):
        do = "Write s3://BUCKET/PREFIX, or the path of a folder"
        raise ConfigurationError(f"{url!r} is no store", f"nothing is kept by {scheme[1]!r}", do)
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
    made = signed(statement(artifact.origin, artifact.components), signer)
    # The same content may have several versions: what is attached to it is of the first, each has its own statement.
    store.attach(digest, "manifest", artifact.manifest)
    store.attach(digest, "sbom", artifact.sbom)
    store.name(artifact.name, artifact.version, digest, made)
    store.attach(digest, "statement", made)  # once the name is its own: else a signed claim to it would lie about
    return digest


def origin(store: ArtifactStore, asked: Asked, trusted: Mapping[str, Verifier]) -> Origin:
    """What a trusted key has signed of an artifact in a store.

    Raises:
        ConfigurationError: It is not there, nobody trusted has signed its statement, or that is of another artifact.
    """
    if asked.name is not None and asked.version is not None:
        return verified(store.statement(asked.name, asked.version), trusted, asked)
    if asked.digest is not None:
        return verified(store.attached(asked.digest, "statement"), trusted, asked)
    raise ConfigurationError("no artifact is named", do="Say which: --name and --version, or --digest")


def _checked(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise ConfigurationError(f"{digest[:80]!r} is no digest", "it is no SHA-256 in hex")
    return digest


def _index(name: str, version: str) -> str:
    return f"index/{word(name)}/{word(version)}.json"
