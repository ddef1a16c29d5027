"""Structured values keep their shape and types; what cannot be searched is refused."""

import datetime
import enum
from collections import namedtuple
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from flujo.deidentifier import Deidentifier, ValueNotCovered


class Triage(enum.Enum):
    URGENT = "urgent"


class Note(BaseModel):
    model_config = ConfigDict(frozen=True)
    author: str
    body: str = Field(alias="noteBody", default="")
    level: Triage = Triage.URGENT


class Chart(BaseModel):
    notes: list[Note]
    by_day: dict[str, Note] = {}
    weight_kg: Decimal = Decimal("71.5")
    token: SecretStr = SecretStr("shh")


class Coded(BaseModel):
    code: str = Field(pattern=r"^\d{3}-\d{2}-\d{4}$")


@dataclass(frozen=True)
class Visit:
    who: str
    when: datetime.date
    tags: tuple[str, ...] = ()
    seen: int = field(default=0, init=False)


Pair = namedtuple("Pair", "name count")


@pytest.fixture(scope="module")
def deidentifier():
    return Deidentifier(reference_year=2024)


def test_lists_tuples_sets_and_dicts_keep_their_type(deidentifier):
    value = {"note": ["Dr. Stone called", ("on 3/14/2022", 7)], "tags": {"stable"}, "none": None, "ok": True}
    assert deidentifier.redact_value(value) == {
        "note": ["Dr. [PERSON] called", ("on [DATE]", 7)],
        "tags": {"stable"},
        "none": None,
        "ok": True,
    }


def test_keys_that_name_someone_are_redacted_and_stay_apart(deidentifier):
    out = deidentifier.redact_value({"Thistlewood": 1, "Vargadottir": 2, "weight": 3})
    assert list(out.values()) == [1, 2, 3]
    assert "weight" in out
    assert not {"Thistlewood", "Vargadottir"} & set(out)


def test_models_inside_models_are_redacted_through_their_aliases(deidentifier):
    chart = Chart(notes=[Note(author="Dr. Stone", noteBody="MRN 0044178")], by_day={"Monday": Note(author="lab")})
    out = deidentifier.redact_value(chart)
    assert isinstance(out, Chart)
    assert out.notes == [Note(author="Dr. [PERSON]", noteBody="MRN [MRN]")]
    assert list(out.by_day) == ["[DATE]"]
    assert (out.weight_kg, out.token.get_secret_value()) == (Decimal("71.5"), "shh")


def test_the_given_value_is_never_changed(deidentifier):
    note = Note(author="Dr. Stone")
    value = {"notes": [note]}
    deidentifier.redact_value(value)
    assert value == {"notes": [Note(author="Dr. Stone")]}


def test_a_value_without_identifiers_is_equal_and_a_model_is_the_same_object(deidentifier):
    note = Note(author="lab", noteBody="normal")
    assert deidentifier.redact_value(note) is note


def test_a_field_that_takes_no_placeholder_fails_here(deidentifier):
    with pytest.raises(ValidationError):
        deidentifier.redact_value(Coded(code="219-09-9999"))


def test_dataclasses_and_named_tuples_are_rebuilt(deidentifier):
    visit = Visit("Dr. Stone", datetime.date(2022, 3, 14), ("called Vargadottir",))
    assert deidentifier.redact_value(visit) == Visit("Dr. [PERSON]", datetime.date(2022, 3, 14), ("called [PERSON]",))
    assert deidentifier.redact_value(Pair("Vargadottir", 2)) == Pair("[PERSON]", 2)


@pytest.mark.parametrize("value", [3, 2.5, True, None, Decimal("1"), datetime.date(2020, 1, 1), Triage.URGENT])
def test_values_without_text_pass_as_they_are(deidentifier, value):
    assert deidentifier.redact_value(value) is value


@pytest.mark.parametrize("value", [b"Dr. Stone", object(), {"deep": [lambda: None]}, Visit])
def test_what_cannot_be_searched_is_refused_with_its_place(deidentifier, value):
    with pytest.raises(ValueNotCovered, match="cannot be de-identified"):
        deidentifier.redact_value(value)


def test_the_place_of_a_refused_value_is_named(deidentifier):
    with pytest.raises(ValueNotCovered, match=r"value\['deep'\]\[1\]"):
        deidentifier.redact_value({"deep": ["x", b"y"]})
