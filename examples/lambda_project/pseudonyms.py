"""Pseudonyms for ids that must not travel further: slow on purpose, so that nobody tries all ids out.

Each is a key derivation (PBKDF2) of the id with a secret that only the worker knows: at least 100 ms of real work, and
another answer for each id.
"""

from __future__ import annotations

import hashlib
import time

from pydantic import BaseModel, SecretStr

from flujo.core import Flujo, Resources, Secret, step

ROUNDS = 600_000
"""What OWASP asks for PBKDF2 with SHA-256."""


class Keys(Resources):
    """What the step is given. The name of the secret travels, its value is read where the step runs."""

    pepper: SecretStr = Secret("PSEUDONYM_PEPPER")


class Pseudonym(BaseModel):
    """An id as others may see it, and how long it took to make."""

    pseudonym: str
    seconds: float


@step
def pseudonym(id: str, pepper: SecretStr) -> Pseudonym:
    """Derive the pseudonym of an id."""
    since = time.perf_counter()
    made = hashlib.pbkdf2_hmac("sha256", id.encode(), pepper.get_secret_value().encode(), ROUNDS)
    return Pseudonym(pseudonym=made.hex()[:24], seconds=time.perf_counter() - since)


flow = Flujo(pseudonym, resources=Keys())
