"""A form for an answer, from its JSON schema; and back from what was filled in to the answer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import JsonValue

__all__ = ["MISSING", "Field", "Unreadable", "fields_of", "fill", "read"]

Kind = Literal["bool", "enum", "integer", "number", "text", "lines", "choices", "group", "json", "const"]
Schema = Mapping[str, Any]
Form = Mapping[str, Sequence[str]]

_DEEPEST = 5
"""Levels of nested objects that are drawn; what is deeper is a JSON field."""

_NUMBERS = {"integer", "number"}


class _Missing:
    def __bool__(self) -> bool:
        return False


MISSING = _Missing()
"""What a field gives that was left empty and need not be filled in."""


class Unreadable(Exception):
    """What was filled in is no answer; `problems` are by the names of the fields."""

    def __init__(self, problems: dict[str, str]) -> None:
        self.problems = problems
        super().__init__(str(problems))


@dataclass(frozen=True, slots=True)
class Field:
    """One field, or a group of them.

    Attributes:
        kind: How it is drawn.
        name: Of the input; of a part of a group behind that of the group and a dot.
        label: For people.
        hint: What may stand there, for people.
        required: Whether it must be filled in.
        nullable: Whether it may be empty, which then is null.
        options: Values to choose from, as JSON.
        value: What stands there at first.
        least: Least number or length.
        most: Most.
        parts: Of a group, by the property.
        item: Kind of the items of `lines`.
        problem: What is wrong with what was filled in.
        offers_none: Whether leaving it empty is offered where it is optional: not where a value counts by default.
    """

    kind: Kind
    name: str
    label: str
    hint: str = ""
    required: bool = True
    nullable: bool = False
    options: Sequence[str] = ()
    value: Sequence[str] = ()
    least: float | None = None
    most: float | None = None
    parts: Mapping[str, Field] = field(default_factory=dict)
    item: str = ""
    problem: str = ""
    offers_none: bool = True

    def all(self) -> Iterator[Field]:
        """This one and all in it."""
        yield self
        for part in self.parts.values():
            yield from part.all()


_AS = {"date": "As 2026-11-28.", "date-time": "As 2026-11-28T14:30:00+01:00.", "time": "As 14:30:00."}
"""How a text is written that is a time."""


# --- drawing ----------------------------------------------------------------------------------------------------------


def fields_of(schema: Schema | None) -> Field:
    """The form for an answer. What cannot be drawn, a choice between several shapes for one, is a field for JSON."""
    if schema is None:
        return Field("json", "answer", "Answer", "Any JSON")
    return _field(schema, schema, "answer", "Answer", required=True, depth=0)


def _field(schema: Schema, root: Schema, name: str, label: str, *, required: bool, depth: int) -> Field:
    schema, nullable = _resolved(schema, root)
    facts: dict[str, Any] = {
        "name": name,
        "label": str(schema.get("title") or label) if depth else label,
        "hint": str(schema.get("description") or "") if depth or schema.get("type") != "object" else "",
        "required": required and not nullable,
        "nullable": nullable,
    }
    if "default" in schema:
        facts["value"] = _written(schema["default"])
    if "const" in schema:
        return Field("const", options=[json.dumps(schema["const"])], **facts)
    if "default" in schema and ("enum" in schema or schema.get("type") == "boolean"):
        facts["value"] = [] if schema["default"] is None else [json.dumps(schema["default"])]
        facts["offers_none"] = schema["default"] is None
    if isinstance(schema.get("enum"), list):
        return Field("enum", options=[json.dumps(one) for one in schema["enum"]], **facts)
    kind = schema.get("type")
    if kind == "object" and schema.get("properties") and depth < _DEEPEST and not nullable:
        return replace(_group(schema, root, name, depth), label=facts["label"], hint=facts["hint"], required=required)
    if kind == "array":
        return _list(schema, root, facts)
    if kind == "boolean":
        return Field("bool", options=["true", "false"], **facts)
    if kind in _NUMBERS:
        return Field(kind, least=schema.get("minimum"), most=schema.get("maximum"), **facts)
    if kind == "string":
        facts["hint"] = f"{facts['hint']} {_AS.get(schema.get('format', ''), '')}".strip()
        return Field("text", least=schema.get("minLength"), most=schema.get("maxLength"), **facts)
    facts["value"] = [json.dumps(schema["default"])] if "default" in schema else []
    return Field("json", **facts)


def _resolved(schema: Schema, root: Schema) -> tuple[Schema, bool]:
    """A schema without references and without the null that it may be; a union of more is left as it is."""
    nullable = False
    for _ in range(10):
        ref, several = schema.get("$ref"), schema.get("anyOf") or schema.get("oneOf")
        if isinstance(ref, str):
            found = root.get("$defs", {}).get(ref.rpartition("/")[2], {})
            schema = {**found, **{key: value for key, value in schema.items() if key != "$ref"}}
        elif isinstance(several, list):
            rest = [one for one in several if one.get("type") != "null"]
            if len(rest) == len(several) or len(rest) != 1:
                return {key: value for key, value in schema.items() if key != "type"}, nullable
            nullable = True
            schema = {**rest[0], **{key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}}
        else:
            return schema, nullable
    return {}, nullable  # it refers to itself


def _group(schema: Schema, root: Schema, name: str, depth: int) -> Field:
    required = schema.get("required", ())
    parts = {
        key: _field(one, root, f"{name}.{key}", key.replace("_", " "), required=key in required, depth=depth + 1)
        for key, one in schema["properties"].items()
    }
    return Field("group", name, "", parts=parts)


def _list(schema: Schema, root: Schema, facts: dict[str, Any]) -> Field:
    items, items_nullable = _resolved(schema.get("items") or {}, root)
    if isinstance(items.get("enum"), list) and schema.get("uniqueItems"):
        facts["value"] = [json.dumps(one) for one in schema.get("default") or ()]
        return Field("choices", options=[json.dumps(one) for one in items["enum"]], **facts)
    if items.get("type") in {"string", *_NUMBERS} and not items_nullable and "prefixItems" not in schema:
        facts["hint"] = f"{facts['hint']} One on each line.".strip()
        return Field("lines", item=str(items["type"]), **facts)
    facts["value"] = [json.dumps(schema["default"])] if "default" in schema else []
    return Field("json", **{**facts, "hint": f"{facts['hint']} A list, as JSON.".strip()})


def _written(value: JsonValue) -> list[str]:
    """A value as it stands in a field."""
    if value is None:
        return []
    if isinstance(value, list):
        return [one if isinstance(one, str) else json.dumps(one) for one in value]
    return [value if isinstance(value, str) else json.dumps(value)]


# --- reading ----------------------------------------------------------------------------------------------------------


def read(top: Field, form: Form) -> JsonValue:
    """The answer that was filled in.

    Raises:
        Unreadable: A field holds what is none, or must be filled in.
    """
    problems: dict[str, str] = {}
    answer = _read(top, form, problems)
    if problems:
        raise Unreadable(problems)
    return None if isinstance(answer, _Missing) else answer


def fill(top: Field, form: Form, problems: Mapping[str, str]) -> Field:
    """The same form with what was filled in, and what is wrong with it."""
    return replace(
        top,
        value=list(form.get(top.name, top.value if top.kind == "const" else ())),
        problem=problems.get(top.name, ""),
        parts={key: fill(part, form, problems) for key, part in top.parts.items()},
    )


def _read(one: Field, form: Form, problems: dict[str, str]) -> JsonValue | _Missing:
    if one.kind == "group":
        found = {key: _read(part, form, problems) for key, part in one.parts.items()}
        return {key: value for key, value in found.items() if not isinstance(value, _Missing)}
    if one.kind == "const":
        value: JsonValue = json.loads(one.options[0])
        return value
    if one.kind == "choices":
        return [json.loads(text) for text in form.get(one.name, ()) if text in one.options]
    text = next(iter(form.get(one.name, ())), "").replace("\r\n", "\n")
    if one.kind == "text" and not text and one.required and not one.least:
        return ""
    if not text.strip():
        return _empty(one, problems)
    try:
        return _value(one, text)
    except ValueError as error:
        problems[one.name] = str(error)
        return MISSING


def _empty(one: Field, problems: dict[str, str]) -> JsonValue | _Missing:
    if one.nullable:
        return None
    if one.kind == "lines" and one.required:
        return []
    if one.required:
        problems[one.name] = "This must be filled in"
    return MISSING


def _value(one: Field, text: str) -> JsonValue:
    if one.kind in ("bool", "enum"):
        if text not in one.options:
            raise ValueError("Choose one of what is offered")
        return _json(text)
    if one.kind in _NUMBERS:
        return _number(one.kind, text)
    if one.kind == "lines":
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        return [line if one.item == "string" else _number(one.item, line) for line in lines]
    return _json(text) if one.kind == "json" else text


_NUMBER = re.compile(r"\s*[+-]?\d{1,100}(\.\d{1,100})?([eE][+-]?\d{1,3})?\s*", re.ASCII)


def _number(kind: str, text: str) -> JsonValue:
    is_whole = text.strip().lstrip("+-").isdecimal()
    number: int | float = math.inf
    if _NUMBER.fullmatch(text) and (is_whole or kind == "number"):
        number = int(text) if is_whole else float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is no {'whole number' if kind == 'integer' else 'number'}")
    return number


def _json(text: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"This is no JSON: {error}") from None
    return value
