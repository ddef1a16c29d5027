"""Statements that must not be run are refused, all of them, and the sane ones are run: on real engines.

Each goes the whole way, from a model's answer to the database, and once more past the guard to the engine itself.
"""

import pytest
import sqlalchemy
from pydantic_ai import messages as pai
from pydantic_ai.models.function import FunctionModel

from flujo.agent import SQLAgent, SQLRefusal, SQLRows
from flujo.core import Flujo

ALLOWED = {"customers": ["id", "name"], "orders": [], "spenders": []}

BOTH = """
DELETE FROM orders
UPDATE orders SET total = 0
INSERT INTO orders VALUES (9, 1, 1, '2026-01-01', 'x')
INSERT INTO orders SELECT * FROM orders
REPLACE INTO orders VALUES (1, 1, 1, '2026-01-01', 'x')
DROP TABLE orders
CREATE TABLE stolen AS SELECT * FROM orders
CREATE VIEW stolen AS SELECT * FROM orders
CREATE INDEX stolen ON orders (id)
ALTER TABLE orders ADD COLUMN x INTEGER
TRUNCATE TABLE orders
VACUUM
ANALYZE
REINDEX orders
BEGIN
COMMIT
ROLLBACK
SAVEPOINT x
SELECT 1; DELETE FROM orders
SELECT 1; SELECT 2
DELETE FROM orders; SELECT 1
SELECT 1;;; DROP TABLE orders
SELECT 1; -- harmless\\nDROP TABLE orders
SELECT /* ; */ 1 /* */ ; DROP TABLE orders /* */
SELECT id FROM orders -- \\n; DELETE FROM orders
WITH gone AS (DELETE FROM orders RETURNING id) SELECT * FROM gone
WITH new AS (INSERT INTO orders VALUES (9, 1, 1, NULL, NULL) RETURNING id) SELECT * FROM new
WITH up AS (UPDATE orders SET total = 0 RETURNING id) SELECT id FROM up
WITH x AS (SELECT 1) DELETE FROM orders
WITH x AS (SELECT 1 AS a) INSERT INTO orders SELECT a, a, a, NULL, NULL FROM x
WITH a AS (WITH b AS (DELETE FROM orders RETURNING id) SELECT id FROM b) SELECT id FROM a
SELECT * FROM (DELETE FROM orders RETURNING id) AS x
EXPLAIN DELETE FROM orders
EXPLAIN SELECT * FROM orders
EXPLAIN ANALYZE DELETE FROM orders
SELECT * FROM salaries
SELECT amount FROM salaries AS orders
SELECT id FROM orders UNION SELECT amount FROM salaries
SELECT id FROM orders INTERSECT SELECT amount FROM salaries
SELECT id FROM orders EXCEPT SELECT amount FROM salaries
SELECT (SELECT max(amount) FROM salaries) AS x
SELECT id FROM orders WHERE EXISTS (SELECT 1 FROM salaries WHERE amount > 5)
SELECT id FROM orders WHERE id IN (SELECT amount FROM salaries)
SELECT id FROM orders ORDER BY (SELECT amount FROM salaries)
SELECT id FROM orders LIMIT (SELECT amount FROM salaries)
SELECT id FROM orders GROUP BY id HAVING id < (SELECT amount FROM salaries)
SELECT CASE WHEN (SELECT amount FROM salaries) > 1 THEN 1 ELSE 0 END AS x
SELECT o.id FROM orders o JOIN salaries s ON s.id = o.id
SELECT o.id FROM orders o, salaries
SELECT * FROM "salaries"
SELECT * FROM SALARIES
SELECT * FROM public.salaries
SELECT * FROM main.salaries
SELECT * FROM x.y.salaries
SELECT * FROM (WITH salaries AS (SELECT 1 AS amount) SELECT amount FROM salaries) AS x, salaries AS s
SELECT * FROM (WITH hidden AS (SELECT 1 AS amount) SELECT amount FROM hidden) AS x, hidden AS s
WITH orders AS (SELECT amount FROM salaries) SELECT * FROM orders
WITH orders AS (SELECT 1 AS id) SELECT id FROM orders
WITH spenders AS (SELECT amount AS name FROM salaries) SELECT name FROM spenders
WITH a AS (SELECT 1 AS x), a AS (SELECT 2 AS x) SELECT x FROM a
SELECT secret FROM customers
SELECT c.secret FROM customers c
SELECT name FROM customers WHERE secret LIKE 'T%'
SELECT name FROM customers ORDER BY secret
SELECT name, count(*) AS n FROM customers GROUP BY name, secret
SELECT count(secret) AS n FROM customers
SELECT max(secret) OVER (ORDER BY id) AS n FROM customers
SELECT a.id FROM customers a JOIN customers b USING (secret)
SELECT x.secret FROM (SELECT * FROM customers) AS x
SELECT (SELECT c.secret) AS s FROM customers c
SELECT id FROM customers c WHERE EXISTS (SELECT 1 FROM orders o WHERE c.secret = 'x')
SELECT 1 AS secret, name FROM customers ORDER BY secret || ''
WITH c(id, name, secret) AS (SELECT * FROM customers) SELECT secret FROM c
SELECT c.secret AS name FROM orders o LEFT JOIN customers c ON c.id = o.customer_id
SELECT load_extension('/tmp/x.so') AS x
SELECT readfile('/etc/passwd') AS x
SELECT writefile('/tmp/x', 'x') AS x
SELECT version() AS x
SELECT sqlite_version() AS x
SELECT current_user AS x
SELECT nextval('numbers') AS x
SELECT setval('numbers', 9) AS x
SELECT pg_sleep(9) AS x
SELECT PG_SLEEP(9) AS x
SELECT "pg_sleep"(9) AS x
SELECT pg_catalog.pg_sleep(9) AS x
SELECT public.length(1) AS x
SELECT count(pg_sleep(9)) AS x
SELECT coalesce(pg_sleep(9)::text, 'x') AS x
SELECT id FROM orders WHERE id = pg_sleep(9)
SELECT sum(id) FILTER (WHERE pg_sleep(9) IS NULL) AS x FROM orders
SELECT randomblob(1000000000) AS x
SELECT zeroblob(1000000000) AS x
SELECT printf('%1000000000d', 1) AS x
SELECT format('%1000000000s', 'x') AS x
SELECT repeat('x', 1000000000) AS x
SELECT lpad('x', 1000000000) AS x
SELECT random() AS x
SELECT * FROM pragma_table_info('salaries')
SELECT * FROM json_each('[1]')
SELECT * FROM generate_series(1, 1000000000)
SELECT * FROM orders, pragma_database_list
SELECT * FROM sqlite_master
SELECT * FROM sqlite_schema
SELECT * FROM sqlite_temp_master
SELECT * FROM pg_user
SELECT * FROM information_schema.tables
WITH pg_user AS (SELECT 1 AS usename) SELECT usename FROM pg_user
SELECT id FROM orders FOR UPDATE
SELECT id INTO stolen FROM orders
SELECT id INTO OUTFILE '/tmp/x' FROM orders
SELECT $1 AS x
SELECT :x AS x
SELECT ? AS x
SELECT @x AS x
SELECT id FROM orders WHERE id = :id
ATTACH DATABASE '/tmp/x.db' AS x
DETACH DATABASE main
PRAGMA query_only = OFF
PRAGMA writable_schema = ON
VACUUM INTO '/tmp/x.db'
GRANT ALL ON orders TO public
COPY orders TO PROGRAM 'cat'
CALL do_it()
SHOW ALL
SET ROLE postgres
VALUES (1)
hello, how are you?
SELECT
SELECT FROM WHERE
(SELECT 1
SELECT 'it
SELECT id FROM orders LIMIT 5 FOR SHARE
SELECT id FROM orders TABLESAMPLE BERNOULLI (10)
SELECT nothing FROM orders
SELECT id FROM orders UNION ALL (WITH z AS (DELETE FROM orders RETURNING id) SELECT id FROM z)
SELECT id FROM orders o LEFT JOIN LATERAL (SELECT secret FROM customers) s ON true
WITH RECURSIVE a AS (SELECT 1 x UNION SELECT x + 1 FROM a WHERE x < (SELECT max(secret) FROM customers)) SELECT x FROM a
SELECT row_number() OVER w AS n FROM customers WINDOW w AS (PARTITION BY secret)
SELECT name FROM customers UNION SELECT secret FROM customers
SELECT trim(both secret from name) AS x FROM customers
SELECT id FROM orders LIMIT 5 WITH TIES
SELECT name FROM customers\u037e DELETE FROM orders
sel\u0435ct 1
""".strip().splitlines()

