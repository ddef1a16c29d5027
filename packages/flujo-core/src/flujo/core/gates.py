"""Named limits at work: who is inside, and who was within the last minute, over all runs of this process.

What is counted belongs to the process and a name; each caller brings the limit that its policy sets for that name. So
runs of several Flujos, event loops and threads share one count. A gate is passed first come, first served.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from copy import copy
from threading import Lock
from time import monotonic

import anyio

from .execution import RunningThread
from .policy import NamedLimit, fits
from .wakeup import LoopEvent

WINDOW_S = 60.0
"""What a minute is here; it slides, so that no minute has more than the limit, whenever it begins."""

INSIDE: ContextVar[tuple[Passage, ...]] = ContextVar("flujo_named_limits", default=())
"""Passages around the running code, those that were left too: a run that a step started may outlive the step."""


class _Passed:
    """Who passed a gate: when, and with how many tokens."""

    __slots__ = ("at", "tokens")

    def __init__(self, tokens: int) -> None:
        self.at = monotonic()
        self.tokens = tokens


class _Gate:
    """What is counted under one name; everything here is touched under the lock only."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._recent: deque[_Passed] = deque()
        self._rows: tuple[deque[list[LoopEvent]], ...] = (deque(), deque())  # first those that are inside already

    async def enter(self, limit: NamedLimit, tokens: int | None, *, nested: bool = False) -> _Passed:
        """Wait in turn until the limit lets it pass; None are tokens without a bound, for which it takes a minute."""
        tokens = limit.tokens_per_minute or 0 if tokens is None else tokens
        if nested:
            limit = limit.model_copy(update={"concurrency": None})
        turn: list[LoopEvent] = []
        row = self._rows[not nested]
        try:
            while True:
                with self._lock:
                    if not turn:
                        row.append(turn)
                    is_first = next(row[0] for row in self._rows if row) is turn
                    wait_s = self._wait_s(limit, tokens) if is_first else math.inf
                    if wait_s <= 0:
                        row.popleft()
                        self._inside += 1
                        self._recent.append(_Passed(tokens))
                        self._wake()  # the next may fit as well
                        return self._recent[-1]
                    turn[:] = [LoopEvent()]
                    if not is_first:
                        self._wake()  # the first may have gone with its event loop, and would wake nobody
                with anyio.move_on_after(wait_s):
                    await turn[0].wait()
        except BaseException:  # a cancel: it leaves the queue
            with self._lock:
                if turn in row:
                    row.remove(turn)
                self._wake()
            raise

    def leave(self, passed: _Passed, tokens: int | None) -> None:
        """It is done, with so many tokens if that is known."""
        with self._lock:
            self._inside -= 1
            passed.tokens = passed.tokens if tokens is None else tokens
            self._wake()

    def _wake(self) -> None:
        for row in self._rows:
            while row:
                if row[0][0].set():
                    return
                row.popleft()  # its event loop was closed with it in the queue

    def _wait_s(self, limit: NamedLimit, tokens: int) -> float:
        """Seconds until the next may pass, as things stand; infinite where somebody has to leave first."""
        now, recent = monotonic(), self._recent
        while recent and recent[0].at + WINDOW_S <= now:
            recent.popleft()
        if limit.concurrency is not None and self._inside >= limit.concurrency:
            return math.inf
        until, most = now, limit.requests_per_minute
        if most is not None and len(recent) >= most:
            until = recent[len(recent) - most].at + WINDOW_S
        most = limit.tokens_per_minute
        if most is not None:  # more than the whole minute has passes when it is empty
            over = sum(one.tokens for one in recent) + min(tokens, most) - most
            for one in recent:
                if over <= 0:
                    break
                over -= one.tokens
                until = max(until, one.at + WINDOW_S)
        return until - now


_GATES: dict[str, _Gate] = {}


class Passage:
    """`async with` around work that named limits hold for: it passes their gates in the order of their names.

    Work inside that passes the same gate, as a call within a call, needs no place and goes first: it would wait for
    itself. It counts in the minute like all others.

    Args:
        limits: The limits by name.
        subjects: What the work is, as `model:openai:gpt-4o`.
        tokens: Tokens it will use at most; None where nothing bounds them.

    Attributes:
        used: Tokens it really used, once that is known.
    """

    def __init__(self, limits: Mapping[str, NamedLimit], subjects: Collection[str], tokens: int | None = 0) -> None:
        names = sorted(name for name in limits if any(fits(one, name) for one in subjects))
        self._ways = [(_GATES.setdefault(name, _Gate()), limits[name]) for name in names]
        self._held: list[tuple[_Gate, _Passed]] = []
        self._tokens = tokens
        self._around = tuple(one for one in INSIDE.get() if one._held)
        self.used: int | None = None

    async def __aenter__(self) -> Passage:
        inside = {gate for one in self._around for gate, _ in one._held}
        try:
            for gate, limit in self._ways:
                self._held.append((gate, await gate.enter(limit, self._tokens, nested=gate in inside)))
        except BaseException:  # a cancel: those that it passed already are left
            self.leave()
            raise
        INSIDE.set((*self._around, self))
        return self

    async def __aexit__(self, *_: object) -> None:
        INSIDE.set(self._around)
        self.leave()

    def leave(self) -> None:
        """Let the next pass."""
        held, self._held = self._held, []
        for gate, passed in held:
            gate.leave(passed, self.used)

    def stay(self, thread: RunningThread) -> None:
        """Leave when a thread returns that still runs, not before."""
        own, self._held = copy(self), []
        if not thread.on_return(own.leave):
            self._held = own._held
