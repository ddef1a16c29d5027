"""SQLAgent from question to rows on real engines: repairs, caps, refusals, and what a run sees of it."""

import resource
import sqlite3
from time import monotonic

import anyio
import pytest
import sqlalchemy
from pydantic_ai import messages as pai
from pydantic_ai.models.function import FunctionModel

from flujo.agent import DatabaseFault, SQLAgent, SQLAnswer, SQLRefusal, SQLRows
from flujo.agent.sqlengines import Caps, Watch
from flujo.agent.sqlguard import Checked, Refused
from flujo.agent.sqlopen import open_database
from flujo.agent.sqlschema import Column, Schema, Table
from flujo.core import Deny, Flujo, PipelineError, Step, UsageLimits, hookimpl
from flujo.core import GuardToolCall as GuardToolCallPayload

ALLOWED = {"customers": ["id", "name"], "orders": []}
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS c FROM n"
MANY = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i FROM n"


def writing(*drafts):
    """A model that writes these statements in order (None: a text instead), and its prompts."""
    left, prompts = list(drafts), []

    def function(messages, info):
        prompts.append(str(messages[-1].parts[-1].content))
        sql = left.pop(0)
        if sql is None:
            return pai.ModelResponse(parts=[pai.TextPart("I would rather talk.")])
        draft = {"sql": sql, "explanation": "because"}
        return pai.ModelResponse(parts=[pai.ToolCallPart(info.output_tools[0].name, draft)])

    return FunctionModel(function), prompts


def asked(url, *drafts, plugins=(), limits=None, **options):
    model, prompts = writing(*drafts)
    agent = SQLAgent(model, url, **({"tables": ALLOWED} | options))
    result = Flujo(agent, plugins=list(plugins), limits=limits).run("How much?")
    return result, prompts


# --- from question to rows --------------------------------------------------------------------------------------------


def test_a_question_is_answered_with_rows_the_query_and_what_it_gives(shop):
    result, prompts = asked(
        shop, "SELECT name, sum(total) s FROM customers c JOIN orders o ON o.customer_id = c.id GROUP BY 1 ORDER BY 2"
    )
    found = result.output
    assert isinstance(found, SQLRows), found
    assert (found.columns, found.rows) == (("name", "s"), (("Bo", 7), ("Ada", 15)))
    assert (found.explanation, found.truncated, found.repairs) == ("because", False, 0)
    assert found.sql.endswith("LIMIT 1000")
    assert "How much?" in prompts[0]
    assert SQLRows.model_validate_json(found.model_dump_json()) == found


def test_the_model_is_shown_tables_types_and_keys_but_no_row_and_nothing_that_may_not_be_read(shop):
    _, prompts = asked(shop, "SELECT 1 AS x")
    words = ["TABLE customers (", "id INTEGER PRIMARY KEY", "name TEXT NOT NULL", "REFERENCES customers(id)"]
    assert [word for word in words if word not in prompts[0]] == []
    assert [word for word in ("Ada", "secret", "TOPSECRET", "salaries") if word in prompts[0]] == []


def test_a_refused_statement_goes_back_with_the_reason_and_each_request_is_counted(shop):
    result, prompts = asked(
        shop, "DELETE FROM orders", "SELECT nothing FROM orders", "SELECT count(*) AS n FROM orders"
    )
    assert (result.output.rows, result.output.repairs, result.usage.requests) == (((3,),), 2, 3)
    assert "DELETE FROM orders" in prompts[1]
    assert "only a query is run" in prompts[1]
    assert "nothing" in prompts[2]


def test_after_two_repairs_the_refusal_is_a_result_of_its_own_type(shop):
    result, _ = asked(shop, "DROP TABLE orders", "SELECT pg_sleep(1) AS x", "SELECT secret FROM customers")
    found = result.output
    assert isinstance(found, SQLRefusal)
    assert (found.rule, found.sql, found.repairs) == ("column", "SELECT secret FROM customers", 2)
    assert (result.status, result.usage.requests) == ("completed", 3)
    assert SQLRefusal.model_validate_json(found.model_dump_json()) == found


