"""What a function holds, looked at before it leaves: live objects and secrets are named by where they stand.

Pickling is no such test: a lock of anyio, a queue of asyncio and an open file pickle without a word, and arrive as
something else. Nor is it a proof: it finds what it knows, so secrets still belong into resources. What `scan` does not
reach, `checked_dumps` sees when it is written.
"""

from __future__ import annotations

import io
import json
import os
import re
import time
import types
from collections.abc import Hashable, Iterator
from enum import Enum
from functools import cache, lru_cache
from typing import cast

from pydantic import Secret, SecretBytes, SecretStr

from flujo.core import Flujo, Resources, RunContext, scrub

from .errors import NotShippable
from .holding import Part, held_by

__all__ = ["PRIVATE_KEY", "PROSE", "Known", "check_one", "env_secrets", "find_env_secret", "scan"]

_MOST = 100_000
"""Things that are looked at with their names and places; beyond them a secret is known by its type or form only."""

_MOST_TEXT = 2_000_000
"""Characters whose form is looked at, which takes a second or two; what a function holds beyond them is data."""

PRIVATE_KEY = re.compile(
    rb"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:\s|\\[nr]|[\"'+,()])*(?:[A-Za-z0-9/+]{16}|Proc-Type)"
)
"""A key and not only what one begins with, as code that looks for keys holds it; also within JSON or Python."""

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
_TEXTS = (str, bytes, bytearray)
_PLAIN = (*_TEXTS, int, float, complex, type(None))
_SECRETS = (SecretStr, SecretBytes, Secret)
_HARMLESS = (
    *(type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, BaseException),
    *(io.BytesIO, io.StringIO, Enum),
)
_SECRET_CLASSES = frozenset({"httpx.Auth", "requests.auth.AuthBase", "aiohttp.helpers.BasicAuth"})
"""Base classes of what holds a user's name and password, under names that say nothing of it."""

_SECRET_NAME = re.compile(
    r"(?i)(api|access|private|signing|secret|account)[_-]?key|secret|passw(or)?d|passphrase|credential"
    r"|(^|[_-])pwd$|(^|[_-])(auth|access|refresh|session|bearer|api|id)?[_-]?token$"
)
PROSE = frozenset({"description", "title", "summary", "help", "doc", "__doc__", "pattern"})
"""What texts are called that speak of passwords, to people or to a regular expression, and hold none."""

_WORD = re.compile(r"[^\s:]{13,}")
"""What may be a key in prose: the shortest has so many characters."""

_TO_FILL = re.compile(
    r"(?<![\w-])[\w-]{1,60}+[\"']?\s{0,9}[=:]\s{0,9}[\"']?"
    r"(?:%\(?\w{1,60}\)?[a-z]?|\{[^{}\n]{0,80}\}|<[^<>\n]{0,80}>|\.{3}|\*{3,9})"
)
"""A name with what is to be put in its place: `password=%r`, `api_key={key}`."""

_IN_ARRAYS = ("utf-16-le", "utf-32-le")
_SECRET_ENV = re.compile(r"(?i)KEY(?!CLOAK|BOARD)|TOKEN|SECRET|PASSW|CREDENTIAL")
_LIVE_DO = "Make it in the step, or take it as a resource: class AppResources(Resources): client: T = Resource(factory)"
_SECRET_DO = (
    "Take it as a resource that the worker opens: class AppResources(Resources): vault: SecretManager = Resource(...)"
)


class Known:
    """What makes a text a secret, by what stands in the environment now. Equal texts are looked at once."""

    def __init__(self) -> None:
        self._env = env_secrets()
        self._forms: dict[tuple[str, bool], bool] = {}
        self._left = _MOST_TEXT

    def variable(self, text: str) -> str | None:
        """The variable of the environment whose secret value it is."""
        return self._env.get(text)

    def has_form(self, text: str, *, is_prose: bool) -> bool:
        """Whether it has the form of a secret, or one in it; in prose (`password: eight characters`) a key
        only, and not what stands behind a name.
        """
        key = (text, is_prose)
        if key not in self._forms:
            self._left -= len(text)
            self._forms[key] = self._left > 0 and _has_form(text, is_prose)
        return self._forms[key]

    def masked(self, text: str) -> str:
        """A text of an error without those secrets."""
        for secret in sorted(self._env, key=len, reverse=True):
            text = text.replace(secret, "[SECRET]")
        return text


def _has_form(text: str, is_prose: bool) -> bool:
    if "PRIVATE KEY" in text and PRIVATE_KEY.search(text.encode(errors="replace")):
        return True
    text = _TO_FILL.sub("", text)
    words = (word.rpartition("=")[2] for word in _WORD.findall(text)) if is_prose else [text]
    return any(scrub(word) != word for word in words)


Link = tuple["Link | None", str]
"""Where something stands: within what, and as which part of it. A text is made of it where it is told."""


