"""`flujo lambda`: what it prints, and with which code it ends."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from botocore.exceptions import ClientError, NoCredentialsError, WaiterError
from lambda_kit import BUCKET, HERE, Cloud
from lambda_steps import Keys, peppered, shout

from flujo.backend_lambda import Artifact, Ed25519Signer, FileArtifactStore, S3ArtifactStore, publish
from flujo.backend_lambda.cli import AwsGroup
from flujo.backend_lambda.packing import pack
from flujo.core import ConfigurationError, Flujo
from flujo_cli.main import run as flujo

Told = Callable[..., tuple[int, str]]


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Files of a private and a public key, as openssl writes them."""
    private, public = tmp_path / "signing.pem", tmp_path / "worker.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    return private, public


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Told:
    """Run the command in a folder of its own, and give its code and what it printed."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str]:
        code = flujo([str(part) for part in arguments])
        return code, "".join(capsys.readouterr())

    return call


def test_the_doctor_says_what_is_well_and_what_is_not(cloud: Cloud, keys: tuple[Path, Path], told: Told) -> None:
    cloud.signer = Ed25519Signer(keys[0])
    cloud.deploy()
    asked = ("lambda", "doctor", cloud.name, "--key", keys[0], "--concurrency", 10, "--module", "lambda_steps")
    code, text = told(*asked)
    assert (code, "FAIL" in text) == (0, False)
    assert f"trusts key {cloud.signer.keyid}" in text
    code, text = told(*asked, "--module", "nowhere", "--json")
    rows = {row["what"]: row["ok"] for row in map(json.loads, text.splitlines())}
    assert (code, rows["module nowhere"], rows["module lambda_steps"], rows["worker"]) == (1, False, True, True)
    assert told(*asked, "--audience", "others")[0] == 1
    code, text = told("lambda", "doctor", "nobody", "--key", keys[0])
    assert (code, "ResourceNotFoundException" in text) == (2, True)


def test_the_doctor_says_of_a_broken_function_what_a_run_says(
    cloud: Cloud, keys: tuple[Path, Path], told: Told, tmp_path: Path
) -> None:
    """It said `BadReply` of each, and to deploy it with the handler that it has."""
    cloud.signer = Ed25519Signer(keys[0])
    (tmp_path / "slow.py").write_text("import time\n\ndef handler(event, context):\n    time.sleep(9)\n")
    slow = {"handler": "slow.handler", "task_root": tmp_path, "timeout_s": 1.0}
    for options, words in (
        ({"handler": "nosuch.handler"}, "Runtime.ImportModuleError: Unable to import module 'nosuch'"),
        ({"env": {"FLUJO_LAMBDA_HMAC_KEY": "x"}}, "FLUJO_LAMBDA_HMAC_KEY holds a secret key"),
        (slow, "StepTimeout: no result after 1 s"),
    ):
        cloud.deploy(**options)  # type: ignore[arg-type]
        code, text = told("lambda", "doctor", cloud.name, "--key", keys[0], "--concurrency", 10)
        failed = [line for line in text.splitlines() if line.startswith("FAIL")]
        assert (code, len(failed), words in failed[0]) == (1, 1, True), text
        assert "BadReply" not in text
        assert "retry=" not in text  # what a run advises
    run = Flujo(shout, backend=cloud.backend()).run("a")
    assert "StepTimeout: no result after 1 s" in str(run.error)


@pytest.mark.parametrize("missing", ["region", "credentials", "profile"])
def test_in_a_fresh_shell_each_command_says_which_setting_is_missing(
    missing: str, keys: tuple[Path, Path], told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    if missing != "region":
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    if missing == "profile":
        monkeypatch.setenv("AWS_PROFILE", "nobody")
    words = {"region": "specify a region", "credentials": "locate credentials", "profile": "profile (nobody)"}
    publish(FileArtifactStore(tmp_path / "store"), _artifact(tmp_path), Ed25519Signer(keys[0]))
    (tmp_path / "words.py").write_text("from flujo.core import step\n\n@step\nasync def flow(text: str) -> str: ...\n")
    for arguments in (
        ("doctor", "f", "--key", keys[0]),
        ("invoke", "f", "words.py:flow", "--key", keys[0], "--text", "a"),
        ("deploy", "f", "--store", tmp_path / "store", "--name", "made", "--version", "1", "--trust", keys[1]),
    ):
        code, text = told("lambda", *arguments)
        assert (code, "unexpected" in text) == (3 if arguments[0] == "invoke" else 2, False), text
        assert words[missing] in text
        assert "credentials" in text.lower()  # the next act names all settings


def _artifact(folder: Path) -> Artifact:
    (folder / "made").mkdir()
    (folder / "made" / "words.py").write_text("x = 1\n")
    return Artifact("made", "1", "3.12", pack(folder / "made"), ())


def test_a_pipeline_of_a_file_is_invoked(cloud: Cloud, keys: tuple[Path, Path], tmp_path: Path) -> None:
    cloud.signer = Ed25519Signer(keys[0])
    function = cloud.deploy()
    file = f"{HERE / 'lambda_steps.py'}:shout"
    # In a process of its own: here the file is imported already, and would be another module.
    command = [sys.executable, "-m", "flujo_cli", "lambda", "invoke", cloud.name, file, "--key", str(keys[0])]
    done = subprocess.run([*command, "--text", "a", "--text", "b"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["output"] for row in rows] == ["A!", "B!"]
    assert len(function.records) == 2
    help = subprocess.run([*command[:5], "--help"], capture_output=True, text=True, check=True).stdout
    assert rows[0].keys() == {"status", "cost_usd", "run_id", "output"}
    assert "and print status, output, cost" in " ".join(help.split())  # it promised billed time, too


def test_a_project_is_built_and_published_once(keys: tuple[Path, Path], told: Told, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "words.py").write_text("x = 1\n")
    (project / "test_words.py").write_text("x = 1\n")
    (project / "requirements.txt").write_text("")
    code, text = told("lambda", "build", project, "--out", tmp_path / "dist")
    assert code == 0, text
    made = json.loads(text)
    with zipfile.ZipFile(tmp_path / "dist" / "project-0.zip") as archive:
        names = archive.namelist()
        assert [name for name in names if "__pycache__" not in name] == ["flujo-artifact.json", "words.py"]
        assert [name.partition(".")[0] for name in names if "__pycache__" in name] == ["__pycache__/words"]
    publishing = ("lambda", "publish", project, "--store", tmp_path / "store", "--key", keys[0], "--version", "1")
    code, text = told(*publishing)
    assert (code, json.loads(text)["sha256"]) == (0, made["sha256"])
    assert told(*publishing)[0] == 0
    (project / "words.py").write_text("x = 2\n")
    code, text = told(*publishing)
    assert (code, "Take another version" in text) == (2, True)
    code, text = told("lambda", "build", tmp_path / "dist")
    assert (code, "Lock the project" in text) == (2, True)


@pytest.fixture
def role(moto_url: str, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> str:
    """A role of moto, whose control plane of Lambda is asked here; it runs nothing."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", moto_url)
    iam = boto3.client("iam")
    name = f"worker-{time.monotonic_ns()}"
    arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    iam.close()
    return arn