def test_an_answer_without_a_statement_is_repaired_like_any_other(shop):
    result, _ = asked(shop, None, "SELECT 1 AS x")
    assert (result.output.rows, result.output.repairs) == (((1,),), 1)
    result, _ = asked(shop, None, None, None)
    assert (result.output.rule, result.usage.requests) == ("unusable", 3)


def test_a_model_may_say_that_the_tables_do_not_tell(shop):
    result, _ = asked(shop, "  ")
    assert result.output == SQLRefusal(rule="declined", why="because")


def test_what_only_the_engine_knows_to_be_wrong_is_repaired_in_its_words(shop):
    wrong = "SELECT json_array_length(id, id, id) AS x FROM orders"
    result, prompts = asked(shop, wrong, "SELECT 1 AS x")
    assert result.output.repairs == 1
    assert "json_array_length" in prompts[1].partition("It was refused:")[2].lower()


def test_an_error_while_rows_are_read_tells_the_model_nothing_of_them(postgres_shop):
    wrong = "SELECT id FROM customers WHERE CAST(name AS integer) = 1"
    result, prompts = asked(postgres_shop, wrong, "SELECT 1 AS x")
    assert result.output.repairs == 1
    assert "InvalidTextRepresentation" in prompts[1]
    assert "Ada" not in prompts[1]


def test_a_limit_of_the_run_holds_for_repairs_too(shop):
    result, _ = asked(shop, "DROP TABLE orders", "SELECT 1 AS x", limits=UsageLimits(requests_limit=1))
    assert (result.status, result.usage.requests) == ("stopped", 1)


# --- the caps ---------------------------------------------------------------------------------------------------------


def test_a_query_without_an_end_is_stopped_by_the_engine_in_time(shop):
    started = monotonic()
    result, _ = asked(shop, ENDLESS, timeout_s=0.3, repairs=0)
    assert result.output.rule == "timeout"
    assert 0.3 <= monotonic() - started < 10


def test_a_query_that_was_cancelled_is_left_at_once_and_ends(shop):
    model, _ = writing(ENDLESS)

    async def main():
        flow = Flujo(SQLAgent(model, shop, tables=ALLOWED, timeout_s=5))
        with anyio.move_on_after(1.5) as scope:
            await flow.run_async("How much?")
        return scope.cancelled_caught

    started = monotonic()
    assert anyio.run(main)
    assert monotonic() - started < 5


def test_rows_are_capped_and_it_is_said(shop):
    result, _ = asked(shop, MANY, max_rows=7)
    assert (len(result.output.rows), result.output.truncated) == (7, True)
    result, _ = asked(shop, f"{MANY} LIMIT 4", max_rows=7)
    assert (len(result.output.rows), result.output.truncated) == (4, False)
    result, _ = asked(shop, f"{MANY} LIMIT 4000 OFFSET 2", max_rows=7)
    assert (result.output.rows[0], len(result.output.rows), result.output.truncated) == ((3,), 7, True)


def test_bytes_are_capped_and_a_row_above_the_cap_is_refused(shop):
    result, _ = asked(shop, MANY, max_rows=5000, max_bytes=1000)
    assert result.output.truncated
    assert 50 < len(result.output.rows) < 250
    long = f"SELECT '{'x' * 2000}' AS x"
    result, _ = asked(shop, long, max_bytes=1000, repairs=0)
    assert result.output.rule == "size"


NESTED = [
    ("SELECT 'xxxxxxxxxx' AS x", "SELECT x || x || x || x AS x FROM {0}"),
    ("SELECT 1 AS x", "SELECT a.x + b.x AS x FROM {0} a, {0} b, {0} c, {0} d"),
    ("SELECT 1 AS x", "SELECT x FROM {0} UNION ALL SELECT x FROM {0} UNION ALL SELECT x FROM {0}"),
    ("SELECT 1 AS x", "SELECT (SELECT max(x) FROM {0}) + (SELECT min(x) FROM {0}) + (SELECT sum(x) FROM {0}) AS x"),
    ("SELECT 1 AS x", "SELECT id AS x FROM orders WHERE id IN (SELECT x FROM {0}) OR id > (SELECT max(x) FROM {0})"),
]


