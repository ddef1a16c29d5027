"""Tokens of pauses: signed, bound to what was shown, and good for one key or its successors."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, SecretBytes, ValidationError

from flujo.core import ConfigurationError, ResumeError, TokenFacts

PREFIX = "fp1"
LEAST_BYTES = 16


class _Payload(BaseModel):
    """What stands in a token, readable by everybody: it holds no payload of the run."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    run: str
    pause: str
    shown: str
    plan: str
    until: datetime | None = None
    roles: tuple[str, ...] = ()


class HmacSigner:
    """Signs tokens with HMAC-SHA256 (RFC 2104): `fp1.<key id>.<facts>.<signature>`, the last two in base64url.

    A token is no secret store: who has it reads the ids in it, and may answer. That it is used once is what the store
    keeps.

    Args:
        keys: Secrets of at least 16 bytes by their id; those of older tokens stay in here until these are over.
        current: Id of the key that signs; may be left out where there is one.

    Raises:
        ConfigurationError: A key is too short, or the current one is not there.
    """

    def __init__(self, keys: Mapping[str, bytes], current: str | None = None) -> None:
        what = "HmacSigner cannot be used"
        for key_id, key in keys.items():
            if not key_id or not key_id.isascii() or not key_id.replace("-", "").replace("_", "").isalnum():
                raise ConfigurationError(what, f"the key id {key_id!r} is not made of letters, digits, '-' and '_'")
            if len(key) < LEAST_BYTES:
                why = f"the key {key_id!r} has {len(key)} bytes, fewer than {LEAST_BYTES}"
                raise ConfigurationError(what, why, "Make one: secrets.token_bytes(32)")
        if current is None and len(keys) == 1:
            [current] = keys
        if current is None or current not in keys:
            raise ConfigurationError(what, "it is not said which key signs", "Pass current=, the id of one of the keys")
        self._keys = {key_id: SecretBytes(key) for key_id, key in keys.items()}
        self._current = current

    def sign(self, facts: TokenFacts) -> str:
        """See TokenSigner."""
        roles = tuple(sorted(facts.roles))
        payload = _Payload(
            run=facts.run_id, pause=facts.pause_id, shown=facts.shown_digest, plan=facts.fingerprint,
            until=facts.expires_at, roles=roles,
        )  # fmt: skip
        head = f"{PREFIX}.{self._current}.{_encoded(payload.model_dump_json(exclude_defaults=True).encode())}"
        return f"{head}.{_encoded(self._signature(self._current, head))}"

    def open(self, token: str) -> TokenFacts | None:
        """See TokenSigner."""
        if not token.startswith(f"{PREFIX}.") or token.count(".") != 3:
            return None
        head, _, signature = token.rpartition(".")
        _, key_id, body = head.split(".")
        if key_id not in self._keys:
            raise _refused(f"its key {key_id!r} is not known here", "Ask for a new token, or add the key")
        if not hmac.compare_digest(_encoded(self._signature(key_id, head)), signature):
            raise _refused("its signature does not fit: it was changed", "Use it as it was given")
        try:
            payload = _Payload.model_validate_json(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (ValidationError, binascii.Error):  # signed by us, so by another version
            raise _refused("its form is not known", "Install the flujo-hitl that made it") from None
        if payload.until is not None and payload.until < datetime.now(UTC):
            raise _refused(f"it expired at {payload.until.isoformat()}", "Ask for the question anew")
        bound = (payload.run, payload.pause, payload.shown, payload.plan, payload.until)
        return TokenFacts(*bound, frozenset(payload.roles))

    def _signature(self, key_id: str, head: str) -> bytes:
        return hmac.digest(self._keys[key_id].get_secret_value(), head.encode(), hashlib.sha256)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _refused(why: str, do: str) -> ResumeError:
    return ResumeError("the token cannot be used", why, do)
