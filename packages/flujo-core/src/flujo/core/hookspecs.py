"""The hooks of Flujo: what a plugin may implement. Read this file and `payloads.py` to write one.

A plugin implements any of these with `@hookimpl` from `flujo.core`:

    from flujo.core import Allow, Deny, GuardStep, hookimpl

    @hookimpl
    def guard_step(payload: GuardStep) -> Allow | Deny:
        return Deny("no step at night") if at_night() else Allow()

An implementation may be sync or async, takes the one `payload`, and may name further parameters annotated with a
resource type; it receives them like a step does. A module-level `register_*` function is called for every allowed
plugin; all other hooks act only for plugins that were named (`plugins=`, the policy, `--plugin`, `[tool.flujo] use`).

A packaged plugin is a module named by an entry point of the group `flujo`. Its class `Plugin`, when it has one, is
called with the plugin's settings and the object acts; otherwise the module itself does. `flujo_api = "1.0"` on the
module says for which plugin API it was written.

Order in one attempt of a step:

    transform_step_input -> guard_step -> record_intent -> pre_step_execution -> the step
    -> transform_step_output -> record_result -> post_step_execution | on_step_failure

and inside it, for each model call (a tool call is the same without transforms and reservation):

    transform_model_request -> guard_model_call -> record_intent -> reserve -> the call -> settle
    -> transform_model_response -> record_result -> on_model_call
"""

# Specifications have no bodies: pluggy reads their signatures and never calls them.
# mypy: disable-error-code="empty-body"
# pyright: reportReturnType=false

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from . import payloads
from .execution import BackendFactory
from .payloads import Allow, Deny
from .protocols import Command, PriceBook, StoreFactory

hookspec: pluggy.HookspecMarker = pluggy.HookspecMarker("flujo")

# --- guard: all of them run; a raise, a hang or any other answer than Allow() and Deny(...) is a denial ---------------


@hookspec
def guard_run(payload: payloads.GuardRun) -> Allow | Deny:
    """Let a run start, or not. First hook of a run."""


@hookspec
def guard_step(payload: payloads.GuardStep) -> Allow | Deny:
    """Let an attempt of a step start, or not. Sees the inputs as the transforms left them."""


@hookspec
def guard_model_call(payload: payloads.GuardModelCall) -> Allow | Deny:
    """Let a model call happen, or not. Sees the request as the transforms left it; called before each retry too."""


@hookspec
def guard_tool_call(payload: payloads.GuardToolCall) -> Allow | Deny:
    """Let a tool call happen, or not. `Deny(reason, to_model=True)` answers the model instead of ending the run."""


@hookspec
def guard_mutation(payload: payloads.GuardMutation) -> Allow | Deny:
    """Let a step change what comes after it in the pipeline of its run, or not: experimental."""


# --- transform: in plugin order, each gets what the one before returned; a fault fails the step -----------------------


@hookspec
def transform_step_input(payload: payloads.TransformStepInput) -> object:
    """Return a new value for one input of a step, or UNCHANGED. The result is checked against the parameter's type."""


@hookspec
def transform_step_output(payload: payloads.TransformStepOutput) -> object:
    """Return a new output of a step, or UNCHANGED. The result is checked against the step's output type."""


@hookspec
def transform_model_request(payload: payloads.TransformModelRequest) -> object:
    """Return a new ModelRequest, or UNCHANGED. Sees what is left of the budget, so it may choose a cheaper model."""


@hookspec
def transform_model_response(payload: payloads.TransformModelResponse) -> object:
    """Return a new ModelResponse, or UNCHANGED.

    Of a model that is streamed it sees the whole answer at its end. A plugin that has this and no `transform_chunk`
    makes the answer come in one piece, so that nothing passes unseen.
    """


@hookspec
def transform_chunk(payload: payloads.TransformChunk) -> object:
    """Return a new piece of a stream, or UNCHANGED; "" holds a text back, which is asked for again with `is_last`."""


# --- record: before the effect and after it; a fault of a required plugin denies the work or ends the run -------------


@hookspec
def record_intent(payload: payloads.RecordIntent) -> None:
    """Write down that a run, step, model call or tool call is about to happen; return when that is durable."""


@hookspec
def record_result(payload: payloads.RecordResult) -> None:
    """Write down how it ended; called exactly once for each intent, also on failure and cancel."""


# --- observe: a fault is logged and counted, the run is unchanged; AbortPipeline(reason) ends it, as in all hooks -----


@hookspec
def on_run_start(payload: payloads.OnRunStart) -> None:
    """A run was let through and starts."""


@hookspec
def pre_step_execution(payload: payloads.PreStepExecution) -> None:
    """An attempt of a step starts. AbortPipeline here means it does not run."""


@hookspec
def post_step_execution(payload: payloads.PostStepExecution) -> None:
    """A step completed."""


@hookspec
def on_step_failure(payload: payloads.OnStepFailure) -> None:
    """A step failed after its last attempt."""


@hookspec
def on_retry(payload: payloads.OnRetry) -> None:
    """An attempt failed and will be made again."""


@hookspec
def on_model_call(payload: payloads.OnModelCall) -> None:
    """A model was called."""


@hookspec
def on_tool_call(payload: payloads.OnToolCall) -> None:
    """A tool was called."""


@hookspec
def on_guard_denied(payload: payloads.OnGuardDenied) -> None:
    """A guard or a required recorder denied."""


@hookspec
def on_usage_warning(payload: payloads.OnUsageWarning) -> None:
    """The share `warn_at` of a limit is used."""


@hookspec
def on_governor_breach(payload: payloads.OnGovernorBreach) -> None:
    """A limit refused work; the run stops."""


@hookspec
def on_cache_hit(payload: payloads.OnCacheHit) -> None:
    """A step was not run, for its output was kept from before; its guards and transforms ran."""


@hookspec
def on_run_pause(payload: payloads.OnRunPause) -> None:
    """A run waits for a human; `on_run_end` follows, and `on_run_resume` when it goes on."""


@hookspec
def on_mutation(payload: payloads.OnMutation) -> None:
    """A step changed what comes after it in the pipeline of its run; `post_step_execution` follows: experimental."""


@hookspec
def on_run_resume(payload: payloads.OnRunResume) -> None:
    """A run goes on from where it stood, instead of `on_run_start`."""


@hookspec
def on_human_decision(payload: payloads.OnHumanDecision) -> None:
    """A human decided; the run is about to go on."""


@hookspec
def on_run_end(payload: payloads.OnRunEnd) -> None:
    """A run ended, in whatever way. Last hook of a run: AbortPipeline makes a completed one `aborted`, no other."""


# --- register: called once for every allowed plugin when a registry is first needed -----------------------------------


@hookspec
def register_commands() -> Sequence[Command]:
    """Sub-commands for the `flujo` command line, as plain data; nothing is imported until one is called."""


@hookspec
def register_stores() -> Sequence[StoreFactory]:
    """Kinds of stores, by the scheme of their URLs: `Flujo(..., store="sqlite:///runs.db")`."""


@hookspec
def register_backends() -> Sequence[BackendFactory]:
    """Backends by name: `step(backend="ray")`, `Flujo(..., backend="ray")`, `flujo run --backend ray`."""


@hookspec
def register_price_books() -> Sequence[PriceBook]:
    """Price books; the first that knows a model's price gives it."""


@hookspec
def register_recipes() -> Sequence[object]:
    """Ready-made pipelines by name, for `flujo solve --recipe NAME`: each a `flujo.agent.Recipe`."""
