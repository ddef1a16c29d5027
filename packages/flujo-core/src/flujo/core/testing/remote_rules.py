"""The rules for an `ExecutionBackend` that says that it is remote, beside those for all of them."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import cast

from flujo.core import (
    Allow,
    Failure,
    GuardStep,
    OnToolCall,
    PostStepExecution,
    RecordIntent,
    RecordResult,
    RetryPolicy,
    Step,
    StepFailed,
    TaskRejected,
    UsageLimitExceeded,
    UsageLimits,
    WorkerLost,
    hookimpl,
)

from . import remote_steps as steps
from .backend_rules import BackendRule, Trial
from .trial_steps import Place, double, marks
from .verdict import demand


async def runs_elsewhere(trial: Trial) -> None:
    """A step runs in another process."""
    where = await trial.output(steps.process_id, 0)
    demand(where != os.getpid(), "it says that it is remote, and the step ran in this process")


async def resources_by_recipe(trial: Trial) -> None:
    """Resources are opened where the step runs, and closed there when their scope ends."""
    resources = steps.RemoteResources(place=Place(trial.folder))
    output = (await trial.outcome(steps.use_client, 0, resources=resources)).outcome.output
    demand(isinstance(output, list) and output[0] == output[1] != os.getpid(), f"[step, resource] ran in {output!r}")
    left = marks(trial.folder)
    demand(left == ["connected", "disconnected"], f"the resource of a run went {left!r}")


async def declared_context_only(trial: Trial) -> None:
    """Of the context only the fields that the step declares in `reads` are there."""
    context = steps.Known(shown="yes", hidden="no")
    result = await trial.run(steps.read_context, 0, context_model=steps.Known, context=context)
    demand(result.status == "completed", f"a step that reads the context ended with {result.error!r}")
    demand(result.output == ["shown"], f"it declares reads=('shown',), and finds {result.output!r}")


async def attempts_are_known(trial: Trial) -> None:
    """The run, the path, the attempt and the idempotency key are those of the run."""
    result = await trial.run(steps.identify, 0)
    demand(result.status == "completed", f"a step that says who it is ended with {result.error!r}")
    run_id, path, key, number = cast("list[str]", result.unwrap())
    demand((run_id, path, number) == (result.run_id, "identify", "1"), f"it says {(run_id, path, number)!r}")
    keys = {str(task.key) for task in trial.tasks}
    demand(keys in ({key}, set()), f"its key is {key!r}, and the task said {keys!r}")


async def usage_comes_back(trial: Trial) -> None:
    """What a step used is booked as it really was, and what was reserved for it is given back."""
    result = await trial.run(steps.spend, 5, limits=UsageLimits(total_cost_usd_limit=1, total_tokens_limit=100))
    demand(result.status == "completed", f"a step with enough budget ended with {result.error!r}")
    usage = result.usage
    facts = (usage.cost_usd, usage.input_tokens, usage.output_tokens, usage.requests, usage.reserved_usd)
    demand(
        facts == (Decimal("0.05"), 4, 3, 1, Decimal(0)),
        f"it used 0.05 USD and 4 + 3 tokens in 1 request, booked is {facts}",
    )


async def lease_is_a_limit(trial: Trial) -> None:
    """A step cannot use more than was reserved for it; the run is stopped as by any limit."""
    result = await trial.run(steps.spend, 50, limits=UsageLimits(total_cost_usd_limit="0.10"))
    demand(result.status == "stopped", f"a step asked for 0.50 of 0.10 USD, and its run is {result.status}")
    demand(isinstance(result.error, UsageLimitExceeded), f"its error is {result.error!r}")
    demand(result.usage.cost_usd == 0, f"it was refused, and {result.usage.cost_usd} USD are booked")


async def lost_worker_costs_its_lease(trial: Trial) -> None:
    """Where the worker dies, the step fails with WorkerLost, its whole lease counts, and the next step works."""
    lease = UsageLimits(total_cost_usd_limit="0.30", total_tokens_limit=7)
    limits = UsageLimits(total_cost_usd_limit=1, total_tokens_limit=100)
    result = await trial.run(Step(steps.die_always, lease=lease), 0, limits=limits)
    demand(isinstance(result.error, WorkerLost), f"its worker was killed, and its run ended with {result.error!r}")
    usage = (result.usage.cost_usd, result.usage.total_tokens, result.usage.reserved_usd, result.usage.unmeasured)
    demand(usage == (Decimal("0.30"), 7, Decimal(0), 1), f"its lease was 0.30 USD and 7 tokens, booked is {usage}")
    output = await trial.output(double, 21)
    demand(output == 42, "after the death of a worker the next step gets a wrong output")


async def retry_has_the_same_key(trial: Trial) -> None:
    """The engine tries again where a worker was lost, with the same idempotency key."""
    result = await trial.run(Step(steps.die_once, retry=RetryPolicy(max_attempts=2, backoff_s=0)), trial.folder)
    demand(result.status == "completed", f"the second attempt works, and the run ended with {result.error!r}")
    keys = marks(trial.folder)
    demand(len(keys) == 2 and keys[0] == keys[1], f"two attempts had the keys {keys!r}")


async def errors_keep_their_class(trial: Trial) -> None:
    """`RetryPolicy(retry_on=...)` knows the class of what a step raised there, and its bases."""
    for kind, tries in ((ConnectionError, 2), (LookupError, 1)):
        retry = RetryPolicy(max_attempts=2, backoff_s=0, retry_on=(kind,))
        result = await trial.run(Step(steps.lose_connection, retry=retry), "gone")
        made = [record.attempts for record in result.step_history]
        demand(made == [tries], f"it raised ConnectionResetError, retry_on was {kind.__name__}, attempts were {made}")
        demand(isinstance(result.error, StepFailed), f"the run ended with {result.error!r}")


class Unsent:
    """A plugin that acts in steps, and that no worker has."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    @hookimpl
    def guard_step(self, payload: GuardStep) -> Allow:
        """Let it pass."""
        return Allow()


