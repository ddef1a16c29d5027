"""Tools of a real MCP server, a process of its own, are tools under the run as any other."""

import sys

import pytest
from pydantic_ai import Agent as PaiAgent
from pydantic_ai import messages as pai
from pydantic_ai.mcp import MCPToolset, StdioTransport
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.test import TestModel

from flujo.agent import agent, wrap
from flujo.core import Allow, Deny, Flujo, GuardToolCall, OnToolCall, RecordIntent, hookimpl

SERVER = """
from pathlib import Path

from mcp.server.mcpserver import MCPServer

server = MCPServer("shop")

@server.tool()
def price(item: str) -> int:
    'What an item costs.'
    with Path("asked.txt").open("a") as file:
        file.write(item)
    return {"tea": 3}[item]

server.run("stdio")
"""


class Watching:
    """Sees tool calls, and denies them where it is told to."""

    def __init__(self, deny: str = "") -> None:
        self.deny = deny
        self.seen: list[object] = []

    @hookimpl
    def guard_tool_call(self, payload: GuardToolCall) -> Allow | Deny:
        self.seen.append(("guard", payload.call.name, payload.call.arguments))
        return Deny(self.deny) if self.deny else Allow()

    @hookimpl
    def record_intent(self, payload: RecordIntent) -> None:
        if payload.kind == "tool_call":
            self.seen.append("intent")

    @hookimpl
    def on_tool_call(self, payload: OnToolCall) -> None:
        self.seen.append(("gave", payload.result.content))


@pytest.fixture
def shop(tmp_path):
    """A toolset of the server; it is started when an agent runs."""
    file = tmp_path / "server.py"
    file.write_text(SERVER)
    return MCPToolset(StdioTransport(sys.executable, [str(file)], cwd=str(tmp_path), keep_alive=False), init_timeout=60)


def asking():
    answers = [pai.ToolCallPart("price", {"item": "tea"}, "id-1"), pai.TextPart("three")]
    return FunctionModel(lambda messages, info: pai.ModelResponse(parts=[answers.pop(0)]))


@pytest.mark.parametrize("form", ["agent", "wrap"])
def test_a_call_of_an_mcp_server_passes_the_run(shop, form, tmp_path):
    watching = Watching()
    made = agent(asking(), tools=[shop]) if form == "agent" else wrap(PaiAgent(asking(), toolsets=[shop], name="asks"))
    result = Flujo(made, plugins=[watching]).run("What is tea?")
    assert (result.status, result.output) == ("completed", "three"), result.error
    assert watching.seen == [("guard", "price", {"item": "tea"}), "intent", ("gave", 3)]
    assert tmp_path.joinpath("asked.txt").read_text() == "tea"


def test_a_denied_call_never_reaches_the_server(shop, tmp_path):
    result = Flujo(agent(asking(), tools=[shop]), plugins=[Watching("no shopping")]).run("What is tea?")
    assert result.status == "aborted"
    assert "no shopping" in str(result.error)
    assert not tmp_path.joinpath("asked.txt").exists()


@pytest.mark.parametrize("form", ["agent", "wrap"])
def test_a_server_that_may_ask_a_model_by_itself_is_refused(shop, form):
    shop.set_sampling_model(TestModel())
    made = agent(asking(), tools=[shop]) if form == "agent" else wrap(PaiAgent(asking(), toolsets=[shop], name="asks"))
    result = Flujo(made).run("What is tea?")
    assert result.status == "failed"
    assert "sampling_model" in str(result.error)


def test_a_server_that_is_made_for_each_run_and_may_ask_a_model_is_refused(shop):
    made = PaiAgent(asking(), name="asks")

    @made.toolset
    def chosen(ctx):
        shop.set_sampling_model(TestModel())
        return shop

    result = Flujo(wrap(made)).run("What is tea?")
    assert result.status == "failed", result.output
    assert "sampling_model" in str(result.error)
