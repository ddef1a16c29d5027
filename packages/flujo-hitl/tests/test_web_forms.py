"""Forms from JSON schemas: what is drawn, and that what is filled in comes back as the answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, time
from enum import Enum
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter

from flujo.core import unfit
from flujo.hitl.web.forms import Field as Drawn
from flujo.hitl.web.forms import Unreadable, fields_of, fill, read


class Colour(Enum):
    red = "red"
    blue = "blue"


class Address(BaseModel):
    street: str
    number: int | None = None


class Order(BaseModel):
    paid: bool
    colour: Colour = Colour.red
    size: Literal["s", "m", "l", "xl", "xxl"]
    amount: int = Field(ge=0, le=9)
    weight: float | None = None
    note: str = ""
    name: str = Field(min_length=1)
    tags: list[str] = []
    counts: list[int]
    colours: set[Colour] = set()
    address: Address
    other: Address | None = None
    either: int | list[str] = 0
    boxes: list[Address] = []
    day: date | None = None
    version: Literal[2] = 2


def schema_of(hint: object) -> dict[str, Any]:
    return TypeAdapter(hint).json_schema()


def kinds(top: Drawn) -> dict[str, str]:
    return {one.name: one.kind for one in top.all()}


def form(**fields: str | list[str]) -> Mapping[str, list[str]]:
    return {f"answer.{name}": [one] if isinstance(one, str) else one for name, one in fields.items()}


GIVEN: dict[str, Any] = {
    **form(paid="true", colour='"blue"', size='"m"', amount="3", name="Ann", counts="1\r\n2\n", tags="a\nb\n"),
    "answer.address.street": ["Long Lane"],
    "answer.colours": ['"red"', '"blue"'],
    "answer.either": ['["x"]'],
    "answer.other": ['{"street": "Short Lane"}'],
}


def test_each_kind_of_value_has_a_field() -> None:
    found = kinds(fields_of(schema_of(Order)))
    assert found == {
        "answer": "group", "answer.paid": "bool", "answer.colour": "enum", "answer.size": "enum",
        "answer.amount": "integer", "answer.weight": "number", "answer.note": "text", "answer.name": "text",
        "answer.tags": "lines", "answer.counts": "lines", "answer.colours": "choices", "answer.address": "group",
        "answer.address.street": "text", "answer.address.number": "integer", "answer.other": "json",
        "answer.either": "json", "answer.boxes": "json", "answer.day": "text", "answer.version": "const",
    }  # fmt: skip


def test_what_is_filled_in_is_the_answer() -> None:
    schema = schema_of(Order)
    answer = read(fields_of(schema), GIVEN)
    assert unfit(schema, answer, schema) is None
    order = Order.model_validate_json(json.dumps(answer))
    assert order == Order(
        paid=True, colour=Colour.blue, size="m", amount=3, name="Ann", tags=["a", "b"], counts=[1, 2],
        colours={Colour.red, Colour.blue}, address=Address(street="Long Lane"), other=Address(street="Short Lane"),
        either=["x"],
    )  # fmt: skip


def test_all_that_is_wrong_is_told_at_once_and_what_was_filled_in_stays() -> None:
    top = fields_of(schema_of(Order))
    wrong = {**GIVEN, **form(paid="perhaps", amount="many", counts="1\nx", name="", either="{")}
    with pytest.raises(Unreadable) as told:
        read(top, wrong)
    problems = told.value.problems
    assert set(problems) == {f"answer.{name}" for name in ("paid", "amount", "counts", "name", "either")}
    again = {one.name: one for one in fill(top, wrong, problems).all()}
    assert again["answer.amount"].value == ["many"]
    assert again["answer.amount"].problem == "'many' is no whole number"
    assert again["answer.colour"].value == ['"blue"']


@pytest.mark.parametrize(
    ("hint", "text", "answer"),
    [
        (bool, "false", False),
        (int, " 7 ", 7),
        (float, "7", 7),
        (float, "1e3", 1000.0),
        (str, "two\r\nlines", "two\nlines"),
        (str, "", ""),
        (int | None, "", None),
        (Colour, '"red"', "red"),
        (Literal[1, 2], "2", 2),
        (list[float], "1.5\n2", [1.5, 2]),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (Any, "[1]", [1]),
    ],
)
def test_an_answer_that_is_no_object_is_one_field(hint: object, text: str, answer: object) -> None:
    assert read(fields_of(schema_of(hint)), {"answer": [text]}) == answer


def test_what_has_no_schema_takes_any_json() -> None:
    assert read(fields_of(None), {"answer": ["[1, null]"]}) == [1, None]


def test_a_schema_that_refers_to_itself_ends_in_json() -> None:
    schema = {"$ref": "#/$defs/N", "$defs": {"N": {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}}}}
    found = kinds(fields_of(schema))
    assert set(found.values()) == {"group", "json"}
    assert kinds(fields_of({"$ref": "#/$defs/N", "$defs": {"N": {"$ref": "#/$defs/N"}}})) == {"answer": "json"}


SCALARS = st.sampled_from([bool, int, float, str, Colour, int | None, list[int], list[str], Literal["a", 1]])


@given(fields=st.lists(SCALARS, min_size=1, max_size=6), texts=st.lists(st.text(max_size=8), max_size=8))
def test_whatever_is_filled_in_is_read_or_told(fields: list[Any], texts: list[str]) -> None:
    hints = {f"f{number}": (hint, ...) for number, hint in enumerate(fields)}
    from pydantic import create_model

    schema = create_model("Made", **hints).model_json_schema()  # type: ignore[call-overload]
    top = fields_of(schema)
    given_texts = {f"answer.f{number}": [text] for number, text in enumerate(texts)}
    try:
        answer, problems = read(top, given_texts), {}
    except Unreadable as told:
        answer, problems = None, told.problems
    assert set(problems) <= {one.name for one in top.all()}
    assert problems or unfit(schema, answer, schema) is None


@pytest.mark.parametrize("text", ["nan", "inf", "1e999", "1_0", "0x1", "1.2.3", "9" * 5000])
def test_what_is_no_number_of_json_is_none(text: str) -> None:
    with pytest.raises(Unreadable):
        read(fields_of({"type": "number"}), {"answer": [text]})


class Times(BaseModel):
    day: date
    at: datetime
    clock: time | None = None
    key: UUID | None = None


RIGHT = {"day": "2026-11-28", "at": "2026-11-28T14:30:00+01:00"}


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({}, None),
        ({"clock": "14:30:00", "key": "12345678-1234-5678-1234-567812345678"}, None),
        ({"day": "tomorrow"}, "it is no date"),
        ({"day": "2026-02-30"}, "it is no date"),
        ({"at": "now"}, "it is no date-time"),
        ({"clock": "soon"}, "it is none of what is allowed"),
        ({"key": "\ud800"}, "it is none of what is allowed"),
    ],
)
def test_a_time_that_is_none_is_told_before_it_is_recorded(more: dict[str, str], problem: str | None) -> None:
    schema = schema_of(Times)
    assert unfit(schema, {**RIGHT, **more}, schema) == problem


def test_the_form_says_how_a_time_is_written() -> None:
    assert [one.hint for one in fields_of(schema_of(Times)).all()][1:4] == [
        "As 2026-11-28.", "As 2026-11-28T14:30:00+01:00.", "As 14:30:00.",
    ]  # fmt: skip
