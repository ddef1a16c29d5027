"""What a function holds, looked at before it leaves: live objects and secrets are named by where they stand.

Pickling is no such test: a lock of anyio, a queue of asyncio and an open file pickle without a word, and arrive as
something else. Nor is it a proof: it finds what it knows, so secrets still belong into resources.
"""

from __future__ import annotations

import inspect
import io
import json
import os
import re
import time
import types
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache, lru_cache, partial

from pydantic import SecretBytes, SecretStr

from flujo.core import Flujo, Resources, RunContext, scrub

from .errors import NotShippable

__all__ = ["env_secrets", "find_env_secret", "scan"]

_MOST = 20_000
"""Objects that are looked at; a function that holds more is data, and data is an input."""

_LIVE_MODULES = frozenset(
    {
        *("asyncio", "anyio", "trio", "threading", "_thread", "socket", "_socket", "ssl", "selectors", "subprocess"),
        *("multiprocessing", "concurrent", "queue", "_queue", "sqlite3", "_contextvars", "http", "boto3", "botocore"),
        *("aiobotocore", "opentelemetry", "psycopg", "psycopg2", "asyncpg", "redis", "pymongo", "openai", "anthropic"),
    }
)
_LIVE_CLASSES = frozenset(
    {
        *("httpx.Client", "httpx.AsyncClient", "requests.sessions.Session", "aiohttp.client.ClientSession"),
        *("sqlalchemy.engine.base.Engine", "sqlalchemy.engine.base.Connection", "sqlalchemy.orm.session.Session"),
        *("sqlalchemy.ext.asyncio.engine.AsyncEngine", "sqlalchemy.ext.asyncio.session.AsyncSession"),
        *("urllib3.poolmanager.PoolManager", "logging.Handler", "logging.FileHandler", "weakref.ReferenceType"),
    }
)
_LIVE_TYPES: tuple[type, ...] = (
    *(types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType, types.FrameType, types.TracebackType),
    *(io.IOBase, Flujo, RunContext, Resources),
)
_SECRET_CLASSES = frozenset({"httpx.Auth", "requests.auth.AuthBase", "aiohttp.helpers.BasicAuth"})
"""Base classes of what holds a user's name and password, under names that say nothing of it."""

_SECRET_NAME = re.compile(
    r"(?i)(api|access|private|signing|secret|account)[_-]?key|secret|passw(or)?d|passphrase|credential"
    r"|(^|[_-])pwd$|(^|[_-])(auth|access|refresh|session|bearer|api|id)?[_-]?token$"
)
_SECRET_ENV = re.compile(r"(?i)KEY|TOKEN|SECRET|PASSW|CREDENTIAL")
_LIVE_DO = "Make it in the step, or take it as a resource: class AppResources(Resources): client: T = Resource(factory)"
_SECRET_DO = "Take it as a resource that the worker opens: secrets: SecretManager = Resource(...)"


def scan(function: object, name: str) -> None:
    """Look at everything that would travel with a function.

    Args:
        function: The step's function, or its agent.
        name: What it is called in messages.

    Raises:
        NotShippable: It holds a live object, or a secret; `path` says where.
    """
    secrets = env_secrets()
    todo: list[tuple[str, str, object]] = [(f"function {name!r}", "", function)]
    seen: set[int] = set()
    while todo and len(seen) < _MOST:
        path, called, value = todo.pop()
        if id(value) in seen or value is None or isinstance(value, bool | int | float | complex):
            continue
        _check(path, called, value, secrets)
        if isinstance(value, str | bytes):
            continue  # equal texts may stand under other names, so they are looked at each time
        seen.add(id(value))
        todo.extend((f"{path} > {part}", word, held) for part, word, held in _held(value))


def env_secrets() -> dict[str, str]:
    """Values of this process's environment that are secrets by their name, with that name."""
    return {value: name for name, value in os.environ.items() if len(value) >= 8 and _is_secret_name(name)}


@cache
def _is_secret_name(name: str) -> bool:
    return _SECRET_ENV.search(name) is not None


def find_env_secret(data: bytes) -> str | None:
    """Name of an environment variable whose secret value stands in `data`: the second net, below `scan`."""
    return next((name for value, name in _lately(int(time.monotonic())).items() if value in data), None)


