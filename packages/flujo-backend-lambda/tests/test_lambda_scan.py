"""What a function holds is looked at before it leaves: live objects and secrets, by where they stand."""

from __future__ import annotations

import array
import asyncio
import itertools
import logging
import operator
import os
import re
import threading
import time
import tracemalloc
import types
from collections import ChainMap, OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from http import HTTPStatus
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import anyio
import httpx
import pytest
from lambda_kit import task
from lambda_steps import plain
from pydantic import BaseModel, Field, Secret, SecretStr
from sqlalchemy import create_engine

from flujo.backend_lambda import NotShippable
from flujo.backend_lambda.blobs import MAX_BLOB
from flujo.backend_lambda.pickling import pickled
from flujo.backend_lambda.scan import _lately, find_env_secret, scan
from flujo.backend_lambda.unpickling import unpickled

KEY = "AKIAABCDEFGHIJKLMNOP"


@dataclass
class Settings:
    """Plain data with a name that gives it away."""

    region: str = "eu"
    api_key: str = ""
    nested: dict[str, Any] = field(default_factory=dict)


def closing_over(value: object) -> Callable[..., object]:
    async def held(text: str) -> object:
        return text, value

    return held


@pytest.fixture
def open_file(tmp_path: Path) -> Iterator[Any]:
    with (tmp_path / "file").open("w") as file:
        yield file


async def generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (threading.Lock, "_thread.lock"),
        (anyio.Lock, "anyio"),
        (asyncio.Queue, "asyncio.queues.Queue"),
        (asyncio.Lock, "asyncio.locks.Lock"),
        (lambda: httpx.Client(), "httpx.Client"),
        (lambda: create_engine("sqlite://"), "sqlalchemy.engine.base.Engine"),
        (lambda: generator(), "async_generator"),
        (lambda: (x for x in [1]), "generator"),
    ],
    ids=["lock", "anyio-lock", "asyncio-queue", "asyncio-lock", "httpx", "engine", "async-generator", "generator"],
)
def test_check_14_a_live_object_is_refused_though_some_would_pickle(make: Callable[[], object], kind: str) -> None:
    live = make()
    with pytest.raises(NotShippable, match=kind) as refused:
        scan(closing_over([{"deep": live}]), "held")
    assert refused.value.code == "E_LIVE"
    assert refused.value.path == "function 'held' > closure variable 'value' > [0] > ['deep']"
    assert "resource" in refused.value.do
    if isinstance(live, httpx.Client):
        live.close()


def test_check_14_an_open_file_is_refused(open_file: Any) -> None:
    with pytest.raises(NotShippable, match="TextIOWrapper") as refused:
        scan(closing_over(open_file), "held")
    assert refused.value.code == "E_LIVE"


