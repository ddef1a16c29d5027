"""SIGINT and SIGTERM: the first asks the work to end well, the second ends the process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from .exits import INTERRUPTED

__all__ = ["Interrupts"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h"


class Interrupts:
    """While entered, signals come here.

    Attributes:
        seen: Whether one came.
        tell: Asks the work to end; until it is set by `telling`, a signal raises KeyboardInterrupt.
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

    @contextmanager
    def telling(self, end: Callable[[], object]) -> Iterator[None]:
        """Inside the running event loop: a signal calls `end` there, however idle or busy the loop is.

        A signal that arrives just before the loop goes to sleep would wait until something else wakes it; the byte
        that Python writes to the wakeup socket does that.
        """
        loop = asyncio.get_running_loop()
        ours, pythons = socket.socketpair()
        with ours, pythons:
            ours.setblocking(False)
            pythons.setblocking(False)
            before = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
            loop.add_reader(ours, ours.recv, 4096)
            self.tell = lambda: loop.call_soon_threadsafe(end)
            try:
                yield
            finally:
                self.tell = _nothing  # whatever is still to be printed must not be cut off by a late signal
                loop.remove_reader(ours)
                signal.set_wakeup_fd(before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.seen:
            _stop_at_once()
        self.seen = True
        if self.tell is None:
            raise KeyboardInterrupt
        os.write(2, b"\nflujo: interrupted; ending what runs, keeping what is done. Once more stops at once.\n")
        self.tell()


def _nothing() -> None: ...


def _stop_at_once() -> None:
    """End the process without asking anybody. Results are written one by one, so none is lost or half there."""
    cursor = _SHOW_CURSOR if os.isatty(2) else b""
    os.write(2, cursor + b"\nflujo: stopped at once\n")
    os._exit(INTERRUPTED)
