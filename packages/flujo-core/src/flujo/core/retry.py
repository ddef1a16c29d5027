"""When and how often a failed attempt is made again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from .errors import ConfigurationError, GuardDenied, RunAborted, UsageLimitExceeded
from .foreign import attempt as attempt_


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a step, or a model call, is tried again.

    Attributes:
        max_attempts: All attempts, the first included.
        backoff_s: Seconds before the second attempt.
        factor: Each further wait is this many times longer.
        max_backoff_s: No wait is longer, in seconds, unless the error says when to come back (`Retry-After`).
        jitter: Share of a wait that is random, 0 to 1, so that parallel branches do not retry in step.
        retry_on: Only these exceptions are tried again, as a tuple of classes; a step whose `timeout_s` passed failed
            with a StepTimeout, which is a TimeoutError.
        max_retry_after_s: An error that says to come back later than this, in seconds, is not tried again.
    """

    max_attempts: int = 3
    backoff_s: float = 0.1
    factor: float = 2.0
    max_backoff_s: float = 30.0
    jitter: float = 0.5
    retry_on: tuple[type[Exception], ...] = (Exception,)
    max_retry_after_s: float = 300.0

    def __post_init__(self) -> None:
        attempts = self.max_attempts
        whole = isinstance(attempts, int) and not isinstance(attempts, bool)
        rules = (
            ("max_attempts", whole and attempts >= 1, "a whole number of 1 or more; 1 means no second attempt"),
            ("backoff_s", _between(self.backoff_s, 0), "0 or more seconds"),
            ("factor", _between(self.factor, 1), "1 or more; 1 keeps all waits the same"),
            ("max_backoff_s", _between(self.max_backoff_s, 0), "0 or more seconds"),
            ("max_retry_after_s", _between(self.max_retry_after_s, 0), "0 or more seconds"),
            ("jitter", _between(self.jitter, 0, 1), "between 0 and 1; 0 means none"),
            ("retry_on", _exceptions(self.retry_on), "a tuple of exception classes, as (TimeoutError,)"),
        )
        wrong = [f"{name}={getattr(self, name)!r} must be {rule}" for name, ok, rule in rules if not ok]
        if wrong:
            raise ConfigurationError("RetryPolicy cannot be used", "; ".join(wrong))

    def applies(self, error: Exception, attempt: int) -> bool:
        """Say whether attempt number `attempt` (from 1) that ended with `error` is followed by another.

        A refused limit, a denial and an abort are decisions, not faults: they are never tried again.
        """
        if isinstance(error, (UsageLimitExceeded, GuardDenied, RunAborted)):
            return False
        if attempt >= self.max_attempts or not isinstance(error, self.retry_on):
            return False
        return (attempt_(retry_after_s, error)[0] or 0) <= self.max_retry_after_s

    def delay_s(self, attempt: int, chance: float, error: BaseException | None = None) -> float:
        """Seconds to wait after attempt number `attempt`, at least as long as its `error` says.

        Args:
            attempt: Its number, from 1.
            chance: A random number from 0 to 1.
            error: What it ended with.
        """
        return max(self._backoff(attempt, chance), attempt_(retry_after_s, error)[0] or 0)

    def _backoff(self, attempt: int, chance: float) -> float:
        try:
            wait = min(self.backoff_s * self.factor ** (attempt - 1), self.max_backoff_s)
        except OverflowError:  # the thousandth attempt: the power no longer fits a float
            wait = self.max_backoff_s if self.backoff_s else 0.0
        return wait * (1 - self.jitter * chance)


def retry_after_s(error: BaseException | None) -> float | None:
    """Seconds after which a server wants to be asked again; None where it does not say.

    Read from `error.retry_after_s`, or from the `Retry-After` header (RFC 9110, section 10.2.3: seconds, or a date)
    of `error.response`, as httpx and the SDKs above it have it; else from the error's cause.
    """
    for _ in range(5):
        if error is None:
            return None
        own = getattr(error, "retry_after_s", None)
        headers = getattr(getattr(error, "response", None), "headers", None)
        pairs = headers.items() if isinstance(headers, Mapping) else ()
        text = next((value for name, value in pairs if str(name).lower() == "retry-after"), None)
        if isinstance(own, (int, float)) and math.isfinite(own):
            return max(0.0, float(own))
        if isinstance(text, str):
            return _seconds(text)
        error = error.__cause__
    return None


def _seconds(text: str) -> float | None:
    if text.strip().isdecimal():
        return float(text)
    try:
        wanted = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (wanted - datetime.now(wanted.tzinfo)).total_seconds())


def _between(value: object, least: float, most: float = math.inf) -> bool:
    """Whether it is a finite number in these bounds; NaN is in none."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and least <= value <= most  # type: ignore[arg-type,operator]


def _exceptions(classes: object) -> bool:
    return isinstance(classes, tuple) and all(isinstance(c, type) and issubclass(c, Exception) for c in classes)
