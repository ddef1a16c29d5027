"""Which distributions may be imported: their names, each with the versions that are allowed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .errors import ConfigurationError
from .foreign import attempt

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

AllowList = Mapping[str, str]
"""Names in the form of PEP 503, each with version specifiers, joined by `&` where several must fit; none allows all."""

_ENTRY = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*((?:[<>=!~].*)?)", re.DOTALL)


def canonical(distribution: str) -> str:
    """A distribution's name in the form of PEP 503, so that `Flujo_Audit` is `flujo-audit`."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def allow_list(entries: Iterable[str]) -> AllowList:
    """Read entries as `flujo-audit` or `flujo-audit>=1,<2`; of one that stands there twice, both hold.

    Raises:
        ConfigurationError: One is no name with versions, or versions cannot be compared here.
    """
    found: dict[str, str] = {}
    for entry in entries:
        match = _ENTRY.fullmatch(entry)
        if match is None:
            why = "it is no name of a distribution, with or without versions"
            raise ConfigurationError(f"{entry!r} cannot be allowed", why, "Write 'flujo-audit' or 'flujo-audit>=1,<2'")
        name, versions = canonical(match[1]), match[2].strip()
        if versions:
            _specifiers(entry, versions)
        found[name] = _both(found.get(name, ""), versions)
    return found


def from_environment() -> AllowList | None:
    """What `FLUJO_PLUGINS` allows, comma-separated; None when it is not set, which allows all.

    Raises:
        ConfigurationError: It cannot be read.
    """
    value = os.environ.get("FLUJO_PLUGINS")
    # A comma before an operator stands inside an entry, as in `flujo-audit>=1,<2`.
    parts = re.split(r",(?!\s*[<>=!~])", value or "")
    return None if value is None else allow_list(part for part in parts if part.strip())


def narrowed(one: AllowList | None, other: AllowList | None) -> AllowList | None:
    """What both allow."""
    if one is None or other is None:
        return other if one is None else one
    return {name: _both(one[name], other[name]) for name in one.keys() & other.keys()}


def refusal(allowed: AllowList | None, distribution: str, version: str) -> str:
    """Why a distribution may not be imported; empty where it may.

    A version that nobody can read is not allowed, and a pre-release only where the versions name one.
    """
    versions = "" if allowed is None else allowed.get(distribution)
    if versions is None:
        return "the allow-list does not name it"
    if versions:
        wanted = _specifiers(distribution, versions)
        if not all(attempt(one.contains, version, prereleases=bool(one.prereleases))[0] for one in wanted):
            return f"the allow-list has {distribution}{versions}, installed is {version}"
    return ""


def _both(one: str, other: str) -> str:
    """Kept apart: in one specifier, a pre-release that either names would be let in by both."""
    return one if one == other else "&".join(filter(None, (one, other)))


def _specifiers(entry: str, versions: str) -> list[SpecifierSet]:
    try:
        from packaging.specifiers import SpecifierSet  # optional: only who names versions needs it

        return [SpecifierSet(part) for part in versions.split("&")]
    except (ImportError, ValueError) as error:
        is_there = isinstance(error, ValueError)
        do = "Write for instance '>=1,<2'" if is_there else "pip install 'flujo-core[policy]'"
        raise ConfigurationError(f"{entry!r} cannot be allowed", f"versions: {error}", do) from error
