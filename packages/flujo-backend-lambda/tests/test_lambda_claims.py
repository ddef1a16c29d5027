"""A task runs once, however often it is delivered."""

from __future__ import annotations

import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from lambda_kit import BUCKET

from flujo.backend_lambda import Claims, DynamoClaims, S3Claims
from flujo.backend_lambda.claims import MemoryClaims
from flujo.backend_lambda.errors import Refusal

Make = Callable[[], Claims]


@pytest.fixture(params=["memory", "s3", "dynamodb"])
def claims(request: pytest.FixtureRequest) -> Claims:
    if request.param == "memory":
        return MemoryClaims()
    client: Any = request.getfixturevalue(request.param)
    return S3Claims(BUCKET, client=client) if request.param == "s3" else DynamoClaims("claims", client=client)


def test_check_04_a_task_that_ended_gives_its_answer(claims: Claims) -> None:
    claim = claims.begin("task", 60)
    assert claim.reply is None
    claims.finish(claim, "answer")
    assert claims.begin("task", 60).reply == "answer"
    assert claims.begin("other", 60).reply is None


def test_check_05_a_task_that_runs_is_refused_until_its_lease_is_over(claims: Claims) -> None:
    claims.begin("task", 600)
    with pytest.raises(Refusal, match="E_DUPLICATE") as refused:
        claims.begin("task", 60)
    assert refused.value.ran
    claims.begin("left", 0.01)
    time.sleep(0.05)
    again = claims.begin("left", 60)
    assert again.reply is None
    claims.finish(again, "second")
    assert claims.begin("left", 60).reply == "second"


def test_who_lost_a_claim_writes_nothing_over_the_answer_of_who_took_it(claims: Claims) -> None:
    late = claims.begin("task", 0.01)
    time.sleep(0.05)
    winner = claims.begin("task", 60)
    claims.finish(winner, "of the winner")
    claims.finish(late, "of the late one")
    assert claims.begin("task", 60).reply == "of the winner"


def test_check_22_of_many_threads_one_claims_a_task() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(50):
            assert _claimed_by(MemoryClaims(), 8) == 1
    finally:
        sys.setswitchinterval(interval)


def _claimed_by(claims: Claims, threads: int) -> int:
    """How many of so many threads get a claim that each wants at the same time."""
    together = threading.Barrier(threads)

    def one(_: int) -> bool:
        together.wait()
        with suppress(Refusal):
            return claims.begin("task", 60).reply is None
        return False

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(one, range(threads)))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"until": "late"}', b'{"reply": 1}', b"\x80", b'{"until": 1, "more": 2}']
)
def test_check_25_a_claim_that_no_worker_wrote_is_not_used(s3: Any, body: bytes) -> None:
    s3.put_object(Bucket=BUCKET, Key="flujo/claims/task", Body=body)
    with pytest.raises(Refusal, match="E_BLOB") as refused:
        S3Claims(BUCKET, client=s3).begin("task", 60)
    assert refused.value.ran  # whether it did is not known


def test_an_answer_that_no_item_holds_is_not_kept(dynamodb: Any) -> None:
    claims = DynamoClaims("claims", client=dynamodb)
    claims.finish(claims.begin("task", 0.01), "x" * 500_000)
    with pytest.raises(Refusal, match="E_DUPLICATE"):
        claims.begin("task", 60)


def test_memory_forgets_the_oldest() -> None:
    claims = MemoryClaims(most=2)
    for name in "abc":
        claims.finish(claims.begin(name, 60), name)
    claims.begin("d", 60)
    assert claims.begin("c", 60).reply == "c"
    assert claims.begin("a", 60).reply is None


def test_memory_forgets_answers_by_their_bytes_and_such_a_task_runs_no_more() -> None:
    claims = MemoryClaims(most_bytes=10_000)
    for name in ("a", "b", "c"):
        claims.finish(claims.begin(name, 0.01), "é" * 2000)
    time.sleep(0.05)
    assert claims.begin("c", 60).reply == claims.begin("b", 60).reply == "é" * 2000
    with pytest.raises(Refusal, match=r"E_DUPLICATE: this task ran, and its answer is no longer kept") as refused:
        claims.begin("a", 60)
    assert refused.value.ran
    claims.finish(claims.begin("huge", 60), "x" * 10_001)
    with pytest.raises(Refusal, match="no longer kept"):
        claims.begin("huge", 60)


def test_memory_is_bounded_by_default() -> None:
    claims = MemoryClaims()
    tracemalloc.start()
    try:
        for number in range(40):
            claims.finish(claims.begin(str(number), 60), "x" * 1_000_000)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 20_000_000
