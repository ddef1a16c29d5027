"""Values as JSON and back, with all their types: what cannot come back equal is refused when it is written."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, JsonValue, SecretBytes, SecretStr, ValidationError
from pydantic_core import from_json

from .assignable import classes_of, is_typed_dict, members, plain, type_name
from .check import DEPTH, WRITTEN, adapter_of, no_json, reason
from .errors import SnapshotError
from .foreign import attempt

_WRITABLE = "Use a pydantic model, a dataclass or plain data; bytes in a model need its ser_json_bytes='base64'"
_UNEQUAL = "A NaN equals nothing, and is null in JSON: give None for it. Else: compare a class by what it holds"
_AROUND = b"[" * DEPTH, b"]" * DEPTH


def dump(hint: object, value: object, where: str) -> JsonValue:
    """Write a value that has the type `hint`.

    Args:
        hint: Its annotated type; `Any` takes what is JSON already.
        value: The value.
        where: What it is, for the error: "output of step 'write'".

    Raises:
        SnapshotError: It would not come back equal, and of the same type.
    """
    if _is_untyped(hint):
        if what := no_json(value):
            why = f"it holds {what}, which JSON cannot, and no type is declared with which it could be written"
            raise SnapshotError(f"{where} cannot be kept", why, "Declare what the step returns")
        return cast("JsonValue", value)
    if _is_mixed(hint):
        return _dump_mixed(hint, value, where)
    adapter = adapter_of(hint)
    text, error = (None, None) if adapter is None else attempt(adapter.dump_json, value, **WRITTEN)
    if adapter is None or text is None or error is not None:
        cause = "no schema" if error is None else type(error).__name__  # its text may show the value
        why = f"{type_name(hint)} is no type that can be written as JSON ({cause})"
        raise SnapshotError(f"{where} cannot be kept", why, _WRITABLE)
    back, error = attempt(adapter.validate_json, text, by_name=True)
    kept = type(back) is type(value) or (type(back) is float and type(value) is int)  # an int may stand for a float
    if error is not None or not kept or attempt(lambda: bool(back == value))[0] is not True:
        why = f"a {type(value).__name__} that is written as {type_name(hint)} does not come back equal"
        same = kept and attempt(adapter.dump_json, back, **WRITTEN)[0] == text
        do = _UNEQUAL if same or error is not None else "Give a union a discriminator, or declare the exact type"
        raise SnapshotError(f"{where} cannot be kept", why, do)
    if text.count(b"[") + text.count(b"{") > DEPTH and attempt(from_json, text.join(_AROUND))[1] is not None:
        raise SnapshotError(f"{where} cannot be kept", f"it has more than {DEPTH} levels", "Keep it flatter")
    return cast("JsonValue", json.loads(text))


def load(hint: object, data: JsonValue, where: str, *, strict: bool | None = None) -> object:
    """Read a value that `dump` wrote; where it comes from elsewhere, `strict` takes no text for a number.

    Raises:
        SnapshotError: It is no value of the type `hint`.
    """
    if _is_untyped(hint):
        return data
    if _is_mixed(hint):
        return _load_mixed(hint, data, where)
    adapter, text = adapter_of(hint), json.dumps(data)
    read = None if adapter is None else adapter.validate_json
    value, error = (None, None) if read is None else attempt(read, text, by_name=True, strict=strict)
    if adapter is None or error is not None:
        why = f"{type_name(hint)}: {reason(error)}" if isinstance(error, ValidationError) else type_name(hint)
        raise SnapshotError(f"{where} in the snapshot does not fit", f"it is no {why}", _DO)
    return value


def _is_untyped(hint: object) -> bool:
    """Whether nothing is declared; `Annotated[Any, ...]` may bring a way to write it."""
    return get_origin(hint) is not Annotated and plain(hint) in (Any, object)


_DO = "The snapshot is damaged, or of another pipeline: use the one that the run's result gave"


# --- unions: what branches give --------------------------------------------------------------------------------------


def _is_mixed(hint: object) -> bool:
    """Whether values of several types may stand there whose JSON looks alike: a union, or a list or dict of one."""
    if get_origin(hint) is Annotated:
        return False  # it has a discriminator, or says itself how it is written
    bare = plain(hint)
    if get_origin(bare) in (Union, types.UnionType):
        return sum(part is not type(None) for part in get_args(bare)) > 1
    if get_origin(bare) is list:
        return _is_mixed(get_args(bare)[0])
    return is_typed_dict(bare) and any(_is_mixed(part) for part in _fields(bare).values())


def _fields(typed_dict: object) -> Mapping[str, object]:
    return attempt(get_type_hints, cast("type", typed_dict), include_extras=True)[0] or {}


def _dump_mixed(hint: object, value: object, where: str) -> JsonValue:
    """Write which alternative of a union a value is, beside the value."""
    bare = plain(hint)
    if isinstance(value, list) and get_origin(bare) is list:
        return [dump(get_args(bare)[0], one, where) for one in value]
    if is_typed_dict(bare) and isinstance(value, dict):
        return {name: dump(_fields(bare).get(name, Any), one, where) for name, one in value.items()}
    fault: SnapshotError | None = None
    # Its own class comes first: 5 is a float, too, but as one it would come back as 5.0.
    for number, part in sorted(enumerate(get_args(bare)), key=lambda one: plain(one[1]) is not type(value)):
        classes = classes_of(part)
        if classes is None or isinstance(value, classes):
            try:
                return {"is": number, "value": dump(part, value, where)}
            except SnapshotError as error:
                fault = fault or error
    raise fault or SnapshotError(f"{where} cannot be kept", f"{type(value).__name__} is no {type_name(hint)}")


def _load_mixed(hint: object, data: JsonValue, where: str) -> object:
    bare = plain(hint)
    if isinstance(data, list) and get_origin(bare) is list:
        return [load(get_args(bare)[0], one, where) for one in data]
    if is_typed_dict(bare) and isinstance(data, dict):
        return {name: load(_fields(bare).get(name, Any), one, where) for name, one in data.items()}
    parts = get_args(bare)
    number = data.get("is") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(number, int) or not 0 <= number < len(parts):
        raise SnapshotError(f"{where} in the snapshot does not fit", f"it is no {type_name(hint)}", _DO)
    return load(parts[number], data.get("value"), where)


def unkept(hint: object) -> str | None:
    """Why values of a type cannot be written as JSON and read back equal; None where they can, as far as types tell.

    What has no declared type is looked at when it is written: JSON it may be.
    """
    for part in _parts(hint):
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
    if not isinstance(data, dict) or not data.keys() <= (frozenset() if model is None else model.model_fields.keys()):
        raise SnapshotError(f"context changes of {where} do not fit", "they name unknown fields", _DO)
    return {
        name: load(_field(model, name), value, f"context field {name!r} of {where}") for name, value in data.items()
    }


def _field(model: type[BaseModel] | None, name: str) -> object:
    return Any if model is None else model.model_fields[name].annotation
