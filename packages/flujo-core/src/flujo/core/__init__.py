"""Flujo's engine: run pipelines of AI agents you can answer for.

Reading order, from a description to an outcome: `pipeline` (what to do) -> `compile` (checked into a `plan`) ->
`engine` (a plan ready to run) -> `run` (asks `schedule` what is due) -> `attempt` (one step) -> `backends`.
Plugin authors read `hookspecs`, `payloads` and `protocols`.
"""

import sys as _sys

# The old regular package `flujo` (0.x) hides this namespace; where both share a folder, say so.
if getattr(_sys.modules.get("flujo"), "__file__", None) is not None:
    raise ImportError(
        "flujo.core cannot be used: the old package 'flujo' (0.x) is installed beside it. "
        "Upgrade or remove it: pip install -U 'flujo>=1', or pip uninstall flujo"
    )

from .assignable import type_name
from .backends import LocalBackend
from .compile import compile_plan
from .context import RunContext, RunInfo, SendModel, SendTool, Update
from .engine import Flujo, RunOptions
from .errors import (
    ConfigurationError,
    FlujoError,
    GuardDenied,
    InputError,
    LoopRunning,
    NotSent,
    PipelineError,
    PluginError,
    ResourceError,
    RunAborted,
    RunExists,
    StepFailed,
    StepTimeout,
    UsageLimitExceeded,
)
from .graph import mermaid
from .handle import RunHandle
from .hookimpl import hookimpl
from .ledger import Budget, Ledger, Room
from .loader import PLUGIN_API_VERSION, Installed
from .messages import Message, ModelRequest, ModelResponse, ModelUsage, ToolCall, ToolDefinition, ToolResult
from .meter import Lease, Meter, Reservation
from .outcome import Aborted, Failure, Outcome, Success
from .payloads import (
    UNCHANGED,
    AbortPipeline,
    Allow,
    Deny,
    Event,
    GuardModelCall,
    GuardRun,
    GuardStep,
    GuardToolCall,
    OnGovernorBreach,
    OnGuardDenied,
    OnModelCall,
    OnRetry,
    OnRunEnd,
    OnRunStart,
    OnStepFailure,
    OnToolCall,
    OnUsageWarning,
    PostStepExecution,
    PreStepExecution,
    RecordIntent,
    RecordResult,
    TransformModelRequest,
    TransformModelResponse,
    TransformStepInput,
    TransformStepOutput,
)
from .pipeline import Pipeline, PipelineLike
from .plan import RUN_INPUT, Plan, PlanNode, Source
from .plugins import Hooks, Implementation, tier_of
from .policy import Policy
from .protocols import Agent, Command, ExecutionBackend, PriceBook, StepExecutionRequest, StepOutcome
from .registry import Plugins
from .resources import Resource, Resources
from .result import PipelineResult, StepRecord
from .retry import RetryPolicy
from .scrub import scrub
from .step import Chain, Ref, Step, run_input, step
from .usage import Charge, Price, Usage, UsageLimits

__all__ = [  # noqa: RUF022 - grouped by what a reader looks for
    # define
    "Pipeline",
    "PipelineLike",
    "Chain",
    "Ref",
    "Step",
    "run_input",
    "step",
    "compile_plan",
    "RUN_INPUT",
    "Plan",
    "PlanNode",
    "Source",
    "mermaid",
    "type_name",
    "RunContext",
    "RunInfo",
    "SendModel",
    "SendTool",
    "Update",
    "RetryPolicy",
    "Resource",
    "Resources",
    "Aborted",
    "Failure",
    "Outcome",
    "Success",
    # run
    "Flujo",
    "RunOptions",
    "RunHandle",
    "PipelineResult",
    "StepRecord",
    "Charge",
    "Price",
    "Usage",
    "UsageLimits",
    "Budget",
    "Ledger",
    "Room",
    "Lease",
    "Meter",
    "Reservation",
    "Policy",
    # models and tools
    "Message",
    "ModelRequest",
    "ModelResponse",
    "ModelUsage",
    "ToolCall",
    "ToolDefinition",
    "ToolResult",
    # extend
    "hookimpl",
    "UNCHANGED",
    "AbortPipeline",
    "Allow",
    "Deny",
    "Event",
    "GuardModelCall",
    "GuardRun",
    "GuardStep",
    "GuardToolCall",
    "OnGovernorBreach",
    "OnGuardDenied",
    "OnModelCall",
    "OnRetry",
    "OnRunEnd",
    "OnRunStart",
    "OnStepFailure",
    "OnToolCall",
    "OnUsageWarning",
    "PostStepExecution",
    "PreStepExecution",
    "RecordIntent",
    "RecordResult",
    "TransformModelRequest",
    "TransformModelResponse",
    "TransformStepInput",
    "TransformStepOutput",
    "Agent",
    "Command",
    "ExecutionBackend",
    "PriceBook",
    "StepExecutionRequest",
    "StepOutcome",
    "Hooks",
    "Implementation",
    "tier_of",
    "Plugins",
    "PLUGIN_API_VERSION",
    "Installed",
    "LocalBackend",
    "scrub",
    # errors
    "ConfigurationError",
    "FlujoError",
    "GuardDenied",
    "InputError",
    "LoopRunning",
    "NotSent",
    "PipelineError",
    "PluginError",
    "ResourceError",
    "RunAborted",
    "RunExists",
    "StepFailed",
    "StepTimeout",
    "UsageLimitExceeded",
]
