"""What a function holds, looked at before it leaves: live objects and secrets are named by where they stand.

Pickling is no such test: a lock of anyio, a queue of asyncio and an open file pickle without a word, and arrive as
something else. Nor is it a proof: it finds what it knows, so secrets still belong into resources. What `scan` does not
reach, `CheckedPickler` sees when it is written.
"""

from __future__ import annotations

import io
import json
import os
import re
import time
import types
from collections.abc import Mapping
from enum import Enum
from functools import cache, lru_cache

from pydantic import SecretBytes, SecretStr

from flujo.core import Flujo, Resources, RunContext, scrub

from .errors import NotShippable
from .holding import held_by

__all__ = ["check_one", "env_secrets", "find_env_secret", "scan"]

_MOST = 20_000
"""Objects that are looked at for the sake of a path; of what a function holds beyond them a fault has none."""

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
_SECRET_ENV = re.compile(r"(?i)KEY(?!CLOAK|BOARD)|TOKEN|SECRET|PASSW|CREDENTIAL")
_LIVE_DO = "Make it in the step, or take it as a resource: class AppResources(Resources): client: T = Resource(factory)"
_SECRET_DO = (
    "Take it as a resource that the worker opens: class AppResources(Resources): vault: SecretManager = Resource(...)"
)


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
    seen: dict[int, object] = {}  # with what they are of: some are made on the way, and an address is given again
    while todo and len(seen) < _MOST:
        path, called, value = todo.pop()
        if id(value) in seen or value is None or isinstance(value, bool | int | float | complex):
            continue
        check_one(path, called, value, secrets)
        if isinstance(value, str | bytes):
            continue  # equal texts may stand under other names, so they are looked at each time
        seen[id(value)] = value
        todo.extend((f"{path} > {part}", word, held) for part, word, held in held_by(value))


def env_secrets() -> dict[str, str]:
    """Values of this process's environment that are secrets by their name, with that name; a path of a file is none."""
    named = {value: name for name, value in os.environ.items() if len(value) >= 8 and _is_secret_name(name)}
    return {value: name for value, name in named.items() if not os.path.exists(value)}


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


def check_one(path: str, called: str, value: object, secrets: Mapping[str, str]) -> None:
    """Look at one value, whatever it holds.

    Args:
        path: Where it stands.
        called: What it is called there.
        value: Itself.
        secrets: As of `env_secrets`.

    Raises:
        NotShippable: It is a live object, or a secret.
    """
    if isinstance(value, SecretStr | SecretBytes):
        raise NotShippable("E_SECRET", path, f"it is a {type(value).__name__}", _SECRET_DO)
    if _SECRET_CLASSES.intersection(f"{cls.__module__}.{cls.__qualname__}" for cls in type(value).__mro__):
        raise NotShippable("E_SECRET", path, f"a {type(value).__qualname__} holds credentials", _SECRET_DO)
    if value is os.environ or value is os.environb:
        raise NotShippable("E_SECRET", path, "it is the whole environment of this process", _SECRET_DO)
    if isinstance(value, str | bytes | bytearray):
        text = value if isinstance(value, str) else value.decode("latin-1")
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
    if isinstance(value, io.BytesIO | io.StringIO | Enum):
        return False
    if isinstance(value, _LIVE_TYPES):
        return True
    names = [(cls.__module__, f"{cls.__module__}.{cls.__qualname__}") for cls in type(value).__mro__]
    return any(module.split(".")[0] in _LIVE_MODULES or full in _LIVE_CLASSES for module, full in names)
