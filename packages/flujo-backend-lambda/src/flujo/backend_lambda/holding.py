"""What a value would bring along where it is pickled, each part with its place: of an object what it is reduced to."""

from __future__ import annotations

import copyreg
import inspect
import re
import sys
import types
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import partial
from itertools import chain
from operator import methodcaller
from typing import Any, cast

from flujo.core import scrub

__all__ = ["PROTOCOL", "Part", "held_by"]

PROTOCOL = 5
"""Of pickle: what an object is reduced to depends on it."""

_LABEL = 80
"""Characters of a key that are shown."""

Part = tuple[str, str, object]
"""Where something stands, what it is called there, and itself."""

_OF_ALL_CLASSES = frozenset({"__dict__", "__weakref__", "__annotations__", "__module__", "__doc__", "__qualname__"})


def held_by(value: object, *, is_root: bool = False) -> Iterator[Part]:
    """What a value holds and would bring along; what travels by name holds nothing, but for the root.

    Args:
        value: The value.
        is_root: Whether it is what is asked for, and not what that holds.
    """
    if isinstance(value, types.FunctionType):
        if is_root or not _is_named(value):
            yield from _of_function(value)
    elif isinstance(value, types.MethodType | staticmethod | classmethod | property | partial):
        yield from _of_wrapper(value)
    elif isinstance(value, type):
        if value.__module__ == "__main__" or "<locals>" in value.__qualname__:
            yield from (("base", "", base) for base in value.__bases__)
            yield from _named((name, held) for name, held in vars(value).items() if name not in _OF_ALL_CLASSES)
    elif isinstance(value, types.ModuleType):
        if sys.modules.get(value.__name__) is not value:
            yield from _named(vars(value).items())
    elif type(value) in (dict, types.MappingProxyType):
        yield from _keyed(cast("Mapping[object, object]", value).items())
    elif type(value) in (list, tuple, set, frozenset) or isinstance(value, KeysView | ValuesView | ItemsView):
        yield from _numbered(cast("Iterable[object]", value))
    else:
        yield from _of_object(value)


def _is_named(function: types.FunctionType) -> bool:
    """Whether a function travels by its name, as cloudpickle decides it."""
    module = function.__module__ or ""
    by_value: Iterable[str] = getattr(sys.modules.get("cloudpickle"), "list_registry_pickle_by_value", tuple)()
    if module == "__main__" or any(module == name or module.startswith(f"{name}.") for name in by_value):
        return False
    found: object = sys.modules.get(module)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function


def _of_wrapper(value: object) -> Iterator[Part]:
    if isinstance(value, types.MethodType):
        yield "bound object", "", value.__self__
        yield "function", "", value.__func__
    elif isinstance(value, staticmethod | classmethod):
        yield "function", "", value.__func__
    elif isinstance(value, property):
        yield from (("function", "", one) for one in (value.fget, value.fset, value.fdel) if one is not None)
    elif isinstance(value, partial):
        yield "function of partial", "", value.func
        yield from ((f"argument {index} of partial", "", held) for index, held in enumerate(value.args))
        yield from ((f"argument {name!r} of partial", name, held) for name, held in value.keywords.items())


def _named(parts: Iterable[tuple[str, object]]) -> Iterator[Part]:
    return ((f".{name}", name, held) for name, held in list(parts))


def _numbered(parts: Iterable[object]) -> Iterator[Part]:
    return ((f"[{index}]", "", held) for index, held in enumerate(parts))


def _keyed(parts: Iterable[tuple[object, object]]) -> Iterator[Part]:
    for index, (key, held) in enumerate(list(parts)):
        label = key[:_LABEL] if isinstance(key, str) else key
        is_plain = isinstance(label, str | int | float | None)  # another's repr is code of whoever wrote it
        yield f"[{scrub(repr(label)) if is_plain else index}]", key if isinstance(key, str) else "", held
        yield f"key {index}", "", key


def _of_object(value: object) -> Iterator[Part]:
    """What an object is reduced to: the arguments that it is made of again, its state, and its items.

    Where it cannot be reduced, pickling will say so; until then its attributes are what it holds.
    """
    if isinstance(value, re.Pattern):
        yield ".pattern", "pattern", value.pattern
        return
    try:
        if isinstance(value, tuple) and isinstance(names := getattr(value, "_fields", None), tuple):
            yield from _named(zip(names, value, strict=False))
        elif is_dataclass(value):  # one with slots is reduced to a list of values without their names
            yield from _named((field.name, getattr(value, field.name, None)) for field in fields(value))
        yield from _of_reduced(value)
    except Exception:  # whatever its own code raises: see above
        yield from _named(_attributes(value))


def _of_reduced(value: object) -> Iterator[Part]:
    reduced = _reducer(type(value))(value)
    if isinstance(reduced, str):  # a name, by which it is found again
        return
    make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    yield "what makes it", "", make
    for index, argument in enumerate(arguments or ()):
        yield "class" if argument is type(value) else f"argument {index}", "", argument
    for part in state if isinstance(state, tuple) and len(state) == 2 else (state,):  # of slots there is a second one
        if isinstance(part, dict):
            yield from (_named if all(isinstance(name, str) for name in part) else _keyed)(part.items())
        else:
            yield "state", "", part
    yield from chain(_numbered(items or ()), _keyed(pairs or ()))


def _reducer(cls: type) -> Callable[[Any], str | tuple[Any, ...]]:
    return copyreg.dispatch_table.get(cls, methodcaller("__reduce_ex__", PROTOCOL))


def _of_function(function: types.FunctionType) -> Iterator[Part]:
    names, cells = function.__code__.co_freevars, function.__closure__ or ()
    for name, cell in zip(names, cells, strict=False):
        with suppress(ValueError):  # a cell that is still empty holds nothing
            yield f"closure variable {name!r}", name, cell.cell_contents
    for name in sorted(_names_in(function.__code__)):
        if name in function.__globals__:
            yield f"global {name!r}", name, function.__globals__[name]
    parameters = list(inspect.signature(function, follow_wrapped=False).parameters.values())
    for parameter in parameters:
        if parameter.default is not inspect.Parameter.empty:
            yield f"default of parameter {parameter.name!r}", parameter.name, parameter.default
    for name, held in vars(function).items():
        yield f"attribute {name!r}", name, held


def _names_in(code: types.CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_names_in, inner))


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    held = getattr(value, "__dict__", None)
    if isinstance(held, dict):
        yield from list(held.items())
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                yield name, getattr(value, name)
