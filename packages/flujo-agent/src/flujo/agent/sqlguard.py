"""Whether a statement may be run: one query that only reads, of the tables, columns and functions that are allowed.

What is sent to the database is never the model's text but what sqlglot writes of the tree that was looked at: without
comments, with every name quoted and bound to its table, and read once more. Importing this imports sqlglot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NoReturn

import sqlglot
from sqlglot import exp
from sqlglot.errors import ErrorLevel, SqlglotError
from sqlglot.optimizer.qualify import qualify
from sqlglot.schema import MappingSchema
from sqlglot.tokenizer_core import TokenType

from .sqlschema import Schema, Table
from .sqlsize import expanded_size
from .sqlsought import LONGEST as LONGEST_SOUGHT
from .sqlsought import too_long_sought
from .sqlwords import FUNCTIONS, NAMED_FUNCTIONS, SYNTAX, TYPES

LONGEST = 10_000
"""Characters of a statement that is looked at."""

LARGEST = 10_000
"""Parts of a query, each counted as often as the query names it: a few lines of WITH can stand for gigabytes."""

_STARTS = (TokenType.SELECT, TokenType.WITH, TokenType.TABLE)
_ONLY_QUERIES = "only a query is run: SELECT, or WITH ... SELECT"

Rule = Literal["syntax", "statement", "construct", "function", "table", "column"]
"""What a statement breaks before the database has seen anything of it."""


class Refused(Exception):
    """A statement that is not run; `rule` for programs, `why` for the model and for people."""

    def __init__(self, rule: str, why: str) -> None:
        self.rule = rule
        self.why = why
        super().__init__(f"{rule}: {why}")


@dataclass(frozen=True, slots=True)
class Checked:
    """A query that may be run.

    Attributes:
        sql: What is sent.
        columns: Names of what it gives.
        clamped: Whether its LIMIT is ours, so that there may be more rows than it gives.
    """

    sql: str
    columns: tuple[str, ...]
    clamped: bool


def check(sql: str, schema: Schema, functions: frozenset[str], max_rows: int) -> Checked:
    """Make a query that may be run of a model's statement.

    Args:
        sql: The statement.
        schema: What may be read.
        functions: Names, in lower case, of functions that are allowed beside ours.
        max_rows: Most rows it may give.

    Raises:
        Refused: It may not be run.
    """
    if len(sql) > LONGEST or "\0" in sql:
        raise Refused("syntax", f"a statement has at most {LONGEST} characters, none of them NUL")
    try:
        query = _single_query(sql, schema.dialect)
        _only_reads(query, schema.dialect, functions)
        bound = _bound(query, schema)
        _only_reads(bound, schema.dialect, functions)  # sqlglot now knows which names are whole rows
        if expanded_size(bound) > LARGEST:
            raise Refused("construct", "its parts name each other so often that it grows too large")
        _looks_for_little(bound, schema.dialect)
        clamped = _clamp(bound, max_rows)
        columns = tuple(bound.named_selects)
        final = _written(_narrowed(bound, schema), schema.dialect)
        _only_reads(_single_query(final, schema.dialect), schema.dialect, functions)
    except RecursionError:
        raise Refused("syntax", "it is nested too deeply") from None
    return Checked(final, columns, clamped)


def _single_query(sql: str, dialect: str) -> exp.Query:
    try:
        _check_start(sql, dialect)
        statements = [one for one in sqlglot.parse(sql, dialect=dialect) if one is not None]
    except (SqlglotError, ValueError, AttributeError, TypeError) as error:  # the last three: faults of its parser
        raise Refused("syntax", _first_line(error)) from None
    if len(statements) != 1:
        raise Refused("statement", f"exactly one statement is run, not {len(statements)}")
    found: exp.Expr = statements[0]
    if isinstance(found, exp.Subquery):
        found = found.unnest()
    if not isinstance(found, (exp.Select, exp.SetOperation)):
        raise Refused("statement", _ONLY_QUERIES)
    return found


def _check_start(sql: str, dialect: str) -> None:
    """Refuse by its tokens what is no single query: the parser would write other statements to a log as it reads them.

    They may hold data, and a log is no place for that.
    """
    kinds = [token.token_type for token in sqlglot.tokenize(sql, read=dialect)]
    while kinds and kinds[-1] == TokenType.SEMICOLON:
        kinds.pop()
    if TokenType.SEMICOLON in kinds:
        raise Refused("statement", "exactly one statement is run")
    first = next((kind for kind in kinds if kind != TokenType.L_PAREN), None)
    if first not in _STARTS:
        raise Refused("statement", _ONLY_QUERIES)


# --- what it is made of -----------------------------------------------------------------------------------------------


def _only_reads(query: exp.Query, dialect: str, functions: frozenset[str]) -> None:
    named = NAMED_FUNCTIONS[dialect] | functions
    for node in query.walk():
        kind = type(node)
        if kind is exp.DataType:
            _check_type(node)
        elif kind is exp.Star:
            if not isinstance(node.parent, (exp.Select, exp.Count, exp.Column)) or any(node.args.values()):
                raise Refused("construct", "* stands alone in a SELECT or in COUNT(*)")
        elif kind is exp.Column and isinstance(node.this, exp.Star):
            if not isinstance(node.parent, exp.Select):
                raise Refused("construct", "a whole row is not a value; name its columns")
        elif kind is exp.Table:
            _check_table(node)
        elif kind in SYNTAX or kind in FUNCTIONS:
            continue
        elif isinstance(node, exp.Func):
            _check_function(node, named)
        else:
            raise Refused("construct", f"{_shown(node, dialect)} ({kind.__name__}) is not allowed in a query")


def _looks_for_little(query: exp.Query, dialect: str) -> None:
    sought = too_long_sought(query)
    if sought is not None:
        what = f"{_shown(sought, dialect)} cannot be looked for in a text"
        do = f"look for constants of at most {LONGEST_SOUGHT} characters, a few columns of tables, or parts of these"
        raise Refused("construct", f"{what}: it may be too long; {do}")


def _shown(node: exp.Expr, dialect: str) -> str:
    """The start of a part, for people; sqlglot would write to a log what this dialect does not have."""
    return repr(node.sql(dialect, unsupported_level=ErrorLevel.IGNORE)[:80])


def _check_type(node: exp.Expr) -> None:
    if node.this not in TYPES:
        name = getattr(node.this, "value", node.this)
        raise Refused("construct", f"no value is cast to the type {name}")


def _check_table(node: exp.Expr) -> None:
    if not isinstance(node.this, exp.Identifier):
        raise Refused("function", "only tables and queries stand in FROM and JOIN, no functions")


def _check_function(node: exp.Func, named: frozenset[str]) -> None:
    names = [node.name] if isinstance(node, exp.Anonymous) else node.sql_names()
    if isinstance(node.this, exp.Identifier) or not {name.lower() for name in names} & named:
        raise Refused("function", f"the function {names[0]} is not one of those that are allowed")


# --- what it reads ----------------------------------------------------------------------------------------------------


def _bound(query: exp.Query, schema: Schema) -> exp.Query:
    """The query with each table under its schema, each column under its table, and each * written out."""
    _check_ctes(query, schema)

    def look_up(table: exp.Table) -> None:
        if table.catalog or schema.find(table.db, table.name) is None:
            _no_table(table, schema)

    columns = MappingSchema(schema.columns(), dialect=schema.dialect, normalize=False)
    try:
        bound = qualify(query, schema.dialect, db=schema.default, schema=columns, on_qualify=look_up)
    except (SqlglotError, KeyError, ValueError, AttributeError, TypeError) as error:  # the last four: faults of it
        raise Refused("column", _first_line(error)) from None
    for table in bound.find_all(exp.Table):  # once more: what is sent is what counts
        if table.db and schema.find(table.db, table.name) is None:
            _no_table(table, schema)
    for column in list(bound.find_all(exp.Column)):
        if not column.table and not _is_output(column) and not _put_in(column):
            raise Refused("column", f"{column.name!r} is not a column of what stands in FROM")
    for star in bound.find_all(exp.Star):
        if not isinstance(star.parent, exp.Count):
            raise Refused("column", "* cannot be written out here; name the columns")
    return bound


def _check_ctes(query: exp.Query, schema: Schema) -> None:
    """Refuse names of WITH that an engine could take for something else than sqlglot does."""
    seen = {schema.key(table.name) for table in schema.tables}
    for cte in query.find_all(exp.CTE):
        name = cte.alias.lower()
        if name in seen or name.startswith(("pg_", "sqlite_")):
            raise Refused("table", f"the name {cte.alias!r} of a WITH is taken; choose another")
        seen.add(name)


def _no_table(table: exp.Table, schema: Schema) -> NoReturn:
    allowed = ", ".join(one.name for one in schema.tables)
    raise Refused("table", f"the table {table.name!r} may not be read; those that may: {allowed}")


def _is_output(column: exp.Column) -> bool:
    """Whether a bare name is one that the query itself gives, where both engines take it for that."""
    holder = column.parent
    if isinstance(holder, exp.Tuple) and isinstance(holder.parent, exp.Distinct):  # DISTINCT ON
        holder = holder.parent
    elif not isinstance(holder, exp.Ordered) or not isinstance(holder.parent, exp.Order):
        return False
    else:
        holder = holder.parent
    query = holder.parent
    return isinstance(query, (exp.Select, exp.SetOperation)) and column.name in query.named_selects


def _put_in(column: exp.Column) -> bool:
    """Put in the column for a name in ORDER BY that is its and also one of what the query gives: it is the same."""
    order = column.find_ancestor(exp.Order, exp.Query)
    given = order.parent.selects if isinstance(order, exp.Order) and isinstance(order.parent, exp.Select) else []
    same = [one.unalias() for one in given if one.alias_or_name == column.name]
    if len(same) != 1 or not isinstance(same[0], exp.Column) or same[0].name != column.name:
        return False
    column.replace(same[0].copy())
    return True


def _clamp(query: exp.Query, max_rows: int) -> bool:
    """Give a query a LIMIT of at most `max_rows`; True when it is ours."""
    given = query.args.get("limit")
    wanted = given.expression if isinstance(given, exp.Limit) else None
    asked = int(wanted.this) if isinstance(wanted, exp.Literal) and wanted.this.isdecimal() else None
    least = max_rows if asked is None else min(asked, max_rows)
    query.set("limit", exp.Limit(expression=exp.Literal.number(least)))
    return asked != least


def _narrowed(query: exp.Query, schema: Schema) -> exp.Query:
    """The query with each table of which not all columns may be read as a query of those: the engine keeps to it."""
    for table in list(query.find_all(exp.Table)):
        found = schema.find(table.db, table.name) if table.db else None
        if found is not None and found.restricted:
            alias = table.args.get("alias")
            table.replace(exp.Subquery(this=_part(table, found, schema), alias=alias.copy() if alias else None))
    return query


def _part(table: exp.Table, found: Table, schema: Schema) -> exp.Select:
    names = [exp.column(exp.to_identifier(schema.key(one.name), quoted=True)) for one in found.columns]
    source = exp.Table(this=table.this.copy(), db=table.args["db"].copy())
    return exp.Select(expressions=list(names)).from_(source, copy=False)


def _written(query: exp.Query, dialect: str) -> str:
    try:
        return query.sql(dialect, comments=False, unsupported_level=ErrorLevel.RAISE)
    except SqlglotError as error:  # what this dialect does not have
        raise Refused("construct", _first_line(error)) from None


def _first_line(error: Exception) -> str:
    text = str(error).splitlines()
    return (text[0] if text else type(error).__name__)[:300]
