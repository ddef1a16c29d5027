"""`flujo lambda doctor`: what stands in the way of a function, asked of AWS and of the worker itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flujo.core import ConfigurationError, FlujoError, Signer

from .blobs import packed
from .clients import LambdaClient
from .envelope import Header, sealed
from .invocation import Answer, fault_of
from .preflight import Deployed, preflight
from .reply import read
from .versions import PYTHON, cloudpickle_version, version_of

__all__ = ["Finding", "examine"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One row: what was looked at, whether it is good, and what it is."""

    what: str
    ok: bool
    told: str


def examine(
    client: LambdaClient,
    function: str,
    signer: Signer,
    *,
    concurrency: int,
    modules: Sequence[str],
    audience: str,
    pickle: bool,
) -> Iterator[Finding]:
    """Look at a function: its configuration, its room, its keys, and what a worker of it says of itself."""
    try:
        deployed = preflight(client, function, concurrency, signer.keyid, pickle=pickle)
    except FlujoError as error:
        yield Finding("function", False, str(error))
        return
    yield Finding("function", True, f"{deployed.timeout_s:g} s, {deployed.memory_mb} MB")
    yield Finding("room", True, f"{concurrency} at the same time")
    try:
        told = _probed(client, function, deployed, signer, modules, audience)
    except FlujoError as error:
        yield Finding("worker", False, str(error))
        return
    yield Finding("worker", True, f"it answers to {audience!r} and trusts key {signer.keyid}")
    same = told["python"] == PYTHON
    yield Finding("python", same or not pickle, f"{told['python']} there, {PYTHON} here")
    for name in ("flujo-core", "flujo-backend-lambda"):
        there, here = told["versions"].get(name), version_of(name)
        yield Finding(name, there == here, f"{there} there, {here} here")
    if pickle:
        there, here = told["cloudpickle"], cloudpickle_version()
        yield Finding("cloudpickle", there is not None and there == here, f"{there} there, {here} here")
    for name in modules:
        missing = name in told["missing"]
        yield Finding(f"module {name}", not missing, "build it into the artifact" if missing else "is there")


def _probed(
    client: LambdaClient, function: str, deployed: Deployed, signer: Signer, modules: Sequence[str], audience: str
) -> Any:
    body = packed(json.dumps({"modules": list(modules)}).encode(), None, spill=False)
    header = Header.make(audience, body, lifetime_s=300, kind="probe")
    given = client.invoke(FunctionName=function, Payload=sealed(header, signer))
    answer = Answer(payload=given["Payload"].read(), error=given.get("FunctionError"), report=None)
    if answer.error is not None:
        why = fault_of(answer, "doctor", deployed.timeout_s).why
        do = "See its log, and its handler and variables; deploy it again: flujo lambda deploy"
        raise ConfigurationError(f"function {function!r} failed", why, do)
    data, _ = read(answer.payload, header, None, "doctor")
    return json.loads(data)
