"""LambdaBackend keeps the promises of a remote backend, as core's suite asks them."""

from __future__ import annotations

import pytest
from lambda_kit import Cloud

from flujo.backend_lambda import Rates
from flujo.core.testing import assert_conforms
from flujo.core.testing.remote_rules import REMOTE_RULES


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_backend_holds_every_rule_but_the_one_that_aws_has_no_word_for(cloud: Cloud, loop: str) -> None:
    cloud.deploy(env={"FLUJO_LAMBDA_ALLOW_PICKLE": "1"})
    # Nothing stops an invocation: a step that is cancelled here runs on there, to its deadline at most.
    held = assert_conforms(
        lambda: cloud.backend(allow_pickle=True, rates=Rates(0)), loops=[loop], skip=["cancelled_step_has_ended"]
    )
    assert {rule.__name__ for rule in REMOTE_RULES} <= set(held)