@pytest.mark.parametrize("where", ["s3", "folder"])
def test_what_is_deployed_is_what_was_signed(
    where: str, s3: Any, role: str, keys: tuple[Path, Path], told: Told
) -> None:
    tmp_path = keys[0].parent
    import boto3

    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "words.py").write_text("x = 1\n")
    artifact = Artifact("words", "1", "3.12", pack(tmp_path / "made"), ())
    store = S3ArtifactStore(BUCKET) if where == "s3" else FileArtifactStore(tmp_path / "store")
    url = f"s3://{BUCKET}" if where == "s3" else str(tmp_path / "store")
    publish(store, artifact, Ed25519Signer(keys[0]))
    name = f"words-{where}"
    deploying = ("lambda", "deploy", name, "--store", url, "--name", "words", "--version", "1", "--trust", keys[1])
    for version, more in (("1", ("--role", role, "--bucket", BUCKET)), ("2", ("--env", "X=1", "--timeout", 7))):
        code, text = told(*deploying, *more)
        assert code == 0, text
        assert json.loads(text)["FunctionName"] == name
        assert version
    client = boto3.client("lambda")
    made = client.get_function_configuration(FunctionName=name)
    client.close()
    assert (made["Handler"], made["Timeout"], made["Runtime"]) == ("flujo.backend_lambda.aws.handler", 7, "python3.12")
    assert made["Environment"]["Variables"]["FLUJO_LAMBDA_PUBLIC_KEYS"] == Ed25519Signer(keys[0]).verifier.text
    assert made["Architectures"] == ["x86_64"]
    (tmp_path / "other.pem").write_text("no key")
    assert told(*deploying[:-1], tmp_path / "other.pem")[0] == 2
    code, text = told("lambda", "deploy", name, "--store", url, "--trust", keys[1])
    assert (code, "--name and --version, or --digest" in text) == (2, True)