def scan(function: object, name: str, known: Known | None = None) -> None:
    """Look at everything that would travel with a function, as far as `_MOST` things.

    Args:
        function: The step's function, or its agent.
        name: What it is called in messages.
        known: What makes a text a secret.

    Raises:
        NotShippable: It holds a live object, or a secret; `path` says where.
    """
    known = known or Known()
    seen: dict[int, object] = {}  # with what they are of: some are made on the way, and an address is given again
    todo: list[tuple[Link | None, str, Iterator[Part]]] = [(None, "", iter([(f"function {name!r}", "", function)]))]
    for _ in range(_MOST):
        part = None
        while todo and (part := next(todo[-1][2], None)) is None:
            todo.pop()
        if part is None:
            return
        within, outer, _ = todo[-1]
        link, called, value = (within, part[0]), part[1], part[2]
        called = called or outer  # what is in a list has its name: {"passwords": ["...", "..."]}
        check_one(link, called, value, known, is_prose=called in PROSE)
        # Equal texts may stand under other names, so they are looked at each time.
        if id(value) not in seen and not isinstance(value, _PLAIN):
            seen[id(value)] = value
            inner = called if type(value) in (list, tuple, set, frozenset) else ""
            todo.append((link, inner, held_by(value, is_root=value is function)))


def _told(link: Link | None) -> str:
    parts: list[str] = []
    while link is not None:
        link, part = link
        parts.append(part)
    return " > ".join(reversed(parts))


def env_secrets() -> dict[str, str]:
    """Values of this process's environment that are secrets by their name, with that name; a path of a file is none."""
    named = {value: name for name, value in os.environ.items() if len(value) >= 8 and _is_secret_name(name)}
    return {value: name for value, name in named.items() if not os.path.exists(value)}


@cache
def _is_secret_name(name: str) -> bool:
    return _SECRET_ENV.search(name) is not None


def find_env_secret(data: bytes, *, in_arrays: bool = False) -> str | None:
    """Name of an environment variable whose secret value stands in `data`: the second net, below `scan`.

    Args:
        data: What leaves.
        in_arrays: Whether arrays may be in it, which hold texts with two or four bytes a character.
    """
    found = next((name for value, name in _lately(int(time.monotonic())).items() if value in data), None)
    if found is not None or not in_arrays:
        return found
    wide = ((value.encode(code, "replace"), name) for value, name in env_secrets().items() for code in _IN_ARRAYS)
    return next((name for value, name in wide if value in data), None)


@lru_cache(1)
def _lately(second: int) -> dict[bytes, str]:
    """The same for all that leaves within a second: to read the environment takes longer than to sign a task.

    Each as it is, and as JSON writes it: in a task a line end or a quote of a secret is escaped.
    """
    both = ((form, name) for value, name in env_secrets().items() for form in (value, _in_json(value)))
    return {form.encode(errors="surrogateescape"): name for form, name in both}


def _in_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def check_one(link: Link, called: str, value: object, known: Known, *, is_prose: bool = False) -> None:
    """Look at one value, whatever it holds.

    Args:
        link: Where it stands.
        called: What it is called there.
        value: Itself.
        known: What makes a text a secret.
        is_prose: Whether a text of it is one for people: a docstring, a description.

    Raises:
        NotShippable: It is a live object, or a secret.
    """
    if isinstance(value, _TEXTS):
        text = value if isinstance(value, str) else bytes(value).decode("latin-1")
        found = _secret_text(called if not isinstance(value, Enum) else "", text, known, is_prose)
        if found:
            raise NotShippable("E_SECRET", known.masked(_told(link)), found, _SECRET_DO)
        return
    if value is os.environ or value is os.environb:
        raise NotShippable("E_SECRET", _told(link), "it is the whole environment of this process", _SECRET_DO)
    code, why = _kind(cast("Hashable", type(value)))
    if code:
        raise NotShippable(code, known.masked(_told(link)), why, _SECRET_DO if code == "E_SECRET" else _LIVE_DO)


def _secret_text(called: str, text: str, known: Known, is_prose: bool) -> str | None:
    """Why a text is a secret, if it is one."""
    if (variable := known.variable(text)) is not None:
        return f"it is the value of variable {variable}"
    if text and ((not is_prose and _SECRET_NAME.search(called)) or known.has_form(text, is_prose=is_prose)):
        return "by its name or its form it is a secret"
    return None


@lru_cache(4096)
def _kind(of: Hashable) -> tuple[str, str]:
    """What is wrong with what is of a class: nothing, or a code and why."""
    cls = cast("type", of)
    if issubclass(cls, _SECRETS):
        return "E_SECRET", f"it is a {cls.__name__}"
    names = [(str(one.__module__).split(".")[0], f"{one.__module__}.{one.__qualname__}") for one in cls.__mro__]
    if _SECRET_CLASSES.intersection(name for _, name in names):
        return "E_SECRET", f"a {cls.__qualname__} holds credentials"
    if issubclass(cls, _HARMLESS):
        return "", ""
    if issubclass(cls, _LIVE_TYPES) or any(top in _LIVE_MODULES or name in _LIVE_CLASSES for top, name in names):
        return "E_LIVE", f"a {cls.__module__}.{cls.__qualname__} lives in this process only"
    return "", ""
