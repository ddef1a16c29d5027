"""A hundred parallel steps on Lambda against a bare boto3 loop in the same run, and what a cold start costs.

    python -m benchmarks.lambda_invoke [STEPS] [ROUNDS]

Both sides are unmodified boto3 against the same function of `LocalLambda`, in threads, with workers of awslambdaric
that are warm. The bare loop sends the very events that the backend sent, and looks at nothing that comes back; the
backend signs, reserves, reads the report and checks the answer, and the engine does its part. Rounds alternate; printed
are the medians, and the ratio of their wall times, which must be at most 1.5. Cold figures are one round each, with
every worker started for it. Real AWS was not run.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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


def main(many: int = 100, rounds: int = 5) -> int:
    signer = Ed25519Signer.generate()
    words = [f"word {n}" for n in range(many)]
    expected = None
    with LocalLambda() as aws, ThreadPoolExecutor(many) as pool:
        env = {"FLUJO_LAMBDA_PUBLIC_KEYS": signer.verifier.text}
        root = Path(__file__).parents[1]
        aws.add("f", handler="flujo.backend_lambda.aws.handler", task_root=root, timeout_s=120, env=env)
        client = aws.client(retries={"total_max_attempts": 1}, read_timeout=300, max_pool_connections=many)
        backend = Recording("f", signer=signer, client=client, concurrency=many, rates=Rates("0.0000166667"))
        flujo = Flujo(Map(hashed, limit=many), backend=backend)

        def by_flujo() -> None:
            nonlocal expected
            backend.events = []
            made = flujo.run(words).unwrap()
            assert len(set(made)) == many
            assert expected in (None, made)
            expected = made

        def bare() -> None:
            sent = [pool.submit(invoke, client, event) for event in backend.events]
            assert not [one for one in sent if one.result()]

        cold = timed(by_flujo)
        events = list(backend.events)
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(timed(by_flujo))
            theirs.append(timed(bare))
        aws.cool()
        backend.events = events
        bare_cold = timed(bare)
        client.close()
    return told(many, (cold, bare_cold), (ours, theirs))


def invoke(client: Any, event: bytes) -> str | None:
    given = client.invoke(FunctionName="f", Payload=event, LogType="Tail")
    given["Payload"].read()
    error: str | None = given.get("FunctionError")
    return error


def told(many: int, cold: Any, warm: Any) -> int:
    middle = [[statistics.median(part) for part in zip(*side, strict=True)] for side in warm]
    ratio = middle[0][0] / middle[1][0]
    print(f"{many} parallel steps of 100 ms      wall s   CPU s of this process")
    for name, (wall, cpu) in zip(
        ("Flujo, warm", "bare boto3, warm", "Flujo, cold", "bare boto3, cold"), (*middle, *cold), strict=True
    ):
        print(f"  {name:28} {wall:8.2f} {cpu:8.2f}")
    verdict = "ok" if ratio <= LIMIT else "FAIL"
    print(f"  warm, Flujo / bare            {ratio:8.2f}   at most {LIMIT}: {verdict}")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main(*map(int, sys.argv[1:])))
