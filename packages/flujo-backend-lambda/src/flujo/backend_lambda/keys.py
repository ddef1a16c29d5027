"""Keys: what signs a task here, and what checks it in the worker. Which algorithm counts is a fact of the key held."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from flujo.core import ConfigurationError, Verifier

from .clients import error_code, secrets_manager

__all__ = ["MAKE", "Ed25519Verifier", "HmacKey", "keys_from", "public_keys", "refuse_secrets"]

SHORTEST_HMAC = 32
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----(.*)-----END PUBLIC KEY-----", re.S)
_SPKI = bytes.fromhex("302a300506032b6570032100")
"""What stands before an Ed25519 key in PEM, always the same (RFC 8410). Read by hand: what cryptography has for all
kinds of keys costs every cold start as much as cryptography itself."""
_SECRET = ("HMAC", "PRIVATE", "SIGNING")
_ADVICE = "Sign with Ed25519 and give the worker the public key only, in FLUJO_LAMBDA_PUBLIC_KEYS"


class Ed25519Verifier:
    """Checks with a public key: 32 bytes, as base64 text, or as PEM.

    Raises:
        ConfigurationError: It is no Ed25519 public key.
    """

    def __init__(self, key: bytes | str) -> None:
        try:
            self._key = _public(key.encode() if isinstance(key, str) else key)
        except ValueError as error:
            raise ConfigurationError("a public key cannot be used", "it is no Ed25519 public key", MAKE) from error
        self._raw = self._key.public_bytes_raw()

    @property
    def keyid(self) -> str:
        """Name of the key: the start of its digest."""
        return hashlib.sha256(self._raw).hexdigest()[:16]

    @property
    def text(self) -> str:
        """The key as base64 text, for FLUJO_LAMBDA_PUBLIC_KEYS."""
        return base64.b64encode(self._raw).decode()

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether `signature` was made for `data` with the private half."""
        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            return False
        return True


class HmacKey:
    """A shared key, for who may not use Ed25519. Who can read it can sign, so it comes from Secrets Manager only."""

    def __init__(self, key: bytes, keyid: str) -> None:
        if len(key) < SHORTEST_HMAC:
            why = f"it has {len(key)} bytes, at least {SHORTEST_HMAC} are needed"
            raise ConfigurationError(f"HMAC key {keyid!r} cannot be used", why, _ADVICE)
        self._key = key
        self.keyid: str = keyid

    @classmethod
    def from_secrets_manager(cls, arn: str, client: object = None) -> HmacKey:
        """Read the key that `arn` names.

        Raises:
            ConfigurationError: `arn` names no secret, it cannot be read, or the key is shorter than 32 bytes.
        """
        if not arn.startswith("arn:") or ":secretsmanager:" not in arn:
            why = "an HMAC key is named by the ARN of its secret; the key itself belongs in no variable and no file"
            raise ConfigurationError("an HMAC key cannot be used", why, _ADVICE)
        try:
            found = secrets_manager(client).get_secret_value(SecretId=arn)
        except Exception as error:  # botocore makes its classes when it runs
            why = f"{error_code(error) or type(error).__name__}: {error}"
            do = "Check the ARN, and that the role may call secretsmanager:GetSecretValue on it"
            raise ConfigurationError(f"HMAC key {arn!r} cannot be read", why, do) from error
        key = found.get("SecretBinary") or str(found.get("SecretString", "")).encode()
        return cls(key, hashlib.sha256(arn.encode()).hexdigest()[:16])

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`."""
        return hmac.digest(self._key, data, "sha256")

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether `signature` was made for `data` with this key."""
        return hmac.compare_digest(self.sign(data), signature)

    def __repr__(self) -> str:
        return f"HmacKey(keyid={self.keyid!r})"


def public_keys(texts: Iterable[str]) -> dict[str, Verifier]:
    """Checkers by the name of their key."""
    return {key.keyid: key for key in map(Ed25519Verifier, texts)}


def refuse_secrets(names: Iterable[str], what: str) -> None:
    """Refuse variables of a function that are secret keys.

    Raises:
        ConfigurationError: One is, so that `what` happens.
    """
    for name in names:
        if name.startswith("FLUJO_LAMBDA_") and any(word in name for word in _SECRET) and not name.endswith("_ARN"):
            why = f"{name} holds a secret key; who may read the function's configuration could sign tasks with it"
            raise ConfigurationError(what, why, _ADVICE)


def keys_from(env: Mapping[str, str]) -> dict[str, Verifier]:
    """The keys a worker trusts, by what its environment says.

    Raises:
        ConfigurationError: There is none, one cannot be used, or a secret key stands in the environment itself, which
            everybody can read who may call `lambda:GetFunctionConfiguration`.
    """
    refuse_secrets(env, "the worker does not start")
    keys = public_keys(text for text in env.get("FLUJO_LAMBDA_PUBLIC_KEYS", "").replace(",", " ").split())
    arn = env.get("FLUJO_LAMBDA_HMAC_SECRET_ARN")
    if arn:
        shared = HmacKey.from_secrets_manager(arn)
        keys[shared.keyid] = shared
    if not keys:
        raise ConfigurationError(
            "the worker does not start", "it knows no key that tasks could be signed with", _ADVICE
        )
    return keys


MAKE = "Make one: openssl genpkey -algorithm ed25519 -out signing.pem"


def _public(key: bytes) -> Ed25519PublicKey:
    if len(key) == 32:
        return Ed25519PublicKey.from_public_bytes(key)
    text = _PEM.fullmatch(key.strip())
    raw = base64.b64decode(key if text is None else b"".join(text[1].split()), validate=True)
    if text is not None and not raw.startswith(_SPKI):
        raise ValueError("another kind of key")
    return Ed25519PublicKey.from_public_bytes(raw if text is None else raw.removeprefix(_SPKI))
