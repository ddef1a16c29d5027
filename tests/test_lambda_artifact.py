"""The example of Lambda as an artifact of its own: built from wheels, deployed, and run without this checkout.

Where a test is marked `ministack`, AWS is played by another project, MiniStack, whose Lambda, S3 and control plane owe
nothing to ours. Real AWS was not run.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fresh_venv import ROOT, run, uv_binary

from flujo.backend_lambda import Artifact, Ed25519Signer, LambdaBackend, build
from flujo.backend_lambda.testing import LocalLambda
from flujo.core import Flujo, step

PROJECT = ROOT / "examples" / "lambda_project"
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
OURS = ("flujo-core", "flujo-backend-lambda")
Build = Callable[..., Artifact]


@pytest.fixture
def build_example(wheelhouse: Path, tmp_path: Path) -> Build:
    """Builds the example from our wheels and what `uv.lock` records."""

    def built(python: str = HERE, *extras: str) -> Artifact:
        chosen = [part for extra in extras for part in ("--extra", extra)]
        shape = ("--frozen", "--no-dev", "--no-emit-workspace", "--no-hashes", "--no-header")
        pins = run(uv_binary(), "export", "-q", *shape, "--package", "flujo-backend-lambda", *chosen, cwd=ROOT).stdout
        wanted = tmp_path / "wanted.txt"
        wanted.write_text(pins + "\n".join(OURS) + "\n")
        return build(PROJECT, python=python, requirements=wanted, find_links=[wheelhouse])

    return built


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the example, as `flujo run` imports it."""
    monkeypatch.syspath_prepend(str(PROJECT))
    monkeypatch.setenv("PSEUDONYM_PEPPER", "x")
    import pseudonyms

    yield pseudonyms
    sys.modules.pop("pseudonyms", None)


def unpacked(artifact: Artifact, folder: Path) -> Path:
    with zipfile.ZipFile(artifact.write(folder / "dist")) as archive:
        archive.extractall(folder / "task")
    return folder / "task"


def test_two_builds_are_the_same_bytes(build_example: Build) -> None:
    first, second = build_example(), build_example()
    assert first.digest == second.digest
    assert {*OURS, "pydantic", "boto3"} <= {part.name for part in first.components}
    assert {"pseudonyms.py", "local.py"} <= first.packed.files.keys()
    assert not [name for name in first.packed.files if name.startswith("test_")]


def test_the_artifact_runs_alone_and_another_one_is_refused(build_example: Build, example: Any, tmp_path: Path) -> None:
    artifact = build_example(HERE, "testing")  # AWS's runtime brings awslambdaric along, a bare Python does not
    signer = Ed25519Signer.generate()
    env = {"FLUJO_LAMBDA_PUBLIC_KEYS": signer.verifier.text, "PSEUDONYM_PEPPER": "x"}
    command = (str(Path(sys.base_prefix, "bin", f"python{HERE}")), "-s", "-S", "-m", "awslambdaric")
    with LocalLambda() as aws:
        how = {"task_root": unpacked(artifact, tmp_path), "timeout_s": 60, "env": env, "command": command}
        aws.add("f", handler="flujo.backend_lambda.aws.handler", **how)
        client = aws.client(retries={"total_max_attempts": 1}, read_timeout=90)
        backend = LambdaBackend("f", signer=signer, client=client, artifact=artifact.packed.tree)
        there = Flujo(example.pseudonym, resources=example.Keys(), backend=backend).run("patient-1")
        assert there.unwrap().pseudonym == example.flow.run("patient-1").unwrap().pseudonym
        other = LambdaBackend("f", signer=signer, client=client, artifact="0" * 64)
        refused = Flujo(example.pseudonym, resources=example.Keys(), backend=other).run("patient-1")
        assert "E_ARTIFACT" in str(refused.error)
        client.close()


def another_python() -> tuple[str, Path]:
    """Another minor version than this one; pyenv puts only its default on PATH, the others lie beside it."""
    beside = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in ("3.12", "3.13", "3.11"):
        name = f"python{version}"
        found = [*beside.glob(f"{version}.*/bin/{name}"), *(Path(part) / name for part in os.get_exec_path())]
        real = next((path for path in found if path.is_file()), None)
        if version != HERE and real is not None:
            return version, real
    raise AssertionError("this test takes another Python of 3.11 to 3.13 beside this one")