SQLITE = """
SELECT rowid FROM orders
SELECT _rowid_ FROM customers
SELECT oid AS x FROM customers
SELECT "secret" FROM customers
SELECT [secret] FROM customers
SELECT `secret` FROM customers
SELECT x'41' || load_extension('a') AS x
SELECT fts3_tokenizer('simple') AS x
SELECT last_insert_rowid() AS x
SELECT total_changes() AS x
SELECT 'a' REGEXP 'b' AS x
SELECT note MATCH 'b' AS x FROM orders
SELECT raise(ABORT, 'x') AS x
SELECT * FROM orders INDEXED BY nothing
SELECT * FROM temp.sqlite_master
SELECT * FROM main.sqlite_master
SELECT "dropped" AS x
INSERT OR REPLACE INTO orders VALUES (1, 1, 1, NULL, NULL)
SELECT typeof(writefile('/tmp/x', 'x')) AS x
""".strip().splitlines()

POSTGRES = """
SELECT pg_read_file('/etc/passwd') AS x
SELECT pg_ls_dir('/') AS x
SELECT pg_terminate_backend(1) AS x
SELECT pg_advisory_lock(1) AS x
SELECT pg_notify('a', 'b') AS x
SELECT lo_import('/etc/passwd') AS x
SELECT lo_export(1, '/tmp/x') AS x
SELECT dblink('host=x', 'DELETE FROM orders') AS x
SELECT set_config('transaction_read_only', 'off', false) AS x
SELECT current_setting('data_directory') AS x
SELECT query_to_xml('DELETE FROM orders', true, true, '') AS x
SELECT table_to_xml('salaries', true, true, '') AS x
SELECT txid_current() AS x
SELECT has_table_privilege('salaries', 'select') AS x
SELECT session_user AS x
SELECT current_database() AS x
SELECT c FROM customers c
SELECT orders FROM orders
SELECT c::text AS x FROM customers c
SELECT (c).secret FROM customers c
SELECT (c).row_to_json FROM customers c
SELECT c.row_to_json FROM customers c
SELECT c.* FROM customers c WHERE c IS NOT NULL
SELECT row_to_json(c) AS x FROM customers c
SELECT to_jsonb(c.*) AS x FROM customers c
SELECT count(c.*) AS x FROM customers c
SELECT array_agg(c) AS x FROM customers c
SELECT string_agg(c::text, ',') AS x FROM customers c
SELECT ctid FROM orders
SELECT xmin AS x FROM customers
SELECT tableoid FROM customers
SELECT 'salaries'::regclass AS x
SELECT 1::oid AS x
SELECT CAST('x' AS xml) AS x
SELECT CAST('1' AS public.numbers) AS x
SELECT 'pg_sleep'::regproc AS x
SELECT E'\\\\'; DELETE FROM orders; --' AS x
SELECT 'a\\\\'; DELETE FROM orders; --' AS x
SELECT $$x$$ AS x
SELECT $a$ $$ ; DELETE FROM orders $a$ AS x
SELECT U&'x' AS x
SELECT 1 OPERATOR(public.+) 2 AS x
SELECT id FROM ONLY salaries
SELECT * FROM ROWS FROM (pg_ls_dir('/')) AS x
SELECT * FROM LATERAL pg_ls_dir('/') AS x
SELECT o.id FROM orders o, LATERAL (SELECT pg_sleep(9)) AS x
SELECT * FROM unnest(ARRAY[1]) AS x
SELECT unnest(ARRAY[1]) AS x
SELECT generate_series(1, 1000000000) AS x
SELECT id FROM orders FOR NO KEY UPDATE
SELECT id FROM orders FOR KEY SHARE SKIP LOCKED
SELECT id FROM orders FETCH FIRST 5 ROWS WITH TIES
SELECT * FROM other.parts
SELECT * FROM pg_catalog.pg_authid
SELECT * FROM pg_temp.orders
TABLE salaries
DO $$ BEGIN DELETE FROM orders; END $$
LISTEN x
NOTIFY x
LOCK TABLE orders
PREPARE x AS DELETE FROM orders
EXECUTE x
DECLARE c CURSOR FOR SELECT 1
CLUSTER
CHECKPOINT
DISCARD ALL
RESET ALL
REFRESH MATERIALIZED VIEW x
MERGE INTO orders USING customers ON true WHEN MATCHED THEN DELETE
COPY (SELECT 1) TO '/tmp/x'
SECURITY LABEL ON TABLE orders IS 'x'
IMPORT FOREIGN SCHEMA x FROM SERVER y INTO z
SELECT 1 /* /* nested */ ; DELETE FROM orders; */ ; DELETE FROM orders
SELECT id FROM orders o WHERE (o).pg_sleep IS NULL
""".strip().splitlines()

