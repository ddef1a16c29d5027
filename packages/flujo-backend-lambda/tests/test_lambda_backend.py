"""Steps on the real runtime client, called by an unmodified boto3, paid for under the run's budget."""

from __future__ import annotations

from typing import Any

import pytest
from lambda_kit import Cloud
from lambda_steps import shout

from flujo.core import Flujo


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_a_step_runs_there(cloud: Cloud) -> None:
    function = cloud.deploy()
    result = await Flujo(shout, backend=cloud.backend()).run_async("hello")
    assert result.unwrap() == "HELLO!"
    assert len(function.records) == 1
