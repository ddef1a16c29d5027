"""Deep checks of values where they enter: run input, transforms, context changes, outputs of steps that ask for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import cache, lru_cache
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, JsonValue, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import SchemaError

from .assignable import classes_of, type_name
from .errors import ConfigurationError
from .foreign import attempt, fault_of
from .logs import shown_as
from .scrubbing import scrub, secrets_in, without


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


@cache
def json_adapter() -> TypeAdapter[JsonValue]:
    """Checks that a value is JSON. Made once, when it is first asked for: that takes 300 us."""
    return TypeAdapter(JsonValue)


WRITTEN: Mapping[str, Any] = {"by_alias": False, "round_trip": True, "warnings": "error"}
"""How values are written that are read back with `by_name`: by the names of their fields, and what these tell alone."""

DEPTH = 100
"""Most levels of JSON in one value; what reads JSON takes 200, and a snapshot stands around the value."""

BITS = 13_000
"""Most bits of a whole number in JSON: Python reads none of more than 4,300 digits."""


def no_json(value: object) -> str | None:
    """What a value holds that is not JSON exactly, which is written and read back as it is; None where it is JSON.

    A tuple or a subclass would come back as something else.
    """
    level: dict[int, object] = {0: [value]}
    for _ in range(DEPTH + 1):
        inner: dict[int, object] = {}  # each once, however often it stands there: it may hold itself
        for one in level.values():
            keys = list(one) if isinstance(one, dict) else []
            if any(type(key) is not str for key in keys):
                return "a dict whose keys are no texts"
            for part in [*keys, *(one.values() if isinstance(one, dict) else cast("list[object]", one))]:
                if type(part) is dict or type(part) is list:
                    inner[id(part)] = part
                elif problem := _no_leaf(part):
                    return problem
        if not inner:
            return None
        level = inner
    return f"more than {DEPTH} levels"


def _no_leaf(value: object) -> str | None:
    if type(value) is str:
        return None if value.isascii() or attempt(value.encode)[1] is None else "text that is no Unicode"
    if type(value) is float:
        return None if math.isfinite(value) else "a number that is not finite"
    if type(value) is int:
        return None if value.bit_length() <= BITS else "a number that is too long"
    return None if value is None or type(value) is bool else f"a {type(value).__name__}"


def is_whole(value: object, back: object) -> bool:
    """Whether all of a value came back: a secret, a field that is left out and a subclass do not."""
    if type(value) is not type(back) or value != back:
        return False
    if isinstance(value, BaseModel) or is_dataclass(value):
        return is_whole(vars(value), vars(back))
    if isinstance(value, dict):
        there = {item[0]: item for item in cast("dict[object, object]", back).items()}
        return all(is_whole(item, there[item[0]]) for item in value.items())
    if isinstance(value, (set, frozenset)):
        return is_whole(dict.fromkeys(value), dict.fromkeys(cast("set[object]", back)))
    return not isinstance(value, (list, tuple)) or all(map(is_whole, value, cast("list[object]", back)))


def fitted(hint: object, *, deep: bool = True) -> Callable[[object], tuple[object, str | None]]:
    """A function that makes a value fit `hint`: it returns what is to be used, and what is wrong with it or None.

    Python values are checked strictly, so a text is no number; but a dict becomes the model it describes. Not `deep`
    means that only their class is looked at.
    """
    adapter, classes = adapter_of(hint) if deep else None, classes_of(hint)
    validate = None if adapter is None else adapter.validator.validate_python

    def fit(value: object) -> tuple[object, str | None]:
        if validate is None:
            fits = classes is None or isinstance(value, classes)
            return value, None if fits else f"{type(value).__name__} is no {type_name(hint)}"
        try:
            return validate(value, strict=True), None
        except BaseException as raised:  # not by `attempt`, which costs as much as the check of a number
            error = fault_of(raised)
            if error is None:
                raise
        if isinstance(error, ValidationError):
            return value, without(attempt(secrets_in, (value,))[0] or (), reason(error))
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


def reason(error: ValidationError) -> str:
    """The first problem, with its place but without the value: that may be private."""
    first = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


def words_of(options: Mapping[str, Any]) -> tuple[str | None, str | None, dict[str, str]]:
    """The words about a run that its caller gives: actor, tenant and tags, without secrets of a known form.

    Raises:
        ConfigurationError: One is no text, or holds what no file and no log can take.
    """
    for name in options.keys() & {"run_id", "actor", "tenant", "tags"}:
        word = options[name]
        texts = [*word, *word.values()] if isinstance(word, Mapping) else [word]
        is_fit = isinstance(word, Mapping) == (name == "tags") and all(isinstance(text, str) for text in texts)
        if word is not None and not (is_fit and no_json([str(text) for text in texts]) is None):
            what = "a dict of texts" if name == "tags" else "a text"
            raise ConfigurationError(f"{name}= of a run cannot be used", f"it is not {what} in Unicode")
    actor, tenant, tags = (options.get(name) for name in ("actor", "tenant", "tags"))
    told = {scrub(name): str(shown_as(name, word)) for name, word in (tags or {}).items()}
    return actor and scrub(actor), tenant and scrub(tenant), told