@pytest.mark.soak
def test_check_16_a_worker_of_another_python_refuses_a_pickle_and_lives(
    build_example: Build, example: Any, tmp_path: Path
) -> None:
    version, python = another_python()
    artifact = build_example(version, "testing", "pickle")
    signer = Ed25519Signer.generate()
    env = {"FLUJO_LAMBDA_PUBLIC_KEYS": signer.verifier.text, "PSEUDONYM_PEPPER": "x", "FLUJO_LAMBDA_ALLOW_PICKLE": "1"}
    word = "hello"

    @step
    async def closed(text: str) -> str:
        return f"{word} {text}"

    with LocalLambda() as aws:
        command = (str(python), "-s", "-S", "-m", "awslambdaric")
        how = {"task_root": unpacked(artifact, tmp_path), "timeout_s": 60, "env": env, "command": command}
        function = aws.add("f", handler="flujo.backend_lambda.aws.handler", **how)
        client = aws.client(retries={"total_max_attempts": 1}, read_timeout=90)
        backend = LambdaBackend("f", signer=signer, client=client, allow_pickle=True)
        refused = Flujo(closed, backend=backend).run("you")
        assert refused.status == "aborted"
        assert f"pickled by Python {HERE}, this worker is Python {version}" in str(refused.error)
        there = Flujo(example.pseudonym, resources=example.Keys(), backend=backend).run("patient-1")
        assert there.unwrap().pseudonym == example.flow.run("patient-1").unwrap().pseudonym
        assert there.counts["executed_by"] == {"lambda": 1}
        assert [record.result.init_ms is None for record in function.records] == [False, True]  # one process for both
        client.close()


# --- another project's AWS --------------------------------------------------------------------------------------------


@pytest.fixture
def ministack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """MiniStack, in a venv of its own: it pins other versions of what is in ours."""
    folder = tmp_path / "ministack"
    run(uv_binary(), "venv", "-q", "--python", sys.executable, folder)
    run(uv_binary(), "pip", "install", "-q", "--python", folder / "bin/python", "ministack==1.5.33")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    env = {**os.environ, "GATEWAY_PORT": str(port), "LAMBDA_EXECUTOR": "local", "HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        command = [folder / "bin/ministack"]
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    for name, value in {
        "AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/_ministack/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.ministack
@pytest.mark.timeout(900)  # it builds, installs and deploys; on a busy machine each takes its time
def test_built_published_deployed_asked_and_invoked_by_the_command(
    ministack: str, build_example: Build, wheelhouse: Path, tmp_path: Path
) -> None:
    import boto3

    s3 = boto3.client("s3")
    for bucket in ("artifacts", "tasks"):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    private, public = tmp_path / "signing.pem", tmp_path / "worker.pem"
    run("openssl", "genpkey", "-algorithm", "ed25519", "-out", private)
    run("openssl", "pkey", "-in", private, "-pubout", "-out", public)
    flujo = Path(sys.executable).parent / "flujo"
    store, key = ("--store", "s3://artifacts/x"), ("--key", private)
    made = build_example()  # for its list of what is wanted
    wanted = ("--requirements", tmp_path / "wanted.txt", "--find-links", wheelhouse)
    told = json.loads(run(flujo, "lambda", "publish", PROJECT, *store, *key, "--version", "1", *wanted).stdout)
    assert told["sha256"] == made.digest
    which = (*store, "--name", "lambda_project", "--version", "1", "--trust", public)
    env = ("--env", "PSEUDONYM_PEPPER=x", "--env", f"AWS_ENDPOINT_URL={ministack}", "--bucket", "tasks")
    role = ("--role", "arn:aws:iam::000000000000:role/x")
    for version, more in (("1", role), ("2", ())):
        deployed = json.loads(run(flujo, "lambda", "deploy", "pseudonyms", *which, *env, *more).stdout)
        assert deployed["Version"] == version
    run("openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "other.pem")
    run("openssl", "pkey", "-in", tmp_path / "other.pem", "-pubout", "-out", tmp_path / "stranger.pem")
    untrusted = run(flujo, "lambda", "deploy", "pseudonyms", *which[:-1], tmp_path / "stranger.pem", ok=False)
    assert untrusted.returncode == 2
    assert "no key that is trusted" in untrusted.stderr
    asked = ("--module", "pseudonyms", "--concurrency", "10")
    assert "FAIL" not in run(flujo, "lambda", "doctor", "pseudonyms", *key, *asked).stdout
    missing = run(flujo, "lambda", "doctor", "pseudonyms", *key, *asked, "--module", "nowhere", ok=False)
    assert missing.returncode == 1
    assert "FAIL  module nowhere" in missing.stdout
    target = PROJECT / "pseudonyms.py"
    given = run(flujo, "lambda", "invoke", "pseudonyms", target, *key, "--text", "patient-1", "--text", "patient-2")
    rows = [json.loads(line) for line in given.stdout.splitlines()]
    assert [row["status"] for row in rows] == ["completed", "completed"]
    assert rows[0]["output"]["pseudonym"] != rows[1]["output"]["pseudonym"]
    assert len(s3.list_objects_v2(Bucket="tasks", Prefix="flujo/claims/")["Contents"]) == 2
    s3.close()
