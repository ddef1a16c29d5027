"""Secrets out of text: what may reach a log, a span, an error or a repr goes through `scrub`.

Only secrets with a known form are found (key prefixes, tokens, credentials in URLs and headers, PEM blocks).
Personal data is the de-identifier's work, not this file's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import lru_cache

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

MASK = "[SECRET]"
"""What stands where a secret stood."""

# A name that says what follows is secret, up to the sign before the value: `client_secret = `, `"x-api-key": `; in the
# query of a URL shorter names do too.
_NAMED = (
    r"(?i)((?:password|passwd|passphrase|pwd|secret|credential|(?:api|access|account|private)[_-]?key"
    r"|(?:access|auth|refresh|session|security|bearer|api|id)[_-]?token|(?<=[?&])(?:x-amz-signature|token|sig|key))"
    r"(?:s|key|[_-][\w-]{0,20})?[\"']?\s{0,9}[:=]\s{0,9})"
)

# Keys by the prefixes of their vendors, as these document them: clouds, models, code hosts, payments, messengers, data.
_KEY = (
    r"\b(?:(?:AIza|ya29\.|GOCSPX-|1//0|ABSK|FwoGZXIvYXdz|IQoJb3JpZ2lu|ATATT3|ops_eyJ|AGE-SECRET-KEY-1|SG\.|hv[sb]\."
    r"|(?:c?sk|[pr]k|xai|pplx|nvapi|pypi|tvly|NRAK|sq0[a-z]{3}|xapp|xox[a-z]|gl(?:pat|rt|dt|ptt|cbt))-|dp\.[a-z]{2}\."
    r"|(?:[spr]k_(?:live|test)|whsec)_|\d{9,10}:AA)[\w.+/-]{16,}|(?:A[KSBC][IC]A[A-Z\d]{16}|(?:dapi|SK|key-)[\da-f]{32})\b"
    r"|(?:gh[pousr]|github_pat|hf|gsk|npm|r8|sk|pcsk|jina|ntn|sbp|glsa|ph[cx]|shp[a-z]{2}|lin_api|tgp_v1|lsv2_[a-z]{2}"
    r"|dckr_pat|do[opr]_v1|pscale_[a-z]{2,5})_[\w.-]{28,})|(?<![\w~.-])[\w~.-]{3}\dQ~[\w~.-]{30,}"
    r"|(?<![\w-])eyJ[\w-]{8,}+(?:\.[\w-]*+){2,4}|(?<=slack\.com/services/)[\w/]+"
)

# A header: the word for its kind and a value, with what further `name=value` follow after commas.
_HEADER = (
    r"(?i)(\b(?:authorization|(?:set-)?cookie)[\"']?\s{0,9}[:=,]\s{0,9}(?:b?[\"'])?)(?:[\w-]{1,40}\s{1,9})?"
    r"[^\s\"',;]+(?:(?<==)\"[^\"\n]*\")?(?:[,;]\s{0,9}[\w-]{1,40}=(?:\"[^\"\n]*\"|[^\s\"',;]+))*+"
)

_USER = r"(\b[a-zA-Z][\w+.-]{1,20}://[^\s:/@]{0,256}:)"

# Each pattern is linear in the text's length: what repeats is bounded, possessive (`+` after the quantifier: it never
# gives back), or can only begin where nothing of the same kind stands before it.
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z\d ]{1,60}-----.*?(?:-----END [A-Z\d ]{1,60}-----|\Z)", re.S), MASK),
    (re.compile(_KEY), MASK),
    # A quoted secret ends at its quote, and may hold spaces; the others end at a space or a separator.
    (re.compile(rf"{_NAMED}(b?)([\"'])(?:(?!\3)[^\n])++\3"), rf"\1\2\3{MASK}\3"),
    (re.compile(rf"{_NAMED}[^\s\"',;&]{{3,}}"), rf"\1{MASK}"),
    (re.compile(_HEADER), rf"\1{MASK}"),
    (re.compile(r"(?i)(\b(?:bearer|splunk)\s{1,9})[\w.~+/=-]{12,}"), rf"\1{MASK}"),
    # A password in a URL may hold a slash that nobody encoded; what begins like a port does not.
    (re.compile(rf"{_USER}(?:[^\s/]{{1,256}}|(?!\d{{1,5}}/)[^\s@]{{1,256}})(?=@)"), rf"\1{MASK}"),
)

# What each pattern needs to match at all: its sign, its word, or the thirteen characters of the shortest key in a row.
# To look for that costs a tenth of trying them, and most texts of errors are plain words.
_SIGN = re.compile(r"[:=]|(?<!\S)\S{13}|-----|(?i:bearer|splunk|cookie)")


def scrub(text: str) -> str:
    """Return `text` with every secret of a known form replaced by `[SECRET]`.

    Args:
        text: Any text, for instance an exception's message.

    Returns:
        The same text where nothing was found.
    """
    for pattern, replacement in _PATTERNS if _SIGN.search(text) else ():
        text = pattern.sub(replacement, text)
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()  # half a pair can be shown too


@lru_cache(4096)
def cleaned(text: str) -> str:
    """`scrub` for names, which come again and again."""
    return scrub(text)


def secrets_in(values: Iterable[object]) -> list[str]:
    """Texts of the secrets that values hold at any depth, as they are and as a repr shows them; the longest first."""
    found: set[str] = set()
    seen: set[int] = set()
    left = list(values)
    for one in left:  # grows on the way
        if isinstance(one, (Secret, SecretStr, SecretBytes)):
            inner = one.get_secret_value()
            text = inner.decode(errors="ignore") if isinstance(inner, bytes) else inner
            if isinstance(text, str):
                found |= {text, repr(text)[1:-1]}
            else:
                left.append(text)
        elif id(one) not in seen:
            seen.add(id(one))
            left += _held(one)
    return sorted(found - {""}, key=len, reverse=True)


_PLAIN = {str, int, float, bool, bytes, type(None)}


def _held(value: object) -> Iterable[object]:
    """What a value holds: of containers, models and dataclasses only, for others may do anything when they are read."""
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return () if _PLAIN.issuperset(map(type, value)) else value
    if isinstance(value, BaseModel):
        return [value.__dict__, value.__pydantic_extra__, value.__pydantic_private__]
    if is_dataclass(value):
        return [getattr(value, field.name, None) for field in fields(value)]
    return ()


def without(secrets: Iterable[str], text: str) -> str:
    """The text with each of these secrets replaced by `[SECRET]`."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text
