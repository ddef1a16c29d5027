"""How the user's context changes: fields are replaced, or folded by the reducer in their annotation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from .errors import ConfigurationError
from .foreign import attempt

__all__ = ["apply_changes", "check_context_model", "invalid_changes", "reducers_of"]

Reducer = Callable[[object, object], object]


def check_context_model(model: type[BaseModel] | None) -> None:
    """Raise ConfigurationError unless `model` is a frozen pydantic model, or None."""
    if model is None:
        return
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise ConfigurationError(f"context_model={model!r} cannot be used", "it is no pydantic model")
    if not model.model_config.get("frozen"):
        do = f"Declare it: class {model.__name__}(BaseModel, frozen=True)"
        raise ConfigurationError(f"context model {model.__name__!r} cannot be used", "it is not frozen", do)


@lru_cache(maxsize=1024)
def reducers_of(model: type[BaseModel] | None) -> Mapping[str, Reducer]:
    """Fields of `model` with a reducer: `Annotated[list[str], operator.add]`."""
    found: dict[str, Reducer] = {}
    for name, field in ({} if model is None else model.model_fields).items():
        for note in field.metadata:
            if _is_reducer(note):
                found[name] = cast("Reducer", note)
    return found


def _is_reducer(note: object) -> bool:
    return callable(note) and not isinstance(note, type)


@lru_cache(maxsize=1024)
def _adapter(model: type[BaseModel], field: str) -> TypeAdapter[Any]:
    """A validator for a tuple of one such field: a bare model would refuse our config."""
    info = model.model_fields[field]
    hint: Any = info.annotation
    for note in info.metadata:
        if not _is_reducer(note):
            hint = Annotated[hint, note]
    return TypeAdapter(tuple[hint], config=ConfigDict(arbitrary_types_allowed=True))


def invalid_changes(
    model: type[BaseModel] | None, writes: tuple[str, ...], changes: Mapping[str, object]
) -> str | None:
    """Say what is wrong with the changes a step returned; None when they may be applied."""
    if model is None:
        return "it returned an Update, but there is no context model"
    for name, value in changes.items():
        if name not in writes:
            declared = ", ".join(map(repr, writes)) or "none"
            return f"it wrote context field {name!r} without declaring it; writes= names {declared}"
        _, error = attempt(_adapter(model, name).validate_python, (value,), strict=True)
        if error is not None:
            return f"context field {name!r} does not fit: {_reason(error)}"
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return error.errors(include_input=False)[0]["msg"]
    return f"its check failed with {type(error).__name__}"  # a validator of the user's, in its own way


def apply_changes(context: BaseModel, changes: Mapping[str, object]) -> BaseModel:
    """The context with `changes` folded in; shares every value that did not change."""
    reducers = reducers_of(type(context))
    values = {
        name: reducers[name](getattr(context, name), value) if name in reducers else value
        for name, value in changes.items()
    }
    return context.model_copy(update=values)
