"""When and how often a failed attempt is made again."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import ConfigurationError, GuardDenied, RunAborted, UsageLimitExceeded

__all__ = ["RetryPolicy"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a step, or a model call, is tried again.

    Attributes:
        max_attempts: All attempts, the first included.
        backoff_s: Seconds before the second attempt.
        factor: Each further wait is this many times longer.
        max_backoff_s: No wait is longer, in seconds.
        jitter: Share of a wait that is random, 0 to 1, so that parallel branches do not retry in step.
        retry_on: Only these exceptions are tried again, as a tuple of classes.
    """

    max_attempts: int = 3
    backoff_s: float = 0.1
    factor: float = 2.0
    max_backoff_s: float = 30.0
    jitter: float = 0.5
    retry_on: tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        wrong = [
            f"{name}={value!r} must be {rule}"
            for name, value, rule, ok in (
                ("max_attempts", self.max_attempts, "at least 1", self.max_attempts >= 1),
                ("backoff_s", self.backoff_s, "0 or more seconds", self.backoff_s >= 0),
                ("factor", self.factor, "at least 1", self.factor >= 1),
                ("max_backoff_s", self.max_backoff_s, "0 or more seconds", self.max_backoff_s >= 0),
                ("jitter", self.jitter, "between 0 and 1", 0 <= self.jitter <= 1),
                ("retry_on", self.retry_on, "a tuple of exception classes", isinstance(self.retry_on, tuple)),
            )
            if not ok
        ]
        if wrong:
            raise ConfigurationError("RetryPolicy cannot be used", "; ".join(wrong))

    def applies(self, error: Exception, attempt: int) -> bool:
        """Say whether attempt number `attempt` (from 1) that ended with `error` is followed by another.

        A refused limit, a denial and an abort are decisions, not faults: they are never tried again.
        """
        if isinstance(error, (UsageLimitExceeded, GuardDenied, RunAborted)):
            return False
        return attempt < self.max_attempts and isinstance(error, self.retry_on)

    def delay_s(self, attempt: int, chance: float) -> float:
        """Seconds to wait after attempt number `attempt`; `chance` is a random number from 0 to 1."""
        wait = min(self.backoff_s * self.factor ** (attempt - 1), self.max_backoff_s)
        return wait * (1 - self.jitter * chance)
