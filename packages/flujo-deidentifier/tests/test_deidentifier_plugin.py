"""The plugin inside real runs: nothing that identifies reaches a step or a model."""

import json

import pytest

from flujo.core import (
    Flujo,
    Message,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    Pipeline,
    Policy,
    RunContext,
    ToolCall,
    step,
)
from flujo.deidentifier.cache import RedactionCache
from flujo.deidentifier.deidentifier import Redaction
from flujo.deidentifier.plugin import Plugin, flujo_api, register_commands

pytestmark = pytest.mark.anyio

NOTE = "Mrs. Vargadottir (MRN 0044178) was seen by Dr. Stone on 12 March 2024. Lungs are clear."


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(scope="module")
def plugin():
    return Plugin()


@step
async def keep(note: str) -> str:
    return note


@step
async def shout(note: str) -> str:
    return note.upper()


async def test_a_step_sees_the_redacted_run_input(plugin):
    result = await Flujo(keep, plugins=[plugin]).run_async(NOTE)
    assert result.output == "Mrs. [PERSON] (MRN [MRN]) was seen by Dr. [PERSON] on [DATE]. Lungs are clear."


async def test_redactions_are_counted_once_per_text_and_run(plugin):
    for _ in range(2):
        result = await Flujo(Pipeline(keep, shout), plugins=[plugin]).run_async(NOTE)
        assert result.counts == {"redactions": {"PERSON": 2, "MRN": 1, "DATE": 1}}


async def test_structured_input_keeps_its_shape(plugin):
    @step
    async def pick(items: list[dict[str, str]]) -> list[dict[str, str]]:
        return items

    result = await Flujo(pick, plugins=[plugin]).run_async([{"note": NOTE}, {"note": "clear"}])
    assert result.output == [
        {"note": "Mrs. [PERSON] (MRN [MRN]) was seen by Dr. [PERSON] on [DATE]. Lungs are clear."},
        {"note": "clear"},
    ]


async def test_a_model_sees_no_identifier_wherever_it_comes_from(plugin):
    seen = []

    async def send(request: ModelRequest) -> ModelResponse:
        seen.append(request)
        return ModelResponse(content="ok", usage=ModelUsage(input_tokens=1, output_tokens=1))

    @step
    async def ask(note: str, ctx: RunContext) -> str:
        call = ToolCall(name="lookup", arguments={"who": "Dr. Stone", "days": 3, "where": ["Chillicothe, OH"]}, id="c1")
        messages = (
            Message(role="system", content="Summarise."),
            Message(role="user", content=f"{note} His wife Marguerite helps."),
            Message(role="assistant", tool_calls=(call,)),
            Message(role="tool", content="reached at 937-555-0142", tool_call_id="c1"),
        )
        return (await ctx.call_model(ModelRequest(model="m", messages=messages), send)).content

    result = await Flujo(ask, plugins=[plugin]).run_async(NOTE)
    assert result.output == "ok"
    sent = seen[0].model_dump_json()
    assert not any(s in sent for s in ("Vargadottir", "0044178", "Stone", "Marguerite", "Chillicothe", "555-0142"))
    assert seen[0].messages[2].tool_calls[0].name == "lookup"
    assert seen[0].messages[2].tool_calls[0].arguments == {"who": "Dr. [PERSON]", "days": 3, "where": ["[LOCATION]"]}
    assert result.counts["redactions"]["PHONE"] == 1


async def test_a_text_that_cannot_be_analysed_fails_the_step_and_is_not_passed_on():
    ran = []

    @step
    async def note_it(note: str) -> str:
        ran.append(note)
        return note

    result = await Flujo(note_it, plugins=[Plugin(max_chars=20)]).run_async(NOTE)
    assert result.status == "failed"
    assert ran == []
    assert "Vargadottir" not in str(result.error)


async def test_what_cannot_be_searched_fails_the_step():
    @step
    async def size(data: bytes) -> int:
        return len(data)

    result = await Flujo(size, plugins=[Plugin()]).run_async(b"Dr. Stone")
    assert result.status == "failed"


async def test_the_distribution_can_be_named_and_required():
    flow = Flujo(keep, plugins=["flujo-deidentifier"], policy=Policy(require={"flujo-deidentifier"}))
    assert "Vargadottir" not in (await flow.run_async(NOTE)).output


def test_the_plugin_says_its_api_and_its_command(anyio_backend):
    assert flujo_api == "1.0"
    assert [(c.name, c.target) for c in register_commands()] == [("pii", "flujo.deidentifier.cli:pii")]


def test_the_cache_is_bounded_and_knows_that_a_result_is_clean(anyio_backend):
    cache = RedactionCache(max_chars=1_000)
    cache.put("a" * 50, Redaction("b" * 50, {"ID": 1}))
    assert cache.get("a" * 50) == Redaction("b" * 50, {"ID": 1})
    assert cache.get("b" * 50) == Redaction("b" * 50, {})
    for i in range(50):
        cache.put(f"{i:050}", Redaction("b" * 50, {}))
    assert cache.get("a" * 50) is None
    cache.put("c" * 900, Redaction("", {}))
    assert cache.get("c" * 900) is None


def test_counts_are_plain_json(anyio_backend, plugin):
    assert json.loads(json.dumps(plugin.deidentifier.counts(NOTE))) == {"PERSON": 2, "MRN": 1, "DATE": 1}
