"""Secrets out of text: what may reach a log, a span, an error or a repr goes through `scrub`.

Only secrets with a known form are found (key prefixes, tokens, credentials in URLs and headers, PEM blocks).
Personal data is the de-identifier's work, not this file's.
"""

from __future__ import annotations

import re

__all__ = ["scrub"]

_MASK = "[SECRET]"

# Forms as the vendors document them. Each pattern is linear: no nested quantifiers.
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S), _MASK),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), _MASK),
    (re.compile(r"\b(?:sk|pk|rk)-[\w-]{16,}|\b(?:sk|pk|rk)_(?:live|test)_\w{16,}"), _MASK),
    (re.compile(r"\bgh[pousr]_\w{30,}|\bgithub_pat_\w{30,}|\bglpat-[\w-]{16,}|\bxox[abprs]-[\w-]{10,}"), _MASK),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[\w-]{30,}|\bhf_\w{30,}"), _MASK),
    (re.compile(r"(?i)(\bauthorization\s*[:=]\s*[\"']?)(?:\w+\s+)?[^\s\"',;]+"), rf"\1{_MASK}"),
    (re.compile(r"(?i)(\b(?:bearer|splunk)\s+)[\w.~+/=-]{12,}"), rf"\1{_MASK}"),
    (re.compile(r"(\b[a-zA-Z][\w+.-]{1,20}://[^\s:/@]{0,256}:)[^\s@/]{1,256}(?=@)"), rf"\1{_MASK}"),
    (
        re.compile(
            r"(?i)(\b[\w-]{0,40}(?:password|passwd|secret|api[_-]?key|access[_-]?key|auth[_-]?token)[\"']?\s*[:=]\s*[\"']?)"
            r"[^\s\"',;&]{3,}"
        ),
        rf"\1{_MASK}",
    ),
)


def scrub(text: str) -> str:
    """Return `text` with every secret of a known form replaced by `[SECRET]`.

    Args:
        text: Any text, for instance an exception's message.

    Returns:
        The same text where nothing was found.
    """
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
