"""The plugin: stores by their URLs, and the commands on stored runs.

[tool.flujo]
store = "sqlite:///runs.db"
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qsl, unquote, urlsplit

from flujo.core import Command, ConfigurationError, StoreFactory, hookimpl

from .environment import codec, signer
from .schema import Durability
from .sqlite import SQLiteStore
from .store import KeepingStore

__all__ = ["flujo_api", "register_commands", "register_stores"]

flujo_api = "1.0"


@hookimpl
def register_commands() -> Sequence[Command]:
    """`flujo runs ...` and `flujo hitl ...`."""
    return [
        Command("hitl", "Answer what runs ask in a browser, or by a JSON API", "flujo.hitl.cli_web:hitl"),
        Command("runs", "Look at stored runs, answer what they ask, go on with them", "flujo.hitl.cli:runs"),
    ]


@hookimpl
def register_stores() -> Sequence[StoreFactory]:
    """Stores by URL.

    `sqlite:///relative.db`, `sqlite:////absolute.db`, with `?durability=normal` where that will do; and
    `postgresql://user@host/database`, as libpq reads it.
    """
    return [StoreFactory("sqlite", sqlite_store), StoreFactory("postgresql", postgres_store)]


def sqlite_store(url: str) -> SQLiteStore:
    """The store of such a URL.

    Raises:
        ConfigurationError: It names no file, or an option that there is not.
    """
    parts, what = urlsplit(url), f"store {url!r} cannot be used"
    path, options = unquote(parts.path.removeprefix("/")), dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.netloc or not path:
        raise ConfigurationError(what, "it names no file", "Write sqlite:///runs.db, or sqlite:////srv/runs.db")
    durability = options.pop("durability", "full")
    if options:
        raise ConfigurationError(what, f"it has no option {', '.join(map(repr, options))}", "There is: durability")
    kind: Durability = "normal" if durability == "normal" else "full"
    if durability != kind:
        raise ConfigurationError(what, f"durability is 'full' or 'normal', not {durability!r}")
    return SQLiteStore(path, durability=kind, codec=codec(), signer=signer())


def postgres_store(url: str) -> KeepingStore:
    """The store of such a URL.

    Raises:
        ConfigurationError: It cannot be read, or the driver is not installed.
    """
    try:
        from .postgres import PostgresStore  # its driver is an extra
    except ImportError as error:
        do = "Install it: pip install 'flujo-hitl[postgres]'"
        raise ConfigurationError("a store in PostgreSQL cannot be used", str(error), do) from error
    return PostgresStore(url, codec=codec(), signer=signer())
