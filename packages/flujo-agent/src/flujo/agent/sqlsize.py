"""How large a query is once its parts are put into each other, as engines do before they look at the time.

Four columns that are each four of the column before, twelve times over, are 16 million parts and gigabytes in SQLite's
planner. Importing this imports sqlglot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlglot import exp
from sqlglot.optimizer.scope import Scope, traverse_scope


@dataclass(frozen=True, slots=True)
class _Size:
    """Of one SELECT: all of it, and each column that it gives."""

    whole: int
    columns: Mapping[str, int]


def expanded_size(query: exp.Query) -> int:
    """Parts of a query whose columns are bound to their tables, each counted as often as it is named."""
    sizes: dict[int, _Size] = {}
    largest = 0
    for scope in traverse_scope(query):  # inner ones first
        size = _of_union(scope, sizes) if scope.set_operation_scopes else _of_select(scope, sizes)
        sizes[id(scope.expression)] = size
        largest = max(largest, size.whole)
    return largest


def _of_select(scope: Scope, sizes: Mapping[int, _Size]) -> _Size:
    named = {name: _known(source, sizes) for name, source in scope.sources.items()}
    whole = sum(1 for _ in scope.expression.walk())
    whole += sum(named[name].whole for name in scope.selected_sources if name in named)
    whole += sum(_known(inner, sizes).whole for inner in scope.subquery_scopes)
    whole += sum(_column(column, named) for column in scope.columns)
    columns = {one.alias_or_name: _columns_in(one, named) for one in _selects(scope.expression)}
    return _Size(whole, columns)


def _selects(expression: exp.Expr) -> list[exp.Expr]:
    return list(expression.selects) if isinstance(expression, exp.Query) else []


def _columns_in(expression: exp.Expr, named: Mapping[str, _Size]) -> int:
    return sum(1 + (_column(node, named) if isinstance(node, exp.Column) else 0) for node in expression.walk())


def _column(column: exp.Column, named: Mapping[str, _Size]) -> int:
    source = named.get(column.table)
    return 0 if source is None else source.columns.get(column.name, 0)


def _of_union(scope: Scope, sizes: Mapping[int, _Size]) -> _Size:
    left, right = (_known(inner, sizes) for inner in scope.set_operation_scopes)
    pairs = zip(left.columns.items(), right.columns.values(), strict=False)
    return _Size(1 + left.whole + right.whole, {name: first + second for (name, first), second in pairs})


def _known(source: object, sizes: Mapping[int, _Size]) -> _Size:
    """A table, and a WITH RECURSIVE in itself, count once."""
    found = sizes.get(id(source.expression)) if isinstance(source, Scope) else None
    return _Size(1, {}) if found is None else found
