"""How the user's context changes: fields are replaced, or folded by the reducer in their annotation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import cast

from pydantic import BaseModel

from .errors import ConfigurationError

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
    fields = {} if model is None else model.model_fields
    notes = ((name, note) for name, field in fields.items() for note in field.metadata)
    return {name: cast("Reducer", note) for name, note in notes if callable(note) and not isinstance(note, type)}


def apply_changes(context: BaseModel, changes: Mapping[str, object]) -> BaseModel:
    """The context with `changes` folded in; shares every value that did not change."""
    reducers = reducers_of(type(context))
    values = {
        name: reducers[name](getattr(context, name), value) if name in reducers else value
        for name, value in changes.items()
    }
    return context.model_copy(update=values)
