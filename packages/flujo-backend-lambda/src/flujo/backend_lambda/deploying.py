"""An artifact becomes a function: what is deployed is what was signed, and AWS says that it has the same bytes."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flujo.core import ConfigurationError, Verifier

from .clients import Answer, LambdaClient, error_code
from .keys import Ed25519Verifier, refuse_secrets
from .registry import ArtifactStore, S3ArtifactStore, origin
from .sbom import Asked, Origin
from .worker import HANDLER

__all__ = ["Deployment", "deploy"]

_DIRECT_LIMIT = 50 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Deployment:
    """How a function is to be.

    Attributes:
        function: Its name.
        role: ARN of its role; needed where it is not there yet.
        public_keys: Keys whose tasks it will run.
        bucket: Where large parts and claims lie.
        memory_mb: Its memory.
        timeout_s: Seconds for an invocation.
        machine: `x86_64` or `arm64`; None is that of the artifact.
        handler: `module.attribute`.
        runtime: AWS's name of it; None is that of the artifact's Python.
        env: More environment variables; no secret belongs there.
        allow_pickle: Whether it unpickles code of who holds a signing key.
    """

    function: str
    role: str | None = None
    public_keys: Sequence[Ed25519Verifier] = ()
    bucket: str | None = None
    memory_mb: int = 512
    timeout_s: int = 60
    machine: str | None = None
    handler: str = HANDLER
    runtime: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    allow_pickle: bool = False

    def configuration(self, python: str) -> dict[str, object]:
        """What both calls of AWS take."""
        own = {"FLUJO_LAMBDA_PUBLIC_KEYS": ",".join(key.text for key in self.public_keys)}
        own |= {"FLUJO_LAMBDA_BUCKET": self.bucket} if self.bucket else {}
        own |= {"FLUJO_LAMBDA_ALLOW_PICKLE": "1"} if self.allow_pickle else {}
        return {
            "FunctionName": self.function,
            "Runtime": self.runtime or f"python{python}",
            "Handler": self.handler,
            "MemorySize": self.memory_mb,
            "Timeout": self.timeout_s,
            "Environment": {"Variables": {**self.env, **own}},
            **({"Role": self.role} if self.role else {}),
        }

    def check(self, made: Origin) -> None:
        """Check that an artifact would run in it.

        Raises:
            ConfigurationError: It was built for something else, or its worker would not start.
        """
        what, built = f"function {self.function!r} cannot be deployed", f"{made.name} {made.version} was built for"
        refuse_secrets(self.env, what)
        if self.machine not in (None, made.machine):
            do = f"Leave --machine out, or deploy a --name and --version published with --machine {self.machine}"
            raise ConfigurationError(what, f"{built} {made.machine}, and this is {self.machine}", do)
        # Which Python is in a runtime that somebody provides, nobody says.
        named = self.runtime is not None and not self.runtime.startswith("provided")
        if named and self.runtime != f"python{made.python}":
            do = "Leave --runtime out, or deploy a --name and --version published with its --python"
            raise ConfigurationError(what, f"{built} Python {made.python}, and this is {self.runtime}", do)


def deploy(
    client: LambdaClient, store: ArtifactStore, asked: Asked, wanted: Deployment, trusted: Mapping[str, Verifier]
) -> Answer:
    """Create or update a function from an artifact, once its statement is known to be signed by a trusted key.

    Returns:
        AWS's answer for the version that was published.

    Raises:
        ConfigurationError: The artifact was changed, nobody trusted has signed that it is what was asked for, it would
            not run in such a function, or AWS refuses or has other bytes.
    """
    made = origin(store, asked, trusted)
    wanted.check(made)
    store.get(made.digest)  # its bytes are those of its digest, or this raises
    code = _code(store, made.digest)
    try:
        version = _brought_about(client, wanted, made, code)
    except Exception as error:  # botocore makes its classes when it runs; the code tells them apart
        if not error_code(error):
            raise
        what = f"function {wanted.function!r} cannot be deployed"
        raise ConfigurationError(what, f"{error_code(error)}: {error}") from error
    deployed = base64.b64decode(str(version["CodeSha256"])).hex()
    if deployed != made.digest:
        why = f"AWS has artifact {deployed[:12]}, not {made.digest[:12]}"
        raise ConfigurationError(f"function {wanted.function!r} cannot be used", why, "Look who else deploys it")
    return version


def _brought_about(client: LambdaClient, wanted: Deployment, made: Origin, code: Mapping[str, Any]) -> Answer:
    settings, machines = wanted.configuration(made.python), [made.machine]
    if _is_there(client, wanted.function):
        client.update_function_configuration(**settings)
        client.get_waiter("function_updated_v2").wait(FunctionName=wanted.function)
        client.update_function_code(FunctionName=wanted.function, Architectures=machines, **code)
        client.get_waiter("function_updated_v2").wait(FunctionName=wanted.function)
    else:
        if wanted.role is None:
            what = f"function {wanted.function!r} cannot be deployed"
            raise ConfigurationError(what, "it is not there yet, and a new one needs a role", "Say --role ARN")
        client.create_function(**settings, Code=code, Architectures=machines, PackageType="Zip")
        client.get_waiter("function_active_v2").wait(FunctionName=wanted.function)
    return client.publish_version(FunctionName=wanted.function)


def _code(store: ArtifactStore, digest: str) -> dict[str, Any]:
    if isinstance(store, S3ArtifactStore):
        return {"S3Bucket": store.bucket, "S3Key": store.key(digest)}
    data = store.get(digest)
    if len(data) > _DIRECT_LIMIT:
        why = f"it has {len(data):,} bytes, and AWS takes {_DIRECT_LIMIT:,} in a call"
        raise ConfigurationError(f"artifact {digest[:12]} cannot be deployed from a folder", why, "Publish it to s3://")
    return {"ZipFile": data}


def _is_there(client: LambdaClient, function: str) -> bool:
    try:
        client.get_function_configuration(FunctionName=function)
    except Exception as error:  # as above
        if error_code(error) != "ResourceNotFoundException":
            raise
        return False
    return True


def described(version: Answer) -> str:
    """What was deployed, as JSON."""
    names = ("FunctionName", "FunctionArn", "Version", "CodeSha256", "Runtime", "MemorySize", "Timeout")
    return json.dumps({name: version.get(name) for name in names})