def test_a_function_in_which_an_artifact_would_not_run_is_not_deployed(
    role: str, keys: tuple[Path, Path], told: Told, tmp_path: Path
) -> None:
    publish(FileArtifactStore(tmp_path / "store"), _artifact(tmp_path), Ed25519Signer(keys[0]))
    store = ("--store", tmp_path / "store", "--trust", keys[1])
    deploying = ("lambda", "deploy", "wrong", *store, "--name", "made", "--version", "1")
    for more, words in (
        (("--machine", "arm64"), "made 1 was built for x86_64, and this is arm64"),
        (("--runtime", "python3.9"), "made 1 was built for Python 3.12, and this is python3.9"),
        (("--env", "FLUJO_LAMBDA_HMAC_KEY=x"), "FLUJO_LAMBDA_HMAC_KEY holds a secret key"),
        (("--env", "FLUJO_LAMBDA_SIGNING_KEY=x"), "FLUJO_LAMBDA_SIGNING_KEY holds a secret key"),
    ):
        code, text = told(*deploying, *more, "--role", role)
        assert (code, words in text, "Do: " in text) == (2, True, True), text
    code, text = told(*deploying)
    assert (code, "Do: Say --role ARN" in text, "AWS_DEFAULT_REGION" in text) == (2, True, False), text
    for version in ("../x", "1/2"):
        code, text = told(*deploying[:-1], version)
        assert (code, f"{version!r} cannot be a name or a version" in text) == (2, True), text
    fitting = ("--machine", "x86_64", "--runtime", "python3.12", "--env", "FLUJO_LAMBDA_HMAC_SECRET_ARN=arn:x")
    code, text = told(*deploying, *fitting, "--role", role)
    assert code == 0, text


def test_a_version_is_not_deployed_as_another_one(
    cloud: Cloud, keys: tuple[Path, Path], told: Told, tmp_path: Path
) -> None:
    """Who could write the store could roll a version back: what was signed said nothing of names and versions."""
    store, made = FileArtifactStore(tmp_path / "store"), _artifact(tmp_path)
    publish(store, made, Ed25519Signer(keys[0]))
    index = tmp_path / "store" / "index" / "made"
    (index / "2.json").write_bytes((index / "1.json").read_bytes())
    deploying = ("lambda", "deploy", "f", "--store", tmp_path / "store", "--trust", keys[1])
    code, text = told(*deploying, "--name", "made", "--version", "2")
    assert (code, f"speaks of another artifact: made 1, {made.digest[:12]}" in text) == (2, True), text
    code, text = told(*deploying, "--name", "other", "--digest", made.digest)
    assert (code, "speaks of another artifact" in text) == (2, True), text


def test_what_aws_refuses_comes_with_advice_that_fits(s3: Any, keys: tuple[Path, Path], told: Told) -> None:
    """Each refusal advised to set a region and credentials."""
    more = ("--name", "made", "--version", "1", "--trust", keys[1])
    code, text = told("lambda", "deploy", "f", "--store", "s3://nowhere/x", *more)
    assert (code, "bucket 'nowhere' cannot be used" in text, "aws s3 mb s3://nowhere" in text) == (2, True, True), text
    code, text = told("lambda", "deploy", "f", "--store", "s3://no bucket", *more)
    assert (code, "Invalid bucket name" in text, "AWS_DEFAULT_REGION" in text) == (2, True, False), text
    code, text = told("lambda", "deploy", "f", "--store", "ftp://x", *more)
    assert (code, "'ftp://x' is no store" in text) == (2, True), text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ClientError({"Error": {"Code": "AccessDeniedException"}}, "GetFunction"), "given the right"),
        (ClientError({"Error": {"Code": "UnrecognizedClientException"}}, "GetFunction"), "AWS_DEFAULT_REGION"),
        (ClientError({"Error": {"Code": "ServiceException"}}, "GetFunction"), ""),
        (NoCredentialsError(), "AWS_DEFAULT_REGION"),
        (WaiterError(name="FunctionActive", reason="it failed", last_response={}), ""),
    ],
)
def test_the_advice_after_a_refusal_is_by_its_kind(error: Exception, words: str) -> None:
    @click.command()
    def asks() -> None:
        raise error

    with pytest.raises(ConfigurationError, match="flujo lambda asks was refused") as told:
        AwsGroup("lambda", {"asks": asks})(["asks"], standalone_mode=False)
    assert (words in told.value.do, bool(told.value.do)) == (True, bool(words))


def test_an_artifact_that_nobody_trusted_has_signed_is_not_deployed(
    s3: Any, keys: tuple[Path, Path], told: Told, tmp_path: Path
) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "words.py").write_text("x = 1\n")
    artifact = Artifact("words", "1", "3.12", pack(tmp_path / "made"), ())
    publish(FileArtifactStore(tmp_path / "store"), artifact, Ed25519Signer.generate())
    code, text = told(
        "lambda", "deploy", "f", "--store", tmp_path / "store", "--digest", artifact.digest, "--trust", keys[1]
    )
    assert (code, "no key that is trusted" in text) == (2, True)
    assert zipfile.ZipFile(io.BytesIO(artifact.packed.data)).testzip() is None


def test_a_secret_is_read_where_the_step_runs_and_only_its_name_travels(cloud: Cloud) -> None:
    import boto3

    secrets = boto3.client("secretsmanager")
    prefix = f"words-{time.monotonic_ns()}/"
    secrets.create_secret(Name=f"{prefix}PEPPER", SecretString="of the worker")
    secrets.close()
    cloud.deploy(env={"FLUJO_LAMBDA_SECRETS": prefix})
    made = Flujo(peppered, resources=Keys(), backend=cloud.backend()).run("a")
    assert made.unwrap() == hashlib.sha256(b"aof the worker").hexdigest()
