"""A hundred parallel steps on Lambda against a bare boto3 loop in the same run, and what a cold start costs.

    python -m benchmarks.lambda_invoke [STEPS] [ROUNDS]

Both sides are unmodified boto3 against the same function of `LocalLambda` in another process, in threads, with workers
of awslambdaric that are warm. The bare loop sends the very events that the backend sent, and looks at nothing that
comes back; the backend signs, reserves, reads the report and checks the answer, and the engine does its part. Rounds
alternate; printed are the medians, and the ratio of their wall times, which must be at most 1.5. Cold figures are one
round each, with a new process for every step, forked from the sandbox's template, which is started in the first of
them; and once with every process started from nothing. Real AWS was not run.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from flujo.backend_lambda import Ed25519Signer, LambdaBackend, Rates
from flujo.backend_lambda.testing import LocalLambda
from flujo.core import Flujo, Map

from .lambda_step import hashed

LIMIT = 1.5


class Recording(LambdaBackend):
    """Keeps the events that it sends."""

    events: list[bytes]

    def _sealed(self, *given: Any) -> Any:
        header, event = super()._sealed(*given)
        self.events.append(event)
        return header, event


def timed(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def play(public_key: str, tell: Connection) -> None:
    """Be AWS, in a process of its own, until told to end; each word before that cools the workers, or deploys anew."""
    with LocalLambda() as aws:
        env = {"FLUJO_LAMBDA_PUBLIC_KEYS": public_key}
        root = Path(__file__).parents[1]
        deploy = partial(
            aws.add, "f", handler="flujo.backend_lambda.aws.handler", task_root=root, timeout_s=120, env=env
        )
        deploy()
        tell.send(aws.endpoint_url)
        while word := tell.recv():
            aws.cool() if word == "cool" else deploy(forked=False)
            tell.send("done")


def main(many: int = 100, rounds: int = 5) -> int:
    signer = Ed25519Signer.generate()
    words = [f"word {n}" for n in range(many)]
    spawn = multiprocessing.get_context("spawn")
    tell, told_by = spawn.Pipe()
    service = spawn.Process(target=play, args=(signer.verifier.text, told_by))
    service.start()
    os.environ |= {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "eu-central-1"}
    os.environ["AWS_ENDPOINT_URL_LAMBDA"] = tell.recv()
    config = Config(retries={"total_max_attempts": 1}, read_timeout=300, max_pool_connections=many)
    client = boto3.client("lambda", config=config)
    backend = Recording("f", signer=signer, client=client, concurrency=many, rates=Rates("0.0000166667"))
    flujo = Flujo(Map(hashed, limit=many), backend=backend)

    def by_flujo() -> None:
        backend.events = []
        assert len(set(flujo.run(words).unwrap())) == many

    def bare() -> None:
        with ThreadPoolExecutor(many) as pool:
            assert not any(pool.map(partial(invoke, client), backend.events))

    cold = timed(by_flujo)
    pairs = [(timed(by_flujo), timed(bare)) for _ in range(rounds)]
    tell.send("cool")
    tell.recv()
    bare_cold = timed(bare)
    tell.send("from nothing")
    tell.recv()
    from_nothing = timed(by_flujo)
    tell.send("")
    service.join()
    client.close()
    return told(many, (cold, bare_cold, from_nothing), tuple(zip(*pairs, strict=True)))


def invoke(client: Any, event: bytes) -> str | None:
    given = client.invoke(FunctionName="f", Payload=event, LogType="Tail")
    given["Payload"].read()
    error: str | None = given.get("FunctionError")
    return error


def told(many: int, cold: Any, warm: Any) -> int:
    middle = [[statistics.median(part) for part in zip(*side, strict=True)] for side in warm]
    ratio = middle[0][0] / middle[1][0]
    print(f"{many} parallel steps of 100 ms      wall s   CPU s of this process")
    names = ("Flujo, warm", "bare boto3, warm", "Flujo, cold", "bare boto3, cold", "Flujo, cold, from nothing")
    for name, (wall, cpu) in zip(names, (*middle, *cold), strict=True):
        print(f"  {name:28} {wall:8.2f} {cpu:8.2f}")
    verdict = "ok" if ratio <= LIMIT else "FAIL"
    print(f"  warm, Flujo / bare            {ratio:8.2f}   at most {LIMIT}: {verdict}")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main(*map(int, sys.argv[1:])))
