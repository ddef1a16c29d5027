"""What the tests of this package share: a cloud of this machine, and tasks made by hand."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flujo.backend_lambda import Ed25519Signer, LambdaBackend
from flujo.backend_lambda.blobs import S3Blobs, packed
from flujo.backend_lambda.envelope import Code, Header, sealed
from flujo.backend_lambda.testing import Function, LocalLambda
from flujo.backend_lambda.versions import PYTHON, cloudpickle_version
from flujo.core import CodeBlob, CodeRef, StepTask

HERE = Path(__file__).parent
BUCKET = "flujo-tasks"
HANDLER = "flujo.backend_lambda.aws.handler"


@dataclass
class Cloud:
    """Lambda, S3 and DynamoDB of this machine, and a key pair."""

    aws: LocalLambda
    endpoint: str
    signer: Ed25519Signer
    names: list[str] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        """What a worker is deployed with."""
        return {"FLUJO_LAMBDA_PUBLIC_KEYS": self.signer.verifier.text, "AWS_ENDPOINT_URL": self.endpoint}

    def deploy(self, name: str = "steps", *, env: dict[str, str] | None = None, **options: Any) -> Function:
        """A worker with the steps of lambda_steps.py."""
        options = {"task_root": HERE, "timeout_s": 20.0, "handler": HANDLER, **options}
        return self.aws.add(name, env={**self.env, **(env or {})}, **options)

    def backend(self, name: str = "steps", **options: Any) -> LambdaBackend:
        """The backend for it."""
        return LambdaBackend(name, **{"signer": self.signer, "concurrency": 20, **options})

    def invoke(self, event: bytes, name: str = "steps", **options: Any) -> dict[str, Any]:
        """Send an event with a bare client, and read what the worker answers."""
        with_tail = self.aws.client(retries={"total_max_attempts": 1}).invoke(
            FunctionName=name, Payload=event, **options
        )
        data = with_tail["Payload"].read()
        return dict(json.loads(data)) if data else {}


def task(ref: str = "lambda_steps:shout", inputs: dict[str, Any] | None = None, code: CodeBlob | None = None) -> bytes:
    """A task as the engine would make it."""
    return (
        StepTask.model_validate(
            {
                "code": code or CodeRef(ref=ref),
                "name": ref.rpartition(":")[2],
                "path": ref.rpartition(":")[2],
                "attempt": 1,
                "key": "key",
                "run": {"run_id": "run", "pipeline": "p", "fingerprint": "f"},
                "options": {},
                "inputs": {"text": "hi"} if inputs is None else inputs,
            }
        )
        .model_dump_json()
        .encode()
    )


def event(
    cloud: Cloud, body: bytes | None = None, *, aud: str = "steps", spill: bool = False, **header: Any
) -> tuple[Header, bytes]:
    """A sealed event; `header` overrides what stands in its signed part."""
    blob = packed(task() if body is None else body, S3Blobs(BUCKET), spill=spill)
    made = Header.make(aud, blob, lifetime_s=60).model_copy(update=header)
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
