"""Every name on Flujo's spans, events and metrics: the one table, which `docs/how-to/watch-runs.md` explains.

`gen_ai.*` are the names of https://github.com/open-telemetry/semantic-conventions-genai, which are in development.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# --- attributes -----------------------------------------------------------------------------------------------------

OPERATION, ERROR_TYPE = "gen_ai.operation.name", "error.type"
# of a run
WORKFLOW, RUN_ID, FINGERPRINT = "gen_ai.workflow.name", "flujo.run_id", "flujo.fingerprint"
ACTOR, TENANT, TAG = "flujo.actor", "flujo.tenant", "flujo.tag."  # a tag's own name follows
STATUS, PAUSE_ID = "flujo.status", "flujo.hitl.pause_id"
# of a step
STEP, STEP_PATH, ATTEMPT = "flujo.step.name", "flujo.step.path", "flujo.step.attempt"
IS_CACHED, RETRY_DELAY = "flujo.step.cached", "flujo.retry.delay"
# of a call
PROVIDER, REQUEST_MODEL, RESPONSE_MODEL = "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.model"
REQUEST_MAX_TOKENS, FINISH_REASONS = "gen_ai.request.max_tokens", "gen_ai.response.finish_reasons"
INPUT_TOKENS, OUTPUT_TOKENS = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
TOKEN_TYPE, TOOL = "gen_ai.token.type", "gen_ai.tool.name"
# of money, for which there is no standard yet; `operation.cost` is what pydantic-ai and Logfire read
COST, COST_USD = "operation.cost", "flujo.cost.usd"
BUDGET_LIMIT, BUDGET_RESERVED = "flujo.budget.limit", "flujo.budget.reserved"
BUDGET_SPENT, BUDGET_REMAINING = "flujo.budget.spent", "flujo.budget.remaining"
BREACHED, LIMIT, LIMIT_SHARE = "governor_breached", "flujo.limit.name", "flujo.limit.share"
# of a guard
PLUGIN, HOOK = "flujo.plugin", "flujo.hook"

# --- metrics, and events of spans -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric, as it is made.

    Attributes:
        kind: What it does. What a counter counts is mostly an event of a span too, of the same name.
        name: Its name.
        unit: Its unit, by UCUM; braces say what is counted.
        meaning: What it tells.
        labels: Its attributes; none of them tells one run from another.
        buckets: Upper bounds of a histogram's buckets.
    """

    kind: Literal["counter", "histogram", "up_down_counter"]
    name: str
    unit: str
    meaning: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] | None = None


_CALL = (OPERATION, PROVIDER, REQUEST_MODEL, RESPONSE_MODEL)
# Seconds of a call and powers of four tokens, as the conventions have them; a run may take half a day.
_CALL_S, _RUN_S = tuple(0.01 * 2**n for n in range(14)), tuple(0.01 * 4**n for n in range(12))
_POWERS = tuple(4.0**n for n in range(14))
METRICS = (
    TOKENS := Metric("histogram", "gen_ai.client.token.usage", "{token}", "Of a call", (*_CALL, TOKEN_TYPE), _POWERS),
    CALL_S := Metric("histogram", "gen_ai.client.operation.duration", "s", "Of a call", (*_CALL, ERROR_TYPE), _CALL_S),
    TOOL_S := Metric("histogram", "gen_ai.execute_tool.duration", "s", "Of a tool", (TOOL, ERROR_TYPE), _CALL_S),
    RUN_S := Metric("histogram", "gen_ai.workflow.duration", "s", "To end or pause", (WORKFLOW, ERROR_TYPE), _RUN_S),
    STEP_S := Metric("histogram", "flujo.step.duration", "s", "Of an attempt", (WORKFLOW, STEP, ERROR_TYPE), _RUN_S),
    RUNS := Metric("counter", "flujo.runs", "{run}", "Runs that ended or paused", (WORKFLOW, STATUS)),
    RUN_COST := Metric("counter", "flujo.cost.usd", "{USD}", "Booked when a run ends or pauses", (WORKFLOW, STATUS)),
    CALL_COST := Metric("counter", "flujo.model.cost.usd", "{USD}", "Of calls", (WORKFLOW, PROVIDER, REQUEST_MODEL)),
    BREACH := Metric("counter", "flujo.governor.breach", "{run}", "Runs that a limit stopped", (WORKFLOW, LIMIT)),
    WARNING := Metric("counter", "flujo.governor.warning", "{limit}", "Limits nearly used up", (WORKFLOW, LIMIT)),
    RETRY := Metric("counter", "flujo.retry", "{attempt}", "Attempts that are made again", (WORKFLOW, ERROR_TYPE)),
    CACHED := Metric("counter", "flujo.cache.hit", "{step}", "Steps whose output was kept from before", (WORKFLOW,)),
    DENIAL := Metric("counter", "flujo.guard.denial", "{denial}", "What guards denied", (WORKFLOW, PLUGIN, HOOK)),
    DECISION := Metric("counter", "flujo.hitl.decision", "{decision}", "What humans decided", (WORKFLOW,)),
    OPEN := Metric("up_down_counter", "flujo.hitl.open", "{question}", "Questions that wait for a human", (WORKFLOW,)),
)