@pytest.mark.parametrize(("first", "then"), NESTED)
def test_a_few_lines_that_stand_for_gigabytes_are_refused_before_an_engine_plans_them(shop, first, then):
    steps = ", ".join(f"a{n + 1} AS ({then.format(f'a{n}')})" for n in range(14))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB, the highest so far
    result, _ = asked(shop, f"WITH a0 AS ({first}), {steps} SELECT x FROM a14", repairs=0, timeout_s=2)
    assert (result.output.rule, "grows too large" in result.output.why) == ("construct", True)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    steps = f"a1 AS ({then.format('a0')}), a2 AS ({then.format('a1')})"
    result, _ = asked(shop, f"WITH a0 AS ({first}), {steps} SELECT x FROM a2", repairs=0)
    assert isinstance(result.output, SQLRows), result.output


def test_a_text_that_grows_while_the_query_runs_is_stopped(shop):
    sql = "WITH RECURSIVE t(x) AS (SELECT 'xxxxxxxx' UNION ALL SELECT x || x FROM t) SELECT length(x) AS n FROM t"
    result, _ = asked(shop, sql, repairs=0, timeout_s=2, max_rows=60)
    assert isinstance(result.output, SQLRefusal), result.output
    assert result.output.rule in ("size", "engine", "timeout")


def test_a_query_that_the_engine_thinks_too_expensive_is_not_run(postgres_shop):
    cross = "SELECT count(*) AS n FROM orders a, orders b, orders c, orders d"
    result, _ = asked(postgres_shop, cross, repairs=0, max_cost=1000)
    assert result.output.rule == "cost"
    assert asked(postgres_shop, "SELECT 1 AS x", max_cost=1000)[0].output.rows == ((1,),)


# --- past the guard: the engines themselves ---------------------------------------------------------------------------

WRITES = [
    "DELETE FROM orders",
    "DELETE FROM orders RETURNING id",
    "INSERT INTO orders (id) VALUES (99) RETURNING id",
    "DROP TABLE orders",
    "CREATE TABLE stolen (id INTEGER)",
    "SELECT 1; DELETE FROM orders",
    "SELECT 1) AS q LIMIT 1) AS r; DELETE FROM orders; --",
    "SELECT 1) AS q LIMIT 1) AS r; COMMIT; DELETE FROM orders; --",
]
ON_SQLITE = [
    "WITH x AS (SELECT 1) INSERT INTO orders (id) SELECT * FROM x",
    "PRAGMA query_only=OFF",
    "ATTACH DATABASE ':memory:' AS x",
    "CREATE TEMP TABLE x (id)",
    "VACUUM",
    "SELECT * FROM salaries",
    "SELECT secret FROM customers",
    "SELECT secret FROM (SELECT * FROM customers) AS customers",
    "WITH spenders AS (SELECT * FROM salaries) SELECT * FROM spenders",
    "SELECT * FROM (SELECT * FROM salaries) AS orders",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM pragma_table_info('salaries')",
    "SELECT randomblob(9)",
    "SELECT load_extension('x')",
    "SELECT hex(zeroblob(9))",
]
ON_POSTGRES = [
    "WITH x AS (DELETE FROM orders RETURNING id) SELECT * FROM x",
    "SELECT nextval('public.numbers')",
    "SELECT setval('public.numbers', 9)",
    "SELECT lo_create(0)",
    "SELECT * FROM orders FOR UPDATE",
    "SELECT * FROM orders",
    "SELECT public.length(1) FROM public.orders FOR UPDATE",
]


def shop_schema(url):
    dialect, home = ("sqlite", "main") if str(url).startswith("sqlite") else ("postgres", "public")
    customers = Table(home, "customers", (Column("id", "INTEGER"), Column("name", "TEXT")), True)
    columns = tuple(Column(name, "TEXT") for name in ("id", "customer_id", "total", "placed", "note"))
    spenders = Table(home, "spenders", (Column("name", "TEXT"), Column("spent", "NUMERIC")), False)
    return Schema(dialect, home, (customers, Table(home, "orders", columns, False), spenders))


