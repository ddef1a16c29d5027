"""Which types may go where: the table a pipeline is checked by."""
# ruff: noqa: UP006, UP007, UP045 - the old spellings are among what is tested

from __future__ import annotations

import enum
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    Optional,
    Protocol,
    TypedDict,
    TypeVar,
    Union,
    runtime_checkable,
)

import pytest
from pydantic import BaseModel, Field, JsonValue
from stable_ids import shown
from typing_extensions import TypeAliasType
from typing_extensions import TypedDict as ExtendedTypedDict

from flujo.core.assignable import assignable, classes_of, common, type_name, type_names

UserId = NewType("UserId", int)
Free = TypeVar("Free")
Bound = TypeVar("Bound", bound=int)
OneOf = TypeVar("OneOf", int, str)
Tree = TypeAliasType("Tree", Union[dict[str, "Tree"], int])
Bush = TypeAliasType("Bush", Union[dict[str, "Bush"], int])


class Animal(BaseModel):
    name: str


class Dog(Animal):
    pass


class Colour(enum.IntEnum):
    RED = 1


class Row(TypedDict):
    id: int
    note: str


class RowId(TypedDict):
    id: int


class MaybeRow(TypedDict, total=False):
    size: int


class ExtendedRow(ExtendedTypedDict):
    key: str


class Pair(NamedTuple):
    left: int
    right: str


@dataclass
class Box(Generic[Free]):
    inside: Free


class Quiet(Protocol):
    size: int


@runtime_checkable
class Closes(Protocol):
    def close(self) -> None: ...


class File:
    def close(self) -> None: ...


FITS: list[tuple[object, object]] = [
    (int, int), (Dog, Animal), (bool, int), (None, None), (None, type(None)),
    (int, Any), (Any, int), (int, object), (int, int | str), (Union[int, None], Optional[int]),
    (int, float), (bool, float), (Colour, float), (Colour, int),
    (UserId, int), (int, UserId), (Annotated[int, Field(gt=0)], int), (int, Annotated[int, Field(gt=0)]),
    (Literal["a"], str), (Literal["a"], Literal["a", "b"]), (Literal["a", "b"], Literal["a"] | Literal["b"]),
    (Literal["a", 1], str | int), (Literal["a"] | None, Literal["a", None]),
    (Free, int), (int, Free), (Bound, int), (bool, Bound), (OneOf, int | str), (int, OneOf),
    (list, list[int]), (list[int], list), (list[Any], list[int]), (list[int], list[float]), (list[Dog], list[Animal]),
    (list[int], Sequence[int]), (list[int], Iterable[float]), (tuple[int, int], Sequence[int]), (str, Sequence[str]),
    (tuple[int, str], tuple[int, str]), (tuple[int, int], tuple[int, ...]), (tuple[int, ...], Iterable[int]),
    (dict[str, int], Mapping[str, float]), (dict[str, int], Iterable[str]), (Pair, tuple[int, str]), (Pair, tuple),
    (Row, Row), (Row, RowId), (Row, dict), (Row, Mapping[str, object]), (dict[str, Any], Row), (RowId, MaybeRow),
    (File, Closes), (File, Quiet), (Box[int], Box[int]), (Box, Box[int]), (Box[Dog], Box[Animal]),
    (Callable[[int], str], Callable[[int], str]), (Callable[[int], str], Callable), (File, Callable[[], None] | File),
    (AsyncIterator[str], AsyncIterator[str]), (Coroutine[Any, Any, int], Awaitable[int]), (type[Dog], type[Animal]),
    (Tree, Tree), (Tree, Bush), (JsonValue, JsonValue), (str, JsonValue), (typing.List[int], list[int]),
    (typing.Never, int), (dict[str, JsonValue], JsonValue),
]  # fmt: skip

