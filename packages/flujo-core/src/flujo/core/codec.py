"""Values as JSON and back, with all their types: what cannot come back equal is refused when it is written."""

from __future__ import annotations

import inspect
import json
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel, JsonValue, SecretBytes, SecretStr, ValidationError

from .assignable import is_typed_dict, members, plain, type_name
from .check import adapter_of
from .errors import SnapshotError
from .foreign import attempt

_PLAIN = (str, int, float, bool, type(None))


def dump(hint: object, value: object, where: str) -> JsonValue:
    """Write a value that has the type `hint`.

    Args:
        hint: Its annotated type; `Any` takes what is JSON already.
        value: The value.
        where: What it is, for the error: "output of step 'write'".

    Raises:
        SnapshotError: It would not come back equal, and of the same type.
    """
    if plain(hint) in (Any, object):
        if not _is_json(value):
            why = f"it holds {type(value).__name__}, and no type is declared with which it could be read back"
            raise SnapshotError(f"{where} cannot be kept", why, "Annotate what the step returns")
        return cast("JsonValue", value)
    adapter = adapter_of(hint)
    text, error = (None, None) if adapter is None else attempt(adapter.dump_json, value, warnings="error")
    if adapter is None or text is None or error is not None:
        cause = "no schema" if error is None else type(error).__name__
        why = f"{type_name(hint)} is no type that can be written as JSON ({cause})"
        raise SnapshotError(f"{where} cannot be kept", why, "Use a pydantic model, a dataclass or plain data")
    back, error = attempt(adapter.validate_json, text)
    if error is not None or type(back) is not type(value) or attempt(lambda: bool(back == value))[0] is not True:
        why = f"a {type(value).__name__} that is written as {type_name(hint)} does not come back equal"
        raise SnapshotError(f"{where} cannot be kept", why, "Give a union a discriminator, or declare the exact type")
    return cast("JsonValue", json.loads(text))


def load(hint: object, data: JsonValue, where: str) -> object:
    """Read a value that `dump` wrote.

    Raises:
        SnapshotError: It is no value of the type `hint`.
    """
    if plain(hint) in (Any, object):
        return data
    adapter = adapter_of(hint)
    value, error = (None, None) if adapter is None else attempt(adapter.validate_json, json.dumps(data))
    if adapter is None or error is not None:
        why = type_name(hint)
        if isinstance(error, ValidationError):
            first = error.errors(include_input=False, include_url=False)[0]
            why = f"{why}: {'.'.join(map(str, first['loc']))} {first['msg']}"
        raise SnapshotError(f"{where} in the snapshot does not fit", f"it is no {why}", _DO)
    return value


_DO = "The snapshot is damaged, or of another pipeline: use the one that the run's result gave"


def _is_json(value: object) -> bool:
    """Whether it is JSON already, exactly: a tuple or a subclass would come back as something else."""
    left = [value]
    while left:
        one = left.pop()
        if type(one) is dict:
            if not all(type(key) is str for key in one):
                return False
            left += one.values()
        elif type(one) is list:
            left += one
        elif type(one) not in _PLAIN or (type(one) is float and not math.isfinite(one)):
            return False
    return True


def unkept(hint: object) -> str | None:
    """Why values of a type cannot be written as JSON and read back equal; None where they can, as far as types tell."""
    for part in _parts(hint):
        if part in (Any, object):
            return "no type is declared"
        if inspect.isclass(part) and issubclass(part, (SecretStr, SecretBytes)):
            return "it holds a secret, which is never written"
        if get_origin(part) in (Union, types.UnionType):
            shapes = [one for one in members(part) if inspect.isclass(one) and _has_fields(one)]
            if len(shapes) > 1:
                names = " and ".join(type_name(one) for one in shapes)
                return f"{names} may look alike as JSON; give the union a discriminator: Field(discriminator=...)"
    adapter = adapter_of(hint)
    schema, error = (None, None) if adapter is None else attempt(adapter.json_schema, mode="serialization")
    return None if schema is not None and error is None else f"{type_name(hint)} has no JSON form"


def _parts(hint: object) -> Iterator[object]:
    """A type and the types in it; what has a discriminator is one."""
    left = [hint]
    while left:
        part = plain(one) if get_origin(one := left.pop()) is not Annotated else one
        if get_origin(part) is Annotated:
            if any(getattr(note, "discriminator", None) for note in get_args(part)[1:]):
                continue
            part = plain(part)
        yield part
        if get_origin(part) is not Literal:
            left += [inner for inner in get_args(part) if inner is not Ellipsis]


def _has_fields(cls: type) -> bool:
    return issubclass(cls, BaseModel) or is_dataclass(cls) or is_typed_dict(cls)


# --- context changes ----------------------------------------------------------------------------------------------


def dump_changes(model: type[BaseModel] | None, changes: Mapping[str, object], where: str) -> dict[str, JsonValue]:
    """Write context changes by field."""
    return {
        name: dump(_field(model, name), value, f"context field {name!r} of {where}") for name, value in changes.items()
    }


def load_changes(model: type[BaseModel] | None, data: object, where: str) -> dict[str, object]:
    """Read what `dump_changes` wrote."""
    if model is None or not isinstance(data, dict) or not data.keys() <= model.model_fields.keys():
        raise SnapshotError(f"context changes of {where} do not fit", "they name unknown fields", _DO)
    return {
        name: load(_field(model, name), value, f"context field {name!r} of {where}") for name, value in data.items()
    }


def _field(model: type[BaseModel] | None, name: str) -> object:
    return Any if model is None else model.model_fields[name].annotation
