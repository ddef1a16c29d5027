"""What a worker process of the conformance tests does: one attempt of a step that it finds by its name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio

from flujo.core import LocalBackend, StepExecutionRequest, StepOutcome
from flujo.core.testing import trial_steps


def work(name: str, arguments: dict[str, object], path: str) -> StepOutcome:
    ctx: Any = SimpleNamespace(step_path=path)
    request = StepExecutionRequest(getattr(trial_steps, name), arguments, None, ctx)
    return anyio.run(LocalBackend().execute_step, request)
