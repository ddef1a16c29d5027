"""A cloud of this machine: LocalLambda for the functions, moto's server for S3, DynamoDB and Secrets Manager."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lambda_kit import BUCKET, Cloud

from flujo.backend_lambda import Ed25519Signer
from flujo.backend_lambda.testing import LocalLambda

REGION = "eu-central-1"


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    from moto.server import ThreadedMotoServer  # heavy: only for tests that need it

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def local_lambda() -> Iterator[LocalLambda]:
    with LocalLambda() as aws:
        yield aws


@pytest.fixture(scope="session")
def signer() -> Ed25519Signer:
    return Ed25519Signer.generate()


@pytest.fixture
def cloud(local_lambda: LocalLambda, moto_url: str, signer: Ed25519Signer, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """Whatever boto3 is asked for here answers on this machine."""
    for name, value in {
        "AWS_ENDPOINT_URL": moto_url,
        "AWS_ENDPOINT_URL_LAMBDA": local_lambda.endpoint_url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }.items():
        monkeypatch.setenv(name, value)
    return Cloud(local_lambda, moto_url, signer)


@pytest.fixture
def s3(cloud: Cloud) -> Iterator[Any]:
    """A client of S3, with an empty bucket."""
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    yield client
    for found in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=found["Key"])
    client.delete_bucket(Bucket=BUCKET)
    client.close()


@pytest.fixture
def dynamodb(cloud: Cloud) -> Iterator[Any]:
    """A client of DynamoDB, with the table of claims."""
    import boto3

    client = boto3.client("dynamodb")
    client.create_table(
        TableName="claims",
        KeySchema=[{"AttributeName": "task_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "task_id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    yield client
    client.delete_table(TableName="claims")
    client.close()
