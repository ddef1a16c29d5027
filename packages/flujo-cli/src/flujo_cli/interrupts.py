"""SIGINT and SIGTERM: the first asks the work to end well, the second ends the process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType

from .exits import INTERRUPTED

__all__ = ["Interrupts"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h"


class Interrupts:
    """While entered, signals come here.

    Attributes:
        seen: Whether one came.
        tell: Asks the work to end; until it is set, a signal raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.seen = False
        self.tell: Callable[[], object] | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interrupts:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave, it takes

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.seen:
            _stop_at_once()
        self.seen = True
        if self.tell is None:
            raise KeyboardInterrupt
        os.write(2, b"\nflujo: interrupted; ending what runs, keeping what is done. Once more stops at once.\n")
        self.tell()


def _stop_at_once() -> None:
    """End the process without asking anybody. Results are written one by one, so none is lost or half there."""
    cursor = _SHOW_CURSOR if os.isatty(2) else b""
    os.write(2, cursor + b"\nflujo: stopped at once\n")
    os._exit(INTERRUPTED)
