"""The tables that an SQLAgent may read, as they are in the database. Importing this imports SQLAlchemy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy

from .errors import DatabaseFault

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Inspector

Tables = Sequence[str] | Mapping[str, Sequence[str]]
"""Names of tables, or of tables with the columns that may be read; all of them where none is named."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column; `type` as the database calls it, `notes` for the model: keys, NOT NULL."""

    name: str
    type: str
    notes: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table or view that may be read.

    Attributes:
        schema: Where it is; `main` in SQLite.
        name: Its name there.
        columns: Those that may be read.
        restricted: Whether it has others.
    """

    schema: str
    name: str
    columns: tuple[Column, ...]
    restricted: bool


@dataclass(frozen=True, slots=True)
class Schema:
    """All that may be read.

    Attributes:
        dialect: sqlglot's name of the engine's dialect.
        default: Schema of a table that is named without one.
        tables: The tables.
    """

    dialect: str
    default: str
    tables: tuple[Table, ...]

    def find(self, schema: str, name: str) -> Table | None:
        """The table of this name, if it may be read."""
        for table in self.tables:
            if (self.key(table.schema), self.key(table.name)) == (schema, name):
                return table
        return None

    def key(self, name: str) -> str:
        """A name as sqlglot writes it once it has normalized it: SQLite's are the same in any case."""
        return name.lower() if self.dialect == "sqlite" else name

    def columns(self) -> dict[str, object]:
        """Types of columns by schema, table and column, for sqlglot."""
        made: dict[str, dict[str, object]] = {self.key(table.schema): {} for table in self.tables}
        for table in self.tables:
            columns = {self.key(column.name): "unknown" for column in table.columns}
            made[self.key(table.schema)][self.key(table.name)] = columns
        return dict(made)

    def text(self) -> str:
        """The tables for a model: names, types and keys; no rows, which could hold instructions to it."""
        return "\n\n".join("\n".join(self._lines(table)) for table in self.tables)

    def _lines(self, table: Table) -> Iterator[str]:
        name = table.name if table.schema == self.default else f"{table.schema}.{table.name}"
        yield f"TABLE {name} ("
        for column in table.columns:
            yield f"  {column.name} {column.type}{column.notes},"
        yield ")"


def inspect(connection: Connection, dialect: str, tables: Tables) -> Schema:
    """Look up the tables that may be read.

    Raises:
        DatabaseFault: One of them, or of their columns, is not there.
    """
    inspector = sqlalchemy.inspect(connection)
    default = "main" if dialect == "sqlite" else inspector.default_schema_name or "public"
    wanted = tables if isinstance(tables, Mapping) else dict.fromkeys(tables, ())
    names = {name: _split(name, default) for name in wanted}
    found = (_table(inspector, name, columns, names) for name, columns in wanted.items())
    return Schema(dialect, default, tuple(found))


def _split(name: str, default: str) -> tuple[str, str]:
    schema, _, bare = name.rpartition(".")
    return schema or default, bare


def _table(inspector: Inspector, given: str, wanted: Sequence[str], allowed: Mapping[str, tuple[str, str]]) -> Table:
    schema, name = allowed[given]
    if not inspector.has_table(name, schema=schema):
        raise _missing(f"table {given!r}")
    keys = set(inspector.get_pk_constraint(name, schema=schema)["constrained_columns"])
    points = {
        column: f" REFERENCES {foreign['referred_table']}({other})"
        for foreign in inspector.get_foreign_keys(name, schema=schema)
        if (foreign["referred_schema"] or schema, foreign["referred_table"]) in allowed.values()
        for column, other in zip(foreign["constrained_columns"], foreign["referred_columns"], strict=False)
    }
    columns = {}
    for column in inspector.get_columns(name, schema=schema):
        notes = " PRIMARY KEY" if column["name"] in keys else "" if column["nullable"] else " NOT NULL"
        columns[column["name"]] = Column(column["name"], str(column["type"]), notes + points.get(column["name"], ""))
    for one in wanted:
        if one not in columns:
            raise _missing(f"column {given}.{one}")
    chosen = tuple(columns[one] for one in wanted) if wanted else tuple(columns.values())
    return Table(schema, name, chosen, len(chosen) < len(columns))


def _missing(what: str) -> DatabaseFault:
    return DatabaseFault(f"{what} cannot be read", "the database has none of this name", "Check tables= of the agent")
