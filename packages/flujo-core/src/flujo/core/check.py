"""Deep checks of values where they enter: run input, decisions, transforms, outputs of steps that ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, PydanticUserError, SecretBytes, SecretStr, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import SchemaError

from .assignable import classes_of, members, type_name
from .foreign import attempt

__all__ = ["adapter_of", "misfit", "reason"]


def adapter_of(hint: object) -> TypeAdapter[Any] | None:
    """A validator for `hint`; None where pydantic knows no way to check it. Kept, since building one is slow."""
    try:
        return _kept(hint)
    except TypeError:  # a hint that cannot be hashed
        return _build(hint)


@lru_cache(maxsize=1024)
def _kept(hint: object) -> TypeAdapter[Any] | None:
    return _build(hint)


def _build(hint: object) -> TypeAdapter[Any] | None:
    for options in ({"config": ConfigDict(arbitrary_types_allowed=True)}, {}):
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(hint, **options)  # type: ignore[arg-type]
        except (PydanticUserError, PydanticSchemaGenerationError, SchemaError, NameError):
            continue  # a model brings its own config and refuses ours; a protocol can be checked with neither
        # A model that names a class of later lines is complete once that class is there.
        return adapter if adapter.pydantic_complete or adapter.rebuild(raise_errors=False) else None
    return None


def misfit(hint: object) -> Callable[[object], str | None]:
    """A function that says what is wrong with a value for `hint`, or None when it fits."""
    adapter = adapter_of(hint)
    simple = _is_simple(hint)

    def check(value: object) -> str | None:
        if adapter is None:
            classes = classes_of(hint)
            fits = classes is None or isinstance(value, classes)
            return None if fits else f"{type(value).__name__} is no {type_name(hint)}"
        made, error = attempt(adapter.validate_python, value, strict=True)
        if error is None:
            return None if simple else _remade(made, value)
        if isinstance(error, ValidationError):
            return reason(error)
        return f"the check of {type_name(hint)} failed with {type(error).__name__}"  # a validator of the user's

    return check


_SIMPLE = (str, int, float, bool, bytes, type(None), list, tuple, set, frozenset, dict, Ellipsis)


def _is_simple(hint: object) -> bool:
    """Whether a type is made of plain values and containers of them only."""
    return all(
        get_origin(member) is Literal
        or ((get_origin(member) or member) in _SIMPLE and all(_is_simple(part) for part in get_args(member)))
        for member in members(hint)
    )


def _remade(made: object, value: object, place: str = "") -> str | None:
    """What pydantic had to make to let a value pass: even strict it takes a dict for a model and a text for a secret.

    The step would receive the value as it is, so such a value does not fit.
    """
    if made is value:
        return None
    if isinstance(made, (BaseModel, SecretStr, SecretBytes)):
        problem = f"{type(value).__name__} is no {type(made).__name__}"
        return None if isinstance(value, type(made)) else f"{place}: {problem}" if place else problem
    pairs: Iterable[tuple[object, object, object]] = ()
    if isinstance(made, dict) and isinstance(value, Mapping):
        pairs = ((key, part, value.get(key)) for key, part in made.items())
    elif isinstance(made, (list, tuple)) and isinstance(value, (list, tuple)):
        pairs = ((key, *both) for key, both in enumerate(zip(made, value, strict=False)))
    problems = (_remade(part, given, f"{place}.{key}" if place else str(key)) for key, part, given in pairs)
    return next(filter(None, problems), None)


def reason(error: ValidationError) -> str:
    """The first problem, with its place but without the value: that may be private."""
    first = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]
