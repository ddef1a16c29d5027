"""`flujo lambda`: build, publish, deploy, doctor, invoke. Imported only when called; needs the extra `[cli]`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

import click
from pydantic_core import to_jsonable_python

from flujo.core import CommandHost, ConfigurationError, Flujo

from .artifact import PLATFORMS, Artifact, build
from .backend import backend_from
from .clients import SETTINGS, aws, error_code, refusals
from .deploying import Deployment, deploy, described
from .doctoring import examine
from .keys import Ed25519Verifier
from .registry import publish, store_at
from .sbom import Asked
from .signing import Ed25519Signer
from .versions import PYTHON

__all__ = ["main"]

_KEY = click.option(
    "--key",
    type=click.Path(path_type=Path),
    envvar="FLUJO_LAMBDA_SIGNING_KEY",
    required=True,
    help="File of the Ed25519 private key, as PEM. Also FLUJO_LAMBDA_SIGNING_KEY.",
)
_STORE = click.option("--store", "url", metavar="URL", required=True, help="s3://BUCKET/PREFIX, or a folder.")
_REGION = click.option("--region", help="AWS region; left out, AWS's own settings count.")
_FILES = click.Path(path_type=Path, exists=True)
_STRANGERS = (
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "ExpiredToken",
    "ExpiredTokenException",
    "AuthFailure",
    "PermanentRedirect",
)
"""Codes of AWS for credentials that it does not know, and for another region."""


class AwsGroup(click.Group):
    """Commands that ask AWS: what it refuses, and settings that are missing, are no faults of ours."""

    def invoke(self, ctx: click.Context) -> object:
        """See click.Group."""
        try:
            return super().invoke(ctx)
        except refusals() as error:  # asked when something was raised, and not before
            why = f"{error_code(error) or type(error).__name__}: {error}"
            raise ConfigurationError(f"flujo lambda {ctx.invoked_subcommand} was refused", why, _act(error)) from error


def _act(error: Exception) -> str:
    """The next act after a refusal, where it is known."""
    code = error_code(error)
    if code.startswith("AccessDenied"):
        return "Have these credentials given the right; docs/how-to/run-on-lambda.md lists what is needed"
    unknown = bool(code) and code not in _STRANGERS
    return "" if unknown or type(error).__name__ in ("ParamValidationError", "WaiterError") else SETTINGS


@click.group("lambda", cls=AwsGroup)
def main() -> None:
    """Build, deploy and ask AWS Lambda workers.

    \b
      flujo lambda build examples/lambda_project --out dist
      flujo lambda publish examples/lambda_project --store s3://artifacts --key signing.pem --version 1
      flujo lambda deploy words --store s3://artifacts --name lambda_project --version 1 \\
          --trust worker.pem --role arn:aws:iam::...
      flujo lambda doctor words --key signing.pem --module words
      flujo lambda invoke words words.py:count --text "a b c"

    \b
    Exit codes of doctor: 0 all is well, 1 something is not, 2 it cannot be asked. Of invoke: 0 completed, 3 not.
    """


class BuildFlags(TypedDict):
    """How an artifact is built, as click gives it."""

    name: str | None
    version: str
    python: str
    machine: str
    requirements: Path | None
    find_links: tuple[Path, ...]


def _build_options(command: click.decorators.FC) -> click.decorators.FC:
    options = [
        click.option("--name", help="Name of the artifact; that of the folder."),
        click.option("--version", default="0", show_default=True, help="Its version."),
        click.option("--python", default=PYTHON, show_default=True, help="Minor version of the function's Python."),
        click.option("--machine", type=click.Choice(list(PLATFORMS)), default="x86_64", show_default=True),
        click.option("--requirements", type=_FILES, help="Instead of the project's uv.lock."),
        click.option("--find-links", multiple=True, type=_FILES, help="A folder of wheels that no index has."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@main.command("build")
@click.argument("project", type=_FILES)
@click.option("--out", type=click.Path(path_type=Path), default=Path("dist"), show_default=True)
@_build_options
def build_(project: Path, out: Path, **flags: Unpack[BuildFlags]) -> None:
    """Build the artifact of PROJECT: a zip that is always the same, its manifest, its bill of materials."""
    made = build(project, **flags)
    path = made.write(out)
    click.echo(_told(made, path))


@main.command("publish")
@click.argument("project", type=_FILES)
@_STORE
@_KEY
@_build_options
def publish_(project: Path, url: str, key: Path, **flags: Unpack[BuildFlags]) -> None:
    """Build PROJECT, sign where it came from, and put all of it into a store, under its name and version."""
    store, signer = store_at(url), Ed25519Signer(key)  # what is wrong with them is said before the work
    made = build(project, **flags)
    publish(store, made, signer)
    click.echo(_told(made, url))


class DeployFlags(TypedDict):
    """How a function is to be, as click gives it."""

    role: str | None
    bucket: str | None
    memory_mb: int
    timeout_s: int
    machine: str | None
    handler: str
    runtime: str | None
    allow_pickle: bool


@main.command("deploy")
@click.argument("function")
@_STORE
@click.option("--name", help="Name of the artifact.")
@click.option("--version", help="Its version.")
@click.option("--digest", help="Instead of both: its SHA-256.")
@click.option("--trust", multiple=True, required=True, type=_FILES, help="Public key that must have signed it (PEM).")
@click.option("--public-key", "public_keys", multiple=True, type=_FILES, help="Key whose tasks it runs; as --trust.")
@click.option("--role", help="ARN of the function's role; needed for a new function.")
@click.option("--bucket", help="Bucket for what does not fit into an invocation, and for claims.")
@click.option("--memory", "memory_mb", type=int, default=512, show_default=True, metavar="MB")
@click.option("--timeout", "timeout_s", type=int, default=60, show_default=True, metavar="S")
@click.option("--machine", type=click.Choice(list(PLATFORMS)), help="That of the artifact, where left out.")
@click.option("--handler", default=Deployment("").handler, show_default=True)
@click.option("--runtime", help="AWS's name of the runtime; that of the artifact's Python.")
@click.option("--env", "variables", multiple=True, metavar="NAME=VALUE", help="One more variable; never a secret.")
@click.option("--allow-pickle", is_flag=True, help="Let it run code that travels as a pickle.")
@_REGION
def deploy_(
    function: str,
    url: str,
    name: str | None,
    version: str | None,
    digest: str | None,
    *,
    trust: Sequence[Path],
    public_keys: Sequence[Path],
    variables: Sequence[str],
    region: str | None,
    **flags: Unpack[DeployFlags],
) -> None:
    """Create or update FUNCTION from a published artifact, and publish a version of it."""
    asked = Asked(name, version, digest)
    trusted = [Ed25519Verifier(path.read_bytes()) for path in trust]
    keys = [Ed25519Verifier(path.read_bytes()) for path in public_keys] or trusted
    env = dict(pair.partition("=")[::2] for pair in variables)
    wanted = Deployment(function, public_keys=keys, env=env, **flags)
    client, ids = aws("lambda", region=region), {key.keyid: key for key in trusted}
    click.echo(described(deploy(client, store_at(url), asked, wanted, ids)))


@main.command()
@click.argument("function")
@_KEY
@click.option("--module", "modules", multiple=True, help="A module that it must have.")
@click.option("--concurrency", type=int, default=100, show_default=True)
@click.option("--audience", help="Name by which the worker knows itself; that of the function.")
@click.option("--pickle", is_flag=True, help="Code is to travel as a pickle: look at versions, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_REGION
@click.pass_context
def doctor(
    ctx: click.Context,
    /,
    function: str,
    key: Path,
    modules: Sequence[str],
    concurrency: int,
    *,
    audience: str | None,
    pickle: bool,
    as_json: bool,
    region: str | None,
) -> None:
    """Look at FUNCTION: its configuration, room and keys, and, by one invocation, what its worker is."""
    client = aws("lambda", region=region, retries={"total_max_attempts": 1}, read_timeout=900)
    name = audience or function.rpartition(":function:")[2].split(":")[0]
    found = examine(
        client, function, Ed25519Signer(key), concurrency=concurrency, modules=modules, audience=name, pickle=pickle
    )
    worst = 0
    for row in found:
        worst = worst or (0 if row.ok else 2 if row.what == "function" else 1)
        told = {"what": row.what, "ok": row.ok, "told": row.told}
        click.echo(json.dumps(told) if as_json else f"{'ok  ' if row.ok else 'FAIL'}  {row.what:24}  {row.told}")
    ctx.exit(worst)


@main.command()
@click.argument("function")
@click.argument("target", metavar="FILE[:NAME]")
@click.option("--text", "values", multiple=True, required=True, help="An input; say it several times for several runs.")
@_KEY
@click.pass_context
def invoke(ctx: click.Context, function: str, target: str, values: Sequence[str], key: Path) -> None:
    """Run a pipeline or a step of FILE, each of its steps on FUNCTION, and print status, output, cost and run id."""
    here = _host(ctx).prepare(target)
    backend = backend_from({**os.environ, "FLUJO_LAMBDA_FUNCTION": function, "FLUJO_LAMBDA_SIGNING_KEY": str(key)})
    flujo = Flujo(**{**here.given, "backend": backend}, plugins=here.plugins, policy=here.policy)
    worst = 0
    for value in values:
        result = flujo.run(value)
        worst = max(worst, 0 if result.status == "completed" else 3)
        told = {"status": result.status, "cost_usd": str(result.usage.cost_usd), "run_id": result.run_id}
        more = {"output": result.output} if result.status == "completed" else {"error": str(result.error)}
        click.echo(json.dumps(to_jsonable_python({**told, **more})))
    ctx.exit(worst)


def _host(ctx: click.Context) -> CommandHost:
    host = ctx.find_object(CommandHost)  # type: ignore[type-abstract]  # click looks by isinstance, which it can be
    if host is None:
        raise click.UsageError("Call it as `flujo lambda invoke`.")
    return host


def _told(made: Artifact, where: object) -> str:
    told = {"name": made.name, "version": made.version, "sha256": made.digest, "tree": made.packed.tree}
    return json.dumps({**told, "bytes": len(made.packed.data), "files": len(made.packed.files), "at": str(where)})
