"""Models and agents for Flujo: any model of pydantic-ai, under the governor, the guards and the records of the run.

`import flujo.agent` does not import pydantic-ai, which takes over a second; the first agent that runs does.

Reading order: `agents` (what users make) -> `spec` (checked) -> `running` (one run of a pydantic-ai agent) ->
`governed` (the seam: each model request and tool call goes through the step's RunContext) -> `translate` (messages).
For programs that a model writes: `codegen` -> `judging` -> `sandbox` and `snippets`; `inside` runs in the sandbox.
"""

from .agents import ModelAgent, agent, wrap
from .builder import AgentBuilder, PromptGuard
from .cassette import Cassette
from .checks import Problem, Validator
from .codegen import CodeGenAgent
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
from .prices import GenaiPriceBook, PriceData
from .programs import CheckedProgram, Program, SourceFile, Verdict
from .recipes import Review, generate_review_validate
from .sandbox import Bubblewrap, Ran, SandboxLimits
from .sqlagent import SQLAgent, SQLAnswer, SQLRefusal, SQLRows

__all__ = [
    "AgentBuilder",
    "AgentFault",
    "Bubblewrap",
    "Cassette",
    "CassetteMismatch",
    "CheckedProgram",
    "CodeGenAgent",
    "CodeRefused",
    "DatabaseFault",
    "GenaiPriceBook",
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
    "Review",
    "SQLAgent",
    "SQLAnswer",
    "SQLRefusal",
    "SQLRows",
    "SandboxLimits",
    "SandboxMissing",
    "SourceFile",
    "Validator",
    "Verdict",
    "agent",
    "generate_review_validate",
    "wrap",
]
