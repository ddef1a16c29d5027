"""A bounded memory of redactions, so that a text that stands in ten requests is analysed once."""

from __future__ import annotations

import threading
from collections import OrderedDict

from flujo.deidentifier.deidentifier import Redaction

__all__ = ["RedactionCache"]


class RedactionCache:
    """Least recently used first out, bounded by characters; safe for threads.

    It holds original texts in memory, as the pipeline itself does; it is never written anywhere.

    Args:
        max_chars: Characters of original and redacted text held at most; texts over a quarter of it are not held.
    """

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self._held: OrderedDict[str, Redaction] = OrderedDict()
        self._chars = 0
        self._lock = threading.Lock()

    def get(self, text: str) -> Redaction | None:
        """The redaction of `text`, if it is known."""
        with self._lock:
            found = self._held.get(text)
            if found is not None:
                self._held.move_to_end(text)
            return found

    def put(self, text: str, redaction: Redaction) -> None:
        """Remembers a redaction, and that its result needs none."""
        self._add(text, redaction)
        if redaction.text != text:
            self._add(redaction.text, Redaction(redaction.text, {}))

    def _add(self, text: str, redaction: Redaction) -> None:
        size = len(text) + len(redaction.text)
        with self._lock:
            if text in self._held or 4 * size > self._max_chars:
                return
            self._held[text] = redaction
            self._chars += size
            while self._chars > self._max_chars:
                old, dropped = self._held.popitem(last=False)
                self._chars -= len(old) + len(dropped.text)