SANE = [
    ("SELECT count(*) AS n FROM orders", [[3]]),
    ("select * from customers order by id", [[1, "Ada"], [2, "Bo"]]),
    ("SELECT c.name, sum(o.total) AS spent FROM customers c JOIN orders o ON o.customer_id = c.id "
     "GROUP BY c.name HAVING sum(o.total) > 10 ORDER BY spent DESC", [["Ada", 15.0]]),
    ("WITH t AS (SELECT customer_id, total FROM orders) SELECT count(*) AS n FROM t WHERE total > 5", [[2]]),
    ("SELECT name FROM customers WHERE id IN (SELECT customer_id FROM orders WHERE total < 5)", [["Ada"]]),
    ("SELECT id FROM orders UNION SELECT id FROM customers ORDER BY id LIMIT 2", [[1], [2]]),
    ("SELECT id, row_number() OVER (PARTITION BY customer_id ORDER BY id DESC) AS place FROM orders ORDER BY id",
     [[1, 2], [2, 1], [3, 1]]),
    ("SELECT name FROM spenders ORDER BY spent", [["Bo"], ["Ada"]]),
    ("SELECT coalesce(upper(note), '-') AS x FROM orders ORDER BY id", [["A"], ["B"], ["-"]]),
    ("SELECT 'it''s; DELETE FROM orders -- \\' AS x", [["it's; DELETE FROM orders -- \\"]]),
    ("SELECT '100%' AS x, '%s' AS y, ':a' AS z", [["100%", "%s", ":a"]]),
    ("SELECT name FROM customers WHERE name LIKE '%d%' -- a comment", [["Ada"]]),
    ("/* the biggest */ SELECT max(total) AS x FROM orders;", [[10.5]]),
    ("SELECT CASE WHEN total > 5 THEN 'big' ELSE 'small' END AS size, count(*) AS n FROM orders "
     "GROUP BY CASE WHEN total > 5 THEN 'big' ELSE 'small' END ORDER BY n", [["small", 1], ["big", 2]]),
    ("SELECT c.name FROM customers c WHERE EXISTS (SELECT 1 FROM orders o WHERE o.customer_id = c.id AND o.id = 3)",
     [["Bo"]]),
    ("SELECT a.id, b.id FROM orders a JOIN orders b ON a.id = b.id WHERE a.id = 2", [[2, 2]]),
    ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT i FROM n", [[1], [2], [3]]),
    ("(SELECT id FROM orders WHERE id = 1)", [[1]]),
    ("SELECT id FROM orders WHERE id BETWEEN 2 AND 3 AND note IS NOT NULL", [[2]]),
    ("SELECT 'drop table orders' AS \"delete\"", [["drop table orders"]]),
    ("SELECT replace(name, 'A', 'E') AS n FROM customers WHERE id = 1", [["Eda"]]),
    ("SELECT name FROM customers ORDER BY lower(name) DESC", [["Bo"], ["Ada"]]),
    ("SELECT c.id AS n, name FROM customers c ORDER BY length(name), -c.id", [[2, "Bo"], [1, "Ada"]]),
]  # fmt: skip

