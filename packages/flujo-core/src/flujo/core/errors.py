"""Every error Flujo raises.

FlujoError                  what happened, why, and what to do next
├── PipelineError           a pipeline that cannot work; found when it is compiled (also a ValueError)
├── ConfigurationError      a value given to Flujo cannot be used (also a ValueError)
├── InputError              the run input does not fit the pipeline (also a ValueError)
├── ResourceError           a resource is missing, or failed to open or close
├── PluginError             a plugin is missing, blocked, or failed to load
├── LoopRunning             a sync call inside a running event loop (also a RuntimeError)
├── RunExists               a run with this id is already known
├── StepFailed              a step ended with a failure; `__cause__` is the original exception
│   ├── StepTimeout         ... because its time was up (also a TimeoutError, so an OSError)
│   ├── WorkerLost          ... because its worker went away or did not answer; nobody knows how it ended
│   └── LoopLimit           ... because a loop was not good in time; `partial` is its last output
├── RunPaused               the output of a run was read that waits for a human
├── SnapshotError           a snapshot cannot be used (also a ValueError)
├── ResumeError             a run cannot be resumed like this
│   ├── AmbiguousPause      several questions are open and none was named
│   ├── AlreadyResumed      the question was answered before, in the same way
│   ├── ResumeConflict      the question was answered before, in another way
│   └── StillRunning        it goes on at this moment, here or in another process
├── HoldLost                another process took the run over while this one was at it
├── UsageLimitExceeded      a limit refused further work
├── GuardDenied             a guard, or a required recorder, did not let the work through
│   └── TaskRejected        a worker refused a task before it did anything
├── RunAborted              a hook, or a cancel, ended the run
└── NotSent                 raised by the code that sends a request which surely never left

Control flow is not an error: a finished step is an `Outcome`, a stopped run is a `PipelineResult`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic_core import core_schema

from .foreign import text_of
from .scrubbing import scrub, without


class FlujoError(Exception):
    """The root of all errors of Flujo. Secrets of a known form are taken out of its texts.

    Attributes:
        what: What happened, naming the object.
        why: The cause.
        do: The next act for the reader; empty when there is none.
        partial: What there was of a stream, or of a loop, when it ended; None where nothing is known.
    """

    partial: object = None

    def __init__(self, what: str, why: str = "", do: str = "") -> None:
        self.what: str = scrub(what)
        self.why: str = scrub(why)
        self.do: str = scrub(do)
        Exception.__init__(self, self.what, self.why, self.do)  # an OSError among its bases would read them otherwise

    def __reduce__(self) -> tuple[object, ...]:
        # the leaves take facts, not `args`: pickle (a process pool, a remote worker) must not call them with these
        return _revived, (type(self), self.args, self.__dict__)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> core_schema.CoreSchema:
        # errors stand among the values of a run where they are collected, and go into snapshots with them
        written = core_schema.plain_serializer_function_ser_schema(FlujoError.as_data)
        return core_schema.no_info_plain_validator_function(cls._read, serialization=written)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: object, handler: object) -> dict[str, str]:
        return {"type": "object", "title": cls.__name__}

    def as_data(self) -> dict[str, object]:
        """The error as JSON: its kind, its texts, and the facts that are plain. Its cause stays behind."""
        plain = (str, int, float)
        facts: dict[str, Any] = {name: value for name, value in vars(self).items() if isinstance(value, plain)}
        if isinstance(self, LoopLimit):
            facts["partial"] = self.partial if self.is_json else None
        return {"error": type(self).__name__, "facts": facts}

    @classmethod
    def _read(cls, data: object) -> FlujoError:
        if isinstance(data, cls):
            return data
        name, facts = (data.get("error"), data.get("facts")) if isinstance(data, dict) else (None, None)
        kind = globals().get(str(name))
        texts = tuple(facts.get(word) for word in ("what", "why", "do")) if isinstance(facts, dict) else ()
        whole = texts and all(isinstance(text, str) for text in texts)
        if not (whole and isinstance(facts, dict) and isinstance(kind, type) and issubclass(kind, FlujoError)):
            raise ValueError("it is no error of Flujo")
        return _revived(kind, texts, facts)

    def hide(self, secrets: Sequence[str]) -> None:
        """Take secrets that its author could not know out of its texts."""
        if secrets:
            vars(self).update({name: without(secrets, text) for name, text in vars(self).items() if type(text) is str})
            Exception.__init__(self, self.what, self.why, self.do)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, FlujoError) and self.as_data() == other.as_data()

    def __hash__(self) -> int:
        return hash((type(self), self.what, self.why))

    def __str__(self) -> str:
        text = f"{self.what}: {self.why}" if self.why else self.what
        return f"{text}. {self.do}" if self.do else text


def _revived(cls: type[FlujoError], args: tuple[object, ...], facts: dict[str, object]) -> FlujoError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


class PipelineError(FlujoError, ValueError):
    """A pipeline that cannot work. `problems` lists everything that is wrong with it, one sentence each."""

    def __init__(self, what: str, problems: Sequence[str]) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        listed = self.problems[0] if len(self.problems) == 1 else "".join(f"\n  - {p}" for p in self.problems)
        super().__init__(what, listed)


class ConfigurationError(FlujoError, ValueError):
    """A limit, policy, option or name that cannot be used."""


class InputError(FlujoError, ValueError):
    """The run input (or the run's context) does not fit what the pipeline takes."""


class ResourceError(FlujoError):
    """A resource is missing, or failed while it was opened or closed."""


class PluginError(FlujoError):
    """A plugin is missing, not allowed, broken, or made for another plugin API."""


class LoopRunning(FlujoError, RuntimeError):
    """`run` was called where an event loop is already running."""

    def __init__(self, call: str, instead: str) -> None:
        super().__init__(f"{call} cannot be used here", "an event loop is already running", f"Use `{instead}` instead")


class RunExists(FlujoError):
    """A run with this id is already known."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"run {run_id!r} exists", "a run id is used once", "Leave `run_id` out, or choose another")


class StepFailed(FlujoError):
    """A step failed after its last attempt.

    `__cause__` is the original exception with its own text, which a traceback shows and nothing has scrubbed.

    Attributes:
        step_path: Where the step stands in the pipeline.
        error_type: Name of the original exception's class.
    """

    def __init__(self, step_path: str, error_type: str, message: str, do: str = "") -> None:
        self.step_path = step_path
        self.error_type = error_type
        super().__init__(f"step {step_path!r} failed", f"{error_type}: {message}" if message else error_type, do)

    @classmethod
    def by(cls, step_path: str, error: Exception, knows: Iterable[object] = (), do: str = "") -> StepFailed:
        """What a step fails with whose code raised; secrets among what that was given are taken out of the text."""
        failed = StepFailed(step_path, type(error).__name__, text_of(error, knows), do)
        failed.__cause__ = error
        return failed


class StepTimeout(StepFailed, TimeoutError):
    """A step did not end in its time; `retry_on=(TimeoutError,)` tries it again, as one that raised that itself.

    Attributes:
        seconds: Its time.
        abandoned: True for a sync step whose thread still runs.
    """

    def __init__(self, step_path: str, seconds: float, *, abandoned: bool = False, partial: object = None) -> None:
        self.partial = partial
        self.seconds = seconds
        self.abandoned = abandoned
        tail = "; its thread cannot be stopped and was abandoned" if abandoned else ""
        message = f"no result after {seconds:g} s{tail}"
        super().__init__(step_path, "StepTimeout", message, "Raise `timeout_s`, or make the step faster")


class WorkerLost(StepFailed):
    """The worker of a step went away or did not answer: nobody knows how it ended, so its whole lease counts.

    `why` may be what its backend raised.
    """

    def __init__(self, step_path: str, why: str | Exception, do: str = "") -> None:
        do = do or "Say `retry=` where the step may be tried again: all attempts have the same idempotency key"
        if isinstance(why, Exception):
            self.__cause__: BaseException | None = why
            why = f"its backend raised {type(why).__name__}: {text_of(why)}"
        super().__init__(step_path, "WorkerLost", why, do)


class LoopLimit(StepFailed):
    """A loop reached `max_iterations` and was not good.

    Attributes:
        iterations: How many were made.
        partial: The last output; None in an error that was read from a snapshot where it was more than JSON can hold.
        partial_type: Its class, which is known there too.
        is_json: Whether it is JSON exactly, so that it can be written.
    """

    partial: object = None
    partial_type: str = ""
    is_json: bool = False

    def __init__(self, step_path: str, iterations: int, partial: object = None, *, is_json: bool = False) -> None:
        self.iterations = iterations
        self.partial = partial
        self.partial_type = type(partial).__name__
        self.is_json = is_json
        do = "Raise `max_iterations`, or say on_limit='return' where the last output is good enough"
        super().__init__(step_path, "LoopLimit", f"not done after {iterations} iterations", do)


class RunPaused(FlujoError):
    """The output of a run was read that waits for a human."""

    def __init__(self, run_id: str, questions: int) -> None:
        what, why = f"run {run_id!r} has no output yet", f"it waits for {questions} answer{'s' * (questions != 1)}"
        super().__init__(what, why, "Read `result.pauses`, and continue it with `resume_async`")


class SnapshotError(FlujoError, ValueError):
    """A snapshot is damaged, foreign, of another pipeline or of a later version; nothing of it was used."""


class ResumeError(FlujoError):
    """A run cannot be resumed like this; it is as it was before."""


class AmbiguousPause(ResumeError):
    """Several questions are open, and none was named. `pauses` are their ids."""

    def __init__(self, run_id: str, pauses: Sequence[str]) -> None:
        self.pauses: tuple[str, ...] = tuple(pauses)
        why = f"it waits for {', '.join(map(repr, self.pauses))}"
        super().__init__(
            f"run {run_id!r} cannot be resumed", why, "Say which is answered: pause=result.pauses[0], or --pause ID"
        )


class AlreadyResumed(ResumeError):
    """The question was answered before, in the same way. `receipt` says when and with what."""

    def __init__(self, receipt: object) -> None:
        self.receipt = receipt
        super().__init__("the pause is no longer open", "it was answered before with the same decision")


class ResumeConflict(ResumeError):
    """The question was answered before, in another way, and that counts. `receipt` says when and with what."""

    def __init__(self, receipt: object) -> None:
        self.receipt = receipt
        super().__init__("the pause is no longer open", "it was answered before with another decision")


class StillRunning(ResumeError):
    """The run goes on at this moment, here or in another process that lives."""

    def __init__(self, run_id: str) -> None:
        why = "it goes on at this moment, here or in another process"
        super().__init__(f"run {run_id!r} cannot be resumed", why, "Wait for it, or cancel it where it runs")


class HoldLost(FlujoError):
    """What was to be written of a run came too late: another process took it over, or it was given back."""

    def __init__(self, run_id: str) -> None:
        why = "another process took it over, or it was given back"
        super().__init__(f"run {run_id!r} cannot be written from here", why, "Look at the run in its store")


class UsageLimitExceeded(FlujoError):
    """A limit refused further work; what was paid for before is kept in the result.

    Attributes:
        limit: Name of the limit, e.g. `total_cost_usd_limit`.
        value: The limit itself (USD, tokens or requests), as text.
    """

    def __init__(self, limit: str, value: str, why: str, do: str = "", how: str = "reached") -> None:
        self.limit = limit
        self.value = value
        super().__init__(f"{limit} of {value} {how}", why, do or "Raise the limit, or make the work smaller")


class GuardDenied(FlujoError):
    """A guard said no, raised, hung, or answered with something else than Allow or Deny.

    Attributes:
        plugin: Name of the plugin that denied.
        hook: Which hook denied, e.g. `guard_step`.
        reason: Why, in the plugin's words or in ours when it failed.
    """

    def __init__(self, plugin: str, hook: str, reason: str) -> None:
        self.plugin = plugin
        self.hook = hook
        super().__init__(f"{hook} of plugin {plugin!r} denied", str(reason))
        self.reason: str = self.why


class TaskRejected(GuardDenied):
    """A worker refused a task before it did anything; it is never tried again. `hook` is why, as `E_POLICY`."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__("worker", code, reason)


class RunAborted(FlujoError):
    """The run was ended on purpose: by a hook's AbortPipeline, a cancel, or a required recorder's fault."""

    def __init__(self, reason: str, by: str = "") -> None:
        self.by = by
        super().__init__(f"run aborted by {by}" if by else "run aborted", str(reason))
        self.reason: str = self.why


class NotSent(FlujoError):
    """Raise it from the code that sends a request when it surely never left: nothing is booked for the attempt."""
