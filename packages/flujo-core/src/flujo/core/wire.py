"""What leaves the process and what comes back: JSON of pydantic models, checked strictly, and nothing pickled.

`version` is that of the form: a worker and an engine of another one refuse each other's tasks and outcomes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic.functional_validators import AfterValidator

from .check import no_json, reason
from .errors import InputError
from .outcome import Effect
from .snapshot import QuestionData
from .usage import Charge, Usage, UsageLimits, money

MAX_BYTES = 64 * 2**20
"""A longer text is no task or outcome of ours, and is not parsed."""


def _is_json(value: Any) -> Any:
    if problem := no_json(value):
        raise ValueError(f"it holds {problem}")
    return value


Json = Annotated[JsonValue, AfterValidator(_is_json)]
Jsons = Annotated[dict[str, JsonValue], AfterValidator(_is_json)]
Money = Annotated[Decimal, AfterValidator(money)]
Whole = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Wire(BaseModel):
    """Base of all that is sent. Its repr shows no value: inputs and outputs may be private."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, strict=True, extra="forbid", hide_input_in_errors=True, defer_build=True
    )

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Which one it is, no more."""
        return [(name, value) for name, value in super().__repr_args__() if name in _SHOWN]

    @classmethod
    def read(cls, data: str | bytes) -> Self:
        """Read one from JSON.

        Raises:
            InputError: It is none, is damaged, or is far too long; no value of it stands in the text.
        """
        what = f"{cls.__name__} cannot be used"
        if len(data) > MAX_BYTES:
            raise InputError(what, f"it has {len(data)} bytes, more than the {MAX_BYTES} that are read")
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise InputError(what, reason(error)) from None


_SHOWN = {"name", "path", "attempt", "status", "hook", "version", "ref", "kind", "engine"}


# --- the task ---------------------------------------------------------------------------------------------------------


class CodeRef(Wire):
    """Code by its import path: `package.module:qualname` of a function, a Step or an agent."""

    kind: Literal["ref"] = "ref"
    ref: str


class CodeBlob(Wire):
    """Code that was packed by a backend; core never reads it: `Worker(unpack=...)` does.

    Attributes:
        packer: Who packed it and how, e.g. `cloudpickle`.
        python: Major and minor version of the Python that packed it.
        sha256: Digest of the bytes.
        size: How many bytes they are.
        data: The bytes in base64; empty where they are kept at `where`.
        where: Where they are kept, in the words of the backend.
    """

    kind: Literal["blob"] = "blob"
    packer: str
    python: str
    sha256: str
    size: Whole
    data: str = ""
    where: str = ""


class StreamRef(Wire):
    """Code of a streaming step: import paths of its async generators, or of streaming steps, first to last."""

    kind: Literal["stream"] = "stream"
    refs: tuple[str, ...]


Code = CodeRef | CodeBlob | StreamRef


class RunData(Wire):
    """Which run it belongs to; see `RunInfo`."""

    run_id: str
    pipeline: str
    fingerprint: str
    actor: str | None = None
    tenant: str | None = None
    tags: dict[str, str] = {}


class ContextData(Wire):
    """The declared fields of the context, and only these. `model` is its class's import path."""

    model: str
    fields: Jsons = {}


class RecipeData(Wire):
    """How the worker opens the step's resources.

    Attributes:
        ref: Import path of the Resources class, which is made there without live objects.
        values: Plain values that were given instead of a recipe, by field.
        secrets: Names by which the worker finds secrets, by field; never their values.
    """

    ref: str
    values: Jsons = {}
    secrets: dict[str, str] = {}


class LeaseData(Wire):
    """What the attempt may use at most; None is unlimited."""

    cost_usd: Money | None = None
    tokens: Whole | None = None
    requests: Whole | None = None
    on_unknown_price: Literal["refuse", "warn"] = "refuse"

    @property
    def limits(self) -> UsageLimits:
        """The same as limits."""
        return UsageLimits(self.cost_usd, self.tokens, self.requests, on_unknown_price=self.on_unknown_price)


class PluginRef(Wire):
    """A plugin that acts in the run.

    Attributes:
        name: Its distribution, or the name of its class where none brings it.
        version: Version of the distribution; empty where none brings it.
        acts: Hooks of it that act on a worker; one without any is only to be there.
        settings: What it was made with, where it was named; None of an object: the worker must have been given one.
    """

    name: str
    version: str = ""
    acts: tuple[str, ...] = ()
    settings: Jsons | None = None


class OptionsData(Wire):
    """How the step is run there; see `StepOptions`."""

    timeout_s: Annotated[float, Field(gt=0)] | None = None
    effect: Effect = "idempotent"
    inline: bool = False
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


