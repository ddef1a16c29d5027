"""The clients of providers make no retries of their own: each request is one that the run reserved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

from flujo.agent import agent
from flujo.agent.models import make
from flujo.core import Flujo

_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"


@asynccontextmanager
async def busy_server(asked: list[bytes]) -> AsyncGenerator[str]:
    """A provider that is too busy to answer; its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        size = next(line.split(b":")[1] for line in lines if line.startswith(b"content-length"))
        asked.append(await reader.readexactly(int(size)))
        writer.write(_BUSY)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


@pytest.mark.parametrize("whose", ["ours", "the user's", "the user's, with a setting"])
def test_a_busy_provider_is_asked_once(whose: str) -> None:
    asked: list[bytes] = []

    async def main() -> str:
        async with busy_server(asked) as url:
            provider = OpenAIProvider(base_url=url, api_key="none")
            settings = ModelSettings(max_retries=2) if "setting" in whose else None
            theirs = OpenAIChatModel("m", provider=provider, settings=settings)
            ours = agent("openai:m", base_url=url, api_key="none")
            return (await Flujo(ours if whose == "ours" else agent(theirs)).run_async("go")).status

    assert asyncio.run(main()) == "failed"
    assert len(asked) == 1


def test_a_client_of_ours_needs_no_copy_for_each_request() -> None:
    assert make("openai:m", "http://localhost", "none").client.max_retries == 0  # type: ignore[attr-defined]
