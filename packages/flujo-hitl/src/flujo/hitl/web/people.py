"""Who may sign in: people with roles, and a file that keeps them with hashed passwords."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypedDict

from pwdlib import PasswordHash

from flujo.core import ConfigurationError

__all__ = ["OPERATOR", "Person", "Users"]

OPERATOR = "operator"
"""The role that sees every run of its tenant, and may ask that one ends. It answers what anybody may, no more."""

_LEAST = 12
"""Characters of a password."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who is signed in.

    Attributes:
        name: What is written beside their decisions.
        roles: What they may answer.
        tenant: The only one whose runs they see; None sees all.
    """

    name: str
    roles: frozenset[str] = frozenset()
    tenant: str | None = None

    @property
    def is_operator(self) -> bool:
        """Whether they see every run, and may ask that one ends."""
        return OPERATOR in self.roles

    def may_answer(self, roles: Collection[str]) -> bool:
        """Whether they may answer a question that is for these roles."""
        return not roles or not self.roles.isdisjoint(roles)


class _Row(TypedDict):
    password: str
    roles: list[str]
    tenant: str | None
    tokens: list[str]


class Users:
    """People in a JSON file, which nobody else may read: hashed passwords (Argon2), and digests of tokens.

    The file is read again whenever it was changed, so that who is removed is out at the next request.

    Args:
        path: The file; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path: Path = path
        self._seen: tuple[int, int] | None = None
        self._rows: dict[str, _Row] = {}

    def add(self, name: str, password: str, roles: Collection[str] = (), tenant: str | None = None) -> None:
        """Add a person, or give one another password, roles and tenant.

        Raises:
            ConfigurationError: The name or a role is no plain word, or the password is too short.
        """
        what = f"user {name!r} cannot be added"
        if not name.isprintable() or not name.strip() or len(name) > 200:
            raise ConfigurationError(what, "a name has 1 to 200 characters that can be printed")
        if wrong := [role for role in roles if "," in role or not role.strip()]:
            raise ConfigurationError(what, f"{wrong[0]!r} is no role", "Give names without a comma")
        if len(password) < _LEAST:
            raise ConfigurationError(what, f"the password has fewer than {_LEAST} characters", "Take a longer one")
        rows = self._read()
        tokens = rows[name]["tokens"] if name in rows else []
        row: _Row = {"password": _hash().hash(password), "roles": sorted(roles), "tenant": tenant, "tokens": tokens}
        self._write({**rows, name: row})

    def remove(self, name: str) -> None:
        """Remove a person, with all tokens; raises ConfigurationError where there is none."""
        rows = dict(self._known(name))
        del rows[name]
        self._write(rows)

    def new_token(self, name: str) -> str:
        """A token by which programs act for a person; only its digest is kept. Raises ConfigurationError."""
        rows, token = self._known(name), f"fh1_{secrets.token_urlsafe(32)}"
        row = rows[name]
        self._write({**rows, name: {**row, "tokens": [*row["tokens"], _digest(token)]}})
        return token

    def drop_tokens(self, name: str) -> int:
        """Make all tokens of a person void; how many they were. Raises ConfigurationError."""
        rows = self._known(name)
        self._write({**rows, name: {**rows[name], "tokens": []}})
        return len(rows[name]["tokens"])

    def all(self) -> list[Person]:
        """Everybody, by name."""
        return [self._person(name, row) for name, row in sorted(self._read().items())]

    def get(self, name: str) -> Person | None:
        """A person by name."""
        row = self._read().get(name)
        return None if row is None else self._person(name, row)

    def check(self, name: str, password: str) -> Person | None:
        """The person, where the password is theirs. It takes as long for a name that nobody has; it takes a while."""
        row = self._read().get(name)
        is_right = _hash().verify(password, _nobody() if row is None else row["password"])
        return self._person(name, row) if row is not None and is_right else None

    def stamp(self, name: str) -> str:
        """Changes with the password, so that who had signed in with the old one is out."""
        row = self._read().get(name)
        return "" if row is None else _digest(row["password"])[:16]

    def of_token(self, token: str) -> Person | None:
        """For whom a token acts."""
        digest = _digest(token)
        for name, row in self._read().items():
            if any(secrets.compare_digest(digest, one) for one in row["tokens"]):
                return self._person(name, row)
        return None

    # --- the file ---------------------------------------------------------------------------------------------------

    def _known(self, name: str) -> dict[str, _Row]:
        rows = self._read()
        if name not in rows:
            why, do = f"{str(self.path)!r} names none", "See: flujo hitl user list"
            raise ConfigurationError(f"there is no user {name!r}", why, do)
        return rows

    def _person(self, name: str, row: _Row) -> Person:
        return Person(name, frozenset(row["roles"]), row["tenant"])

    def _read(self) -> dict[str, _Row]:
        try:
            facts = self.path.stat()
            seen = (facts.st_mtime_ns, facts.st_ino)
            if seen != self._seen:
                self._rows, self._seen = json.loads(self.path.read_text(encoding="utf-8"))["users"], seen
        except FileNotFoundError:
            self._rows, self._seen = {}, None
        except (OSError, ValueError, KeyError, TypeError) as error:
            what = f"users file {str(self.path)!r} cannot be read"
            raise ConfigurationError(what, f"{type(error).__name__}: {error}", "Repair it, or move it away") from error
        return self._rows

    def _write(self, rows: dict[str, _Row]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}")  # which only we may read
        with os.fdopen(number, "w", encoding="utf-8") as file:
            json.dump({"users": rows}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, self.path)
        self._seen = None


@cache
def _hash() -> PasswordHash:
    return PasswordHash.recommended()


@cache
def _nobody() -> str:
    return _hash().hash(secrets.token_urlsafe(16))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
