"""The plugin in real runs: acceptance checks 17, 18 and 24, and what happens when the log cannot be written."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from pydantic import SecretStr

from flujo.audit import AuditLog
from flujo.audit.plugin import Plugin
from flujo.core import (
    UNCHANGED,
    ConfigurationError,
    Deny,
    Flujo,
    GuardDenied,
    GuardToolCall,
    Message,
    ModelChunk,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    Pipeline,
    PipelineMutation,
    Policy,
    Price,
    PriceTable,
    RetryPolicy,
    RunContext,
    Stage,
    Step,
    StreamStep,
    ToolCall,
    TransformModelRequest,
    UsageLimits,
    hookimpl,
    step,
)

pytestmark = pytest.mark.anyio

KEY = "a key of more than sixteen characters"
PERSON = "Zebulon Quackenbush"
SECRET = "sk-abcdefghijklmnopqrstuvwxyz123456"


@step
async def ask(question: str, ctx: RunContext) -> str:
    async def send(request: ModelRequest) -> ModelResponse:
        usage = ModelUsage(input_tokens=5, output_tokens=2)
        return ModelResponse(content=f"ill: {PERSON} {SECRET}", usage=usage, finish_reason="stop", model="m-1")

    request = ModelRequest(model="test:m", messages=(Message(role="user", content=question),), max_tokens=9)
    response = await ctx.call_model(request, send, price=Price(output_usd="0.001"))
    return response.content


@step
async def look_up(text: str, ctx: RunContext) -> str:
    async def send(call: ToolCall) -> object:
        return {"found": PERSON, "token": SECRET}

    await ctx.call_tool(ToolCall(name="look_up", arguments={"name": text}, id="call_1"), send)
    return text


@step
async def fail(text: str) -> str:
    raise ValueError(f"{PERSON} with {SECRET}: {text}")


def records(path: Path) -> list[dict[str, object]]:
    assert AuditLog.verify(path).ok
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def events(path: Path) -> list[tuple[object, object, object]]:
    return [(record["event"], record.get("step", ""), record.get("outcome", "")) for record in records(path)]


async def test_check_24_every_start_and_end_is_there_in_order(tmp_path):
    path = tmp_path / "log"
    flujo = Flujo(Pipeline(ask >> look_up), plugins=[Plugin(path, key=KEY)])
    result = await flujo.run_async("How is she?", actor="dr-lee", tenant="ward 3")
    assert result.status == "completed"
    assert events(path) == [
        ("run.start", "", ""),
        ("step.start", "ask", ""),
        ("llm.call", "ask", ""),
        ("llm.result", "ask", "completed"),
        ("step.end", "ask", "completed"),
        ("step.start", "look_up", ""),
        ("tool.call", "look_up", ""),
        ("tool.result", "look_up", "completed"),
        ("step.end", "look_up", "completed"),
        ("run.end", "", "completed"),
    ]
    start, *_, end = records(path)
    assert (start["actor"], start["tenant"], start["run_id"]) == ("dr-lee", "ward 3", result.run_id)
    assert (end["tokens_in"], end["tokens_out"], end["requests"], end["cost_usd"]) == (5, 2, 1, "0.002")
    call, answer = records(path)[2:4]
    assert call["record_id"] == answer["record_id"]
    assert (call["model"], call["messages"], call["max_tokens"]) == ("test:m", 1, 9)
    assert (answer["finish_reason"], answer["tokens_out"], answer["cost_usd"]) == ("stop", 2, "0.002")
    assert isinstance(answer["latency_ms"], float)
    assert records(path)[6]["tool"] == "look_up"


@pytest.mark.parametrize("tokens", [3, 300])
@pytest.mark.parametrize("leaves", [False, True])
async def test_streaming_check_25_a_stream_is_one_record_however_long(tmp_path, tokens, leaves):
    async def send(request: ModelRequest) -> AsyncIterator[ModelChunk]:
        for _ in range(tokens):
            yield ModelChunk("a")
        yield ModelChunk(usage=ModelUsage(input_tokens=5, output_tokens=tokens), finish_reason="stop")

    async def talk(topic: str, ctx: RunContext) -> AsyncIterator[str]:
        request = ModelRequest(model="test:m", messages=(Message(role="user", content=topic),))
        async with ctx.stream_model(request, send, price=Price()) as answer:
            async for text in answer.text():
                yield text

    path = tmp_path / "log"
    flujo = Flujo(StreamStep((Stage.of("talk", talk),), name="talk"), plugins=[Plugin(path, key=KEY)])
    async with flujo.stream_async("hello") as stream:
        async for _ in stream.text():
            if leaves:
                break
    end = "cancelled" if leaves else "completed"
    assert events(path) == [
        ("run.start", "", ""),
        ("step.start", "talk", ""),
        ("llm.call", "talk", ""),
        ("llm.result", "talk", end),
        ("step.end", "talk", end),
        ("run.end", "", "aborted" if leaves else "completed"),
    ]
    answer = records(path)[3]
    assert leaves or answer["tokens_out"] == tokens  # of one that was left nobody knows what the rest would have been
    assert isinstance(answer["latency_ms"], float)


async def test_check_24_a_failing_step_and_a_denied_tool_are_told_with_their_kind(tmp_path):
    class NoTools:
        @hookimpl
        def guard_tool_call(self, payload: GuardToolCall) -> Deny:
            return Deny(f"{PERSON} may not")

    path = tmp_path / "log"
    audit = Plugin(path, key=KEY)
    failed = await Flujo(fail, plugins=[audit]).run_async("x")
    denied = await Flujo(look_up, plugins=[audit, NoTools()]).run_async("x")
    assert (failed.status, denied.status) == ("failed", "aborted")
    seen = records(path)
    assert [record["event"] for record in seen[:4]] == ["run.start", "step.start", "step.end", "run.end"]
    assert (seen[2]["outcome"], seen[2]["error_type"]) == ("failed", "ValueError")
    [denial] = [record for record in seen if record["event"] == "guard.denied"]
    assert (denial["plugin"], denial["hook"]) == ("NoTools", "guard_tool_call")
    assert denial["reason"]["length"] == len(PERSON) + 8
    assert seen[-1]["outcome"] == "aborted"
    assert PERSON not in path.read_text()


async def test_a_changed_pipeline_is_written_with_both_fingerprints(tmp_path):
    @step
    async def first(text: str) -> PipelineMutation[str]:
        return PipelineMutation(text, insert_after={"first": more}, remove=["last"])

    @step
    async def more(text: str) -> str:
        return text

    @step
    async def last(text: str) -> str:
        return text

    path = tmp_path / "log"
    flujo = Flujo(first >> last, plugins=[Plugin(path, key=KEY)], experimental={"mutation"})
    result = await flujo.run_async("x")
    [change] = [record for record in records(path) if record["event"] == "pipeline.changed"]
    assert (change["step"], change["added"], change["removed"]) == ("first", ["more"], ["last"])
    assert (change["fingerprint_before"], change["fingerprint"]) == (
        flujo.plan.fingerprint,
        result.snapshot().fingerprint,
    )


async def test_check_24_a_cancelled_run_has_its_ends_too(tmp_path):
    @step
    async def wait_for_ever(text: str) -> str:
        await anyio.sleep(60)
        return text

    path = tmp_path / "log"
    with anyio.move_on_after(0.3):
        await Flujo(wait_for_ever, plugins=[Plugin(path, key=KEY)]).run_async("x")
    assert events(path) == [
        ("run.start", "", ""),
        ("step.start", "wait_for_ever", ""),
        ("step.end", "wait_for_ever", "cancelled"),
        ("run.end", "", "cancelled"),
    ]


async def test_a_limit_a_warning_and_a_retry_are_recorded(tmp_path):
    tries = 0

    @step(retry=RetryPolicy(max_attempts=2, backoff_s=0))
    async def flaky(text: str) -> str:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ConnectionError(PERSON)
        return text

    path = tmp_path / "log"
    audit = Plugin(path, key=KEY)
    assert (await Flujo(flaky, plugins=[audit]).run_async("x")).status == "completed"
    [retry] = [record for record in records(path) if record["event"] == "step.retry"]
    assert (retry["step"], retry["error_type"], retry["attempt"]) == ("flaky", "ConnectionError", 1)

    limits = UsageLimits(requests_limit=1)
    result = await Flujo(ask >> ask_again, limits=limits, plugins=[audit]).run_async("x")
    assert result.status == "stopped"
    told = {str(record["event"]): record for record in records(path)}
    assert told["limit.warning"]["limit"] == told["limit.reached"]["limit"] == "requests_limit"
    assert told["run.end"]["outcome"] == "stopped"


@step
async def ask_again(text: str, ctx: RunContext) -> str:
    async def send(request: ModelRequest) -> ModelResponse:
        return ModelResponse(usage=ModelUsage(output_tokens=1))

    request = ModelRequest(model="test:m", messages=(Message(role="user", content=text),), max_tokens=1)
    await ctx.call_model(request, send, price=Price())
    return text


async def test_checks_17_and_18_no_secret_and_nobodys_name_is_written_anywhere(tmp_path):
    path, points = tmp_path / "log", tmp_path / "points"
    audit = Plugin(path, checkpoint_to=points)
    for pipeline in (Pipeline(ask >> look_up), fail):
        await Flujo(pipeline, plugins=[audit]).run_async(f"{PERSON}, password={SECRET}", run_id=f"r-{id(pipeline)}")
    await Flujo(ask, plugins=[audit]).run_async("x", actor=f"key {SECRET}")
    for file in tmp_path.iterdir():
        text = file.read_text()
        for word in (PERSON, *PERSON.split(), SECRET, SECRET[3:]):
            assert word not in text, file


async def test_redactions_are_counted_by_type_in_the_record_of_the_request(tmp_path):
    class Redactor:
        @hookimpl
        def transform_model_request(self, payload: TransformModelRequest) -> object:
            payload.run.count("redactions", "PERSON", 2)
            payload.run.count("redactions", PERSON)
            return UNCHANGED

    path = tmp_path / "log"
    await Flujo(ask, plugins=[Plugin(path, key=KEY), Redactor()]).run_async("x")
    seen = {str(record["event"]): record.get("redactions") for record in records(path)}
    assert seen["run.start"] is None
    for event in ("llm.call", "llm.result", "run.end"):
        counts = seen[event]
        assert isinstance(counts, dict)
        assert counts["PERSON"] == 2
        assert len(counts) == 2
    assert PERSON not in path.read_text()


async def test_an_intent_is_durable_before_the_effect(tmp_path):
    path = tmp_path / "log"
    seen: list[object] = []

    @step
    async def effect(text: str, ctx: RunContext) -> str:
        seen.append(records(path)[-1]["event"])

        async def send(call: ToolCall) -> object:
            seen.append(records(path)[-1]["event"])
            return None

        await ctx.call_tool(ToolCall(name="t"), send)
        return text

    await Flujo(effect, plugins=[Plugin(path, key=KEY)]).run_async("x")
    assert seen == ["step.start", "tool.call"]


async def test_a_required_log_that_cannot_be_written_stops_the_work_and_another_is_counted(tmp_path):
    ran: list[str] = []

    @step
    async def effect(text: str) -> str:
        ran.append(text)
        return text

    audit = Plugin(tmp_path, key=KEY)  # a folder: no log can be there
    result = await Flujo(effect, plugins=[audit], policy=Policy(require={"flujo-audit"})).run_async("required")
    assert result.status == "aborted"
    assert isinstance(result.error, GuardDenied)
    assert result.error.plugin == "flujo-audit"
    result = await Flujo(effect, plugins=[audit]).run_async("optional")
    assert result.status == "completed"
    assert result.counts["plugin_faults"]
    assert ran == ["optional"]


async def test_the_installed_plugin_is_found_by_name_and_takes_its_path_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("FLUJO_AUDIT_PATH", str(tmp_path / "from env"))
    monkeypatch.setenv("FLUJO_AUDIT_KEY", KEY)
    await Flujo(ask, plugins=["flujo-audit"]).run_async("x")
    assert events(tmp_path / "from env")[-1] == ("run.end", "", "completed")
    assert list(tmp_path.iterdir()) == [tmp_path / "from env"]


async def test_without_a_key_one_is_made_beside_the_log_and_kept(tmp_path, monkeypatch):
    for name in ("FLUJO_AUDIT_PATH", "FLUJO_AUDIT_KEY", "FLUJO_AUDIT_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    prompts = []
    for _ in range(2):
        await Flujo(ask, plugins=[Plugin()]).run_async("x")
        prompts.append([record["prompt"] for record in records(tmp_path / "flujo-audit.jsonl") if "prompt" in record])
    assert prompts[1] == [prompts[0][0], prompts[0][0]]
    assert {file.name for file in tmp_path.iterdir()} == {"flujo-audit.jsonl", "flujo-audit.jsonl.key"}


async def test_every_run_exports_a_signed_checkpoint_where_one_is_wanted(tmp_path):
    path, points = tmp_path / "log", tmp_path / "points"
    (tmp_path / "key").write_text(KEY)
    audit = Plugin(path, key_file=tmp_path / "key", checkpoint_to=points)
    for _ in range(2):
        await Flujo(ask, plugins=[audit]).run_async("x")
    found = AuditLog.verify(path, checkpoint=points, key=KEY)
    assert found.ok
    assert "agrees with 2 checkpoints" in found.reason


async def test_a_digested_actor_is_not_readable_but_the_same_each_time(tmp_path):
    path = tmp_path / "log"
    audit = Plugin(path, key=SecretStr(KEY), actor="digest")
    await Flujo(ask, plugins=[audit]).run_async("x", actor=PERSON)
    actors = {json.dumps(record["actor"]) for record in records(path)}
    assert len(actors) == 1
    assert PERSON not in path.read_text()


def test_settings_that_cannot_be_used_are_refused_when_the_plugin_is_made(tmp_path):
    with pytest.raises(ConfigurationError, match="at least 16"):
        Plugin(tmp_path / "log", key="short")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Plugin(tmp_path / "log", key_file=tmp_path / "missing")
    with pytest.raises(ConfigurationError, match="neither 'plain' nor 'digest'"):
        Plugin(tmp_path / "log", actor="hidden")  # type: ignore[arg-type]


def test_the_end_of_a_run_names_the_price_list_it_was_priced_by(tmp_path):
    row = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 1}
    table = {"format": "flujo-prices", "version": 1, "name": "acme", "models": {"m": row}}
    prices = PriceTable(json.dumps(table).encode())

    async def ask(value: str, ctx: RunContext) -> str:
        request = ModelRequest(model="m", messages=(Message(role="user", content=value),))

        async def send(_: ModelRequest) -> ModelResponse:
            return ModelResponse(content="ok", usage=ModelUsage(output_tokens=1))

        return (await ctx.call_model(request, send)).content

    path = tmp_path / "audit.jsonl"
    Flujo(Step(ask), plugins=[prices, Plugin(str(path))]).run("x")
    ends = [r for r in map(json.loads, path.read_text().splitlines()) if r.get("event") == "run.end"]
    assert ends[0]["priced_by"] == {f"acme sha256:{prices.sha256}": 1}