@lru_cache(1)
def _lately(second: int) -> dict[bytes, str]:
    """The same for all that leaves within a second: to read the environment takes longer than to sign a task.

    Each as it is, and as JSON writes it: in a task a line end or a quote of a secret is escaped.
    """
    both = ((form, name) for value, name in env_secrets().items() for form in (value, _in_json(value)))
    return {form.encode(errors="surrogateescape"): name for form, name in both}


def _in_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _check(path: str, called: str, value: object, secrets: Mapping[str, str]) -> None:
    if isinstance(value, SecretStr | SecretBytes):
        raise NotShippable("E_SECRET", path, f"it is a {type(value).__name__}", _SECRET_DO)
    if _SECRET_CLASSES.intersection(f"{cls.__module__}.{cls.__qualname__}" for cls in type(value).__mro__):
        raise NotShippable("E_SECRET", path, f"a {type(value).__qualname__} holds credentials", _SECRET_DO)
    if value is os.environ or value is os.environb:
        raise NotShippable("E_SECRET", path, "it is the whole environment of this process", _SECRET_DO)
    if isinstance(value, str | bytes):
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if text in secrets:
            raise NotShippable("E_SECRET", path, f"it is the value of variable {secrets[text]}", _SECRET_DO)
        if text and (_SECRET_NAME.search(called) or (len(text) < 10_000 and scrub(text) != text)):
            raise NotShippable("E_SECRET", path, "by its name or its form it is a secret", _SECRET_DO)
    elif _is_live(value):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise NotShippable("E_LIVE", path, f"a {kind} lives in this process only", _LIVE_DO)


def _is_live(value: object) -> bool:
    if isinstance(value, type | types.ModuleType | types.FunctionType | types.BuiltinFunctionType | BaseException):
        return False
    if isinstance(value, io.BytesIO | io.StringIO):
        return False
    if isinstance(value, _LIVE_TYPES):
        return True
    names = [(cls.__module__, f"{cls.__module__}.{cls.__qualname__}") for cls in type(value).__mro__]
    return any(module.split(".")[0] in _LIVE_MODULES or full in _LIVE_CLASSES for module, full in names)


Part = tuple[str, str, object]
"""Where something stands, what it is called there, and itself."""


def _held(value: object) -> Iterator[Part]:
    """What a value holds and would bring along."""
    if isinstance(value, types.FunctionType):
        yield from _of_function(value)
    elif isinstance(value, types.MethodType):
        yield "bound object", "", value.__self__
        yield "function", "", value.__func__
    elif isinstance(value, partial):
        yield "function of partial", "", value.func
        yield from ((f"argument {index} of partial", "", held) for index, held in enumerate(value.args))
        yield from ((f"argument {name!r} of partial", name, held) for name, held in value.keywords.items())
    elif isinstance(value, Mapping):
        yield from ((f"[{key!r}]", str(key), held) for key, held in list(value.items()))
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{index}]", "", held) for index, held in enumerate(value))
    elif isinstance(value, type):
        if value.__module__ == "__main__" or "<locals>" in value.__qualname__:  # others travel by name
            yield from ((f".{name}", name, held) for name, held in vars(value).items() if not name.startswith("__"))
    elif not isinstance(value, types.ModuleType):
        yield from ((f".{name}", name, held) for name, held in _attributes(value))


def _of_function(function: types.FunctionType) -> Iterator[Part]:
    names, cells = function.__code__.co_freevars, function.__closure__ or ()
    for name, cell in zip(names, cells, strict=False):
        with suppress(ValueError):  # a cell that is still empty holds nothing
            yield f"closure variable {name!r}", name, cell.cell_contents
    for name in sorted(_names_in(function.__code__)):
        if name in function.__globals__:
            yield f"global {name!r}", name, function.__globals__[name]
    parameters = list(inspect.signature(function, follow_wrapped=False).parameters.values())
    for parameter in parameters:
        if parameter.default is not inspect.Parameter.empty:
            yield f"default of parameter {parameter.name!r}", parameter.name, parameter.default
    for name, held in vars(function).items():
        yield f"attribute {name!r}", name, held


def _names_in(code: types.CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_names_in, inner))


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    held = getattr(value, "__dict__", None)
    if isinstance(held, dict):
        yield from list(held.items())
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                yield name, getattr(value, name)
