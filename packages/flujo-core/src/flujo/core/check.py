"""Deep checks of values where they enter: run input, transforms, context changes, outputs of steps that ask for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import SchemaError

from .assignable import classes_of, type_name
from .foreign import attempt


def adapter_of(hint: object) -> TypeAdapter[Any] | None:
    """A validator for `hint`; None where pydantic knows no way to check it. Kept, since building one is slow."""
    kept, error = attempt(_kept, hint)
    return _build(hint) if isinstance(error, TypeError) else kept  # a hint that cannot be hashed


@lru_cache(maxsize=1024)
def _kept(hint: object) -> TypeAdapter[Any] | None:
    return _build(hint)


# What JSON cannot hold as it is comes back equal: bytes that are no text, and infinity.
_CONFIG = ConfigDict(
    arbitrary_types_allowed=True, ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings"
)


def _build(hint: object) -> TypeAdapter[Any] | None:
    for options in ({"config": _CONFIG}, {}):
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(hint, **options)  # type: ignore[arg-type]
        except (PydanticUserError, PydanticSchemaGenerationError, SchemaError, NameError):
            continue  # a model brings its own config and refuses ours; a protocol can be checked with neither
        # A model that names a class of later lines is complete once that class is there.
        return adapter if adapter.pydantic_complete or adapter.rebuild(raise_errors=False) else None
    return None


def fitted(hint: object, *, deep: bool = True) -> Callable[[object], tuple[object, str | None]]:
    """A function that makes a value fit `hint`: it returns what is to be used, and what is wrong with it or None.

    Python values are checked strictly, so a text is no number; but a dict becomes the model it describes. Not `deep`
    means that only their class is looked at.
    """
    adapter, classes = adapter_of(hint) if deep else None, classes_of(hint)

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


def fitted_changes(
    model: type[BaseModel] | None, writes: tuple[str, ...], changes: Mapping[str, object]
) -> tuple[Mapping[str, object], str | None]:
    """The changes a step returned as they are to be applied, and what is wrong with them or None."""
    if model is None:
        return changes, "it returned an Update, but there is no context model"
    made: dict[str, object] = {}
    for name, value in changes.items():
        if name not in writes:
            declared = ", ".join(map(repr, writes)) or "none"
            return changes, f"it wrote context field {name!r} without declaring it; writes= names {declared}"
        field = model.model_fields[name]
        made[name], problem = fitted(
            Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        )(value)
        if problem is not None:
            return changes, f"context field {name!r} does not fit: {problem}"
    return made, None


def _reason(error: ValidationError) -> str:
    """The first problem, with its place but without the value: that may be private."""
    first = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]
