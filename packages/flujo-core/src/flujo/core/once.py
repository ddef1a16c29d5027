"""An attribute that is made when it is first asked for, for objects of which there are very many."""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeVar

T = TypeVar("T")


class once(cached_property[T]):
    """As its parent, which takes a lock, and has each object hold a dict beside its attributes."""

    def __get__(self, owner: Any, kind: object = None) -> T:  # type: ignore[override]
        made: T = self.func(owner)
        setattr(owner, self.attrname or "", made)  # stands before this from now on
        return made
