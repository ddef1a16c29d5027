"""What the chunks of a stream make, once it has ended: a step's output."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from io import StringIO
from typing import Any, Protocol, get_args

Chunks = AsyncGenerator[Any, None]
"""Chunks that can be closed."""


class Fold(Protocol):
    """Takes the chunks one by one."""

    @property
    def add(self) -> Callable[[Any], object]:
        """Takes the next chunk."""

    def value(self) -> Any:
        """What they make so far."""


class Text:
    """Texts, joined."""

    __slots__ = ("_buffer", "add")

    def __init__(self) -> None:
        self._buffer = StringIO()
        self.add: Callable[[str], object] = self._buffer.write

    def value(self) -> str:
        """The text so far."""
        return self._buffer.getvalue()


class Listed:
    """All chunks, as a list, or what a function makes of that list."""

    __slots__ = ("_chunks", "_make", "add")

    def __init__(self, make: Callable[[list[Any]], Any] | None = None) -> None:
        self._chunks: list[Any] = []
        self._make = make
        self.add: Callable[[Any], object] = self._chunks.append

    def value(self) -> Any:
        """The list so far, or what its function makes of it."""
        return list(self._chunks) if self._make is None else self._make(self._chunks)


class Last:
    """The last chunk only, or none at all, so that a stream without end takes no memory."""

    __slots__ = ("_last", "add")

    def __init__(self, *, keeps: bool = True) -> None:
        self._last: Any = None
        self.add: Callable[[Any], object] = self._keep if keeps else bool

    def _keep(self, chunk: Any) -> None:
        self._last = chunk

    def value(self) -> Any:
        """The last chunk; None before the first."""
        return self._last


class Known:
    """Texts joined where the first chunk is a text, else a list."""

    __slots__ = ("_fold",)

    def __init__(self) -> None:
        self._fold: Fold | None = None

    @property
    def add(self) -> Callable[[Any], object]:
        """Takes the first chunk; from then on it is that of the text or the list."""
        return self._begin if self._fold is None else self._fold.add

    def _begin(self, chunk: Any) -> None:
        if self._fold is None:
            self._fold = Text() if isinstance(chunk, str) else Listed()
        self._fold.add(chunk)

    def value(self) -> Any:
        """The text or list so far; an empty list where there was no chunk."""
        return [] if self._fold is None else self._fold.value()


WORDS = ("text", "list", "last", "none")
"""The reducers that have a name."""


def fold_maker(collect: object, chunk: object) -> Callable[[], Fold]:
    """What makes the fold that `collect` names, for chunks of a type; None is text where they are text, else a list."""
    if callable(collect):
        return lambda: Listed(collect)
    if collect is None and chunk is Any:
        return Known
    word = ("text" if chunk is str else "list") if collect is None else collect
    makers: dict[object, Callable[[], Fold]] = {"text": Text, "list": Listed, "last": Last}
    return makers.get(word, lambda: Last(keeps=False))


def folded_type(collect: object, chunk: object, made: object) -> object:
    """The type of what a fold gives; `made` is that of a function's answer."""
    if callable(collect):
        return made
    if collect is None:
        return Any if chunk is Any else str if chunk is str else list[chunk]  # type: ignore[valid-type]
    return {"text": str, "list": list[chunk], "last": chunk}.get(str(collect), type(None))  # type: ignore[valid-type]


def chunk_type(hint: object) -> object:
    """The type of the chunks that an annotation such as `AsyncIterator[str]` tells of."""
    return next(iter(get_args(hint)), Any)
