"""Models and agents for Flujo: any model of pydantic-ai, under the governor, the guards and the records of the run.

`import flujo.agent` does not import pydantic-ai, which takes over a second; the first agent that runs does.

Reading order: `agents` (what users make) -> `spec` (checked) -> `running` (one run of a pydantic-ai agent) ->
`governed` (the seam: each model request and tool call goes through the step's RunContext) -> `translate` (messages).
"""

from .agents import ModelAgent, agent, wrap
from .builder import AgentBuilder, PromptGuard
from .checks import Problem, Validator
from .errors import AgentFault, DatabaseFault, ModelFault, ModelRejected, ModelUnavailable, NeedsAsyncio
from .prices import GenaiPriceBook, PriceData
from .recipes import Review, generate_review_validate
from .sqlagent import SQLAgent, SQLAnswer, SQLRefusal, SQLRows

__all__ = [
    "AgentBuilder",
    "AgentFault",
    "DatabaseFault",
    "GenaiPriceBook",
    "ModelAgent",
    "ModelFault",
    "ModelRejected",
    "ModelUnavailable",
    "NeedsAsyncio",
    "PriceData",
    "Problem",
    "PromptGuard",
    "Review",
    "SQLAgent",
    "SQLAnswer",
    "SQLRefusal",
    "SQLRows",
    "Validator",
    "agent",
    "generate_review_validate",
    "wrap",
]