def test_check_13_an_unpicklable_closure_names_variable_type_and_function(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stubborn:
        def __reduce__(self) -> str:
            raise TypeError("I stay here")

    with pytest.raises(NotShippable) as refused:
        pickled(closing_over(Stubborn()), "held", None, MAX_BLOB)
    assert refused.value.code == "E_PICKLE"
    assert refused.value.path == "function 'held' > closure variable 'value'"
    assert "Stubborn" in refused.value.why
    assert "I stay here" in refused.value.why
    assert "resource" in refused.value.do


GLOBAL_SETTINGS = Settings(api_key=KEY)


async def uses_global(text: str) -> str:
    return text + GLOBAL_SETTINGS.region


async def has_default(text: str, password: str = "hunter22") -> str:
    return text + password


class Holder:
    def __init__(self) -> None:
        self.client_secret = "correct horse"

    async def run(self, text: str) -> str:
        return text


@pytest.mark.parametrize(
    ("function", "path"),
    [
        (closing_over(SecretStr("x")), "function 'f' > closure variable 'value'"),
        (closing_over({"a": {"api_key": "abc"}}), "function 'f' > closure variable 'value' > ['a'] > ['api_key']"),
        (closing_over(Settings(nested={"t": [KEY]})), "function 'f' > closure variable 'value' > .nested > ['t'] > [0]"),  # noqa: E501
        (closing_over(Holder()), "function 'f' > closure variable 'value' > .client_secret"),
        (closing_over([httpx.BasicAuth("anna", "friend")]), "function 'f' > closure variable 'value' > [0]"),
        (closing_over(os.environ), "function 'f' > closure variable 'value'"),
        (uses_global, "function 'f' > global 'GLOBAL_SETTINGS' > .api_key"),
        (has_default, "function 'f' > default of parameter 'password'"),
        (Holder().run, "function 'f' > bound object > .client_secret"),
        (partial(has_default, password="x"), "function 'f' > argument 'password' of partial"),
        (closing_over(closing_over(SecretStr("x"))),
         "function 'f' > closure variable 'value' > closure variable 'value'"),
    ],
    ids=["SecretStr", "name", "form", "attribute", "auth", "environ", "global", "default", "method", "partial", "deep"],
)  # fmt: skip
def test_check_15_a_secret_is_refused_and_named_by_where_it_stands(function: Callable[..., object], path: str) -> None:
    with pytest.raises(NotShippable) as refused:
        scan(function, "f")
    assert (refused.value.code, refused.value.path) == ("E_SECRET", path)
    for secret in ("hunter22", KEY, "correct horse", "abc"):
        assert secret not in str(refused.value).replace("'f'", "")


def local_class(secret: SecretStr) -> type:
    class Config:
        @staticmethod
        def token() -> str:
            return secret.get_secret_value()

        @property
        def word(self) -> str:
            return secret.get_secret_value()

    return Config


def local_model() -> type[BaseModel]:
    class Answer(BaseModel):
        """password: It has none."""

        token: str = Field("", description="Token: eight characters or more")

    return Answer


def local_class_with(key: str) -> type:
    class Config:
        api_key = key

    return Config


WORDS = re.compile("[a-z]+")


class Kind(StrEnum):
    API_KEY = "api_key"


class Named(NamedTuple):
    user: str
    password: str


@dataclass(slots=True, frozen=True)
class Frozen:
    api_key: str


class Slotted:
    __slots__ = ("__hidden",)

    def __init__(self, hidden: object) -> None:
        self.__hidden = hidden


def module_of(**held: object) -> types.ModuleType:
    made = types.ModuleType("made_here")
    vars(made).update(held)
    return made


def with_attribute(error: Exception, **held: object) -> Exception:
    vars(error).update(held)
    return error


HIDDEN = SecretStr("correct horse")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (deque([HIDDEN]), "[0]"),
        (deque([{"password": "abc"}]), "[0] > ['password']"),
        ({HIDDEN: 1}, "key 0"),
        ({KEY: 1}, "key 0"),
        ({"a": HIDDEN}.values(), "[0]"),
        (OrderedDict(a=HIDDEN).items(), "[0] > [1]"),
        (iter([HIDDEN]), "argument 0 > [0]"),
        (itertools.cycle([HIDDEN]), "argument 0 > argument 0 > [0]"),
        (operator.methodcaller("send", HIDDEN), "argument 1"),
        (ValueError(HIDDEN), "argument 0"),
        (with_attribute(ValueError(), api_key="abc"), ".api_key"),
        (local_class(HIDDEN), ".token > function > closure variable 'secret'"),
        (local_class(HIDDEN)(), "class > .token > function > closure variable 'secret'"),
        (type("Sub", (local_class(HIDDEN),), {}), None),
        (Slotted(HIDDEN), "._Slotted__hidden"),
        (module_of(api_key="abc"), ".api_key"),
        (types.MappingProxyType({"a": HIDDEN}), "['a']"),
        (ChainMap({"a": HIDDEN}), ".maps > [0] > ['a']"),
        (bytearray(KEY.encode()), ""),
        ([[n] for n in range(60_000)] + [[HIDDEN]], None),
        (local_class_with("abc"), ".api_key"),
        ({"passwords": ["abc"]}, "['passwords'] > [0]"),
        (Named("anna", "abc"), ".password"),
        (Frozen("abc"), ".api_key"),
        (Secret[dict[str, str]]({"a": "correct horse"}), ""),
        ("x " * 10_000 + KEY, ""),
        (array.array("u", "plain words that say nothing"), None),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "at",
)
def test_check_15_a_secret_is_found_wherever_it_would_go_along(
    value: object, path: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLING_TOKEN", "plain words that say nothing")
    _lately.cache_clear()
    with pytest.raises(NotShippable) as refused:
        pickled(closing_over(value), "f", None, 10**9)
    assert refused.value.code == "E_SECRET"
    if path is not None:
        assert refused.value.path == "function 'f' > closure variable 'value'" + (path and f" > {path}")
    for secret in (KEY, "correct horse", "abc"):
        assert secret not in str(refused.value)
    assert "resource" in refused.value.do


@pytest.mark.parametrize(
    "hiding", [deque, lambda held: local_class(HIDDEN).__class__("C", (), {"held": held})], ids=["deque", "class"]
)
@pytest.mark.parametrize("make", [anyio.Lock, lambda: os.environ], ids=["lock", "environ"])
def test_check_14_a_live_object_in_any_container_is_refused(make: Any, hiding: Any) -> None:
    held = make()
    with pytest.raises(NotShippable) as refused:
        pickled(closing_over(hiding([held]) if hiding is deque else hiding(held)), "f", None, 10**9)
    assert refused.value.code in ("E_LIVE", "E_SECRET")


def test_check_14_15_what_the_walk_cannot_see_is_seen_when_it_is_written() -> None:
    class Fresh:
        """Reduced to other parts each time that it is asked: pickle's own is not the one that was looked at."""

        asked = 0

        def __reduce__(self) -> tuple[object, ...]:
            Fresh.asked += 1
            return list, ([HIDDEN if Fresh.asked > 1 else 0],)

    with pytest.raises(NotShippable, match="somewhere in it") as refused:
        pickled(closing_over(Fresh()), "f", None, 10**9)
    assert refused.value.code == "E_SECRET"


def test_what_only_looks_like_a_secret_passes_and_arrives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Texts of a program, hints, names of files and loggers, members of enums: each was refused once."""
    logging.getLogger("flujo.test").addHandler(logging.StreamHandler())
    (tmp_path / "signing.pem").write_text("")
    monkeypatch.setenv("FLUJO_LAMBDA_SIGNING_KEY", str(tmp_path / "signing.pem"))
    monkeypatch.setenv("KEYCLOAK_URL", "https://login.example.com")
    _lately.cache_clear()
    words = ("https://login.example.com", str(tmp_path / "signing.pem"), HTTPStatus.OK)
    log = logging.getLogger("flujo.test")

    async def held(token: str, password: str = "") -> object:
        """Look it up.

        Args:
            token: The token of the session.
            password: Their password.
        """
        log.debug("Authorization: Bearer %s and password=%s", token, password)
        return words, log.name, f"Authorization: Bearer {token}"

    re.compile(r"password=(\S+)")  # it stands in the cache of `re`, which is no part of any pattern
    for value in (WORDS, re.compile(r"password=(\S+)"), Kind.API_KEY, Kind, Named, log.info, mkdtemp):
        pickled(closing_over(value), "f", None, MAX_BLOB)

    function: Any = unpickled(pickled(held, "f", None, MAX_BLOB)[0], None)
    assert asyncio.run(function("a")) == (words, "flujo.test", "Authorization: Bearer a")
    model: Any = unpickled(pickled(closing_over(local_model()), "f", None, MAX_BLOB)[0], None)
    assert asyncio.run(model("a"))[1](token="b").token == "b"


def test_check_15_a_value_of_the_environment_is_a_secret_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BILLING_TOKEN", "plain words that say nothing")
    _lately.cache_clear()  # what was read less than a second ago is not read again
    with pytest.raises(NotShippable, match="value of variable BILLING_TOKEN") as refused:
        scan(closing_over("plain words that say nothing"), "f")
    assert refused.value.code == "E_SECRET"


def test_check_15_a_session_of_boto3_is_refused() -> None:
    import boto3

    with pytest.raises(NotShippable) as refused:
        scan(closing_over(boto3.Session(region_name="eu-central-1")), "f")
    assert refused.value.code in ("E_LIVE", "E_SECRET")


def test_check_15_the_second_net_looks_at_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLING_TOKEN", "plain words that say nothing")
    _lately.cache_clear()  # what was read less than a second ago is not read again

    class Hiding:
        def __reduce__(self) -> tuple[object, ...]:
            return str, ("there: plain words that say nothing",)

    with pytest.raises(NotShippable, match="BILLING_TOKEN") as refused:
        pickled(closing_over(Hiding()), "f", None, MAX_BLOB)
    assert refused.value.code == "E_SECRET"
    assert find_env_secret(b"x plain words that say nothing x") == "BILLING_TOKEN"
    assert find_env_secret(b"nothing") is None


@pytest.mark.parametrize(
    "secret", ["-----BEGIN KEY-----\nline\n", 'say "friend"\\and enter', "tab\tand bell\x07 and é"]
)
def test_check_15_the_second_net_knows_a_secret_as_json_writes_it(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv("BILLING_KEY", secret)
    _lately.cache_clear()  # what was read less than a second ago is not read again
    assert find_env_secret(task(plain, f"so: {secret}.")) == "BILLING_KEY"


def test_a_variable_that_is_no_text_is_looked_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLING_KEY", os.fsdecode(b"\xff\xfe and so on"))
    _lately.cache_clear()
    assert find_env_secret(b"x \xff\xfe and so on") == "BILLING_KEY"
    assert find_env_secret(b"nothing") is None


def test_plain_data_passes_and_arrives() -> None:
    limits = {"max_tokens": 400, "rates": [1.5, None], "words": ("a", frozenset({1})), "when": Path("x")}
    code, demands, modules = pickled(closing_over(limits), "held", None, MAX_BLOB)
    function: Any = unpickled(code, None)
    assert asyncio.run(function("hi")) == ("hi", limits)
    assert demands.python == code.python
    assert modules == ()


def test_modules_that_a_pickle_names_are_told() -> None:
    _, _, modules = pickled(closing_over(httpx.Timeout(3)), "held", None, MAX_BLOB)
    assert any(name.startswith("httpx") for name in modules)


def test_a_cycle_ends() -> None:
    ring: list[object] = []
    ring.append(ring)
    scan(closing_over(ring), "f")


def timed(function: Callable[..., object]) -> float:
    since = time.process_time()
    with suppress(NotShippable):
        scan(function, "f")
    return time.process_time() - since


class Odd:
    def __init__(self, reduced: object) -> None:
        self.reduced = reduced

    def __reduce_ex__(self, protocol: object) -> Any:
        return self.reduced


class Vocabulary:
    def __getstate__(self) -> dict[Any, str]:
        return {0: "the", "a": "b"}


class Unshown:
    def __repr__(self) -> str:
        raise ValueError("nothing to see")


def test_odd_objects_are_refused_or_pass_and_never_end_in_a_traceback() -> None:
    for odd in ((), (1,), (list, 3), (list, ([],), None, 7), (list, ([],), None, None, [1]), 5):
        with pytest.raises(NotShippable) as refused:
            pickled(closing_over(Odd(odd)), "f", None, MAX_BLOB)
        assert refused.value.code == "E_PICKLE"
    for passes in (Vocabulary(), {Unshown(): 1}, type("Of", (), {"__module__": None})):
        pickled(closing_over(passes), "f", None, MAX_BLOB)


def test_a_secret_of_the_environment_is_in_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLING_TOKEN", "plain_words")
    _lately.cache_clear()
    held = types.SimpleNamespace(plain_words=threading.Lock())
    for value in (held, {"plain_words": threading.Lock()}, partial(print, plain_words=threading.Lock())):
        with pytest.raises(NotShippable) as refused:
            pickled(closing_over(value), "f", None, MAX_BLOB)
        assert "plain_words" not in str(refused.value)
        assert "[SECRET]" in str(refused.value)


def test_a_long_chain_of_objects_takes_little_memory() -> None:
    """Each of 20,000 objects kept the text of its whole path: 4 GB."""
    nodes = [Slotted(None)]
    for _ in range(20_000):
        nodes.append(Slotted(nodes[-1]))
    tracemalloc.start()
    try:
        scan(closing_over(nodes), "f")
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", ["x" * 64_000, "x:" * 32_000, "a=" * 32_000, "-x" * 32_000, "a={" * 20_000])
def test_a_long_text_is_looked_at_in_time_that_grows_with_it(text: str) -> None:
    """A name that might stand before a sign was looked for from each character on: 300,000 took minutes."""
    eighth, whole = (timed(closing_over(text[:size])) for size in (len(text) // 8, len(text)))
    assert whole < 24 * max(eighth, 0.01)  # of one that grows with the square it is 64
