"""The conformance suite, held against a backend of other processes that get and give nothing but JSON."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pipe_backend import PipeBackend, Pool

from flujo.core.testing import assert_conforms
from flujo.core.testing.remote_rules import REMOTE_RULES
from flujo.core.testing.stream_rules import STREAM_RULES


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool()
    yield made
    made.close()


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_backend_of_processes_that_speak_json_holds_every_rule(loop: str, pool: Pool) -> None:
    held = assert_conforms(lambda: PipeBackend(pool), loops=[loop])
    assert {rule.__name__ for rule in (*REMOTE_RULES, *STREAM_RULES)} <= set(held)
    assert "context_variables" not in held