async def policy_holds_there(trial: Trial) -> None:
    """A worker that lacks a plugin that acts in the run refuses (`E_POLICY`): nothing is run, nothing tried again."""
    retried = Step(steps.touch, retry=RetryPolicy(max_attempts=3, backoff_s=0))
    result = await trial.run(retried, trial.folder, plugins=[Unsent(trial.folder)])
    error = result.error
    demand(result.status == "aborted", f"a plugin is missing on the worker, and the run is {result.status}")
    demand(isinstance(error, TaskRejected) and error.hook == "E_POLICY", f"its error is {error!r}")
    demand(not Path(trial.folder, "touched").exists(), "the step was run without a plugin that must act in it")
    demand(len(trial.returned) == 1, f"it was tried {len(trial.returned)} times")


class Recorder:
    """A plugin that records and watches."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @hookimpl
    def record_intent(self, payload: RecordIntent) -> None:
        """Before."""
        self.told.append(f"intent {payload.kind}")

    @hookimpl
    def record_result(self, payload: RecordResult) -> None:
        """After."""
        self.told.append(f"result {payload.kind}")

    @hookimpl
    def on_tool_call(self, payload: OnToolCall) -> None:
        """A tool was called."""
        self.told.append("on_tool_call")

    @hookimpl
    def post_step_execution(self, payload: PostStepExecution) -> None:
        """The step ended."""
        self.told.append("post_step_execution")


async def events_come_back(trial: Trial) -> None:
    """Recorders and observers of the run are told what happened there, once, in order, before the step's end."""
    recorder = Recorder()
    result = await trial.run(steps.look_up, "flow", plugins=[recorder])
    demand(result.status == "completed", f"a step that calls a tool ended with {result.error!r}")
    wanted = ["intent run", "intent step", "intent tool_call", "result tool_call", "on_tool_call"]
    wanted += ["result step", "post_step_execution", "result run"]
    demand(recorder.told == wanted, f"told was {recorder.told!r}")


async def pauses_come_back(trial: Trial) -> None:
    """A step that asks a human pauses its run."""
    result = await trial.run(steps.ask_human, "pay?")
    demand(result.status == "paused", f"a step asked a human, and its run is {result.status}: {result.error!r}")
    demand(result.pauses[0].question == "pay?", f"what is asked is {result.pauses[0].question!r}")
    demand(result.pauses[0].schema == {"type": "boolean"}, f"the answer's schema is {result.pauses[0].schema!r}")


async def secrets_stay(trial: Trial) -> None:
    """Of a secret only its name travels; a worker that does not find it fails the step and says which it is."""
    planted = "planted-Secret-7d1f"
    os.environ[steps.SECRET] = planted
    try:
        resources = steps.RemoteResources(place=Place(trial.folder))
        done = await trial.outcome(steps.length_of_password, 0, resources=resources)
    finally:
        del os.environ[steps.SECRET]
    sent = [task.model_dump_json() for task in trial.tasks]
    demand(not any(planted in text for text in sent), "the value of a secret was sent")
    demand(not sent or any(steps.SECRET in text for text in sent), "the name of a secret was not sent")
    found = done.outcome.output == len(planted)
    missing = isinstance(done.outcome, Failure) and steps.SECRET in str(done.outcome.error)
    demand(found or missing, f"a step that needs a secret ended with {done.outcome!r}")


REMOTE_RULES: tuple[BackendRule, ...] = (
    runs_elsewhere,
    resources_by_recipe,
    declared_context_only,
    attempts_are_known,
    usage_comes_back,
    lease_is_a_limit,
    lost_worker_costs_its_lease,
    retry_has_the_same_key,
    errors_keep_their_class,
    policy_holds_there,
    events_come_back,
    pauses_come_back,
    secrets_stay,
)
