"""What can go wrong while de-identifying; every fault means "nothing was let through".

FlujoError
└── DeidentifierError     the text was not analysed to its end, so no text is given back
    ├── DetectorFailed    a detector raised
    ├── DetectorTimeout   a detector took longer than it may
    ├── TextTooLong       more characters than one call takes
    └── ValueNotCovered   a structured value holds something that cannot be searched
"""

from __future__ import annotations

from flujo.core import FlujoError

__all__ = ["DeidentifierError", "DetectorFailed", "DetectorTimeout", "TextTooLong", "ValueNotCovered"]


class DeidentifierError(FlujoError):
    """The text was not analysed to its end. No partly redacted text is ever returned instead."""


class DetectorFailed(DeidentifierError):
    """A detector raised. The original error is named by its type only: its message may hold the text."""

    def __init__(self, detector: str, error: BaseException) -> None:
        self.detector = detector
        self.error_type: str = type(error).__name__
        super().__init__(
            f"detector {detector!r} failed", self.error_type, "Nothing was redacted; report it, or leave the text out"
        )


class DetectorTimeout(DeidentifierError):
    """A detector did not end in its time (seconds)."""

    def __init__(self, detector: str, seconds: float) -> None:
        self.detector = detector
        self.seconds = seconds
        super().__init__(
            f"detector {detector!r} was stopped",
            f"no result after {seconds:g} s",
            "Nothing was redacted; raise `timeout_s`, or split the text",
        )


class TextTooLong(DeidentifierError):
    """The text has more characters than one call accepts."""

    def __init__(self, length: int, limit: int) -> None:
        self.length = length
        self.limit = limit
        super().__init__(
            f"a text of {length:,} characters is too long",
            f"one call takes {limit:,}",
            "Use `redact_stream`, split the text, or raise `max_chars`",
        )


class ValueNotCovered(DeidentifierError):
    """A structured value contains an object whose text cannot be searched."""

    def __init__(self, path: str, kind: type) -> None:
        self.path = path
        self.kind = kind
        super().__init__(
            f"the value at {path!r} cannot be de-identified",
            f"objects of type {kind.__name__} cannot be searched",
            "Pass text, numbers, lists, dicts, dataclasses or pydantic models",
        )
