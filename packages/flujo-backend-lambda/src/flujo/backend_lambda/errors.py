"""Errors of the backend. What a worker refuses before anything ran is core's TaskRejected, with one of these codes:
E_SHAPE, E_TYPE, E_SIG, E_EXPIRED, E_LIFETIME, E_AUD, E_ARTIFACT, E_PYVER, E_PICKLE, E_IMPORT, E_DIGEST, E_SIZE, E_BLOB.

FlujoError
├── ConfigurationError
│   └── NotShippable      the step, or what it holds, must not or cannot leave this process
└── StepFailed
    ├── PayloadTooLarge   it does not fit into an invocation, and there is no bucket for it; nothing was sent
    ├── LeaseTooSmall     what it may use is less than the invocation alone can cost; nothing was sent
    ├── NotStored         what does not fit into an invocation could not be put into the bucket; nothing was sent
    ├── Throttled         AWS let nothing through in time; nothing was sent
    ├── BadReply          what came back is no answer of a worker, or was changed
    └── WorkerLost
        ├── WorkerCrash   the process of the step died
        └── LambdaFault   AWS or the function failed in another way, or another delivery of the task runs
"""

from __future__ import annotations

from flujo.core import ConfigurationError, NotSent, StepFailed, WorkerLost

__all__ = [
    "BadReply",
    "LambdaFault",
    "LeaseTooSmall",
    "NotShippable",
    "NotStored",
    "PayloadTooLarge",
    "Refusal",
    "Throttled",
    "WorkerCrash",
]


class NotShippable(ConfigurationError):
    """A step, or what it holds, must not or cannot leave this process.

    Attributes:
        code: `E_SECRET`, `E_LIVE` or `E_PICKLE`.
        path: Where it stands, e.g. `closure variable 'client'`.
    """

    def __init__(self, code: str, path: str, why: str, do: str) -> None:
        self.code: str = code
        self.path: str = path
        super().__init__(f"{path} cannot be sent to a worker ({code})", why, do)


class PayloadTooLarge(StepFailed):
    """What the step is given does not fit into an invocation, and there is no bucket that could hold it."""

    def __init__(self, step_path: str, field: str, size: int, limit: int) -> None:
        self.size: int = size
        why = f"{field} makes the invocation {size:,} bytes long, {limit:,} are the most"
        super().__init__(step_path, "PayloadTooLarge", why, "Give the backend and the worker a bucket: bucket='...'")


class LeaseTooSmall(StepFailed):
    """What the step may use is less than the invocation alone can cost. Nothing was sent."""


class NotStored(StepFailed):
    """What does not fit into an invocation could not be put into the bucket. Nothing was sent: its cause is NotSent,
    which `retry_on` may name.
    """

    def __init__(self, step_path: str, store: object, error: Exception) -> None:
        told = f"{type(error).__name__}: {error}"
        why = f"{store} did not take what is too large for an invocation, and nothing was sent: {told}"
        do = "Check bucket= and the right s3:PutObject; where it is S3's own fault, `retry=` tries again"
        super().__init__(step_path, "NotStored", why, do)
        self.__cause__: BaseException | None = NotSent(f"step {step_path!r} was not sent", told)
        self.__cause__.__cause__ = error


class Throttled(StepFailed):
    """AWS let nothing through in time. Nothing was sent: its cause is NotSent, which `retry_on` may name."""

    def __init__(self, step_path: str, tries: int, reason: str) -> None:
        why = f"refused {tries} times, the last time with {reason}"
        do = "Lower `concurrency` of the backend, or have the function's reserved concurrency raised"
        super().__init__(step_path, "Throttled", why, do)
        self.__cause__: BaseException | None = NotSent(f"step {step_path!r} was not sent", reason)


class WorkerCrash(WorkerLost):
    """The process of the step died, and whether it had done its work is not known.

    The lease of a step with a RunContext counts in full. Another can have used nothing but its invocation, which counts
    by AWS's REPORT, or in full where there is none.
    """


class LambdaFault(WorkerLost):
    """AWS or the function failed, and what the step did is not known. What counts is that of WorkerCrash."""


class BadReply(StepFailed):
    """What came back is no answer of a worker, or was changed on its way; it was not used."""


class Refusal(Exception):
    """Inside the worker: a task that must not run, with the code that says why.

    Attributes:
        code: One of those at the top of this file.
        why: The cause, without anything of the payload.
        do: The next act.
        ran: Whether it ran all the same, or may run elsewhere: its outcome is not known.
    """

    def __init__(self, code: str, why: str, do: str = "", *, ran: bool = False) -> None:
        self.code: str = code
        self.why: str = why
        self.do: str = do
        self.ran: bool = ran
        super().__init__(f"{code}: {why}")
