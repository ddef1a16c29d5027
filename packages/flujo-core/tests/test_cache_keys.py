"""`cache=True` gives nobody what was made for another: inputs that JSON cannot tell apart are not kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any, Generic, TypedDict, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr

from flujo.core import Flujo, Step, step

pytestmark = pytest.mark.anyio

T = TypeVar("T")


class Animal(BaseModel):
    name: str = ""


class Dog(Animal):
    owner: str


class Login(BaseModel):
    password: SecretStr


class Hidden(BaseModel):
    tenant: str = Field("", exclude=True)


class Private(BaseModel):
    _owner: str = PrivateAttr("")


class Same(BaseModel):
    number: int
    owner: str = Field("", exclude=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.number == self.number


class Box(BaseModel, Generic[T]):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    value: T


@dataclass
class Point:
    x: int
    note: str = field(default="", compare=False)


@dataclass
class Place(Point):
    owner: str = ""


class Row(TypedDict):
    x: float


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    A = "a"


class Shade(Enum):
    DARK = 1


def private(owner: str) -> Private:
    made = Private()
    made._owner = owner
    return made


PAIRS: list[tuple[Any, Any, Any]] = [
    (Login, Login(password=SecretStr("a")), Login(password=SecretStr("b"))),
    (list[SecretStr], [SecretStr("a")], [SecretStr("b")]),
    (Animal, Dog(owner="ann"), Dog(owner="bob")),
    (list[Animal], [Dog(owner="ann")], [Dog(owner="bob")]),
    (dict[str, Animal], {"a": Dog(owner="ann")}, {"a": Dog(owner="bob")}),
    (Box[Animal], Box[Animal](value=Dog(owner="ann")), Box[Animal](value=Dog(owner="bob"))),
    (Hidden, Hidden(tenant="ann"), Hidden(tenant="bob")),
    (Private, private("ann"), private("bob")),
    (Same, Same(number=1, owner="ann"), Same(number=1, owner="bob")),
    (list[Point], [Place(1, owner="ann")], [Place(1, owner="bob")]),
    (list[float], [1], [1.0]),
    (list[float], [0.0], [-0.0]),
    (Row, Row(x=1), Row(x=1.0)),
    (list[int], [1], [True]),
    (list[int], [1], [Level.LOW]),
    (dict[int, int], {1: 1}, {True: 1}),
    (set[int], {1}, {True}),
    (list[str], ["a"], [Word.A]),
    (list[Any], [1], [Shade.DARK]),
    (list[Any], [(1,)], [[1]]),
    (list[Decimal], [Decimal("1.0")], [Decimal("1.00")]),
    (float, float("nan"), float("inf")),
    (list[dict[str, int]], [{"a": 1}], [OrderedDict(a=1)]),
    (bytes, b"\xff", b"\xfe"),
    (datetime, datetime(2020, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), datetime(2020, 1, 1, tzinfo=UTC)),
    (int | str, 1, "1"),
]


@pytest.mark.parametrize(("hint", "one", "other"), PAIRS, ids=[f"{n} {hint}" for n, (hint, *_) in enumerate(PAIRS)])
async def test_no_input_gets_what_was_made_of_another(hint: Any, one: Any, other: Any) -> None:
    seen: list[object] = []

    async def look(value):  # type: ignore[no-untyped-def]
        seen.append(value)
        return len(seen)

    async def give(value):  # type: ignore[no-untyped-def]
        return (one, other)[value]

    look.__annotations__, give.__annotations__ = {"value": hint, "return": int}, {"value": int, "return": hint}
    flujo = Flujo(Step(give, name="give") >> Step(look, name="look", cache=True))
    results = [await flujo.run_async(place) for place in (0, 1)]
    assert [(result.status, result.error) for result in results] == [("completed", None)] * 2
    assert [result.output for result in results] == [1, 2]


EQUAL: list[tuple[Any, Callable[[], Any]]] = [
    (Animal, lambda: Animal(name="rex")),
    (Animal, lambda: Dog(name="rex", owner="ann")),
    (Hidden, lambda: Hidden()),
    (list[Animal], lambda: [Animal(name="rex")]),
    (Box[int], lambda: Box[int](value=1)),
    (Row, lambda: {"x": 1.5}),
    (set[str], lambda: {"a"}),
    (dict[int, Point], lambda: {1: Point(1)}),
    (list[Shade], lambda: [Shade.DARK]),
    (tuple[bytes, datetime], lambda: (b"\xff", datetime(2020, 1, 1, tzinfo=UTC))),
    (float, lambda: float("inf")),
    (Decimal, lambda: Decimal("1.10")),
]


@pytest.mark.parametrize(("hint", "make"), EQUAL, ids=[f"{n} {hint}" for n, (hint, _) in enumerate(EQUAL)])
async def test_what_can_be_told_apart_is_kept(hint: Any, make: Callable[[], Any]) -> None:
    async def look(value):  # type: ignore[no-untyped-def]
        return 1

    look.__annotations__ = {"value": hint, "return": int}
    flujo = Flujo(Step(look, name="look", cache=True))
    assert [(await flujo.run_async(make())).step_history[0].cached for _ in range(2)] == [False, True]


async def test_models_among_the_fields_that_a_step_reads_are_told_apart_and_kept() -> None:
    class Notes(BaseModel, frozen=True):
        animals: list[Animal] = []

    @step(cache=True, reads=("animals",))
    async def owners(value: int, notes: Notes) -> list[str]:
        return [getattr(animal, "owner", "") for animal in notes.animals]

    flujo = Flujo(owners, context_model=Notes)
    for word in ("ann", "bob"):
        result = await flujo.run_async(1, context=Notes.model_construct(animals=[Dog(owner=word)]))
        assert result.output == [word]
    for cached in (False, True):
        result = await flujo.run_async(1, context=Notes(animals=[Animal(name="rex")]))
        assert result.step_history[0].cached == cached


async def test_a_step_that_names_no_fields_of_the_context_it_is_given_is_known_by_all_of_them() -> None:
    class Talk(BaseModel, frozen=True):
        language: str = "en"
        turns: int = 0

    class Greeter:
        async def run(self, name: str, talk: Talk) -> str:
            return f"{talk.language}: {name}"

    flujo = Flujo(Step(Greeter(), cache=True), context_model=Talk)
    english, german, later = Talk(), Talk(language="de"), Talk(turns=1)
    results = [await flujo.run_async("ann", context=talk) for talk in (english, german, english, german, later)]
    assert [result.output for result in results] == ["en: ann", "de: ann", "en: ann", "de: ann", "en: ann"]
    assert [result.step_history[0].cached for result in results] == [False, False, True, True, False]


async def test_a_step_that_is_not_given_the_context_is_not_known_by_it() -> None:
    class Talk(BaseModel, frozen=True):
        turns: int = 0

    @step(cache=True)
    async def double(value: int) -> int:
        return 2 * value

    flujo = Flujo(double, context_model=Talk)
    cached = [(await flujo.run_async(1, context=Talk(turns=turns))).step_history[0].cached for turns in range(2)]
    assert cached == [False, True]


async def test_an_iterator_is_not_used_up_by_looking_for_its_key() -> None:
    @step
    async def count(value: int) -> Iterator[int]:
        return iter(range(value))

    @step(cache=True)
    async def total(value: Iterator[int]) -> int:
        return sum(value)

    assert (await Flujo(count >> total).run_async(4)).output == 6
