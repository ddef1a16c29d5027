"""The world in which the steps of a generated pipeline run and leave traces, and what they may be given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from threading import get_ident
from typing import Annotated, Any, Literal

from fuzz_specs import Work
from fuzz_values import Point, shaped
from pydantic import PlainSerializer, PlainValidator, TypeAdapter

from flujo.core import FlujoError, Lease


def tagged(value: Any) -> Any:
    """A value as JSON that says what it is."""
    if isinstance(value, FlujoError):
        return {"error": value.as_data()}
    if isinstance(value, Point):
        return {"point": [value.left, value.right]}
    if isinstance(value, datetime):
        return {"moment": int(value.timestamp())}
    if isinstance(value, dict):
        return {"dict": {key: tagged(part) for key, part in value.items()}}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [tagged(part) for part in value]}
    return value


def untagged(value: Any) -> Any:
    """What `tagged` wrote; a value that it did not write is returned as it is."""
    if isinstance(value, dict) and len(value) == 1:
        [(kind, parts)] = value.items()
        if kind == "error":
            return TypeAdapter(FlujoError).validate_python(parts)
        if kind == "dict" and isinstance(parts, dict):
            return {key: untagged(part) for key, part in parts.items()}
        if kind in ("list", "tuple") and isinstance(parts, list):
            return {"list": list, "tuple": tuple}[kind](untagged(part) for part in parts)
        if kind == "point":
            return shaped("point", *parts)
        if kind == "moment":
            return shaped("moment", parts, 0)
    return value


Anything = Annotated[Any, PlainSerializer(tagged), PlainValidator(untagged)]
"""What a generated step takes: whatever another gave. A skipped one hands it on, so it must come back as it was."""


class Boom(Exception):
    """A step's own failure."""


Event = tuple[Literal["start", "end", "stop", "cut", "tool", "fail", "cancel", "effect"], str]


@dataclass
class World:
    """What the steps of one run share, and what they leave behind.

    Attributes:
        pauses: Whether steps pause where their description says so.
        healed: Whether flaky steps give their value.
        events: What bodies did, by path, in order: "start" and "stop" of each call ("cut" where it was
            cancelled), "end" of a visit that gave a value, "tool" of a tool's answer, "fail" of one that raised for
            the last time, "cancel" of one that cancelled the run, "effect" of what may happen at most once.
        answers: The decision for each pause that was asked for, by path.
        active: Paths of the bodies that run now.
        happened: How often tools and what may happen at most once happened, by path, since the run began.
        cancel: Cancels the run.
        wrong: What a step found that must not be.
        thread: The thread of the event loop.
        used: Tokens used so far.
        held: Tokens that open leases hold.
        limit: Most tokens that may be used and held; None is no limit.
        limits: Most tokens for a visit of some steps, by name; to be set before they are made.
    """

    pauses: bool = True
    healed: bool = False
    events: list[Event] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    active: list[str] = field(default_factory=list)
    happened: Counter[Event] = field(default_factory=Counter)
    cancel: Callable[[], None] | None = None
    wrong: list[str] = field(default_factory=list)
    thread: int = field(default_factory=get_ident)
    used: int = 0
    held: int = 0
    limit: int | None = None
    limits: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def running(self, path: str) -> Iterator[None]:
        """Take note that a body runs."""
        self.events.append(("start", path))
        self.active.append(path)
        kind: Event = ("stop", path)
        try:
            yield
        except Exception:
            raise
        except BaseException:  # trio's and asyncio's cancels
            kind = ("cut", path)
            raise
        finally:
            self.active.remove(path)
            self.events.append(kind)

    def happens(self, kind: Literal["tool", "effect"], path: str) -> None:
        """Take note that something happened to the world."""
        self.events.append((kind, path))
        self.happened[kind, path] += 1

    @contextmanager
    def spending(self, work: Work, lease: Lease) -> Iterator[None]:
        """Use what a step uses; its lease holds one token more, which it uses too where it is cancelled meanwhile."""
        used = most = work.cost + 1
        self.held += most
        if self.limit is not None and self.used + self.held > self.limit:
            self.wrong.append(f"{work.name} has a lease that makes {self.used} + {self.held} of {self.limit}")
        try:
            yield
            used = work.cost
            lease.settle(tokens=used)
        finally:
            self.held -= most
            self.used += used

    def begin(self, *, pauses: bool, healed: bool = True, anew: bool = True) -> World:
        """Forget all traces, for another run, or for another part of one: what happened to the world stays then."""
        if anew:
            self.happened.clear()
            self.answers.clear()
            self.used, self.limit = 0, None
        self.pauses, self.healed, self.cancel, self.held = pauses, healed, None, 0
        for traces in (self.events, self.active, self.wrong):
            traces.clear()
        return self
