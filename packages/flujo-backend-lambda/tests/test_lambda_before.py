"""What goes wrong before anything is sent: it costs nothing, is told in time, and says what to do."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from threading import Thread
from typing import Any

import pytest
from lambda_kit import BUCKET, Cloud
from lambda_steps import metered, plain, shout

from flujo.backend_lambda import LambdaBackend, Rates
from flujo.backend_lambda.blobs import S3Blobs
from flujo.core import Flujo, Map, NotSent, RetryPolicy, Step, UsageLimits

DEAR = Rates("0.01")
LARGE = "x" * 400_000


@dataclass
class Flaky:
    """A store that is not there the first time."""

    store: S3Blobs
    tries: list[str] = field(default_factory=list)

    def put(self, key: str, data: bytes) -> None:
        self.tries.append(key)
        if len(self.tries) == 1:
            raise ConnectionResetError("gone for a moment")
        self.store.put(key, data)

    def get(self, key: str, size: int) -> bytes:
        return self.store.get(key, size)


@dataclass
class Silence:
    """A port where everybody is let in and nobody is answered."""

    url: str
    guests: list[socket.socket] = field(default_factory=list)


@pytest.fixture
def silence(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Silence]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = Silence(f"http://127.0.0.1:{server.getsockname()[1]}")

        def let_in() -> None:
            while True:
                try:
                    there.guests.append(server.accept()[0])
                except OSError:
                    return

        thread = Thread(target=let_in)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", there.url)
        yield there
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for guest in there.guests:
            guest.close()


@pytest.mark.parametrize("of", [plain, metered], ids=["plain", "with a RunContext"])
def test_what_no_bucket_took_was_not_sent_and_costs_nothing(cloud: Cloud, s3: Any, of: Step[Any, Any]) -> None:
    function = cloud.deploy()
    backend = cloud.backend(bucket="nosuchbucket", rates=DEAR)
    made = Flujo(of, backend=backend, limits=UsageLimits(total_cost_usd_limit=5)).run(LARGE)
    assert made.status == "failed"
    assert "NotStored: bucket 'nosuchbucket' did not take" in str(made.error)
    assert "nothing was sent: NoSuchBucket" in str(made.error)
    assert "s3:PutObject" in str(made.error)
    assert made.usage.cost_usd == Decimal(0)
    assert made.usage.unmeasured == 0
    assert not function.records


def test_a_store_that_fails_for_a_moment_is_tried_again_as_not_sent(cloud: Cloud, s3: Any) -> None:
    function = cloud.deploy(env={"FLUJO_LAMBDA_BUCKET": BUCKET})
    flaky = Flaky(S3Blobs(BUCKET, client=s3))
    again = Step(plain.function, name="plain", retry=RetryPolicy(max_attempts=2, backoff_s=0.01, retry_on=(NotSent,)))
    made = Flujo(again, backend=cloud.backend(store=flaky)).run(LARGE)
    assert made.unwrap() == 400_000
    assert len(flaky.tries) == 2
    assert len(function.records) == 1


def test_a_closure_that_no_bucket_took_costs_nothing(cloud: Cloud, s3: Any) -> None:
    held = "x" * 300_000

    async def closed(text: str) -> str:
        return text + held

    cloud.deploy()
    backend = cloud.backend(bucket="nosuchbucket", rates=DEAR, allow_pickle=True)
    made = Flujo(Step(closed, name="closed"), backend=backend).run("a")
    assert "NotStored" in str(made.error)
    assert made.usage.cost_usd == Decimal(0)


def test_a_fault_of_the_checks_before_the_run_says_what_to_do_and_not_to_mend_the_step(cloud: Cloud) -> None:
    cloud.deploy()
    made = Flujo(shout, backend=cloud.backend("nobody")).run("hi")
    assert made.error is not None
    assert made.error.do == "Check name, region and credentials; deploy it with: flujo lambda deploy"
    assert str(made.error).count("flujo lambda deploy") == 1
    assert "ResourceNotFoundException" in made.error.why


def test_where_aws_is_silent_all_who_waited_are_told_once(
    silence: Silence, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flujo.backend_lambda.preflight.ASK_S", 1.0)
    since = time.monotonic()
    made = Flujo(Map(shout, limit=30, on_failure="collect"), backend=cloud.backend("f", concurrency=30)).run(
        [str(number) for number in range(30)]
    )
    assert ["ReadTimeoutError" in str(one) for one in made.unwrap()] == [True] * 30
    assert len(silence.guests) == 1
    assert time.monotonic() - since < 10  # one after another they would take 30 s, and with boto3's retries hours


def test_where_aws_is_silent_a_step_waits_no_longer_for_it_and_a_cancel_not_at_all(
    silence: Silence, cloud: Cloud
) -> None:
    since = time.monotonic()
    backend = LambdaBackend("f", signer=cloud.signer, rates=DEAR)
    flujo = Flujo(Step(shout.function, timeout_s=0.2), backend=backend)
    ended = flujo.run("hi", deadline_s=0.3)
    assert ended.status == "aborted"
    assert time.monotonic() - since < 4  # the question itself may take 5 s
    made = flujo.run("hi")
    assert "Check name, region and credentials" in str(made.error)
    assert (made.usage.cost_usd, ended.usage.cost_usd) == (Decimal(0), Decimal(0))
    assert time.monotonic() - since < 20


def test_a_port_where_nobody_listens_is_tried_once_and_later_again(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.deploy()
    backend, there = cloud.backend(), cloud.aws.endpoint_url
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", closed)
    since = time.monotonic()
    made = Flujo(Map(shout, limit=20, on_failure="collect"), backend=backend).run(list("abcdefgh"))
    assert ["EndpointConnectionError" in str(one) for one in made.unwrap()] == [True] * 8
    assert time.monotonic() - since < 5
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", there)
    backend._failed_at -= 1  # as a second later
    assert Flujo(shout, backend=backend).run("hi").unwrap() == "HI!"
