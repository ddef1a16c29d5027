"""What a query may be made of: kinds of syntax, types, functions. What is not named here is refused.

Importing this imports sqlglot, which comes with the extra `[sql]`.
"""

from __future__ import annotations

from sqlglot import exp

SYNTAX: frozenset[type[exp.Expr]] = frozenset(
    {
        # queries
        *(exp.Select, exp.Union, exp.Intersect, exp.Except, exp.Subquery, exp.With, exp.CTE, exp.Values),
        *(exp.From, exp.Join, exp.Where, exp.Group, exp.Having, exp.Order, exp.Ordered, exp.Limit, exp.Offset),
        *(exp.Distinct, exp.Cube, exp.Rollup, exp.GroupingSets),
        # names and values
        *(exp.Table, exp.TableAlias, exp.Alias, exp.Column, exp.Identifier, exp.Star, exp.Literal, exp.Null),
        *(exp.Boolean, exp.Paren, exp.Tuple, exp.Interval, exp.Var, exp.DataType, exp.DataTypeParam, exp.Array),
        # conditions
        *(exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Is, exp.NullSafeEQ),
        *(exp.NullSafeNEQ, exp.In, exp.Between, exp.Like, exp.ILike, exp.Escape, exp.Glob, exp.SimilarTo, exp.Exists),
        *(exp.Any, exp.All, exp.Case, exp.If, exp.RegexpLike, exp.RegexpILike, exp.ArrayContainsAll),
        # arithmetic
        *(exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.Neg, exp.DPipe, exp.BitwiseAnd, exp.BitwiseOr),
        *(exp.BitwiseNot, exp.BitwiseXor, exp.BitwiseLeftShift, exp.BitwiseRightShift),
        # windows and ordered sets
        *(exp.Window, exp.WindowSpec, exp.Filter, exp.WithinGroup, exp.IgnoreNulls, exp.RespectNulls),
        # parts of JSON
        *(exp.JSONExtract, exp.JSONExtractScalar, exp.JSONBExtract, exp.JSONBExtractScalar, exp.JSONPath),
        *(exp.JSONPathRoot, exp.JSONPathKey, exp.JSONPathSubscript),
    }
)
"""Syntax that only reads, whatever stands in it."""

FUNCTIONS: frozenset[type[exp.Expr]] = frozenset(
    {
        *(exp.Cast, exp.Coalesce, exp.Nullif, exp.Greatest, exp.Least),
        # numbers
        *(exp.Abs, exp.Round, exp.Ceil, exp.Floor, exp.Sqrt, exp.Pow, exp.Exp, exp.Ln, exp.Log, exp.Sign, exp.Trunc),
        # texts; none that makes a long one out of a number, as REPEAT, LPAD and FORMAT do
        *(exp.Length, exp.Lower, exp.Upper, exp.Initcap, exp.Trim, exp.Substring, exp.Left, exp.Right, exp.Replace),
        *(exp.StrPosition, exp.SplitPart, exp.Reverse, exp.Concat, exp.ConcatWs, exp.RegexpReplace, exp.MD5),
        # times
        *(exp.CurrentDate, exp.CurrentTime, exp.CurrentTimestamp, exp.Localtime, exp.Localtimestamp, exp.Date),
        *(exp.Extract, exp.TimestampTrunc, exp.TimeToStr, exp.TsOrDsToTimestamp, exp.StrToDate, exp.StrToTime),
        *(exp.UnixToTime, exp.AtTimeZone, exp.Overlaps, exp.ToNumber),
        # aggregates
        *(exp.Count, exp.Sum, exp.Avg, exp.Min, exp.Max, exp.GroupConcat, exp.ArrayAgg, exp.LogicalAnd, exp.LogicalOr),
        *(exp.Stddev, exp.StddevPop, exp.StddevSamp, exp.Variance, exp.VariancePop, exp.Corr),
        *(exp.PercentileCont, exp.PercentileDisc, exp.Mode, exp.Median),
        # windows
        *(exp.RowNumber, exp.Rank, exp.DenseRank, exp.PercentRank, exp.CumeDist, exp.Ntile, exp.Lag, exp.Lead),
        *(exp.FirstValue, exp.LastValue, exp.NthValue),
        # JSON and arrays
        *(exp.JSONType, exp.Typeof, exp.ArraySize, exp.ArrayToString),
    }
)
"""Functions that sqlglot knows, and that read no more than what they are given."""

NAMED_FUNCTIONS: dict[str, frozenset[str]] = {
    "sqlite": frozenset(
        {"total", "date", "time", "datetime", "julianday", "unixepoch", "json_array_length", "timediff"}
    ),
    "postgres": frozenset(
        {"age", "every", "make_date", "make_interval", "jsonb_array_length", "json_array_length", "cardinality"}
        | {"jsonb_typeof", "json_typeof", "jsonb_extract_path_text", "jsonb_extract_path", "regexp_match"}
    ),
}
"""Functions of one engine that sqlglot has only a name for."""

_TYPE = exp.DataType.Type

TYPES = frozenset(
    {
        *(_TYPE.INT, _TYPE.SMALLINT, _TYPE.BIGINT, _TYPE.TINYINT, _TYPE.DECIMAL, _TYPE.DOUBLE, _TYPE.FLOAT),
        *(_TYPE.TEXT, _TYPE.VARCHAR, _TYPE.CHAR, _TYPE.BOOLEAN, _TYPE.UUID, _TYPE.JSON, _TYPE.JSONB, _TYPE.ARRAY),
        *(_TYPE.DATE, _TYPE.TIME, _TYPE.TIMETZ, _TYPE.TIMESTAMP, _TYPE.TIMESTAMPTZ, _TYPE.DATETIME, _TYPE.INTERVAL),
    }
)
"""Types that a value may be cast to; none that looks something up, as REGCLASS does."""
