"""Deep checks of values where they enter: run input, decisions, transforms, outputs of steps that ask for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import SchemaError

from .assignable import classes_of, type_name
from .foreign import attempt


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


def fitted(hint: object) -> Callable[[object], tuple[object, str | None]]:
    """A function that makes a value fit `hint`: it returns what is to be used, and what is wrong with it or None.

    Python values are checked strictly, so a text is no number; but a dict becomes the model it describes.
    """
    adapter, classes = adapter_of(hint), classes_of(hint)

    def fit(value: object) -> tuple[object, str | None]:
        if adapter is None:
            fits = classes is None or isinstance(value, classes)
            return value, None if fits else f"{type(value).__name__} is no {type_name(hint)}"
        made, error = attempt(adapter.validate_python, value, strict=True)
        if error is None:
            return made, None
        if isinstance(error, ValidationError):
            return value, _reason(error)
        return value, f"the check of {type_name(hint)} failed with {type(error).__name__}"  # a validator of the user's

    return fit


def _reason(error: ValidationError) -> str:
    """The first problem, with its place but without the value: that may be private."""
    first = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]
