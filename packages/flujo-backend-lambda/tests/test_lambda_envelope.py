"""Hostile tasks, sent by boto3 to a worker under awslambdaric: refused before anything of them is used.

Numbers are those of the checks in docs/security/serialization-review.md.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import pytest
from lambda_kit import BUCKET, Cloud, canary_code, event, opened_payload, task

from flujo.backend_lambda import Ed25519Signer, Ed25519Verifier, HmacKey, worker_from
from flujo.backend_lambda.blobs import S3Blobs, packed
from flujo.backend_lambda.envelope import PAYLOAD_TYPE, Header, check, opened, sealed
from flujo.backend_lambda.errors import Refusal
from flujo.backend_lambda.versions import PYTHON
from flujo.core import ConfigurationError

PICKLES = {"FLUJO_LAMBDA_ALLOW_PICKLE": "1"}


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that is there once its task's code was unpickled."""
    return tmp_path / "unpickled"


def canary_event(cloud: Cloud, canary: Path, *, python: str = PYTHON, **header: Any) -> tuple[Header, bytes]:
    blob, code = canary_code(canary, python)
    return event(cloud, task(code=blob), **{"code": code, **header})


def with_payload(sealed_event: bytes, **changes: Any) -> bytes:
    """The same envelope with another signed part and the old signature."""
    envelope, payload = opened_payload(sealed_event)
    envelope["payload"] = base64.b64encode(json.dumps({**payload, **changes}).encode()).decode()
    return json.dumps(envelope).encode()


def with_envelope(sealed_event: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(sealed_event), **changes}).encode()


def refused(cloud: Cloud, sent: bytes, code: str, canary: Path) -> None:
    reply = cloud.invoke(sent)
    assert (reply["status"], reply["code"]) == ("rejected", code)
    assert not canary.exists()


def test_check_01_a_tampered_task_is_refused_and_nothing_is_unpickled(cloud: Cloud, canary: Path) -> None:
    function = cloud.deploy(env=PICKLES)
    _, good = canary_event(cloud, canary)
    _, other = event(cloud)
    swapped = {"body": opened_payload(other)[1]["body"]}
    refused(cloud, with_payload(good, **swapped), "E_SIG", canary)
    refused(cloud, with_payload(good, aud=cloud.name, exp=time.time() + 9e9), "E_SIG", canary)
    assert len(function.records) == 2  # each once: a refusal is no fault that is tried again
    said = function.records[-1].result.log.decode()
    assert "task refused" in said
    assert "E_SIG" in said


def test_check_01_the_canary_would_have_sung(cloud: Cloud, canary: Path) -> None:
    cloud.deploy(env=PICKLES)
    cloud.invoke(canary_event(cloud, canary)[1])
    assert canary.exists()


def test_check_02_a_wrong_key_is_refused_under_the_same_name_and_under_its_own(cloud: Cloud, canary: Path) -> None:
    cloud.deploy(env=PICKLES)
    header, good = canary_event(cloud, canary)
    stranger = Ed25519Signer.generate()
    forged = json.loads(sealed(header, stranger))
    refused(cloud, json.dumps(forged).encode(), "E_SIG", canary)
    forged["signatures"][0]["keyid"] = cloud.signer.keyid
    refused(cloud, json.dumps(forged).encode(), "E_SIG", canary)
    assert json.loads(good)["payload"] == forged["payload"]


def test_check_03_a_task_has_its_time(cloud: Cloud, canary: Path) -> None:
    cloud.deploy(env=PICKLES)
    now = time.time()
    for times, code in (
        ({"iat": now - 100, "exp": now - 1}, "E_EXPIRED"),
        ({"iat": now, "exp": now + 25 * 3600}, "E_LIFETIME"),
        ({"iat": now + 60, "exp": now + 120}, "E_LIFETIME"),
        ({"iat": now + 10, "exp": now + 5}, "E_LIFETIME"),
    ):
        refused(cloud, canary_event(cloud, canary, **times)[1], code, canary)


