"""The pickler of what leaves: it looks at everything that it writes, so nothing goes along that `scan` did not reach.

Imported only where code is pickled: cloudpickle is optional, and heavy for who never needs it.
"""

from __future__ import annotations

import io
import types

import cloudpickle

from .scan import check_one, env_secrets

__all__ = ["checked_dumps"]

_PROTOCOL = 5


def checked_dumps(value: object, name: str) -> bytes:
    """Pickle a function, by value where it has no import path.

    Args:
        value: The function.
        name: What it is called in messages.

    Raises:
        NotShippable: A live object, or a secret, is in it.
    """
    with io.BytesIO() as file:
        CheckedPickler(file, f"function {name!r} > somewhere in it").dump(value)
        return file.getvalue()


class CheckedPickler(cloudpickle.Pickler):  # type: ignore[misc]  # it says nothing of its types
    """Asks of each object that it comes to, texts and items of containers included, whether it may leave.

    Args:
        file: Where it writes to.
        where: What an object's place is called; more is not known of it here.
    """

    def __init__(self, file: io.BytesIO, where: str) -> None:
        super().__init__(file, protocol=_PROTOCOL)
        self._where = where
        self._secrets = env_secrets()
        self._hints: dict[int, object] = {}
        self._prose: dict[int, object] = {}

    def persistent_id(self, value: object) -> None:
        """Called by pickle for each object, before it is written; that it returns None lets it be written."""
        if value is None or isinstance(value, bool | int | float | complex) or self._is_prose(value):
            return
        check_one(self._where, "", value, self._secrets)
        if isinstance(value, types.CodeType):
            self._prose.update((id(text), text) for text in value.co_consts)
        elif type(value) is dict:
            self._prose[id(value.get("__doc__"))] = value.get("__doc__")
            self._check_names(value)

    def _is_prose(self, value: object) -> bool:
        """Whether it is a text of a program of more than a word: `token: the token of the user` looks like a secret."""
        if id(value) not in self._prose or not isinstance(value, str) or value in self._secrets:
            return False
        return "{" in value or len(value.split()) > 1

    def _check_names(self, held: dict[object, object]) -> None:
        """Secrets by their names, in what is the state of an object, the variables of a function, or just a dict."""
        if "__annotations__" in held:  # whose values are names of types
            self._hints[id(held["__annotations__"])] = held["__annotations__"]
        if id(held) in self._hints:
            return
        for name, value in held.items():
            if isinstance(name, str) and isinstance(value, str | bytes) and not name.startswith("__"):
                check_one(self._where, name, value, self._secrets)
