"""What pydantic-ai raises, as errors of Flujo."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic_ai import exceptions as pai

from flujo.core import ConfigurationError, FlujoError, RetryPolicy, UsageLimitExceeded

from .errors import AgentFault, ModelFault, ModelRejected, ModelUnavailable

Fault = ModelFault | ModelRejected | ModelUnavailable

_LONGEST = 300
"""Characters of a provider's own words that are kept: some repeat the whole request."""

_DEEPEST = 8
"""Causes of a cause that are looked at; the clients wrap an error two or three times."""

_AGAIN = (pai.ModelRateLimitError, pai.ModelUnavailableError)
_NEVER = (pai.ModelRequestRejectedError, pai.ModelQuotaExceededError)  # key, name and size of the request included


def fault_of(error: pai.ModelAPIError, model: str) -> Fault:
    """The error of ours that says the same, and whether anything can have been billed."""
    what, why = f"model {model!r} gave no answer", _words(error)
    if isinstance(error, _AGAIN) or _never_connected(error):
        return ModelUnavailable(what, why, "Try again later, or name a fallback= model")
    if isinstance(error, _NEVER):
        return ModelRejected(what, why, "Check the key, the permissions, the name of the model and what it is asked")
    return ModelFault(what, why)


def _words(error: BaseException) -> str:
    text = str(error)
    kind = type(error).__name__
    return f"{kind}: {text[:_LONGEST]}..." if len(text) > _LONGEST else f"{kind}: {text}"


def _never_connected(error: BaseException) -> bool:
    """Whether the connection was never made: the only failure of a network after which surely nothing was billed."""
    cause: BaseException | None = error
    for _ in range(_DEEPEST):
        # by name: httpx and httpx2 both have it, and which of them a provider's client uses is its own affair
        if type(cause).__name__ in ("ConnectError", "ConnectTimeout", "PoolTimeout"):
            return True
        cause = None if cause is None else cause.__cause__
    return False


def narrowed(retry: RetryPolicy | None) -> RetryPolicy | None:
    """The policy, where it names no exceptions of its own, for those after which a second attempt makes sense."""
    if retry is None or retry.retry_on != (Exception,):
        return retry
    return RetryPolicy(
        max_attempts=retry.max_attempts,
        backoff_s=retry.backoff_s,
        factor=retry.factor,
        max_backoff_s=retry.max_backoff_s,
        jitter=retry.jitter,
        retry_on=(ModelUnavailable, ModelFault),
    )


@contextmanager
def as_flujo_errors(agent: str) -> Iterator[None]:
    """Turn what pydantic-ai raises inside into errors of Flujo; those pass as they are."""
    try:
        yield
    except pai.UsageLimitExceeded as error:
        limit = "request_limit of pydantic-ai"
        raise UsageLimitExceeded(limit, "its usage_limits", _words(error)) from error
    except pai.ModelAPIError as error:
        raise fault_of(error, error.model_name) from error
    except pai.FallbackExceptionGroup as error:
        raise _of_group(agent, error) from error
    except pai.UserError as error:
        raise ConfigurationError(f"agent {agent!r} cannot be run", _words(error)) from error
    except pai.AgentRunError as error:
        raise AgentFault(f"agent {agent!r} gave no output", _words(error)) from error


def _of_group(agent: str, group: pai.FallbackExceptionGroup) -> FlujoError:
    """All models of a fallback failed; what ended the run for good (a limit, a denial) comes first."""
    for error in group.exceptions:
        if isinstance(error, FlujoError):
            return error
    each = "; ".join(_words(error) for error in group.exceptions)
    return ModelFault(f"no model of agent {agent!r} gave an answer", each)