def test_check_03_clocks_may_differ_by_30_seconds(cloud: Cloud) -> None:
    header, _ = event(cloud, aud="f", iat=time.time() + 25, exp=time.time() + 60)
    check(header, header.aud)


def test_check_06_no_way_down_to_a_weaker_signature(cloud: Cloud, canary: Path) -> None:
    cloud.deploy(env=PICKLES)
    _, good = canary_event(cloud, canary)
    public = base64.b64decode(cloud.signer.verifier.text)
    payload = base64.b64decode(json.loads(good)["payload"])
    kind = PAYLOAD_TYPE.encode()
    pae = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    weak = base64.b64encode(hmac.digest(public, pae, "sha256")).decode()
    for changes, code in (
        ({"signatures": [{"keyid": cloud.signer.keyid, "sig": weak}]}, "E_SIG"),
        ({"signatures": [{"keyid": cloud.signer.keyid, "sig": weak, "alg": "HS256"}]}, "E_SHAPE"),
        ({"signatures": [{"keyid": cloud.signer.keyid, "sig": "no base64 !"}]}, "E_SHAPE"),
        ({"signatures": []}, "E_SIG"),
        ({"payloadType": "application/vnd.in-toto+json"}, "E_TYPE"),
    ):
        refused(cloud, with_envelope(good, **changes), code, canary)
    for bare in (base64.b64decode(json.loads(good)["payload"]), b"{}", b"[]", b'"text"', b"null"):
        refused(cloud, bare, "E_SHAPE", canary)


def test_check_06_a_signed_statement_of_another_kind_is_no_task(cloud: Cloud, canary: Path) -> None:
    header, _ = event(cloud, aud="f")
    keys = {cloud.signer.keyid: cloud.signer.verifier}
    payload = header.model_dump_json().encode()
    signature = base64.b64encode(cloud.signer.sign(payload)).decode()  # of the bare payload, not of DSSE's encoding
    bare = {"payloadType": PAYLOAD_TYPE, "payload": base64.b64encode(payload).decode()}
    with pytest.raises(Refusal, match="E_SIG"):
        opened({**bare, "signatures": [{"keyid": cloud.signer.keyid, "sig": signature}]}, keys)


def test_check_06_a_heap_of_signatures_is_refused_before_any_is_looked_at(cloud: Cloud, canary: Path) -> None:
    cloud.deploy(env=PICKLES)
    _, good = canary_event(cloud, canary)
    refused(cloud, with_envelope(good, signatures=json.loads(good)["signatures"] * 9), "E_SHAPE", canary)


def test_check_07_a_task_for_another_function_is_refused(cloud: Cloud, canary: Path) -> None:
    cloud.deploy(env=PICKLES)
    refused(cloud, canary_event(cloud, canary, aud="others")[1], "E_AUD", canary)


def test_check_08_a_blob_that_was_replaced_is_refused_before_it_is_unpickled(
    cloud: Cloud, s3: Any, canary: Path
) -> None:
    cloud.deploy(env={**PICKLES, "FLUJO_LAMBDA_BUCKET": BUCKET})
    body = task()
    header, sent = event(cloud, body, spill=True)
    evil = task(code=canary_code(canary)[0])
    key = f"flujo/{header.body.key}"
    assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == body
    for swapped in (evil, evil.ljust(header.body.size)[: header.body.size], b""):
        s3.put_object(Bucket=BUCKET, Key=key, Body=swapped)
        refused(cloud, sent, "E_DIGEST", canary)
    s3.delete_object(Bucket=BUCKET, Key=key)
    refused(cloud, sent, "E_BLOB", canary)


def test_check_08_a_code_blob_that_was_replaced_is_refused(cloud: Cloud, canary: Path) -> None:
    cloud.deploy(env=PICKLES)
    blob, code = canary_code(canary)
    for lie in ({"sha256": "0" * 64}, {"size": blob.size + 1}):
        reply = cloud.invoke(event(cloud, task(code=blob.model_copy(update=lie)), code=code)[1])
        assert "E_DIGEST" in json.dumps(reply)
        assert not canary.exists()


