"""SQLAgent: a question in words, answered by one query that a database ran read-only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretStr

from flujo.core import Agent, Chain, PipelineError, Price, RetryPolicy, RunContext, Step, ToolCall

from .agents import of_spec
from .errors import AgentFault
from .prompts import prompt_of
from .spec import AgentSpec, OutputMode
from .sqldesk import Desk, dialect_of, number_problems, problems_with

if TYPE_CHECKING:
    from pydantic_ai.models import Model
    from sqlalchemy.engine import Engine

    from .sqlschema import Schema, Tables

__all__ = ["SQLAgent", "SQLAnswer", "SQLRefusal", "SQLRows"]

TOOL = "query_database"
"""Name of the tool call that guards and recorders of a run see for each statement of a model."""

INSTRUCTIONS = """You write one SQL query that answers a question about a database.
Write SQL of {dialect}. Use only the tables and columns that are shown, and only SELECT (WITH is fine).
The query gives {rows} rows at most; let it count, sum and sort rather than list.
When the tables cannot answer the question, or it asks for a change of data, leave sql empty and say why in explanation.
"""

Rule = Literal[
    "declined", "unusable", "syntax", "statement", "construct", "function", "table", "column", "engine", "cost",
    "timeout", "size", "denied",
]  # fmt: skip
"""Why there are no rows: the model declined or gave nothing usable; the statement breaks a rule; the engine refused it,
thinks it too expensive, or stopped it; a guard of the run denied it."""


class _Frozen(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)


class SQLDraft(_Frozen):
    """What the model is asked for."""

    sql: str = Field(description="One SELECT statement; empty when the question cannot be answered")
    explanation: str = Field(description="What the query gives, or why there is none, in one sentence")


class SQLRows(_Frozen):
    """Rows that answer a question.

    Attributes:
        kind: `rows`.
        sql: The query as it was run.
        explanation: What it gives, in the model's words.
        columns: Names of the columns.
        rows: The rows; values as JSON, and as texts those that JSON has no form for.
        truncated: Whether a cap may have left rows out.
        repairs: How many statements were refused before.
    """

    kind: Literal["rows"] = "rows"
    sql: str
    explanation: str
    columns: tuple[str, ...]
    rows: tuple[tuple[JsonValue, ...], ...]
    truncated: bool
    repairs: int


class SQLRefusal(_Frozen):
    """No rows, and why.

    Attributes:
        kind: `refused`.
        rule: Why the last statement was refused, for programs.
        why: The same for people.
        sql: The last statement, as the model wrote it.
        repairs: How many statements were refused before it.
    """

    kind: Literal["refused"] = "refused"
    rule: Rule
    why: str
    sql: str = ""
    repairs: int = 0


SQLAnswer = Annotated[SQLRows | SQLRefusal, Field(discriminator="kind")]
"""What an SQLAgent gives."""


class SQLAgent:
    """An agent that answers questions from a database which it can only read, as a step: `Step(agent)`, or `>>`.

    A model writes a statement; it is run only when it is one query of the allowed tables, columns and functions, and
    then as it was read, in a read-only session that the engine itself holds to time, rows and bytes. What is wrong
    with a statement goes back to the model. No row of the database is ever shown to the model.

    Attributes:
        name: Its name, and that of its step.
        output_type: SQLAnswer: rows, or a refusal that says why there are none.
        run: The step's function: takes a question.

    Args:
        model: As for `agent`.
        database: `sqlite:///FILE`, `postgresql+psycopg://...`, or an Engine of SQLAlchemy for one of them.
        tables: Names of the tables and views that may be read, `SCHEMA.NAME` outside the default schema; or for each
            the columns that may be read, none for all.
        instructions: What else the model is told: what the tables mean, how to count.
        functions: Names of further functions that a query may call, which must do nothing but compute.
        max_rows: Most rows of an answer.
        max_bytes: Most bytes of all rows of an answer as JSON.
        timeout_s: Most seconds of a query, its dry run included.
        max_cost: Highest cost that PostgreSQL may estimate for a query, in its units.
        repairs: How often a refused statement goes back to the model; 2 at most.
        base_url: As for `agent`.
        api_key: As for `agent`.
        output_mode: As for `agent`.
        retry: As for `agent`.
        max_tokens: As for `agent`.
        temperature: As for `agent`.
        fallback: As for `agent`.
        price: As for `agent`.
        name: Its name.

    Raises:
        PipelineError: Something cannot work; all of it is told at once.
    """

    def __init__(
        self,
        model: str | Model,
        database: str | SecretStr | Engine,
        *,
        tables: Tables,
        instructions: str = "",
        functions: Sequence[str] = (),
        max_rows: int = 1000,
        max_bytes: int = 1_000_000,
        timeout_s: float = 5.0,
        max_cost: float | None = None,
        repairs: int = 2,
        base_url: str | None = None,
        api_key: str | SecretStr | None = None,
        output_mode: OutputMode = "auto",
        retry: RetryPolicy | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        fallback: str | Model | Sequence[str | Model] = (),
        price: Price | None = None,
        name: str = "sql",
    ) -> None:
        others = (fallback,) if isinstance(fallback, str) or not isinstance(fallback, Sequence) else tuple(fallback)
        given = database.get_secret_value() if isinstance(database, SecretStr) else database
        spec = AgentSpec(
            model,
            name,
            INSTRUCTIONS.format(dialect=dialect_of(given), rows=max_rows) + instructions,
            output_type=SQLDraft,
            output_mode=output_mode,
            base_url=base_url,
            api_key=api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key,
            retry=retry,
            max_tokens=max_tokens,
            temperature=temperature,
            fallback=others,
            price=price,
            repairs=0,  # they are counted with those of a statement, by `repairs`
        )
        caps = {"max_rows": max_rows, "max_bytes": max_bytes, "timeout_s": timeout_s, "max_cost": max_cost}
        problems = [*spec.problems(), *problems_with(given, tables, functions), *number_problems(caps, repairs)]
        if problems:
            raise PipelineError(f"agent {name!r} cannot be built", problems)
        self.name = name
        self.output_type: object = SQLAnswer
        self._writer = of_spec(spec)
        self._repairs = repairs
        names = frozenset(one.lower() for one in functions)
        self._desk = Desk(given, tables, names, max_rows, max_bytes, timeout_s, max_cost)

        async def run(question: object, ctx: RunContext) -> Any:
            return await self._run(question, ctx)

        run.__annotations__["return"] = SQLAnswer
        run.__annotations__ |= {"question": object, "ctx": RunContext}
        run.__qualname__ = "SQLAgent.run"
        self.run: Callable[[object, RunContext], Awaitable[SQLRows | SQLRefusal]] = run

    async def _run(self, question: object, ctx: RunContext) -> SQLRows | SQLRefusal:
        asked = prompt_of(question, self.name)
        schema = await self._desk.schema()
        start = f"{schema.text()}\n\nQuestion:\n{asked}"
        prompt = start
        answer: SQLRows | SQLRefusal = SQLRefusal(rule="unusable", why="no statement was asked for")
        for number in range(self._repairs + 1):
            answer = await self._attempt(prompt, asked, schema, number, ctx)
            if isinstance(answer, SQLRows) or answer.rule == "declined":
                break
            last = f"Your last query:\n{answer.sql}\n\nIt was refused: {answer.why}"
            prompt = f"{start}\n\n{last}\n\nWrite another one."
        return answer

    async def _attempt(
        self, prompt: str, asked: str, schema: Schema, number: int, ctx: RunContext
    ) -> SQLRows | SQLRefusal:
        """Let the model write a statement, and run it as a tool call, that the run guards and records in any case."""
        try:
            draft = await self._writer.run(prompt, ctx)
        except AgentFault as error:  # it gave no statement
            return SQLRefusal(rule="unusable", why=error.why, repairs=number)
        if not draft.sql.strip():
            return SQLRefusal(rule="declined", why=draft.explanation, repairs=number)
        checked, refused = await self._desk.check(draft.sql, schema)
        sent = "" if checked is None else checked.sql
        about: dict[str, JsonValue] = {"question": asked, "written": draft.sql, "sql": sent, "refused": refused}

        async def send(_: ToolCall) -> JsonValue:
            return {"refused": refused} if checked is None else await self._desk.query(checked, schema)

        result = await ctx.call_tool(ToolCall(name=TOOL, arguments=about), send)
        if result.is_error or not isinstance(result.content, dict):
            return SQLRefusal(rule="denied", why=str(result.content), sql=draft.sql, repairs=number)
        why = result.content.get("refused")
        if isinstance(why, dict):
            return SQLRefusal.model_validate({**why, "sql": draft.sql, "repairs": number})
        return SQLRows.model_validate({**result.content, "explanation": draft.explanation, "repairs": number})

    def __rshift__(self, other: Step | Chain | Agent) -> Chain:
        return Step(self) >> other

    def __repr__(self) -> str:
        return f"SQLAgent({self.name!r})"
