"""Opens a database by what it is. Importing this imports SQLAlchemy."""

from __future__ import annotations

import sqlalchemy
from sqlalchemy.engine import Engine
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from .sqlengines import Database, unusable
from .sqlpostgres import Postgres
from .sqlsqlite import Sqlite


def open_database(given: str | Engine, functions: frozenset[str]) -> Database:
    """The database behind a URL or an engine; nothing is connected yet.

    Raises:
        ConfigurationError: There is no way to read it only.
    """
    try:
        engine = sqlalchemy.create_engine(given, poolclass=sqlalchemy.NullPool) if isinstance(given, str) else given
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise unusable(str(error)) from None
    name = engine.dialect.name
    if name == "sqlite":
        return Sqlite(engine.url, functions)
    if name == "postgresql" and not engine.dialect.is_async:
        return Postgres(engine)
    raise unusable(f"{name}+{engine.dialect.driver} is not a synchronous driver of SQLite or PostgreSQL")
