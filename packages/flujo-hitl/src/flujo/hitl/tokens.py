"""Tokens of pauses, signed with HMAC-SHA256: `fp1.<key id>.<facts>.<signature>`, the last two in base64url."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from flujo.core import ConfigurationError, ResumeError, TokenFacts

from .payloads import moment, stamp

__all__ = ["TOKEN", "HmacSigner", "KeyListSigner", "check_keys"]

TOKEN = "fp1"
"""What every token starts with."""
_MAX_TOKEN = 8192
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_keys(keys: Mapping[str, bytes], current: str, is_fit: Callable[[bytes], bool], wanted: str) -> None:
    """Refuse keys that cannot be used; their bytes stay out of what is said.

    Raises:
        ConfigurationError: An id, a key, or the choice of the current one.
    """
    for key_id, key in keys.items():
        if not _KEY_ID.fullmatch(key_id):
            why = "a key id has 1 to 64 letters, digits, _ and -"
            raise ConfigurationError(f"key id {key_id!r} cannot be used", why)
        if not isinstance(key, bytes) or not is_fit(key):
            raise ConfigurationError(f"key {key_id!r} cannot be used", f"it is not {wanted}", "Use secrets.token_bytes")
    if current not in keys:
        raise ConfigurationError(f"current={current!r} cannot be used", f"keys are {', '.join(keys) or 'none'}")


class HmacSigner:
    """A TokenSigner. A token is bound to all facts; that it is used once is what the store sees to.

    To change the key, add one and make it the current one; take the old one away when its tokens may be refused.

    Args:
        keys: Secret keys of at least 32 bytes, by their ids, which stand in tokens.
        current: Id of the key that signs; the others only check.

    Raises:
        ConfigurationError: A key or id cannot be used.
    """

    def __init__(self, keys: Mapping[str, bytes], current: str) -> None:
        check_keys(keys, current, lambda key: len(key) >= 32, "bytes, 32 or more")
        self._keys = dict(keys)
        self._current = current

    def __repr__(self) -> str:
        return f"HmacSigner(keys={sorted(self._keys)}, current={self._current!r})"

    def sign(self, facts: TokenFacts) -> str:
        """See TokenSigner."""
        data: dict[str, object] = {"run": facts.run_id, "pause": facts.pause_id, "shown": facts.shown_digest}
        data["plan"] = facts.fingerprint
        if facts.expires_at is not None:
            data["until"] = stamp(facts.expires_at)
        if facts.roles:
            data["roles"] = sorted(facts.roles)
        text = json.dumps(data, separators=(",", ":")).encode()
        signed = f"{TOKEN}.{self._current}.{_written(text)}"
        return f"{signed}.{_written(self._signature(self._current, signed))}"

    def open(self, token: str) -> TokenFacts | None:
        """See TokenSigner."""
        parts = token.split(".")
        if len(parts) != 4 or parts[0] != TOKEN or not _KEY_ID.fullmatch(parts[1]):
            return None
        if len(token) > _MAX_TOKEN or not token.isascii():
            raise _refused("it is far too long, or not of ASCII")
        signed, _, signature = token.rpartition(".")
        if parts[1] not in self._keys:
            raise _refused(f"its key {parts[1]!r} is not known here")
        if not self._is_signature(signature, parts[1], signed):
            raise _refused("it was changed, or signed with another key")
        facts = _facts(parts[2])
        if facts.expires_at is not None and facts.expires_at < datetime.now(UTC):
            raise _refused(f"it expired at {facts.expires_at.isoformat()}")
        return facts

    def _signature(self, key_id: str, signed: str) -> bytes:
        return hmac.digest(self._keys[key_id], signed.encode(), "sha256")

    def _is_signature(self, signature: str, key_id: str, signed: str) -> bool:
        # Compared as text: base64url leaves room for several spellings of one signature, and only one of them is ours.
        return hmac.compare_digest(_written(self._signature(key_id, signed)).encode(), signature.encode())


class KeyListSigner(HmacSigner):
    """An HmacSigner whose keys share one id: the first signs, and a token is good that any of them signed.

    Args:
        key_id: What stands in tokens.
        keys: At least one, the current one first.

    Raises:
        ConfigurationError: A key or the id cannot be used.
    """

    def __init__(self, key_id: str, keys: Sequence[bytes]) -> None:
        super().__init__({key_id: keys[0]}, key_id)
        self._older = [HmacSigner({key_id: key}, key_id) for key in keys[1:]]

    def _is_signature(self, signature: str, key_id: str, signed: str) -> bool:
        if super()._is_signature(signature, key_id, signed):
            return True
        return any(one._is_signature(signature, key_id, signed) for one in self._older)


def _refused(why: str) -> ResumeError:
    return ResumeError("token cannot be used", why, "Ask for the open question anew")


def _written(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _facts(text: str) -> TokenFacts:
    """What was signed with a key of ours; another program may have that key."""
    try:
        data = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        names = (data["run"], data["pause"], data["shown"], data["plan"])
        until, roles = data.get("until"), frozenset(data.get("roles", ()))
        if not all(isinstance(name, str) for name in (*names, *roles)):
            raise TypeError
        return TokenFacts(*names, None if until is None else moment(until), roles)
    except (binascii.Error, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise _refused("what it says is no pause") from error
