"""The plugin: `--backend lambda`, `step(backend="lambda")`, and `flujo lambda ...`."""

from __future__ import annotations

import os
from collections.abc import Sequence

from flujo.core import BackendFactory, Command, hookimpl

from .backend import backend_from

__all__ = ["flujo_api", "register_backends", "register_commands"]

flujo_api = "1.0"


@hookimpl
def register_backends() -> Sequence[BackendFactory]:
    """`lambda`, as the environment describes it."""
    return [BackendFactory("lambda", lambda: backend_from(os.environ))]


@hookimpl
def register_commands() -> Sequence[Command]:
    """`flujo lambda ...`."""
    return [Command("lambda", "Build, deploy and ask AWS Lambda workers", "flujo.backend_lambda.cli:main")]
