"""Encryption of payloads at rest, with AES-256-GCM. It needs the extra `flujo-hitl[encryption]`."""

from __future__ import annotations

import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from flujo.core import SnapshotError

from .tokens import check_keys

__all__ = ["AesGcmCodec"]

_VERSION = 1
_NONCE = 12


class AesGcmCodec:
    """A PayloadCodec. What it wrote can be read in its place alone: `about` is authenticated with it.

    Written is: a byte 1, the length of the key id as a byte, the key id, a random nonce of 12 bytes, the ciphertext
    with its tag of 16 bytes. Nonces are random, so change the key after some 2^32 payloads.

    Args:
        keys: Secret keys of 32 bytes, by their ids, which stand before each payload.
        current: Id of the key that encrypts; the others only decrypt.

    Raises:
        ConfigurationError: A key or id cannot be used.
    """

    def __init__(self, keys: Mapping[str, bytes], current: str) -> None:
        check_keys(keys, current, lambda key: len(key) == 32, "bytes, exactly 32")
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._current = current
        self._head = bytes([_VERSION, len(current)]) + current.encode()

    def __repr__(self) -> str:
        return f"AesGcmCodec(keys={sorted(self._ciphers)}, current={self._current!r})"

    def encode(self, data: bytes, about: str) -> bytes:
        """See PayloadCodec."""
        nonce = os.urandom(_NONCE)
        return self._head + nonce + self._ciphers[self._current].encrypt(nonce, data, self._head + about.encode())

    def decode(self, data: bytes, about: str) -> bytes:
        """See PayloadCodec."""
        what = "payload cannot be decrypted"
        if len(data) < 2 or data[0] != _VERSION:
            raise SnapshotError(what, "it was not encrypted by this codec", "Open the store with the codec it had")
        end = 2 + data[1]
        key_id = data[2:end].decode("ascii", "replace")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SnapshotError(what, f"its key {key_id!r} is not known here", "Add that key")
        try:
            return cipher.decrypt(data[end : end + _NONCE], data[end + _NONCE :], data[:end] + about.encode())
        except (InvalidTag, ValueError) as error:
            raise SnapshotError(what, "it was changed, moved, or encrypted with another key") from error
