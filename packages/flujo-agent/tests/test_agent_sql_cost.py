"""What a query may take: no engine is asked for work that it cannot be stopped at, and every value has a form."""

import json

import pytest
import sqlalchemy
from pydantic_ai import messages as pai
from pydantic_ai.models.function import FunctionModel

from flujo.agent import SQLAgent, SQLRows
from flujo.core import Flujo

ALLOWED = {"customers": ["id", "name"], "orders": []}


def answer(url, sql, **options):
    def writes(messages, info):
        draft = {"sql": sql, "explanation": "because"}
        return pai.ModelResponse(parts=[pai.ToolCallPart(info.output_tools[0].name, draft)])

    agent = SQLAgent(FunctionModel(writes), url, **({"tables": ALLOWED, "repairs": 0} | options))
    result = Flujo(agent).run("How much?")
    assert result.status == "completed", result.error
    return result.output


LONG = f"replace('{'a' * 1000}', 'a', '{'b' * 900}')"
"""900 thousand letters from two short texts: to look for them in as many takes an engine minutes, in one step that
looks at no clock."""

SOUGHT = [
    "SELECT {hay} LIKE '%' || {long} || 'a%' AS x",
    "SELECT length(replace({hay}, {long} || 'a', '')) AS x",
    "SELECT length(trim({hay}, {long} || 'a')) AS x",
    "SELECT length(trim({hay}, 'b' || '{many}')) AS x",
    "SELECT length(trim({hay}, CAST('a' AS CHAR(1000000)))) AS x",
    "WITH n AS (SELECT {long} AS needle) SELECT name LIKE needle AS x FROM customers CROSS JOIN n",
    "SELECT name FROM customers WHERE name LIKE (SELECT max(note) FROM orders)",
    "SELECT name FROM customers ORDER BY trim(customers.name, {long})",
    "SELECT length(replace({hay}, (" + " || ".join(["note"] * 9) + "), '')) AS x FROM orders",
    "SELECT (SELECT trim(c.name, n.needle)) AS x FROM customers c CROSS JOIN (SELECT {long} AS needle) n",
]
SOUGHT_SQLITE = ["SELECT instr({hay}, {long} || 'a') AS x", "SELECT {hay} GLOB '*' || {long} || 'a' AS x"]
SOUGHT_POSTGRES = [
    "SELECT strpos({hay}, {long} || 'a') AS x",
    "SELECT split_part({hay}, {long} || 'a', 2) AS x",
    "SELECT {hay} ILIKE '%' || {long} || 'a%' AS x",
    "SELECT length(trim(both {long} from {hay})) AS x",
    "SELECT {hay} LIKE ANY (ARRAY['x', {long}]) AS x",
    "SELECT array_agg(id) @> (SELECT array_agg(id) FROM customers) AS x FROM orders",
]


def _filled(sql):
    return sql.replace("{hay}", LONG).replace("{long}", LONG).replace("{many}", "c" * 200)


@pytest.mark.parametrize(
    ("which", "sql"),
    [(which, sql) for which in ("sqlite", "postgres") for sql in SOUGHT]
    + [("sqlite", sql) for sql in SOUGHT_SQLITE]
    + [("postgres", sql) for sql in SOUGHT_POSTGRES],
)
def test_a_search_that_no_engine_can_be_stopped_at_is_refused(which, sql, request):
    found = answer(request.getfixturevalue(f"{which}_shop"), _filled(sql), timeout_s=2)
    assert not isinstance(found, SQLRows), found.sql
    assert (found.rule, "looked for" in found.why) == ("construct", True), found


FOUND = [
    ("SELECT name FROM customers WHERE name LIKE '%' || 'd' || '%'", [["Ada"]]),
    ("SELECT o.id FROM orders o JOIN customers c ON c.id = o.customer_id WHERE lower(c.name) LIKE lower(o.note) || '%' "
     "ORDER BY o.id", [[1]]),
    ("SELECT name FROM customers c WHERE EXISTS (SELECT 1 FROM orders o WHERE c.name LIKE upper(o.note) || '%' "
     "ESCAPE '!') ORDER BY name", [["Ada"], ["Bo"]]),
    ("SELECT trim(name, 'A') AS x FROM customers ORDER BY id", [["da"], ["Bo"]]),
    ("SELECT replace(name, coalesce(substr(name, 1, 1), ''), '-') AS x FROM customers ORDER BY id", [["-da"], ["-o"]]),
    ("SELECT id FROM orders WHERE '100' LIKE CAST(total AS TEXT) || '%'", []),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "rows"), FOUND)
def test_searches_for_short_texts_and_columns_are_run(shop, sql, rows):
    found = answer(shop, sql)
    assert isinstance(found, SQLRows), found
    assert [list(row) for row in found.rows] == rows


@pytest.mark.parametrize("number", ["1e5000", "-1e131000", "sqrt(2.5e131000)"])
def test_a_number_of_thousands_of_digits_is_a_text(postgres_shop, number):
    """Python refuses to read an integer of more than 4,300 digits."""
    found = answer(postgres_shop, f"SELECT {number} AS x, ARRAY[1e5000] AS y")
    assert isinstance(found, SQLRows), found
    ((value, (inner,)),) = found.rows
    assert isinstance(value, str)
    assert len(value) > 4300
    assert inner == "1" + "0" * 5000


@pytest.mark.parametrize("depth", [40, 100, 900, 3000])
def test_a_value_that_is_nested_deeper_than_json_is_read_is_a_text(postgres_shop, depth):
    """Who fills the table could else make each question about it fail."""
    nested = "[" * depth + "]" * depth
    engine = sqlalchemy.create_engine(postgres_shop, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE other.parts SET data = %s WHERE id = 1", (nested,))
    try:
        found = answer(postgres_shop, 'SELECT data, "Name" FROM other.parts', tables=["other.parts"])
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE other.parts SET data = %s WHERE id = 1", ('{"size": 3}',))
    assert isinstance(found, SQLRows), found
    ((value, name),) = found.rows
    assert name == "bolt"
    assert value == (json.loads(nested) if depth == 40 else nested)
