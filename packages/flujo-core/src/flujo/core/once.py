"""An attribute that is made when it is first asked for, for objects of which there are very many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class once(Generic[T]):
    """As `functools.cached_property`, which takes a lock and has each object hold a dict beside its attributes."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    def __get__(self, owner: Any, _: type) -> T:
        made = self._make(owner)
        setattr(owner, self._name, made)  # stands before this from now on
        return made
