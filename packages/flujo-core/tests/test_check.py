"""Deep checks of values: what fits, what does not, and that a message never holds the value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple, NewType, Protocol, TypedDict

import pytest
from pydantic import AfterValidator, BaseModel, Field, JsonValue, SecretStr
from stable_ids import shown

from flujo.core.check import adapter_of, fitted


class Note(BaseModel):
    text: str
    page: int = 1


class Plain:
    pass


class Row(TypedDict):
    id: int


class Pair(NamedTuple):
    left: int


class Sized(Protocol):
    size: int


@dataclass
class Box:
    inside: int


class Colour(Enum):
    RED = "red"


def explode(value: int) -> int:
    raise RuntimeError(f"saw {value}")


def problem_of(hint: object, value: object) -> str | None:
    return fitted(hint)(value)[1]


PLAIN = Plain()
Id = NewType("Id", int)
FITS: list[tuple[object, object]] = [
    (int, 1), (float, 1), (str, ""), (None, None), (int | None, None), (list[int], [1]), (Any, PLAIN), (object, 1),
    (Note, Note(text="x")), (Plain, PLAIN), (list[Plain], [PLAIN]), (Row, {"id": 1}), (Pair, Pair(1)), (Box, Box(1)),
    (Colour, Colour.RED), (Literal["a"], "a"), (Annotated[int, Field(gt=0)], 1), (Id, 1), (tuple[int, ...], (1, 2)),
    (JsonValue, {"a": [1]}), (SecretStr, SecretStr("x")), (Sized, PLAIN), (Callable[[], int], int),
    (type[Plain], Plain),
]  # fmt: skip
FITS_NOT: list[tuple[object, object]] = [
    (int, "1"), (int, True), (int, 1.0), (str, 1), (int, None), (list[int], ["1"]), (list[int], (1,)),
    (Note, {"txt": "x"}), (Plain, 1), (list[Plain], [1]), (Row, 3), (Box, 1), (Colour, "red"), (Literal["a"], "b"),
    (Annotated[int, Field(gt=0)], 0), (SecretStr, 3), (Id, "x"), (type[Plain], int),
    (list[Note], [{"text": 3}]), (dict[str, Note], {"a": "x"}), (tuple[int, Note], (1, None)),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "value"), FITS, ids=shown)
def test_a_value_that_fits_has_no_misfit(hint: object, value: object) -> None:
    assert problem_of(hint, value) is None


@pytest.mark.parametrize(("hint", "value"), FITS_NOT, ids=str)
def test_a_value_that_does_not_fit_is_told(hint: object, value: object) -> None:
    assert problem_of(hint, value)


def test_a_message_has_the_place_and_never_the_value() -> None:
    problem = problem_of(list[Annotated[int, Field(lt=5)]], [1, 987654])
    assert problem == "1: Input should be less than 5"


def test_a_dict_becomes_the_model_it_describes_wherever_it_stands() -> None:
    assert fitted(Note)({"text": "x"}) == (Note(text="x"), None)
    assert fitted(list[dict[str, Note]])([{"a": {"text": "x"}}]) == ([{"a": Note(text="x")}], None)
    assert fitted(Note)({"text": 3})[1] == "text: Input should be a valid string"


def test_a_value_that_fits_already_is_the_same_object() -> None:
    note = Note(text="x")
    assert fitted(Note)(note)[0] is note
    assert fitted(Plain)(PLAIN)[0] is PLAIN


def test_a_model_that_is_validated_anew_is_still_one() -> None:
    class Strict(Note, revalidate_instances="always"):
        pass

    assert problem_of(Strict, Strict(text="x")) is None


def test_a_validator_that_fails_in_its_own_way_is_a_misfit_and_hides_the_value() -> None:
    assert problem_of(Annotated[int, AfterValidator(explode)], 42) == "the check of int failed with RuntimeError"


def test_checking_an_iterator_does_not_use_it_up() -> None:
    given: Iterator[int] = iter([1, 2])
    value, problem = fitted(Iterable[int])(given)
    assert problem is None
    assert list(value) == [1, 2]  # type: ignore[call-overload]


def test_a_type_that_names_what_does_not_exist_is_checked_as_far_as_it_is_known() -> None:
    assert problem_of("Nope", 3) is None
    assert problem_of(list["Nope"], 3) == "int is no list[Nope]"  # type: ignore[name-defined]  # noqa: F821
    assert adapter_of(list["Nope"]) is None  # type: ignore[name-defined]  # noqa: F821


def test_a_hint_that_cannot_be_hashed_is_checked_too() -> None:
    assert problem_of(Annotated[int, {"a": "dict"}], "1")
    assert problem_of(Annotated[int, {"a": "dict"}], 1) is None


def test_a_validator_is_built_once_per_type() -> None:
    assert adapter_of(list[Note]) is adapter_of(list[Note])
