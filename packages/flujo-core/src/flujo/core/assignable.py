"""Whether a value of one annotated type may go where another is expected; decided when a pipeline is compiled."""

from __future__ import annotations

import inspect
import types
from collections import abc
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal, NewType, TypeVar, Union, get_args, get_origin

from .foreign import attempt

Seen = tuple[tuple[object, object], ...]
"""Pairs of types that are being compared already."""


def plain(hint: object) -> object:
    """Strip what does not matter here: Annotated, NewType, type aliases; a TypeVar is its bound or constraints."""
    while True:
        if get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        elif isinstance(hint, NewType):
            hint = hint.__supertype__
        elif isinstance(hint, TypeVar):
            hint = hint.__bound__ or (Union[hint.__constraints__] if hint.__constraints__ else Any)  # noqa: UP007
        elif hasattr(hint, "__value__") and not inspect.isclass(hint):  # `type X = ...`
            hint = hint.__value__
        else:
            return type(None) if hint is None else hint


def members(hint: object) -> tuple[object, ...]:
    """The alternatives of a type: those of a union, each value of a Literal, else the type itself."""
    hint = plain(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(part for member in get_args(hint) for part in members(member))
    if get_origin(hint) is Literal:
        return tuple(type(None) if value is None else Literal[value] for value in get_args(hint))
    return (hint,)


def assignable(given: object, wanted: object) -> bool:
    """Whether every value of type `given` fits `wanted`.

    `Any` and `object` match, an `int` may go where a `float` is wanted, `X | None` may not go where `X` is wanted.
    What cannot be decided by looking at the types (most protocols, callables) is let through.
    """
    return _fits(given, wanted, ())


def common(one: object, other: object) -> object | None:
    """The type of the values that fit both; None when there are none."""
    if assignable(one, other):
        # equal but for their constraints: the one that has some says more
        return other if get_origin(other) is Annotated and assignable(other, one) else one
    if assignable(other, one):
        return other
    both = [part for part in members(one) if assignable(part, other)]
    both += [part for part in members(other) if assignable(part, one)]
    return Union[tuple(both)] if both else None  # noqa: UP007 - built at run time


def _fits(given: object, wanted: object, seen: Seen) -> bool:
    given, wanted = plain(given), plain(wanted)
    if given is Any or wanted is Any or wanted is object or given == wanted or (given, wanted) in seen:
        return True  # what is seen again is a recursive type: the answer hangs on its other parts
    seen = (*seen, (given, wanted))
    givens, wanteds = members(given), members(wanted)
    if len(givens) > 1:
        return all(_fits(part, wanted, seen) for part in givens)
    if len(wanteds) > 1:
        return any(_fits(givens[0], part, seen) for part in wanteds)
    one, other = givens[0], wanteds[0]
    if get_origin(one) is Literal:
        value = get_args(one)[0]
        return one == other if get_origin(other) is Literal else _classes(type(value), other, seen)
    return get_origin(other) is not Literal and _classes(one, other, seen)


def _classes(given: object, wanted: object, seen: Seen) -> bool:
    one, other = get_origin(given) or given, get_origin(wanted) or wanted
    if not (inspect.isclass(one) and inspect.isclass(other)):
        return True
    if other is float and issubclass(one, int):
        return True
    if is_typed_dict(other):  # typed dicts are compared by their keys alone, and a dict may have any
        return issubclass(one, Mapping) and (not is_typed_dict(one) or _required(other) <= _required(one))
    if attempt(issubclass, one, other)[0] is False:  # a protocol that only instances can be asked about raises
        return False
    return _arguments(one, get_args(given), other, get_args(wanted), seen)


def is_typed_dict(hint: object) -> bool:
    """Whether it is a TypedDict, of `typing` or of typing_extensions: neither answers to isinstance or issubclass."""
    return inspect.isclass(hint) and issubclass(hint, dict) and hasattr(hint, "__total__")


def _required(typed_dict: type) -> frozenset[str]:
    return frozenset(typed_dict.__required_keys__)  # type: ignore[attr-defined]


def _is_container(cls: type) -> bool:
    """Whether it is one of Python's own, whose first argument is what iterating gives."""
    own = cls.__module__ in ("builtins", "collections", "collections.abc")
    return own and issubclass(cls, (abc.Iterable, abc.AsyncIterable, abc.Container))


def _arguments(one: type, given: tuple[object, ...], other: type, wanted: tuple[object, ...], seen: Seen) -> bool:
    if one is tuple and given and wanted:
        if other is not tuple or Ellipsis in wanted:  # as many as there are, of one type
            return all(_fits(part, wanted[0], seen) for part in given if part is not Ellipsis)
        if Ellipsis in given or len(given) != len(wanted):
            return False
    if one is not other and not (_is_container(one) and _is_container(other)):
        return True  # how a user's generic stands to those above it is not known
    return all(_fits(part, fitting, seen) for part, fitting in zip(given, wanted, strict=False))


def classes_of(hint: object) -> tuple[type, ...] | None:
    """The classes an instance of `hint` has, for a shallow check; None when any value will do."""
    found: list[type] = []
    for member in members(hint):
        if get_origin(member) is Literal:
            found.append(type(get_args(member)[0]))
            continue
        cls = get_origin(member) or member
        if not inspect.isclass(cls) or cls in (object, Any) or getattr(cls, "_is_protocol", False):
            return None
        found.extend((float, int) if cls is float else (dict,) if is_typed_dict(cls) else (cls,))
    return tuple(dict.fromkeys(found))


# --- naming -----------------------------------------------------------------------------------------------------------


def type_name(hint: object, *, full: bool = False) -> str:
    """A type as people write it, `full` with the module of each class."""
    name = partial(type_name, full=full)
    if hint is None or hint is type(None):
        return "None"
    if hint is Ellipsis:
        return "..."
    if isinstance(hint, list):  # the parameters of a Callable
        return f"[{', '.join(map(name, hint))}]"
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return name(arguments[0])
    if origin in (Union, types.UnionType):
        return " | ".join(map(name, arguments))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin is not None and arguments:
        return f"{name(origin)}[{', '.join(map(name, arguments))}]"
    if inspect.isclass(hint):
        return f"{hint.__module__}.{hint.__qualname__}" if full and hint.__module__ != "builtins" else hint.__name__
    return str(getattr(hint, "__name__", None) or hint).removeprefix("typing.")


def type_names(one: object, other: object) -> tuple[str, str]:
    """Names of two types that differ; with their modules where the short names do not tell them apart."""
    names = type_name(one), type_name(other)
    return names if names[0] != names[1] else (type_name(one, full=True), type_name(other, full=True))
