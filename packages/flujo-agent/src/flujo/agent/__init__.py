"""Models and agents for Flujo: any model of pydantic-ai, under the governor, the guards and the records of the run.

`import flujo.agent` does not import pydantic-ai, which takes over a second; the first agent that runs does.

Reading order: `agents` (what users make) -> `spec` (checked) -> `running` (one run of a pydantic-ai agent) ->
`governed` (the seam: each model request and tool call goes through the step's RunContext) -> `translate` (messages).
Recipes: `roles` and `parts` -> `solving`, `looping`, `conversing`, `recipes` -> `offered` -> `solvecli`, `chatcli`.
For programs that a model writes: `codegen` -> `judging` -> `sandbox` and `snippets`; `inside` runs in the sandbox.
"""

from .agents import ModelAgent, agent, wrap
from .builder import AgentBuilder, PromptGuard
from .cassette import Cassette
from .checks import Problem, Validator
from .codegen import CodeGenAgent
from .conversing import Conversation
from .errors import (
    AgentFault,
    CassetteMismatch,
    CodeRefused,
    DatabaseFault,
    ModelFault,
    ModelRejected,
    ModelUnavailable,
    NeedsAsyncio,
    SandboxMissing,
)
from .looping import AgenticLoop, AskHumanCommand, Decision, ExecutedCommand, FinishCommand, RunAgentCommand
from .offered import Recipe
from .prices import GenaiPriceBook, PriceData
from .programs import CheckedProgram, Program, SourceFile, Verdict
from .prompts import Dialogue, ToolApproval, Turn
from .recipes import Review, generate_review_validate
from .roles import (
    Checklist,
    Criterion,
    CriterionResult,
    Draft,
    Judged,
    Reflection,
    ReflectionAgent,
    ReviewAgent,
    Validation,
    ValidatorAgent,
)
from .sandbox import Bubblewrap, Ran, SandboxLimits
from .solving import Default, Solution
from .sqlagent import SQLAgent, SQLAnswer, SQLRefusal, SQLRows

__all__ = [
    "AgentBuilder",
    "AgentFault",
    "AgenticLoop",
    "AskHumanCommand",
    "Bubblewrap",
    "Cassette",
    "CassetteMismatch",
    "CheckedProgram",
    "Checklist",
    "CodeGenAgent",
    "CodeRefused",
    "Conversation",
    "Criterion",
    "CriterionResult",
    "DatabaseFault",
    "Decision",
    "Default",
    "Dialogue",
    "Draft",
    "ExecutedCommand",
    "FinishCommand",
    "GenaiPriceBook",
    "Judged",
    "ModelAgent",
    "ModelFault",
    "ModelRejected",
    "ModelUnavailable",
    "NeedsAsyncio",
    "PriceData",
    "Problem",
    "Program",
    "PromptGuard",
    "Ran",
    "Recipe",
    "Reflection",
    "ReflectionAgent",
    "Review",
    "ReviewAgent",
    "RunAgentCommand",
    "SQLAgent",
    "SQLAnswer",
    "SQLRefusal",
    "SQLRows",
    "SandboxLimits",
    "SandboxMissing",
    "Solution",
    "SourceFile",
    "ToolApproval",
    "Turn",
    "Validation",
    "Validator",
    "ValidatorAgent",
    "Verdict",
    "agent",
    "generate_review_validate",
    "wrap",
]