SANE_SQLITE = [
    ("SELECT strftime('%Y-%m', placed) AS month, total FROM orders WHERE id = 1", [["2026-01", 10.5]]),
    ("SELECT date(placed, '+1 day') AS d FROM orders WHERE id = 1", [["2026-01-03"]]),
    ("SELECT group_concat(name, ',') AS names FROM customers", [["Ada,Bo"]]),
    ("SELECT name || '!' AS x FROM customers WHERE name GLOB 'A*'", [["Ada!"]]),
]

SANE_POSTGRES = [
    ("SELECT to_char(placed, 'YYYY-MM') AS month FROM orders WHERE id = 1", [["2026-01"]]),
    ("SELECT date_trunc('month', placed)::date AS month, sum(total) AS s FROM orders GROUP BY 1 ORDER BY 1 LIMIT 1",
     [["2026-01-01", 10.5]]),
    ("SELECT string_agg(name, ',' ORDER BY name) AS names FROM customers", [["Ada,Bo"]]),
    ("SELECT DISTINCT ON (customer_id) customer_id, id FROM orders ORDER BY customer_id, id DESC", [[1, 2], [2, 3]]),
    ("SELECT extract(year FROM placed)::int AS y, count(*) FILTER (WHERE total > 5) AS n FROM orders GROUP BY y",
     [[2026, 2]]),
    ("SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY total) AS median FROM orders", [[7.0]]),
    ("SELECT name FROM customers WHERE name ILIKE 'a%' AND id = ANY(ARRAY[1, 2])", [["Ada"]]),
    ("SELECT placed + interval '1 day' AS x FROM orders WHERE id = 1", [["2026-01-03T00:00:00"]]),
    ("TABLE orders LIMIT 1", [[1, 1, 10.5, "2026-01-02", "a"]]),
]  # fmt: skip


