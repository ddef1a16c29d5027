"""The command line in this process, or as a process of its own, in a folder of its own."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flujo_cli.main import run

FLOWS = '''
import asyncio, time
from flujo.core import (
    Flujo, Message, ModelRequest, ModelResponse, ModelUsage, Pipeline, Price, RunContext, Step, UsageLimits, step,
)

PRICE = Price(output_usd="0.001")

async def send(request):
    """Costs 10 tokens and one cent."""
    return ModelResponse(content=request.messages[-1].content.upper(), usage=ModelUsage(output_tokens=10))

@step
async def check(text: str) -> str:
    if "bad" in text:
        raise ValueError("cannot work on this, password=hunter22")
    return text

@step
async def ask(text: str, ctx: RunContext) -> str:
    print("a print of the step")
    message = Message(role="user", content=text)
    request = ModelRequest(model="m", messages=(message,), max_tokens=10, min_tokens=10)
    return (await ctx.call_model(request, send, price=PRICE)).content

@step
async def wait(text: str) -> str:
    print("waiting", flush=True)
    await asyncio.sleep(60)
    return text

@step(name="half-wait")
async def half_wait(text: str) -> str:
    if "slow" in text:
        print("waiting", flush=True)
        await asyncio.sleep(60)
    return text

@step
def block(text: str) -> str:
    print("waiting", flush=True)
    time.sleep(60)
    return text

@step(timeout_s=0.1)
def block_briefly(text: str) -> str:
    time.sleep(60)
    return text

pipeline = check >> ask
'''


@dataclass(frozen=True, slots=True)
class Said:
    """What a command line said, and its exit code."""

    code: int
    out: str
    err: str


class Cli:
    """`flujo` in a folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        self._started: list[subprocess.Popen[bytes]] = []

    def __call__(self, *arguments: object) -> Said:
        """Run it in this process."""
        self._capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        said = self._capsys.readouterr()
        assert "Traceback" not in said.err or "--debug" in arguments, said.err
        return Said(code, said.out, said.err)

    def process(self, *arguments: object, given: bytes = b"", **environment: str) -> Said:
        """Run it as a process, to its end."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(given, timeout=240)
        return Said(process.returncode, out.decode(), err.decode())

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen[bytes]:
        """Start it as a process."""
        command = [sys.executable, "-m", "flujo_cli", *map(str, arguments)]
        pipe = subprocess.PIPE
        env = {**os.environ, **environment}
        process = subprocess.Popen(command, cwd=self.folder, stdin=pipe, stdout=pipe, stderr=pipe, env=env)
        self._started.append(process)
        return process

    def close(self) -> None:
        """End what a failed test left running, so that its own failure is the one that is seen."""
        for process in self._started:
            process.kill()
            with process:
                pass

    def write(self, name: str, text: str | bytes) -> Path:
        """Write a file below the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return path

    def plugin(self, distribution: str, source: str) -> None:
        """Install a plugin distribution in the folder, as far as Python's metadata is concerned."""
        module = distribution.replace("-", "_")
        info = f"{module}-1.0.dist-info"
        self.write(f"{module}.py", source)
        self.write(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        self.write(f"{info}/entry_points.txt", f"[flujo]\n{module} = {module}\n")
        importlib.invalidate_caches()


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """The command line in a folder that has the file `flows.py` and no settings above it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLUJO_PLUGINS", "")  # set first, so that what a command sets is undone at the end
    monkeypatch.delenv("FLUJO_PLUGINS")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)
    cli = Cli(tmp_path, capsys)
    cli.write(".git/HEAD", "")
    cli.write("flows.py", FLOWS)
    yield cli
    cli.close()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
