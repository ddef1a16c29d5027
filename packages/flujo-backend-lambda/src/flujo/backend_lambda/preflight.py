"""What is asked before the first task: is the function there, will it let so many through, and is it ours?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flujo.core import ConfigurationError

from .clients import LambdaClient, aws, error_code
from .keys import public_keys
from .versions import PYTHON

__all__ = ["Deployed", "asking", "check_client", "preflight"]

ASK_S = 5.0
"""Seconds for which AWS may be silent when it is asked something before the first step; it answers within one."""

_log = logging.getLogger("flujo.backend_lambda")
_DENIED = ("AccessDeniedException", "AccessDenied", "UnauthorizedOperation")


@dataclass(frozen=True, slots=True)
class Deployed:
    """How a function is deployed.

    Attributes:
        timeout_s: Seconds after which AWS ends an invocation.
        memory_mb: Its memory, by which it is billed.
    """

    timeout_s: float
    memory_mb: int


def asking(region: str | None) -> LambdaClient:
    """A client for what `preflight` asks: where nobody answers, the step that waits for it is soon told."""
    once = {"total_max_attempts": 1, "mode": "standard"}
    client: LambdaClient = aws("lambda", region=region, connect_timeout=ASK_S, read_timeout=ASK_S, retries=once)
    return client


def check_client(client: LambdaClient, timeout_s: float) -> None:
    """Check that a client of the user's sends nothing twice.

    Raises:
        ConfigurationError: It would.
    """
    config = client.meta.config
    attempts = (config.retries or {}).get("total_max_attempts", 5)
    if attempts == 1 and config.read_timeout >= timeout_s:
        return
    why = f"it sends up to {attempts} times, and waits {config.read_timeout:g} s where {timeout_s:g} s can be needed"
    do = "Leave client= out, or make it with Config(retries={'total_max_attempts': 1}, read_timeout=...)"
    raise ConfigurationError("client= cannot be used: a slow step would run several times", why, do)


def preflight(client: LambdaClient, function: str, concurrency: int, keyid: str, *, pickle: bool) -> Deployed:
    """Ask AWS what could make a run fail, before it costs anything.

    What the credentials may not ask is not checked, and logged.

    Raises:
        ConfigurationError: The function is not there, trusts another key, has another Python where code travels as a
            pickle, or cannot run as many at the same time as the backend would send.
    """
    found = _asked(lambda: client.get_function_configuration(FunctionName=function), function)
    if found is None:
        return Deployed(900.0, 10_240)  # the most there is: a lease may be too large, never too small
    _check_worker(found, function, keyid, pickle=pickle)
    room = _room(client, function)
    if room is not None and room < concurrency:
        what = f"LambdaBackend(concurrency={concurrency}) cannot be used"
        why = f"function {function!r} may run {room} at the same time"
        raise ConfigurationError(what, why, f"Say concurrency={room}, or have the quota of the account raised")
    return Deployed(float(found["Timeout"]), int(found["MemorySize"]))


def _check_worker(found: Mapping[str, Any], function: str, keyid: str, *, pickle: bool) -> None:
    env = found.get("Environment", {}).get("Variables", {})
    texts = str(env.get("FLUJO_LAMBDA_PUBLIC_KEYS", "")).replace(",", " ").split()
    if texts and keyid not in public_keys(texts) and "FLUJO_LAMBDA_HMAC_SECRET_ARN" not in env:
        why = f"it does not trust the key {keyid} that tasks are signed with"
        raise ConfigurationError(f"function {function!r} cannot be used", why, "Compare FLUJO_LAMBDA_PUBLIC_KEYS")
    runtime = str(found.get("Runtime") or "")
    if pickle and runtime.startswith("python") and runtime != f"python{PYTHON}":
        why = f"its runtime is {runtime}, this is Python {PYTHON}, and code travels as a pickle"
        do = "Run both on the same minor version; on another one a pickle kills the process"
        raise ConfigurationError(f"function {function!r} cannot be used", why, do)


def _room(client: LambdaClient, function: str) -> int | None:
    """How many invocations may run at the same time: what is reserved for the function, else what the account has."""
    name = function.rpartition(":function:")[2].split(":")[0]
    reserved = _asked(lambda: client.get_function_concurrency(FunctionName=name), function)
    if reserved and "ReservedConcurrentExecutions" in reserved:
        return int(reserved["ReservedConcurrentExecutions"])
    account = _asked(client.get_account_settings, function)
    return None if account is None else int(account["AccountLimit"]["UnreservedConcurrentExecutions"])


def _asked(ask: Callable[[], Mapping[str, Any]], function: str) -> Mapping[str, Any] | None:
    try:
        return ask()
    except Exception as error:  # botocore makes its classes when it runs; the code tells them apart
        code = error_code(error)
        if code in _DENIED:
            _log.info("not checked before the run: %s", code)
            return None
        why = f"{code or type(error).__name__}: {error}"
        do = "Check name, region and credentials; deploy it with: flujo lambda deploy"
        raise ConfigurationError(f"function {function!r} cannot be used", why, do) from error
