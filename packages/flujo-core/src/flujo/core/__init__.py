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

# define
# run
# extend
# errors
from .assignable import type_name as type_name
from .backends import LocalBackend as LocalBackend
from .compile import compile_plan as compile_plan
from .context import RunContext as RunContext
from .context import RunInfo as RunInfo
from .context import SendModel as SendModel
from .context import SendTool as SendTool
from .context import Update as Update
from .engine import Flujo as Flujo
from .engine import RunOptions as RunOptions
from .errors import (
    ConfigurationError as ConfigurationError,
)
from .errors import (
    FlujoError as FlujoError,
)
from .errors import (
    GuardDenied as GuardDenied,
)
from .errors import (
    InputError as InputError,
)
from .errors import (
    LoopRunning as LoopRunning,
)
from .errors import (
    NotSent as NotSent,
)
from .errors import (
    PipelineError as PipelineError,
)
from .errors import (
    PluginError as PluginError,
)
from .errors import (
    ResourceError as ResourceError,
)
from .errors import (
    RunAborted as RunAborted,
)
from .errors import (
    RunExists as RunExists,
)
from .errors import (
    StepFailed as StepFailed,
)
from .errors import (
    StepTimeout as StepTimeout,
)
from .errors import (
    UsageLimitExceeded as UsageLimitExceeded,
)
from .graph import mermaid as mermaid
from .handle import RunHandle as RunHandle
from .hookimpl import hookimpl as hookimpl
from .ledger import Budget as Budget
from .ledger import Ledger as Ledger
from .ledger import Room as Room
from .loader import PLUGIN_API_VERSION as PLUGIN_API_VERSION
from .loader import Installed as Installed
from .messages import Message as Message
from .messages import ModelRequest as ModelRequest
from .messages import ModelResponse as ModelResponse
from .messages import ModelUsage as ModelUsage
from .messages import ToolCall as ToolCall
from .messages import ToolDefinition as ToolDefinition
from .messages import ToolResult as ToolResult
from .meter import Lease as Lease
from .meter import Meter as Meter
from .outcome import Aborted as Aborted
from .outcome import Failure as Failure
from .outcome import Outcome as Outcome
from .outcome import Success as Success
from .payloads import (
    UNCHANGED as UNCHANGED,
)
from .payloads import (
    AbortPipeline as AbortPipeline,
)
from .payloads import (
    Allow as Allow,
)
from .payloads import (
    Deny as Deny,
)
from .payloads import (
    Event as Event,
)
from .payloads import (
    GuardModelCall as GuardModelCall,
)
from .payloads import (
    GuardRun as GuardRun,
)
from .payloads import (
    GuardStep as GuardStep,
)
from .payloads import (
    GuardToolCall as GuardToolCall,
)
from .payloads import (
    OnGovernorBreach as OnGovernorBreach,
)
from .payloads import (
    OnGuardDenied as OnGuardDenied,
)
from .payloads import (
    OnModelCall as OnModelCall,
)
from .payloads import (
    OnRetry as OnRetry,
)
from .payloads import (
    OnRunEnd as OnRunEnd,
)
from .payloads import (
    OnRunStart as OnRunStart,
)
from .payloads import (
    OnStepFailure as OnStepFailure,
)
from .payloads import (
    OnToolCall as OnToolCall,
)
from .payloads import (
    OnUsageWarning as OnUsageWarning,
)
from .payloads import (
    PostStepExecution as PostStepExecution,
)
from .payloads import (
    PreStepExecution as PreStepExecution,
)
from .payloads import (
    RecordIntent as RecordIntent,
)
from .payloads import (
    RecordResult as RecordResult,
)
from .payloads import (
    TransformModelRequest as TransformModelRequest,
)
from .payloads import (
    TransformModelResponse as TransformModelResponse,
)
from .payloads import (
    TransformStepInput as TransformStepInput,
)
from .payloads import (
    TransformStepOutput as TransformStepOutput,
)
from .pipeline import Pipeline as Pipeline
from .plan import Plan as Plan
from .plan import PlanNode as PlanNode
from .plugins import Hooks as Hooks
from .plugins import Implementation as Implementation
from .plugins import tier_of as tier_of
from .policy import Policy as Policy
from .protocols import Agent as Agent
from .protocols import Command as Command
from .protocols import ExecutionBackend as ExecutionBackend
from .protocols import PriceBook as PriceBook
from .protocols import StepExecutionRequest as StepExecutionRequest
from .protocols import StepOutcome as StepOutcome
from .registry import Plugins as Plugins
from .resources import Resource as Resource
from .resources import Resources as Resources
from .result import PipelineResult as PipelineResult
from .result import StepRecord as StepRecord
from .retry import RetryPolicy as RetryPolicy
from .scrub import scrub as scrub
from .step import Step as Step
from .step import run_input as run_input
from .step import step as step
from .usage import Price as Price
from .usage import Usage as Usage
from .usage import UsageLimits as UsageLimits
