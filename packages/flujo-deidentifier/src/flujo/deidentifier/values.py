"""Redaction of structured values, without turning them into strings."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid
from collections.abc import Callable, Mapping
from typing import TypeVar, cast

from pydantic import BaseModel, SecretStr

from flujo.deidentifier.errors import ValueNotCovered

__all__ = ["redact_value"]

T = TypeVar("T")
# Values that hold no free text. A SecretStr never shows its own; bytes may hold anything and are refused.
_KEPT = (
    bool,
    int,
    float,
    complex,
    decimal.Decimal,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    enum.Enum,
    uuid.UUID,
    SecretStr,
    type(None),
)


def redact_value(value: T, redact: Callable[[str], str]) -> T:
    """A copy of `value` with `redact` applied to every string in it; shared and cyclic parts are not supported.

    Raises:
        ValueNotCovered: An object inside cannot be searched (bytes, open files, objects of unknown classes).
    """
    return cast("T", _walk(value, redact, "value"))


def _walk(value: object, redact: Callable[[str], str], path: str) -> object:
    if isinstance(value, _KEPT):
        return value
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return _mapping(value, redact, path)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        rebuild: Callable[..., object] = type(value)  # a named tuple takes its fields one by one
        return rebuild(*(_walk(v, redact, f"{path}[{i}]") for i, v in enumerate(value)))
    if isinstance(value, (list, tuple, set, frozenset)):
        return type(value)(_walk(v, redact, f"{path}[{i}]") for i, v in enumerate(value))
    if isinstance(value, BaseModel):
        return _model(value, redact, path)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _dataclass(value, redact, path)
    raise ValueNotCovered(path, type(value))


def _mapping(value: Mapping[object, object], redact: Callable[[str], str], path: str) -> dict[object, object]:
    """Keys are redacted too: `{"Jane Roe": ...}` is a name. Two keys that become equal keep apart by a number."""
    out: dict[object, object] = {}
    for key, item in value.items():
        new_key = _walk(key, redact, f"{path} key")
        if new_key != key and new_key in out:
            new_key = f"{new_key}#{len(out)}"
        out[new_key] = _walk(item, redact, f"{path}[{new_key!r}]")
    return out


def _model(value: BaseModel, redact: Callable[[str], str], path: str) -> BaseModel:
    """Validated again, so that a field that takes no placeholder fails here and not later."""
    names = [*type(value).model_fields, *(value.model_extra or {})]
    old = {name: getattr(value, name) for name in names}
    new = {name: _walk(item, redact, f"{path}.{name}") for name, item in old.items()}
    if all(new[name] is old[name] or new[name] == old[name] for name in names):
        return value
    copy = value.model_copy(update=new)
    type(value).__pydantic_validator__.validate_python(
        copy.model_dump(round_trip=True, warnings=False), by_alias=False, by_name=True
    )
    return copy


def _dataclass(value: object, redact: Callable[[str], str], path: str) -> object:
    fields = [f for f in dataclasses.fields(value) if f.init]  # type: ignore[arg-type]  # checked by the caller
    new = {f.name: _walk(getattr(value, f.name), redact, f"{path}.{f.name}") for f in fields}
    return dataclasses.replace(value, **new)  # type: ignore[type-var]