def run_unchecked(url, sql):
    database = open_database(url, frozenset())
    return database.query(Checked(sql, (), False), shop_schema(url), Caps(10, 1000, 5, None), Watch(5))


def count(url):
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        return connection.exec_driver_sql("SELECT count(*) FROM orders").scalar_one()


@pytest.mark.parametrize("sql", WRITES)
def test_the_session_itself_refuses_to_write_whatever_the_guard_let_through(shop, sql):
    with pytest.raises((Refused, DatabaseFault, sqlite3.ProgrammingError)):
        run_unchecked(shop, sql)
    assert count(shop) == 3


@pytest.mark.parametrize("sql", ON_SQLITE)
def test_sqlite_itself_reads_only_what_is_allowed(sqlite_shop, sql):
    with pytest.raises(Refused):
        run_unchecked(sqlite_shop, sql)


@pytest.mark.parametrize("sql", ON_POSTGRES)
def test_postgresql_itself_writes_nothing_and_finds_nothing_by_a_bare_name(postgres_shop, sql):
    with pytest.raises(Refused):
        run_unchecked(postgres_shop, sql)


def test_a_function_of_a_schema_does_not_stand_in_for_one_of_postgresqls(postgres_shop):
    with pytest.raises(Refused, match="length"):
        run_unchecked(postgres_shop, "SELECT length(1) AS x")


def test_an_engine_set_to_autocommit_is_read_only_all_the_same_and_left_as_it_was(postgres_shop):
    engine = sqlalchemy.create_engine(postgres_shop, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=0)
    with pytest.raises(Refused, match="ReadOnly"):
        run_unchecked(engine, "SELECT nextval('public.numbers') AS x")
    result, _ = asked(engine, "SELECT count(*) AS n FROM orders")
    assert result.output.rows == ((3,),)
    with engine.connect() as connection:
        found = "SELECT current_setting('transaction_read_only'), current_setting('search_path')"
        assert tuple(connection.exec_driver_sql(found).one()) == ("off", '"$user", public')
        connection.exec_driver_sql("CREATE TEMP TABLE mine (id INTEGER)")
    engine.dispose()


# --- names and values -------------------------------------------------------------------------------------------------


def test_tables_of_other_schemas_quoted_names_and_json_are_read(postgres_shop):
    sql = """SELECT p."Name", p.data ->> 'size' AS size FROM other.parts p"""
    result, prompts = asked(postgres_shop, sql, tables=["other.parts"])
    assert (result.output.columns, result.output.rows) == (("Name", "size"), (("bolt", "3"),))
    assert "TABLE other.parts (" in prompts[0]


def test_values_that_json_has_no_form_for_are_texts_and_no_digit_is_lost(sqlite_shop, postgres_shop):
    exact = "SELECT CAST('12345678901234567890.12345678901' AS numeric) AS x, CAST('NaN' AS float8) AS y, NULL AS z"
    result, _ = asked(postgres_shop, exact)
    assert result.output.rows == (("12345678901234567890.12345678901", "NaN", None),)
    result, _ = asked(
        postgres_shop,
        'SELECT ARRAY[1, 2] AS x, CAST(\'{"a": {"b": 1.5}}\' AS jsonb) AS y, id AS x FROM customers WHERE id = 2',
    )
    assert (result.output.columns, result.output.rows) == (("x", "y", "x"), (([1, 2], {"a": {"b": 1.5}}, 2),))
    result, _ = asked(sqlite_shop, "SELECT 9e999 AS x, 9007199254740993 AS y, NULL AS z")
    assert result.output.rows == (("inf", 9007199254740993, None),)


def test_a_function_of_the_users_own_is_allowed_by_name(postgres_shop):
    assert asked(postgres_shop, "SELECT repeat('x', 3) AS x", repairs=0)[0].output.rule == "function"
    assert asked(postgres_shop, "SELECT repeat('x', 3) AS x", functions=["REPEAT"])[0].output.rows == (("xxx",),)