def test_check_08_code_in_the_bucket_that_was_replaced_is_refused_before_it_is_unpickled(
    cloud: Cloud, s3: Any, canary: Path, tmp_path: Path
) -> None:
    cloud.deploy(env={**PICKLES, "FLUJO_LAMBDA_BUCKET": BUCKET})
    honest, code = canary_code(tmp_path / "other")
    blob = packed(honest.data.encode(), S3Blobs(BUCKET, client=s3), spill=True)
    _, sent = event(cloud, task(code=honest.model_copy(update={"data": "", "where": blob.key})), code=code)
    evil = canary_code(canary)[0].data.encode()
    for swapped in (evil, evil.ljust(honest.size)[: honest.size]):
        s3.put_object(Bucket=BUCKET, Key=f"flujo/{blob.key}", Body=swapped)
        reply = cloud.invoke(sent)
        assert "E_DIGEST" in json.dumps(reply)
        assert not canary.exists()


@pytest.mark.parametrize("name", ["FLUJO_LAMBDA_HMAC_KEY", "FLUJO_LAMBDA_PRIVATE_KEY", "FLUJO_LAMBDA_SIGNING_KEY"])
def test_check_09_a_worker_with_a_secret_key_in_its_environment_does_not_start(cloud: Cloud, name: str) -> None:
    cloud.deploy(env={name: "k" * 40})
    reply = cloud.invoke(event(cloud)[1])
    assert reply["errorType"] == "ConfigurationError"
    assert name in reply["errorMessage"]
    assert "FLUJO_LAMBDA_PUBLIC_KEYS" in reply["errorMessage"]


def test_check_09_a_short_hmac_key_and_a_missing_key_are_refused(cloud: Cloud) -> None:
    with pytest.raises(ConfigurationError, match="31 bytes, at least 32"):
        HmacKey(b"k" * 31, "short")
    with pytest.raises(ConfigurationError, match="knows no key"):
        worker_from({"FLUJO_LAMBDA_AUDIENCE": "x"})
    with pytest.raises(ConfigurationError, match="named by the ARN of its secret"):
        HmacKey.from_secrets_manager("k" * 40)


def test_check_09_a_secret_that_cannot_be_read_says_why(cloud: Cloud) -> None:
    arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:nothing-AbCdEf"
    with pytest.raises(ConfigurationError, match="cannot be read: ResourceNotFoundException"):
        HmacKey.from_secrets_manager(arn)


def test_check_09_an_hmac_key_comes_from_secrets_manager(cloud: Cloud) -> None:
    import boto3

    secrets = boto3.client("secretsmanager")
    arn = secrets.create_secret(Name=f"key-{time.time()}", SecretString="k" * 40)["ARN"]
    secrets.close()
    cloud.deploy(env={"FLUJO_LAMBDA_PUBLIC_KEYS": "", "FLUJO_LAMBDA_HMAC_SECRET_ARN": arn})
    header, _ = event(cloud, b'{"modules": []}', kind="probe")
    assert cloud.invoke(sealed(header, HmacKey.from_secrets_manager(arn)))["status"] == "done"
    assert cloud.invoke(sealed(header, cloud.signer))["code"] == "E_SIG"


def test_check_16_another_python_is_refused_by_the_signed_header(cloud: Cloud, canary: Path) -> None:
    function = cloud.deploy(env=PICKLES)
    refused(cloud, canary_event(cloud, canary, python="3.9")[1], "E_PYVER", canary)
    blob, code = canary_code(canary, "3.9")
    honest = code.model_copy(update={"python": PYTHON})  # a header that lies about the code it comes with
    reply = cloud.invoke(event(cloud, task(code=blob), code=honest)[1])
    assert "E_PYVER" in json.dumps(reply)
    assert not canary.exists()
    assert {record.result.error for record in function.records} == {None}