FITS_NOT: list[tuple[object, object]] = [
    (str, int), (Animal, Dog), (float, int), (int, bool), (int, None), (int | None, int), (int | str, int),
    (object, int), (Optional[Dog], Animal), (int, Colour), (str, UserId), (Annotated[str, "x"], int),
    (str, Literal["a"]), (Literal["a", "c"], Literal["a", "b"]), (Literal["a"], int), (Literal[1], Literal[True]),
    (str, Bound), (float, OneOf), (list[str], list[int]), (list[int], tuple[int, ...]), (list[int | None], list[int]),
    (list[str], Sequence[int]), (tuple[int, str], Sequence[int]), (dict[str, str], Mapping[str, int]),
    (dict[int, str], Iterable[str]), (tuple[int, str], tuple[int]), (tuple[int, ...], tuple[int, int]),
    (Quiet, File), (int, Row), (RowId, Row), (RowId, ExtendedRow), (Row, int), (Pair, int), (int, Pair), (int, Closes),
    (Box[int], Box[str]), (Box[int], Dog), (Tree, int), (JsonValue, str), (bytearray, bytes), (bytes, str),
]  # fmt: skip


@pytest.mark.parametrize(("given", "wanted"), FITS, ids=lambda hint: type_name(hint))
def test_a_value_of_the_given_type_fits(given: object, wanted: object) -> None:
    assert assignable(given, wanted)


@pytest.mark.parametrize(("given", "wanted"), FITS_NOT, ids=lambda hint: type_name(hint))
def test_a_value_of_the_given_type_does_not_fit(given: object, wanted: object) -> None:
    assert not assignable(given, wanted)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (int, int, int),
        (Dog, Animal, Dog),
        (Animal, Dog, Dog),
        (int | str, str | bytes, str),
        (Literal["a", "b"], Literal["b", "c"], Literal["b"]),
        (int, float, int),
        (Any, int, Any),
        (int, str, None),
    ],
)
def test_the_common_type_of_two_is_what_fits_both(one: object, other: object, both: object) -> None:
    assert common(one, other) == both


def test_of_equal_types_the_one_with_constraints_is_kept() -> None:
    positive = Annotated[int, Field(gt=0)]
    assert common(positive, int) is positive
    assert common(int, positive) is positive


@pytest.mark.parametrize(
    ("hint", "classes"),
    [
        (int, (int,)),
        (float, (float, int)),
        (int | None, (int, type(None))),
        (None, (type(None),)),
        (list[int], (list,)),
        (Literal["a", 1, "b"], (str, int)),
        (UserId, (int,)),
        (Annotated[int | str, "x"], (int, str)),
        (Union[Annotated[int | str, "x"], None], (int, str, type(None))),
        (Row, (dict,)),
        (ExtendedRow, (dict,)),
        (Pair, (Pair,)),
        (Sequence[int], (Sequence,)),
        (Box[int], (Box,)),
        (Tree, (dict, int)),
        (OneOf, (int, str)),
        (Any, None),
        (object, None),
        (Free, None),
        (Quiet, None),
        (Closes, None),
        (int | Any, None),
        ("Later", None),
    ],
    ids=str,
)
def test_the_shallow_check_looks_at_these_classes(hint: object, classes: tuple[type, ...] | None) -> None:
    assert classes_of(hint) == classes
    if classes is not None:
        assert isinstance(3, classes) in (True, False)  # each may stand in isinstance


@pytest.mark.parametrize(
    ("hint", "name"),
    [
        (int, "int"),
        (None, "None"),
        (int | None, "int | None"),
        (Optional[Dog], "Dog | None"),
        (list[Dog], "list[Dog]"),
        (dict[str, list[Dog | None]], "dict[str, list[Dog | None]]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Literal["a", 1], "Literal['a', 1]"),
        (Annotated[int, Field(gt=0)], "int"),
        (list[Annotated[int, lambda x: x]], "list[int]"),
        (UserId, "UserId"),
        (Free, "Free"),
        (Tree, "Tree"),
        (Any, "Any"),
        (Callable[[int, str], None], "Callable[[int, str], None]"),
        (Box[int], "Box[int]"),
        ("Later", "Later"),
    ],
    ids=shown,
)
def test_a_type_is_named_as_people_write_it(hint: object, name: str) -> None:
    assert type_name(hint) == name


def test_two_classes_of_one_name_are_told_apart_by_their_modules() -> None:
    other = type("Dog", (), {"__module__": "kennel"})
    assert type_names(Dog, other) == (f"{__name__}.Dog", "kennel.Dog")
    assert type_names(Dog, int) == ("Dog", "int")
