"""Secrets that a step was given, wherever they stand in it, do not show in what its errors say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Secret, SecretBytes, SecretStr, field_validator

from flujo.core import (
    Branch,
    Fallback,
    Flujo,
    InputError,
    LoopLimit,
    Parallel,
    Pipeline,
    Resource,
    Resources,
    Step,
    StepFailed,
    Update,
    step,
)
from flujo.core.scrubbing import secrets_in

pytestmark = pytest.mark.anyio

WORD = 'open sesame\'s "door"'


class Login(BaseModel, frozen=True):
    user: str = "ann"
    password: SecretStr = SecretStr(WORD)


@dataclass
class Held:
    logins: list[Login]


class Extra(BaseModel, extra="allow"):
    pass


@dataclass(slots=True)
class Slim:
    token: SecretBytes


def rings() -> dict[str, Any]:
    ring: dict[str, Any] = {"login": Login()}
    return ring | {"ring": [ring, ring]}


MAKERS: dict[str, Callable[[], Any]] = {
    "a secret": lambda: SecretStr(WORD),
    "bytes": lambda: Slim(SecretBytes(WORD.encode())),
    "generic": lambda: (1, Secret[str](WORD)),
    "of a model": lambda: Secret[Login](Login()),
    "a model": Login,
    "a list": lambda: [Login()],
    "a dict": lambda: {"a": {"b": Login()}},
    "a dataclass": lambda: Held([Login()]),
    "an extra field": lambda: Extra(more=SecretStr(WORD)),
    "itself in it": rings,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
async def test_a_secret_in_an_input_of_any_shape_is_taken_out_of_the_error(make: Callable[[], Any]) -> None:
    @step
    async def bad(value: Any) -> int:
        raise ValueError(f"cannot log in with {WORD} ({WORD!r})")

    result = await Flujo(bad).run_async(make())
    assert str(result.error) == "step 'bad' failed: ValueError: cannot log in with [SECRET] ('[SECRET]')"
    assert WORD not in repr(result.error.args if result.error else ())


async def test_secrets_of_the_run_and_its_context_are_taken_out_of_every_error() -> None:
    class Notes(BaseModel, frozen=True):
        login: Login = Login(password=SecretStr("of the context"))

    @step
    async def word(value: Login) -> str:
        return value.password.get_secret_value()

    def raises(value: str) -> bool:
        raise LookupError(f"no {value} nor of the context")

    @step
    async def bad(value: str) -> str:
        raise ValueError(f"no {value} nor of the context")

    @step
    async def good(value: str) -> str:
        return value

    checked = step(validators=[raises])(good.function)
    unwanted = step(when=raises)(good.function)
    ways = [bad, checked, unwanted, Branch(raises, {True: good}), Fallback(bad, Step(bad.function, name="too"))]
    for way in [*ways, Parallel(Pipeline(bad, name="body"), good)]:
        result = await Flujo(word >> way, context_model=Notes).run_async(Login())
        assert isinstance(result.error, StepFailed)
        assert "no [SECRET] nor [SECRET]" in str(result.error)


async def test_secrets_of_a_model_that_a_resource_is_are_taken_out() -> None:
    class Mine(Resources):
        login: Login = Resource(Login)

    @step
    async def bad(value: int, login: Login) -> int:
        raise ValueError(WORD)

    result = await Flujo(bad, resources=Mine()).run_async(1)
    assert str(result.error) == "step 'bad' failed: ValueError: [SECRET]"


def test_the_longest_secret_goes_first_and_an_empty_one_is_none() -> None:
    given = [SecretStr("ab"), SecretStr(""), {SecretStr("abc"): 1}]
    assert secrets_in(given) == ["abc", "ab"]


def test_an_error_that_holds_a_secret_keeps_its_facts() -> None:
    error = LoopLimit("a", 3, ["b"])
    error.hide(["not done"])
    assert (str(error).count("[SECRET]"), error.partial, error.iterations) == (1, ["b"], 3)


async def test_secrets_are_taken_out_of_what_a_check_of_the_users_says() -> None:
    class Checked(BaseModel):
        password: SecretStr

        @field_validator("password")
        @classmethod
        def long(cls, value: SecretStr) -> SecretStr:
            raise ValueError(f"{value.get_secret_value()} is too short")

    @step
    async def use(value: Checked) -> int:
        return 1

    with pytest.raises(InputError, match=r"\[SECRET\] is too short"):
        await Flujo(use).run_async({"password": SecretStr(WORD)})


async def test_secrets_are_taken_out_of_what_a_reducer_says_in_an_error_that_is_collected() -> None:
    def no(before: Login, after: Login) -> Login:
        raise ValueError(f"no {before.password.get_secret_value()}")

    class Notes(BaseModel, frozen=True):
        login: Annotated[Login, no] = Login()

    @step(writes=("login",))
    async def write(value: int) -> Update[int]:
        return Update(value, login=Login())

    @step
    async def after(value: int, notes: Notes) -> int:
        return value

    inner = Pipeline(write >> Parallel(Pipeline(after, name="in")), name="body")
    result = await Flujo(Parallel(inner, on_failure="collect"), context_model=Notes).run_async(1)
    assert "[SECRET]" in str(result.output or result.error)
    assert WORD not in str(result.output or result.error)
