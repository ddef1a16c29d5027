"""What the tests of this package share: a cloud of this machine, and tasks made by hand."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lambda_steps import shout

from flujo.backend_lambda import Ed25519Signer, LambdaBackend
from flujo.backend_lambda.blobs import S3Blobs, packed
from flujo.backend_lambda.envelope import Code, Header, sealed
from flujo.backend_lambda.testing import Function, LocalLambda
from flujo.backend_lambda.versions import PYTHON, cloudpickle_version
from flujo.core import Capabilities, CodeBlob, Flujo, Step, StepExecutionRequest, StepOutcome

HERE = Path(__file__).parent
BUCKET = "flujo-tasks"
HANDLER = "flujo.backend_lambda.aws.handler"


@dataclass
class Cloud:
    """Lambda, S3 and DynamoDB of this machine, and a key pair. `name` is the function that was deployed last."""

    aws: LocalLambda
    endpoint: str
    signer: Ed25519Signer
    name: str = ""

    @property
    def env(self) -> dict[str, str]:
        """What a worker is deployed with."""
        return {"FLUJO_LAMBDA_PUBLIC_KEYS": self.signer.verifier.text, "AWS_ENDPOINT_URL": self.endpoint}

    def deploy(self, *, env: dict[str, str] | None = None, cold: bool = False, **options: Any) -> Function:
        """A worker with the steps of lambda_steps.py; one that is deployed alike is used again, and warm."""
        settings: dict[str, Any] = {"task_root": HERE, "timeout_s": 30.0, "handler": HANDLER, **options}
        settings["env"] = {**self.env, **(env or {})}
        known = sorted((key, str(value)) for key, value in settings.items())
        self.name = f"steps-{hashlib.sha256(repr(known).encode()).hexdigest()[:12]}"
        found = None if cold else self.aws.functions.get(self.name)
        if found is None:
            return self.aws.add(self.name, **settings)
        found.records.clear()
        found.dead.clear()
        found.throttled = 0
        return found

    def backend(self, name: str = "", **options: Any) -> LambdaBackend:
        """The backend for it."""
        return LambdaBackend(name or self.name, **{"signer": self.signer, "concurrency": 20, **options})

    def invoke(self, event: bytes, **options: Any) -> dict[str, Any]:
        """Send an event with a bare client, and read what the worker answers."""
        client = self.aws.client(retries={"total_max_attempts": 1})
        data = client.invoke(FunctionName=self.name, Payload=event, **options)["Payload"].read()
        client.close()
        return dict(json.loads(data)) if data else {}


class _Caught(Exception):
    """Ends a run once its task was made."""


class _Catching:
    """A backend that keeps the task it should send."""

    capabilities = Capabilities(remote=True, pickle=True)

    def __init__(self, code: CodeBlob | None) -> None:
        self.code = code
        self.task = b""

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        self.task = request.task(self.code).model_dump_json().encode()
        raise _Caught


def task(of: Step[Any, Any] = shout, value: object = "hi", code: CodeBlob | None = None) -> bytes:
    """A task as the engine makes it."""
    catching = _Catching(code)
    Flujo(of, backend=catching).run(value)
    return catching.task


def event(
    cloud: Cloud, body: bytes | None = None, *, aud: str = "", spill: bool = False, **header: Any
) -> tuple[Header, bytes]:
    """A sealed event; `header` overrides what stands in its signed part."""
    blob = packed(task() if body is None else body, S3Blobs(BUCKET), spill=spill)
    made = Header.make(aud or cloud.name, blob, lifetime_s=60).model_copy(update=header)
    return made, sealed(made, cloud.signer)


def opened_payload(sealed_event: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The envelope of an event, and what is signed in it."""
    envelope = json.loads(sealed_event)
    return envelope, json.loads(base64.b64decode(envelope["payload"]))


class Canary:
    """Unpickling it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


def canary_code(path: Path, python: str = PYTHON) -> tuple[CodeBlob, Code]:
    """Code that leaves a file when it is unpickled."""
    data = base64.b64encode(pickle.dumps(Canary(path)))
    digest = hashlib.sha256(data).hexdigest()
    blob = CodeBlob(packer="cloudpickle", python=python, sha256=digest, size=len(data), data=data.decode())
    return blob, Code(python=python, cloudpickle=cloudpickle_version() or "")
