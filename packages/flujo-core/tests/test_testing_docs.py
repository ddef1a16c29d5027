"""The test kit's documentation: every public name has some, its examples run, and core knows nothing of the kit."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import flujo.core
import flujo.core.testing as kit
from flujo.core import Budget, LocalBackend, MemoryStore, Price
from flujo.core.testing.backend_rules import BACKEND_RULES
from flujo.core.testing.price_rules import PRICE_RULES
from flujo.core.testing.remote_rules import REMOTE_RULES
from flujo.core.testing.stream_rules import STREAM_RULES

SPACE = """
from flujo.core import *
from flujo.core.testing import *

pipeline = ScriptedAgent("x")

async def pay(order: str) -> str:
    return order
"""


class MyPriceBook:
    def price(self, model: str) -> Price | None:
        return Price() if model == "acme:small" else None


def examples(name: str) -> list[str]:
    """Indented blocks of a docstring, but for those of its sections (`Args:`, `Attributes:`, ...)."""
    text = (inspect.getdoc(getattr(kit, name)) or "").partition("\nArgs:")[0].partition("\nAttributes:")[0]
    return [dedent(block) for block in re.findall(r"(?:^ {4,}\S.*\n?)+", text, re.M)]


@pytest.mark.parametrize("name", kit.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    member = getattr(kit, name)
    if name == "Point":  # an alias; its words are beside it
        return
    assert len(inspect.getdoc(member) or "") > 20
    methods = [method for key, method in vars(member).items() if inspect.isfunction(method) and key[0] != "_"]
    named = [method.__name__ for method in methods if not method.__module__.endswith("recording")]
    assert [key for key in named if not inspect.getdoc(getattr(member, key))] == []


@pytest.mark.parametrize("name", ["ScriptedAgent", "RecordingPlugin", "FaultInjector", "assert_conforms"])
def test_its_example_runs(name: str) -> None:
    (example,) = examples(name)
    space: dict[str, object] = {
        "MyBackend": LocalBackend, "MyPriceBook": MyPriceBook, "MyStore": MemoryStore, "MyGovernor": Budget
    }  # fmt: skip
    exec(SPACE + example, space)


def test_the_example_of_the_model_runs_in_a_step() -> None:
    (example,) = examples("ScriptedModel")
    body = "".join(f"        {line}\n" for line in example.splitlines())
    code = f"""{SPACE}
async def work(text: str, ctx: RunContext) -> str:
        request = ModelRequest(model="m", messages=(Message(role="user", content=text),))
{body}        return response.content

assert Flujo(Step(work)).run("x").output == "three points"
"""
    exec(code, {})


def test_each_rule_is_in_the_guide_with_what_it_promises() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "how-to" / "check-a-backend.md").read_text("utf-8")
    for rule in (*BACKEND_RULES, *REMOTE_RULES, *STREAM_RULES, *PRICE_RULES):
        promise = " ".join((inspect.getdoc(rule) or "").split())
        assert f"| `{rule.__name__}` | {promise} |" in guide


def test_core_does_not_know_the_kit() -> None:
    code = "import sys; from flujo.core import *; print([name for name in sys.modules if 'flujo.core.testing' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    modules = Path(flujo.core.__file__).parent.glob("*.py*")
    assert [file.name for file in modules if re.search(r"import.*\btesting\b", file.read_text("utf-8"))] == []
