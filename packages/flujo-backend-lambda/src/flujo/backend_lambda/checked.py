"""The pickler of what leaves: it looks at everything that it writes, so nothing goes along that `scan` did not reach.

Imported only where code is pickled: cloudpickle is optional, and heavy for who never needs it.
"""

from __future__ import annotations

import io
import pickle
import re
import types
from contextlib import suppress

import cloudpickle

from .holding import PROTOCOL
from .scan import PROSE, Known, check_one

__all__ = ["checked_dumps"]

_MOST_BUFFER = 100_000
"""Bytes of an array that are looked at as a text."""


def checked_dumps(value: object, name: str, known: Known) -> bytes:
    """Pickle a function, by value where it has no import path.

    Args:
        value: The function.
        name: What it is called in messages.
        known: What makes a text a secret.

    Raises:
        NotShippable: A live object, or a secret, is in it.
    """
    with io.BytesIO() as file:
        _CheckedPickler(file, f"function {name!r} > somewhere in it", known).dump(value)
        return file.getvalue()


class _CheckedPickler(cloudpickle.Pickler):  # type: ignore[misc]  # it says nothing of its types
    """Asks of each object that it comes to, texts and items of containers included, whether it may leave.

    Args:
        file: Where it writes to.
        where: What an object's place is called; more is not known of it here, nor what it is called.
        known: What makes a text a secret.
    """

    def __init__(self, file: io.BytesIO, where: str, known: Known) -> None:
        super().__init__(file, protocol=PROTOCOL)
        self._link = (None, where)
        self._known = known
        self._prose: dict[int, object] = {}  # texts of a program: docstrings, constants, descriptions

    def persistent_id(self, value: object) -> None:
        """Called by pickle for each object, before it is written; that it returns None lets it be written."""
        if value is None or isinstance(value, bool | int | float | complex):
            return
        check_one(self._link, "", value, self._known, is_prose=id(value) in self._prose)
        if isinstance(value, types.CodeType):
            self._prose.update((id(text), text) for text in value.co_consts)
        elif isinstance(value, re.Pattern):
            self._prose[id(value.pattern)] = value.pattern
        elif type(value) is dict:
            self._prose.update((id(value[name]), value[name]) for name in PROSE & value.keys())
        elif isinstance(value, pickle.PickleBuffer):
            with suppress(BufferError), value.raw() as held:  # of an array: one that is not in a row is copied first
                check_one(self._link, "", bytes(held[:_MOST_BUFFER]), self._known)