def test_check_17_a_module_that_the_worker_lacks_is_named_with_what_helps(cloud: Cloud, canary: Path) -> None:
    cloud.deploy(env=PICKLES)
    blob, code = canary_code(canary)
    reply = cloud.invoke(event(cloud, task(code=blob), code=code, modules=("acme.billing", "json"))[1])
    assert (reply["status"], reply["code"]) == ("rejected", "E_IMPORT")
    assert "acme.billing" in reply["why"]
    assert "json" not in reply["why"]
    assert "register_pickle_by_value" in reply["do"]
    assert not canary.exists()


def test_a_worker_unpickles_only_where_it_was_told_so(cloud: Cloud, canary: Path) -> None:
    cloud.deploy()
    refused(cloud, canary_event(cloud, canary)[1], "E_PICKLE", canary)
    hidden = cloud.invoke(event(cloud, task(code=canary_code(canary)[0]))[1])  # the header does not say so
    assert "E_PICKLE" in json.dumps(hidden)
    assert not canary.exists()


def test_a_task_for_another_artifact_is_refused(cloud: Cloud, canary: Path) -> None:
    cloud.deploy(env={"FLUJO_LAMBDA_ARTIFACT": "a" * 64})
    refused(cloud, event(cloud, artifact="b" * 64)[1], "E_ARTIFACT", canary)


@pytest.mark.parametrize("key", ["../../etc/passwd", "blobs/sha256/../x", "blobs/sha256/" + "0" * 64, "/etc/passwd"])
def test_check_25_a_key_that_is_not_the_digest_is_not_fetched(cloud: Cloud, s3: Any, canary: Path, key: str) -> None:
    cloud.deploy(env={"FLUJO_LAMBDA_BUCKET": BUCKET})
    header, _ = event(cloud)
    blob = header.body.model_copy(update={"text": None, "key": key})
    refused(cloud, event(cloud, body=None)[1] and sealed(header.model_copy(update={"body": blob}), cloud.signer),
            "E_BLOB", canary)  # fmt: skip


def test_check_25_a_size_that_nobody_would_read_is_refused_unread(cloud: Cloud, s3: Any, canary: Path) -> None:
    cloud.deploy(env={"FLUJO_LAMBDA_BUCKET": BUCKET})
    digest = hashlib.sha256(b"").hexdigest()
    header, _ = event(cloud)
    blob = packed(b"", None, spill=False).model_copy(
        update={"text": None, "key": f"blobs/sha256/{digest}", "size": 2**30}
    )
    refused(cloud, sealed(header.model_copy(update={"body": blob}), cloud.signer), "E_SIZE", canary)


def test_keys_are_read_from_pem_as_openssl_writes_it(tmp_path: Path) -> None:
    import subprocess

    private, public = tmp_path / "signing.pem", tmp_path / "worker.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    signer = Ed25519Signer(private)
    assert Ed25519Verifier(public.read_bytes()).keyid == signer.keyid == Ed25519Verifier(signer.verifier.text).keyid
    assert Ed25519Verifier(public.read_bytes()).verify(b"text", signer.sign(b"text"))
    assert not Ed25519Verifier(public.read_bytes()).verify(b"other", signer.sign(b"text"))
    assert "PRIVATE" not in repr(signer)
    for wrong in (b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(ConfigurationError, match="openssl genpkey"):
            Ed25519Signer(wrong)
    other = tmp_path / "other.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "x25519", "-out", tmp_path / "x.pem"], check=True)
    subprocess.run(["openssl", "pkey", "-in", tmp_path / "x.pem", "-pubout", "-out", other], check=True)
    cut = public.read_bytes().replace(b"MCow", b"MCo")
    for wrong in (b"AAAA", other.read_bytes(), private.read_bytes(), cut, b"-----BEGIN PUBLIC KEY-----"):
        with pytest.raises(ConfigurationError, match="no Ed25519 public key"):
            Ed25519Verifier(wrong)
