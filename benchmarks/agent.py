"""What an agent under a run costs over the same agent of pydantic-ai alone: CPU per call, both in one process.

The model is asked over HTTP, through OpenAI's client, as every provider is; who answers is a process of its own, whose
work is not counted. `--function` asks pydantic-ai's FunctionModel instead, which does no work at all.
"""

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pydantic_ai
from benchmarks.compare import Ratio, paired
from pydantic_ai import messages as pai
from pydantic_ai.models import Model
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from flujo.agent import agent
from flujo.core import Flujo, Price, UsageLimits

MOST = 1.10
"""Our layer may add 10 % to a call."""
CALLS = 5
"""Calls in one timing: one alone is a matter of luck."""

_SERVER = """
import asyncio, json

ANSWER = json.dumps({
    "id": "1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "an answer"}}],
    "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25},
}).encode()
HEAD = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(ANSWER)

async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            lines = head.lower().split(b"\\r\\n")
            length = next(int(line.split(b":")[1]) for line in lines if b"content-length" in line)
            await reader.readexactly(length)
            writer.write(HEAD + ANSWER)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@contextmanager
def provider() -> Iterator[str]:
    """A process that answers every request of OpenAI's protocol with the same few words; its address."""
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        finally:
            process.kill()


async def ratio(model: Model, url: str | None = None, rounds: int = 60) -> Ratio:
    """One call of an agent under limits, and the same call without us; ours makes its own client for a `url`."""
    bare = pydantic_ai.Agent(model, instructions="Answer briefly.", model_settings={"max_tokens": 100})
    limits = UsageLimits(total_cost_usd_limit=10**6)
    asked, key = (model, None) if url is None else ("openai:m", "none")
    price = Price("0.000001", "0.000002")
    ask = agent(asked, base_url=url, api_key=key, instructions="Answer briefly.", max_tokens=100, price=price)
    flujo = Flujo(ask, limits=limits)

    async def ours() -> None:
        for _ in range(CALLS):
            result = await flujo.run_async("What is an audit log?")
            assert result.status == "completed", result.error

    async def theirs() -> None:
        for _ in range(CALLS):
            await bare.run("What is an audit log?")

    return await paired(ours, theirs, items=CALLS, rounds=rounds)


def measure(rounds: int = 60, *, function: bool = False) -> Ratio:
    """Measure it, over HTTP or with a function for a model."""
    if function:
        answer = pai.ModelResponse(parts=[pai.TextPart("an answer")])
        return asyncio.run(ratio(FunctionModel(lambda messages, info: answer), rounds=rounds))
    with provider() as url:
        model = OpenAIChatModel("m", provider=OpenAIProvider(base_url=url, api_key="none"))
        return asyncio.run(ratio(model, url, rounds))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--function", action="store_true", help="ask a function instead of a server")
    found = measure(function=parser.parse_args().function)
    print(found.line("one call of an agent"))
    sys.exit(0 if found.value <= MOST else 1)