class StepTask(Wire):
    """One attempt of a step as it leaves the process.

    Attributes:
        code: What is run.
        name: Name of the step.
        path: Where it stands in the pipeline.
        attempt: Number of the attempt, from 1.
        key: Idempotency key: the same for all attempts.
        mark: Ends the ids of its records, so that they are unique in the run.
        run: Which run.
        options: How it is run.
        inputs: Its inputs by parameter name.
        context: The declared context fields; None where it takes no context.
        resources: How its resources, and those of the plugins, are opened.
        lease: What it may use.
        deadline: When the run must end, in seconds since the epoch, beside the step's own `options.timeout_s`; None is
            never.
        feedback: What validators said to the attempt before.
        told: What humans and tools told it before, by a digest of what was asked.
        trace: W3C trace context.
        policy: The policy of the run, as JSON.
        policy_digest: SHA-256 of it.
        plugins: The plugins that act in the run.
        tells: Hooks of recorders and observers there that want to be told what happens here.
    """

    format: Literal["flujo-task"] = "flujo-task"
    version: Literal[1] = 1
    code: Code = Field(discriminator="kind")
    name: str
    path: str
    attempt: Annotated[int, Field(ge=1)]
    key: str
    mark: str = ""
    run: RunData
    options: OptionsData
    inputs: Jsons
    context: ContextData | None = None
    resources: RecipeData | None = None
    lease: LeaseData = LeaseData()
    deadline: float | None = None
    feedback: tuple[str, ...] = ()
    told: tuple[tuple[str, Json], ...] = ()
    trace: dict[str, str] = {}
    policy: Jsons = {}
    policy_digest: str = ""
    plugins: tuple[PluginRef, ...] = ()
    tells: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The same for each delivery of this attempt, and for no other attempt."""
        return task_id(self.run.run_id, self.path, self.attempt, self.mark)

    @property
    def is_stream(self) -> bool:
        """Whether chunks come before its outcome: `Worker.execute` must be told where they go."""
        return isinstance(self.code, StreamRef)


def task_id(run_id: str, path: str, attempt: int, mark: str) -> str:
    """The id of a task; see `StepTask.id`."""
    return hashlib.sha256(f"{run_id}\0{path}\0{attempt}\0{mark}".encode()).hexdigest()


# --- what comes back --------------------------------------------------------------------------------------------------


class ChunkData(Wire):
    """One chunk of a streaming step, as a worker gives it.

    Attributes:
        task_id: Id of the task.
        number: How many came before it.
        value: The chunk.
    """

    task_id: str
    number: Whole
    value: Json


class UsageData(Wire):
    """What the attempt used; see `Usage`."""

    input_tokens: Whole = 0
    output_tokens: Whole = 0
    requests: Whole = 0
    cost_usd: Money = Decimal(0)
    unmeasured: Whole = 0
    unpriced: Whole = 0
    overshoot_usd: Money = Decimal(0)

    @classmethod
    def of(cls, usage: Usage) -> UsageData:
        """Write a tally."""
        return cls(**{name: getattr(usage, name) for name in cls.model_fields})

    def usage(self) -> Usage:
        """Read it."""
        return Usage(**{name: getattr(self, name) for name in type(self).model_fields})


class ErrorData(Wire):
    """Why it failed, in texts.

    Attributes:
        kind: Name of the error of Flujo.
        facts: Its plain facts; see `FlujoError.as_data`.
        classes: Import paths of the original exception's classes, so that `RetryPolicy.retry_on` knows it.
        retry_after_s: When it says that it may be tried again.
    """

    kind: str
    facts: dict[str, str | int | float | bool]
    classes: tuple[str, ...] = ()
    retry_after_s: Seconds | None = None


class EventData(Wire):
    """What a recorder or an observer is to be told; `facts` are those of the payload of `hook`, without its run."""

    hook: str
    facts: Jsons


class WorkerFacts(Wire):
    """Who did it.

    Attributes:
        engine: `ray`, `lambda`, ...
        worker: Which of its workers, e.g. host and process.
        request_id: The engine's own name of the request.
        python: Version of Python there.
        is_cold: Whether the worker was started for it.
        duration_s: How long the attempt took there.
        billed_s: What the engine bills, in seconds.
        memory_mb: Most memory it used, in MiB.
    """

    engine: str
    worker: str = ""
    request_id: str = ""
    python: str = ""
    is_cold: bool = False
    duration_s: Seconds = 0.0
    billed_s: Seconds | None = None
    memory_mb: Seconds | None = None


class OutcomeData(Wire):
    """How an attempt ended, as a worker says it.

    Attributes:
        task_id: Id of the task.
        status: Success, failure, paused, or aborted: a guard denied, or the worker refused the task.
        output: What it gave, of a success; of a streaming step, how many chunks.
        error: Why it did not, of a failure and an abort.
        question: What a human is asked, of a pause.
        changes: Context fields it wants to write.
        usage: What it used; None: nobody knows, and its whole lease counts.
        events: What recorders and observers are to be told, in order.
        told: What tools told it.
        counts: What plugins counted.
        worker: Who did it.
    """

    format: Literal["flujo-outcome"] = "flujo-outcome"
    version: Literal[1] = 1
    task_id: str
    status: Literal["success", "failure", "paused", "aborted"]
    output: Json = None
    error: ErrorData | None = None
    question: QuestionData | None = None
    changes: Jsons | None = None
    usage: UsageData | None = None
    events: tuple[EventData, ...] = ()
    told: tuple[tuple[str, Json], ...] = ()
    counts: dict[str, dict[str, Whole]] = {}
    worker: WorkerFacts | None = None


def lease_of(charge: Charge, limits: UsageLimits | None) -> LeaseData:
    """What was reserved for an attempt, as it travels: of what is not limited here, nothing is limited there."""
    if limits is None:
        return LeaseData()
    held: Mapping[str, Any] = {
        "cost_usd": None if limits.cost is None else charge.cost_usd,
        "tokens": None if limits.total_tokens_limit is None else charge.tokens,
        "requests": None if limits.requests_limit is None else charge.requests,
    }
    return LeaseData(**held, on_unknown_price=limits.on_unknown_price)