def parrot(messages, info):
    """A model that writes what it is asked."""
    asked = messages[-1].parts[-1].content.partition("Question:\n")[2]
    draft = {"sql": asked.replace("\\n", "\n"), "explanation": "x"}
    return pai.ModelResponse(parts=[pai.ToolCallPart(info.output_tools[0].name, draft)])


def asking(url):
    """Asks the shop what its argument says, word by word."""
    flow = Flujo(SQLAgent(FunctionModel(parrot), url, tables=ALLOWED, repairs=0))

    def ask(sql):
        result = flow.run(sql)
        assert result.status == "completed", (sql, result.error)
        return result.output

    return ask


def answer(url, sql):
    return asking(url)(sql)


def contents(url):
    """All that is in the shop, whoever may read it."""
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        names = sorted(sqlalchemy.inspect(connection).get_table_names())
        return {name: connection.exec_driver_sql(f"SELECT * FROM {name} ORDER BY 1").all() for name in names}


@pytest.mark.parametrize("which", ["sqlite", "postgres"])
def test_every_hostile_statement_is_refused_and_nothing_is_changed(which, request):
    url = request.getfixturevalue(f"{which}_shop")
    before = contents(url)
    passed, ask = [], asking(url)
    for sql in [*BOTH, *(SQLITE if which == "sqlite" else POSTGRES)]:
        found = ask(sql)
        if not isinstance(found, SQLRefusal):
            passed.append((sql, found.sql))
        else:
            assert found.why, sql
            assert "TOPSECRET" not in found.why
            assert "99999" not in found.why
    assert passed == []
    assert contents(url) == before


@pytest.mark.parametrize(("sql", "rows"), SANE)
def test_sane_statements_are_run_on_both_engines(shop, sql, rows):
    found = answer(shop, sql)
    assert isinstance(found, SQLRows), found
    assert [list(row) for row in found.rows] == rows


@pytest.mark.parametrize(("sql", "rows"), SANE_SQLITE)
def test_what_is_sqlites_own_is_run_there(sqlite_shop, sql, rows):
    found = answer(sqlite_shop, sql)
    assert isinstance(found, SQLRows), found
    assert [list(row) for row in found.rows] == rows


@pytest.mark.parametrize(("sql", "rows"), SANE_POSTGRES)
def test_what_is_postgresqls_own_is_run_there(postgres_shop, sql, rows):
    found = answer(postgres_shop, sql)
    assert isinstance(found, SQLRows), found
    assert [list(row) for row in found.rows] == rows
