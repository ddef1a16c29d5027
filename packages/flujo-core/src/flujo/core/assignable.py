"""Whether a value of one annotated type may go where another is expected; decided when a pipeline is compiled."""

from __future__ import annotations

import inspect
import types
from typing import Annotated, Any, Literal, NewType, TypeVar, Union, get_args, get_origin

__all__ = ["assignable", "classes_of", "type_name"]


def _plain(hint: object) -> object:
    """Strip what does not matter here: Annotated, NewType, type aliases; a TypeVar is its bound."""
    while True:
        if get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        elif isinstance(hint, NewType):
            hint = hint.__supertype__
        elif isinstance(hint, TypeVar):
            hint = hint.__bound__ or Any
        elif hasattr(hint, "__value__"):  # `type X = ...` of Python 3.12
            hint = hint.__value__
        else:
            return type(None) if hint is None else hint


def _members(hint: object) -> tuple[object, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def assignable(given: object, wanted: object) -> bool:
    """Whether every value of type `given` fits `wanted`.

    `Any` and `object` match, an `int` may go where a `float` is wanted, `X | None` may not go where `X` is wanted.
    What cannot be decided by looking at the types (protocols, callables) is let through.
    """
    given, wanted = _plain(given), _plain(wanted)
    if given is Any or wanted is Any or wanted is object:
        return True
    if len(_members(given)) > 1:
        return all(assignable(part, wanted) for part in _members(given))
    if len(_members(wanted)) > 1:
        return any(assignable(given, part) for part in _members(wanted))
    if get_origin(given) is Literal or get_origin(wanted) is Literal:
        return _literal(given, wanted)
    return _classes(given, wanted)


def _literal(given: object, wanted: object) -> bool:
    if get_origin(given) is not Literal:
        return False
    if get_origin(wanted) is Literal:
        return set(get_args(given)) <= set(get_args(wanted))
    return all(assignable(type(value), wanted) for value in get_args(given))


def _classes(given: object, wanted: object) -> bool:
    given_class, wanted_class = get_origin(given) or given, get_origin(wanted) or wanted
    if not (inspect.isclass(given_class) and inspect.isclass(wanted_class)):
        return True
    if wanted_class is float and given_class is int:
        return True
    if not _subclass(given_class, wanted_class):
        return False
    given_args, wanted_args = get_args(given), get_args(wanted)
    if not given_args or not wanted_args or given_class is not wanted_class:
        return True
    return _arguments(given_args, wanted_args)


def _arguments(given: tuple[object, ...], wanted: tuple[object, ...]) -> bool:
    if Ellipsis in wanted:
        return all(assignable(part, wanted[0]) for part in given if part is not Ellipsis)
    if Ellipsis in given or len(given) != len(wanted):
        return False
    return all(assignable(one, other) for one, other in zip(given, wanted, strict=True))


def _subclass(given: type, wanted: type) -> bool:
    try:
        return issubclass(given, wanted)
    except TypeError:  # a protocol with data members answers only for instances
        return True


def classes_of(hint: object) -> tuple[type, ...] | None:
    """The classes an instance of `hint` has, for a shallow check; None when any value will do."""
    found: list[type] = []
    for member in _members(_plain(hint)):
        part = _plain(member)
        if get_origin(part) is Literal:
            found.extend(type(value) for value in get_args(part))
            continue
        cls = get_origin(part) or part
        if not inspect.isclass(cls) or cls is object or part is Any or getattr(cls, "_is_protocol", False):
            return None
        found.extend((float, int) if cls is float else (cls,))
    return tuple(dict.fromkeys(found))


def type_name(hint: object) -> str:
    """A type as people write it."""
    if inspect.isclass(hint) and not get_args(hint):
        return hint.__name__
    return str(hint).replace("typing.", "").replace("NoneType", "None")
