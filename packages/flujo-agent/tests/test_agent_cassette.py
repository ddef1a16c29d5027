"""Record and replay: what is written, what is masked, and how strict a replay is."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Annotated

import anyio
import pytest
from pydantic import BaseModel, Field
from pydantic_ai import messages as pai
from pydantic_ai.exceptions import ModelHTTPError, ModelRateLimitError
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from flujo.agent import Cassette, CassetteMismatch, agent, wrap
from flujo.core import Budget, ConfigurationError, Flujo, Price, RetryPolicy, UsageLimits

NOWHERE = "http://127.0.0.1:1/v1"
KEY = "sk-0123456789abcdefghij"
DOLLAR = Price(input_usd="0.001", output_usd="0.01")


def says(*answers):
    """A model that gives these answers in order, and after them none."""
    left = list(answers)

    def function(messages, info: AgentInfo):
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        parts = [pai.TextPart(answer) if isinstance(answer, str) else answer]
        return pai.ModelResponse(parts=parts, usage=RequestUsage(input_tokens=7, output_tokens=3))

    return FunctionModel(function, model_name="said")


def call(tool, /, **arguments):
    return pai.ToolCallPart(tool, arguments, f"id-{tool}")


def run(pipeline, path, mode, prompt="go", **more):
    redact, limits = more.pop("redact", None), more.pop("limits", None)
    with Cassette(path, mode=mode, redact=redact):
        return Flujo(pipeline, limits=limits).run(prompt)


def hide_names(text: str) -> str:
    return re.sub(r"Anna \w+", "[PERSON]", text)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "calls.json"


# --- record once, replay for ever -------------------------------------------------------------------------------------


class Plan(BaseModel):
    title: Annotated[str, Field(max_length=10)]


def test_what_a_real_server_said_is_said_again_without_it(server, path):
    def plan(url):
        return agent("openai:tiny", base_url=url, output_type=Plan, output_mode="native", max_tokens=80, price=DOLLAR)

    asked = run(plan(server.base_url), path, "record", "the audit log")
    replayed = run(plan(NOWHERE), path, "replay", "the audit log")
    assert asked.status == "completed", asked.error
    assert replayed.unwrap() == asked.unwrap()
    assert replayed.usage == asked.usage
    assert asked.usage.requests >= 1
    assert asked.total_cost_usd > 0


def test_a_file_of_the_process_is_not_loaded_for_a_replay(gguf_file, path, tmp_path):
    asked = run(agent(f"local:{gguf_file}", max_tokens=8), path, "record")
    empty = tmp_path / gguf_file.name
    empty.write_bytes(b"")
    assert run(agent(f"local:{empty}", max_tokens=8), path, "replay").output == asked.output


def test_a_replay_needs_no_key(path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    request = {"model": "openai:gpt-4o", "messages": [{"role": "user", "content": "go"}]}
    usage = {"input_tokens": 1000, "output_tokens": 100}
    response = {"parts": [{"text": ["two", "lines"]}], "usage": usage}
    calls = [{"request": request, "response": response}]
    path.write_text(json.dumps({"format": "flujo-cassette/1", "calls": calls}))
    asking = agent("openai:gpt-4o")
    result = run(asking, path, "replay", limits=UsageLimits("0.10"))
    assert result.output == "two\nlines"
    assert result.total_cost_usd == Decimal("0.0035")  # the price book's, as ever
    assert Flujo(asking).run("go").status == "failed"  # outside it is a model without a key again


def test_the_file_is_json_that_people_read(path):
    def find(word: str) -> str:
        """Look it up."""
        return f"found {word}"

    run(
        agent(says(call("find", word="log"), "line one\nline two"), tools=[find], instructions="Be brief."),
        path,
        "auto",
    )
    text = path.read_text(encoding="utf-8")
    first, second = json.loads(text)["calls"]
    assert first["request"]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "go"},
    ]
    assert first["request"]["tools"][0]["description"] == "Look it up."
    usage = {"input_tokens": 7, "output_tokens": 3}
    part = {"tool": "find", "arguments": {"word": "log"}, "id": "id-find"}
    assert first["response"] == {"parts": [part], "usage": usage, "model": "said"}
    assert second["request"]["messages"][-1] == {"role": "tool", "content": "found log", "tool_call_id": "id-find"}
    assert second["response"]["parts"] == [{"text": ["line one", "line two"]}]
    assert text.endswith("}\n")
    assert not re.search(r"20\d\d-", text)  # no time of day, which would differ each time it is recorded


def test_auto_records_once_and_tools_run_in_both(path):
    found = []

    def find(word: str) -> str:
        found.append(word)
        return f"found {word}"

    for model in (says(call("find", word="log"), "done"), says()):
        assert run(agent(model, tools=[find]), path, "auto").output == "done"
    assert found == ["log", "log"]


def test_a_wrapped_agent_is_recorded_too(path):
    from pydantic_ai import Agent

    assert run(wrap(Agent(says("done"))), path, "record").output == "done"
    assert run(wrap(Agent(says())), path, "replay").output == "done"


def test_failures_are_kept_so_that_retries_and_fallbacks_are_the_same(path):
    def asked(*answers):
        first = says(*answers)
        retry = RetryPolicy(max_attempts=2, backoff_s=0)
        return agent(first, fallback=says(*answers[2:]), retry=retry, price=DOLLAR)

    busy, broken = ModelRateLimitError("said", "busy"), ModelHTTPError(500, "said", {"token": KEY})
    recorded = run(asked(busy, broken, "second model"), path, "record")
    replayed = run(asked(), path, "replay")
    assert recorded.output == replayed.output == "second model"
    assert recorded.usage == replayed.usage
    kinds = [one.get("error", {}).get("kind") for one in json.loads(path.read_text())["calls"]]
    assert kinds == ["unavailable", "fault", None]
    assert KEY not in path.read_text()


# --- strict -----------------------------------------------------------------------------------------------------------


def test_an_unexpected_call_fails_its_step_and_the_block_and_shows_the_difference(path):
    run(agent(says("done")), path, "record", "go left")
    cassette, results = Cassette(path), []

    def block():
        with cassette:
            results.append(Flujo(agent(says("never asked"))).run("go right"))

    with pytest.raises(CassetteMismatch, match="1 requests it has no answer for, 1 calls not used") as raised:
        block()
    assert results[0].status == "failed"
    assert results[0].usage.requests == 0
    assert '-   "content": "go left"' in raised.value.why
    assert '+   "content": "go right"' in raised.value.why


@pytest.mark.parametrize("changed", [{"instructions": "new"}, {"max_tokens": 9}, {"temperature": 1.0}])
def test_any_change_of_what_is_sent_is_noticed(path, changed):
    run(agent(says("done"), max_tokens=8, temperature=0), path, "record")
    with pytest.raises(CassetteMismatch):
        run(agent(says(), **{"max_tokens": 8, "temperature": 0, **changed}), path, "replay")


def test_a_call_that_is_not_used_fails_the_block(path):
    with Cassette(path, mode="record"):
        pipeline = Flujo(agent(says("one", "two")))
        pipeline.run("a"), pipeline.run("b")
    with pytest.raises(CassetteMismatch, match="0 requests it has no answer for, 1 calls not used"):
        run(agent(says()), path, "replay", "a")


def test_each_call_answers_once(path):
    run(agent(says("done")), path, "record")
    results = []

    def block():
        with Cassette(path):
            pipeline = Flujo(agent(says()))
            results.extend(pipeline.run("go") for _ in range(2))

    with pytest.raises(CassetteMismatch, match="all of its 1 calls are used"):
        block()
    assert [result.status for result in results] == ["completed", "failed"]


def test_an_error_of_the_block_is_not_hidden_and_leaves_no_half_recording(path):
    def broken(mode):
        with Cassette(path, mode=mode):
            Flujo(agent(says("done"))).run("go")
            raise LookupError("mine")

    with pytest.raises(LookupError):
        broken("record")
    assert not path.exists()
    run(agent(says("done", "done")), path, "record")
    before = path.read_bytes()
    with pytest.raises(LookupError), Cassette(path):
        raise LookupError("before all was used")
    with pytest.raises(LookupError):
        broken("record")
    assert path.read_bytes() == before


def test_parallel_runs_find_their_answers_in_any_order(path):
    async def all_of(model, prompts):
        flujo, outputs = Flujo(agent(model)), {}

        async def one(prompt):
            outputs[prompt] = (await flujo.run_async(prompt)).output

        async with anyio.create_task_group() as tasks:
            for prompt in prompts:
                tasks.start_soon(one, prompt)
        return outputs

    prompts = [f"prompt {n}" for n in range(20)]
    echo = FunctionModel(lambda messages, info: pai.ModelResponse(parts=[pai.TextPart(messages[0].parts[0].content)]))
    with Cassette(path, mode="record"):
        recorded = anyio.run(all_of, echo, prompts)
    with Cassette(path):
        assert anyio.run(all_of, FunctionModel(echo.function, model_name=echo.model_name), prompts[::-1]) == recorded


def test_limits_hold_in_a_replay_and_do_not_make_it_differ(path):
    with Cassette(path, mode="record"):
        for prompt in "ab":
            Flujo(agent(says(prompt), max_tokens=50, price=DOLLAR)).run(prompt)
    budget = Budget(UsageLimits("0.9", requests_limit=2))
    with Cassette(path):
        for prompt in "ab":  # of the second, less is left than 50 tokens cost
            result = Flujo(agent(says(), max_tokens=50, price=DOLLAR), limits=budget).run(prompt)
            assert result.output == prompt
        assert Flujo(agent(says()), limits=budget).run("c").status == "stopped"
    assert budget.spent.requests == 2


def test_outside_of_the_block_models_are_asked_again(path):
    asking = agent(says("recorded", "live"))
    assert run(asking, path, "record").output == "recorded"
    assert run(asking, path, "replay").output == "recorded"
    assert Flujo(asking).run("go").output == "live"


# --- what is masked ---------------------------------------------------------------------------------------------------


def test_secrets_and_personal_data_are_masked_in_the_file_and_in_both_runs_alike(path):
    signed_in = []

    def sign_in(user: str, password: str) -> str:
        signed_in.append((user, password))
        return f"token={KEY}"

    def pipeline(*answers):
        return agent(says(*answers), tools=[sign_in], instructions=f"The key is {KEY}.")

    answers = call("sign_in", user="Anna Berg", password="hunter22"), "Anna Berg is in, api_key=abcdefgh"
    recorded = run(pipeline(*answers), path, "record", "I am Anna Berg", redact=hide_names)
    text = path.read_text()
    for secret in (KEY, "hunter22", "Anna", "abcdefgh"):
        assert secret not in text
    assert recorded.output == "[PERSON] is in, api_key=[SECRET]"
    replayed = run(pipeline(), path, "replay", "I am Anna Berg", redact=hide_names)
    assert replayed.output == recorded.output
    assert signed_in == [("[PERSON]", "[SECRET]")] * 2


@pytest.mark.parametrize(
    ("redact", "why"), [(lambda text: f"<{text}>", "not the same when it is redacted again"), (lambda _: 3, "gave int")]
)
def test_a_redactor_that_cannot_work_is_told(path, redact, why):
    with Cassette(path, mode="record", redact=redact):
        result = Flujo(agent(says("done"))).run("go")
    assert why in str(result.error)


def test_what_a_model_thought_is_kept_and_masked_and_what_cannot_be_shown_is_refused(path):
    def thinks(*parts):
        return FunctionModel(lambda messages, info: pai.ModelResponse(parts=[*parts]), model_name="said")

    thought = pai.ThinkingPart(f"the key is {KEY}\nand so on")
    recorded = run(agent(thinks(thought, pai.TextPart("done"))), path, "record")
    assert recorded.output == run(agent(says()), path, "replay").output == "done"
    part = json.loads(path.read_text())["calls"][0]["response"]["parts"][0]
    assert part == {"thinking": ["the key is [SECRET]", "and so on"]}
    with Cassette(path, mode="record"):
        result = Flujo(agent(thinks(pai.FilePart(pai.BinaryContent(b"x", media_type="image/png"))))).run("go")
    assert "cannot be recorded" in str(result.error)


def test_an_answer_that_was_edited_into_nonsense_is_told(path):
    run(agent(says("done")), path, "record")
    path.write_text(path.read_text().replace('"text"', '"txt"'))
    with Cassette(path):
        result = Flujo(agent(says())).run("go")
    assert "a call of the cassette cannot be read" in str(result.error)


# --- files that cannot be used ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("{", "is no cassette"),
        ('{"format": "flujo-cassette/2", "calls": []}', "format"),
        ('{"format": "flujo-cassette/1", "calls": [{"request": {}, "more": 1}]}', "calls.0.more"),
    ],
)
def test_a_file_that_is_no_cassette_is_told_with_what_to_do(path, content, words):
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=words) as raised, Cassette(path):
        pass
    assert 'mode="record"' in raised.value.do


def test_an_unknown_mode_and_a_second_use_are_refused(path):
    with pytest.raises(ConfigurationError, match="must be one of"):
        Cassette(path, mode="once")
    cassette = Cassette(path, mode="record")
    with cassette, pytest.raises(ConfigurationError, match="in use already"), cassette:
        pass


def test_the_cassette_is_imported_without_pydantic_ai(run_python):
    code = "import sys; from flujo.agent import Cassette; print('pydantic_ai' in sys.modules)"
    assert run_python(code).strip() == "False"
