"""What signs a task: the private key, which no worker has, so that none pays for what reads it."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flujo.core import ConfigurationError

from .keys import MAKE, Ed25519Verifier

__all__ = ["Ed25519Signer"]


class Ed25519Signer:
    """Signs with a private key, as PEM (`openssl genpkey -algorithm ed25519 -out signing.pem`) or the path of one.

    Raises:
        ConfigurationError: The file cannot be read, or holds no Ed25519 private key without a pass phrase.
    """

    def __init__(self, key: bytes | str | os.PathLike[str]) -> None:
        pem = key if isinstance(key, bytes) else _read(Path(key))
        try:
            private = serialization.load_pem_private_key(pem, None)
        except (ValueError, TypeError) as error:
            why = "it is no private key in PEM, or has a pass phrase"
            raise ConfigurationError("the signing key cannot be used", why, MAKE) from error
        if not isinstance(private, Ed25519PrivateKey):
            raise ConfigurationError("the signing key cannot be used", "it is no Ed25519 key", MAKE)
        self._key = private
        self.verifier: Ed25519Verifier = Ed25519Verifier(private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> Ed25519Signer:
        """A new key, for tests."""
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return cls(Ed25519PrivateKey.generate().private_bytes(serialization.Encoding.PEM, form, plain))

    @property
    def keyid(self) -> str:
        """Name of the key."""
        return self.verifier.keyid

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`."""
        return self._key.sign(data)

    def __repr__(self) -> str:
        return f"Ed25519Signer(keyid={self.keyid!r})"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        what = f"signing key {str(path)!r} cannot be read"
        raise ConfigurationError(what, error.strerror or "", MAKE) from error
