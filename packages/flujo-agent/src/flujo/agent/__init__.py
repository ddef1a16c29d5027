"""Models and agents for Flujo: any model of pydantic-ai, under the governor, the guards and the records of the run.

`import flujo.agent` does not import pydantic-ai, which takes over a second; the first agent that runs does.

Reading order: `agents` (what users make) -> `spec` (checked) -> `running` (one run of a pydantic-ai agent) ->
`governed` (the seam: each model request and tool call goes through the step's RunContext) -> `translate` (messages).
"""

from .agents import ModelAgent, agent, wrap
from .builder import AgentBuilder, PromptGuard
from .cassette import Cassette
from .checks import Problem, Validator
from .errors import AgentFault, CassetteMismatch, ModelFault, ModelRejected, ModelUnavailable, NeedsAsyncio
from .prices import GenaiPriceBook, PriceData
from .recipes import Review, generate_review_validate

__all__ = [
    "AgentBuilder",
    "AgentFault",
    "Cassette",
    "CassetteMismatch",
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
    "Validator",
    "agent",
    "generate_review_validate",
    "wrap",
]
