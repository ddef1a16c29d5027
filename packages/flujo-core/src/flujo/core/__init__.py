"""Flujo's engine: run pipelines of AI agents you can answer for.

Reading order, from a description to an outcome: `pipeline` (what to do) -> `compile` (checked into a `plan`) ->
`engine` (a plan ready to run) -> `run` (asks `schedule` what is due) -> `attempt` (one step) -> `backends`.
Plugin authors read `hookspecs`, `payloads` and `protocols`.

Public names are loaded when they are first used: `import flujo.core`, and a plugin that only registers a command, cost
next to nothing. `__init__.pyi` lists the same names for type checkers; a test keeps the two equal.
"""

import sys
from importlib import import_module

# The old regular package `flujo` (0.x) hides this namespace; where both share a folder, say so.
if getattr(sys.modules.get("flujo"), "__file__", None) is not None:
    raise ImportError(
        "flujo.core cannot be used: the old package 'flujo' (0.x) is installed beside it. "
        "Upgrade or remove it: pip install -U 'flujo>=1', or pip uninstall flujo"
    )

_NAMES_OF_MODULE = {
    # define
    "pipeline": "Pipeline PipelineLike",
    "flow": "Branch Fallback Flow Loop Map Parallel",
    "steps": "Chain Node Ref Step run_input step",
    "compile": "compile_plan",
    "plan": "BODY_INPUT RUN_INPUT FlowNode Plan PlanNode Scope Source StepNode",
    "assignable": "type_name",
    "context": "RunContext RunInfo SendModel SendTool Update",
    "mutation": "PipelineChange PipelineMutation PutIn",
    "retry": "RetryPolicy",
    "resources": "Resource Resources",
    "outcome": "Aborted Effect Failure Outcome Paused Skipped Success",
    "pause": "Pause PauseForHumanInput Reconciled",
    "resume": "decision_digest",
    "snapshot": "Checkpoint EntryData Snapshot",
    "kept": "Hold KeptRun Receipt TokenFacts moved_on refusal",
    "replay": "Divergence Replay",
    "store": "MemoryStore",
    # run
    "engine": "Flujo",
    "options": "ResumeOptions RunOptions",
    "handle": "RunHandle",
    "reading": "SendStream StreamingAgent",
    "streams": "RunStream StreamOpening",
    "items": "Chunk ModelChunk PausedItem ResultItem StepEnded StepStarted StreamItem UsageUpdate",
    "streamstep": "Stage StreamStep",
    "modelstream": "ModelStream",
    "result": "PipelineResult StepRecord",
    "usage": "Charge Price Room Usage UsageLimits",
    "budgets": "Budget",
    "grants": "Governor",
    "ledger": "Ledger",
    "meter": "Lease Meter Reservation",
    "policy": "NamedLimit Policy",
    "prices": "PriceTable",
    # models and tools
    "messages": "Message ModelRequest ModelResponse ModelUsage ToolCall ToolDefinition ToolResult",
    # extend
    "marks": "hookimpl",
    "migrations": "Migration accepted_fingerprints migrate migrated",
    "payloads": "UNCHANGED AbortPipeline Allow Deny Event GuardModelCall GuardMutation GuardRun GuardStep "
    "GuardToolCall OnCacheHit OnGovernorBreach OnGuardDenied OnHumanDecision OnModelCall OnMutation OnRetry OnRunEnd "
    "OnRunPause OnRunResume OnRunStart OnStepFailure OnToolCall OnUsageWarning PostStepExecution PreStepExecution "
    "RecordIntent RecordResult StepEndEvent StepEvent TransformChunk TransformModelRequest "
    "TransformModelResponse TransformStepInput TransformStepOutput",
    "protocols": "Agent Command CommandHost PayloadCodec PriceBook RunStore Signer StoreFactory TokenSigner Verifier",
    "execution": "BackendFactory Capabilities ExecutionBackend RunningThread StepExecutionRequest StepOutcome "
    "capabilities_of",
    "wire": "ChunkData CodeBlob CodeRef ErrorData OutcomeData StepTask StreamRef UsageData WorkerFacts",
    "leaving": "GiveChunk",
    "recipes": "Secret",
    "worker": "Worker",
    "hooks": "Hooks Implementation tier_of",
    "registry": "Plugins",
    "loader": "PLUGIN_API_VERSION Installed",
    "backends": "LocalBackend",
    "logs": "SecretsFilter",
    "wakeup": "spawn",
    "foreign": "attempt_async",
    "schemas": "unfit",
    "scrubbing": "scrub",
    # errors
    "errors": "AlreadyResumed AmbiguousPause ConfigurationError FlujoError GuardDenied HoldLost InputError LoopLimit "
    "LoopRunning NotSent PipelineError PluginError ResourceError ResumeConflict ResumeError RunAborted RunExists "
    "RunPaused SnapshotError StepFailed StepTimeout StillRunning TaskRejected UsageLimitExceeded WorkerLost",
}
_MODULE_OF_NAME = {name: module for module, names in _NAMES_OF_MODULE.items() for name in names.split()}

__all__ = list(_MODULE_OF_NAME)


def __getattr__(name: str) -> object:
    """Load a public name (PEP 562) and keep it, so that this is called once for each."""
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULE_OF_NAME[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
