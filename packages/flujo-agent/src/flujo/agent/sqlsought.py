"""What a query looks for in texts: an engine compares it in one step that looks at no clock, so it has to be short.

To look for half a million letters in a million takes minutes, and either is made of two short texts by REPLACE; nothing
ends that before it is done. What is short, or a few columns of tables, is bounded. Importing this imports sqlglot.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from sqlglot import exp
from sqlglot.optimizer.scope import Scope, traverse_scope

LONGEST = 200
"""Letters that a query itself may give of what it looks for in one place."""

_COLUMN = 25
"""Letters that a column of a table counts for: a query that repeats one makes of a few thousand letters a million."""

_SOUGHT = {
    **dict.fromkeys((exp.Like, exp.ILike, exp.Glob, exp.Trim, exp.Replace, exp.ArrayContainsAll), "expression"),
    exp.StrPosition: "substr",
    exp.SplitPart: "delimiter",
}
"""Syntax and functions that look for something, and the argument that says what."""

_NO_LONGER = (
    *(exp.DPipe, exp.Concat, exp.Coalesce, exp.Paren, exp.Tuple, exp.Array, exp.Any, exp.All, exp.Escape, exp.Null),
    *(exp.Lower, exp.Upper, exp.Trim, exp.Substring, exp.Left, exp.Right, exp.Identifier, exp.Boolean),
)
"""What gives no more letters than it is given."""


def too_long_sought(query: exp.Query) -> exp.Expr | None:
    """The first thing that a query, whose columns are bound to their tables, looks for and that may be too long."""
    for scope in traverse_scope(query):
        for sought in _sought(scope):
            if _letters(sought, scope) > LONGEST:
                return sought
    return None


def _sought(scope: Scope) -> Iterator[exp.Expr]:
    for node in scope.find_all(*_SOUGHT):
        sought = node.args.get(_SOUGHT[type(node)])
        if isinstance(sought, exp.Expr):
            yield sought


def _letters(node: exp.Expr, scope: Scope) -> float:
    """Most letters that a query itself puts into a value; what a table holds counts little, however long it is."""
    if isinstance(node, exp.Literal):
        return len(node.this)
    if isinstance(node, exp.Column):
        return _COLUMN if _is_stored(node, scope) else math.inf
    if isinstance(node, exp.Cast) and not node.to.expressions:  # to CHAR(n) it could be any length
        return _letters(node.this, scope)
    if isinstance(node, _NO_LONGER):
        return sum(_letters(part, scope) for part in node.iter_expressions())
    return math.inf


def _is_stored(column: exp.Column, scope: Scope | None) -> bool:
    while scope is not None:
        if column.table in scope.sources:
            return isinstance(scope.sources[column.table], exp.Table)
        scope = scope.parent
    return False