# --- the run and the agent --------------------------------------------------------------------------------------------


class Watcher:
    """Sees every statement as a tool call, and denies some."""

    def __init__(self, word=None):
        self.word = word
        self.seen = []

    @hookimpl
    def guard_tool_call(self, payload: GuardToolCallPayload):
        self.seen.append(payload.call)
        if self.word is not None and self.word in str(payload.call.arguments["sql"]):
            return Deny("not that table", to_model=True)
        from flujo.core import Allow

        return Allow()


def test_every_statement_is_a_tool_call_with_the_question_and_both_forms_of_it(shop):
    watcher = Watcher()
    asked(shop, "DELETE FROM orders", "SELECT id FROM orders", plugins=[watcher])
    refused, run = (call.arguments for call in watcher.seen)
    assert {call.name for call in watcher.seen} == {"query_database"}
    assert (refused["written"], refused["sql"], refused["refused"]["rule"]) == ("DELETE FROM orders", "", "statement")
    assert (run["question"], run["written"], run["refused"]) == ("How much?", "SELECT id FROM orders", None)
    assert run["sql"].endswith("LIMIT 1000")


def test_a_guard_of_the_run_may_deny_a_query_and_the_model_hears_of_it(shop):
    result, prompts = asked(shop, "SELECT id FROM orders", "SELECT id FROM customers", plugins=[Watcher("orders")])
    assert (result.output.repairs, len(result.output.rows)) == (1, 2)
    assert "not that table" in prompts[1]


def test_an_sql_agent_is_an_agent_whose_type_is_known_to_the_next_step(shop):
    async def told(answer: SQLAnswer) -> str:
        return answer.kind

    model, _ = writing("SELECT 1 AS x")
    agent = SQLAgent(model, shop, tables=ALLOWED)
    assert Flujo(agent >> Step(told)).run("x").output == "rows"
    assert Step(agent).name == "sql"
    assert repr(agent) == "SQLAgent('sql')"


@pytest.mark.parametrize("tables", [["nothing"], {"orders": ["nothing"]}, ["nowhere.orders"]])
def test_a_table_or_column_that_is_not_there_fails_the_step(shop, tables):
    result, prompts = asked(shop, tables=tables)
    assert (result.status, result.error.error_type, prompts) == ("failed", "DatabaseFault", [])
    assert "cannot be read" in str(result.error)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////nowhere/shop.db",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql+psycopg://u:hunter2@/x?host=/nowhere",
        "postgresql+nothing://x/y",
    ],
)
def test_a_database_that_cannot_be_opened_read_only_fails_the_step_without_telling_its_password(url):
    result, _ = asked(url)
    assert (result.status, result.error.error_type) in [("failed", "DatabaseFault"), ("failed", "ConfigurationError")]
    assert "hunter2" not in str(result.error)


def test_everything_that_is_wrong_with_an_sql_agent_is_told_at_once():
    with pytest.raises(PipelineError) as caught:
        SQLAgent(
            "gpt",
            "mysql://u:hunter2@x/y",
            tables=[],
            functions="x",
            max_rows=0,
            max_bytes=True,
            timeout_s=0,
            max_cost=-1,
            repairs=3,
        )
    told = str(caught.value)
    words = ["'gpt'", "database=", "tables=", "functions=", "max_rows", "max_bytes", "timeout_s", "max_cost", "repairs"]
    assert [word for word in words if word not in told] == []
    assert "hunter2" not in told


def test_the_libraries_of_the_extra_are_imported_when_an_sql_agent_first_runs(run_python):
    code = (
        "import sys; from flujo.agent import SQLAgent; "
        "SQLAgent('openai:x', 'sqlite:///x.db', tables=['t']); "
        "print([m for m in ('sqlalchemy', 'sqlglot', 'pydantic_ai') if m in sys.modules])"
    )
    assert run_python(code) == "[]\n"
