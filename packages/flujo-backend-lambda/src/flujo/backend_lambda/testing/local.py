"""LocalLambda: functions of this machine, behind an address that boto3 takes for AWS."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from .environment import REGION, FunctionSpec
from .http import serve
from .service import Function, Service

__all__ = ["LocalLambda"]

T = TypeVar("T")


class LocalLambda:
    """AWS Lambda on this machine, without Docker: real processes of awslambdaric, each with its own Runtime API.

    ```python
    with LocalLambda() as aws:
        aws.add("hello", handler="hello.handler", task_root=folder)
        aws.client().invoke(FunctionName="hello", Payload=b"{}")
    ```

    It plays time limits, throttling, payload limits, crashes, cold starts, log tails with REPORT lines, and events that
    are delivered twice. It plays no permissions, no memory limit, and no separation of processes from this machine.

    A cold start is a process of its own that imports the handler: its own environment, folder, log, group and end. To
    have a hundred of them on a few cores, it is forked from a template of the function, started with the function's
    environment in the function's folder, that has the runtime client loaded and, for a handler of Flujo, Flujo's
    worker; never the handler, and never a step. So a cold start here is shorter than the same code takes from nothing,
    the first one of a function apart, and its processes share one seed for hashes. `forked=False` starts an
    interpreter for each, as happens by itself with a `command`, or where what the template loads has started a thread.

    Args:
        account_concurrency: What the account may run at the same time, as `get_account_settings` tells it.
    """

    def __init__(self, *, account_concurrency: int = 1000) -> None:
        self._service = Service(account_concurrency)
        self._loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="flujo-local-lambda", daemon=True)
        self._port = 0

    def __enter__(self) -> LocalLambda:
        self._thread.start()
        self._server, self._port = self._do(serve(self._service.answer))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def functions(self) -> Mapping[str, Function]:
        """What is deployed, by name."""
        return self._service.functions

    @property
    def endpoint_url(self) -> str:
        """The address of the Lambda service, for `boto3.client("lambda", endpoint_url=...)`."""
        return f"http://127.0.0.1:{self._port}"

    def add(
        self,
        name: str,
        *,
        handler: str,
        task_root: str | Path = ".",
        timeout_s: float = 30.0,
        memory_mb: int = 256,
        concurrency: int = 1000,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] = (sys.executable, "-m", "awslambdaric"),
        retries: int = 2,
        copies: int = 1,
        forked: bool = True,
    ) -> Function:
        """Deploy a function, or another version of it; see FunctionSpec for what each argument is."""
        root = Path(task_root).resolve()
        limits = (timeout_s, memory_mb, concurrency)
        spec = FunctionSpec(name, handler, root, *limits, dict(env or {}), tuple(command), retries, copies, forked)
        before = self._service.functions.get(name)
        function = self._service.functions[name] = Function(spec)
        if before is not None:
            self._do(before.close())
        return function

    def cool(self) -> None:
        """End all warm environments, so that the next invocations start cold."""
        self._do(self._service.cool())

    def settle(self, name: str) -> None:
        """Wait until all events of a function were delivered or given up."""
        self._do(self._service.functions[name].settled())

    def client(self, **config: object) -> Any:
        """An unmodified boto3 client of it; `config` are arguments of botocore's Config."""
        import boto3  # heavy: 0.2 s, and who has a client of his own does not need it
        from botocore.config import Config  # heavy, like boto3

        keys = {"aws_access_key_id": "local", "aws_secret_access_key": "local", "region_name": REGION}
        return boto3.client("lambda", endpoint_url=self.endpoint_url, config=Config(**config), **keys)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _stop(self) -> None:
        self._server.close()
        await self._service.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        # Whoever was busy when it was cancelled has its process still.
        await self._service.close()
