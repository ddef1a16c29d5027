"""What cannot work is told when it is built, all of it at once; what is built gives what it says."""

import inspect
import re
from dataclasses import dataclass

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent as PaiAgent
from pydantic_ai import Tool
from pydantic_ai import messages as pai
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.providers import infer_provider_class

from flujo.agent import AgentBuilder, CodeGenAgent, ReviewAgent, SQLAgent, agent, generate_review_validate, wrap
from flujo.agent.models import problem_with
from flujo.core import (
    Allow,
    Deny,
    Flujo,
    Pipeline,
    PipelineError,
    PreStepExecution,
    Price,
    RetryPolicy,
    Step,
    UsageLimits,
)


class Code(BaseModel):
    text: str
    tests: int


class Opaque:
    """Nothing that pydantic could describe."""


def scripted(*answers):
    """A model that gives these answers in order, as the output tool it is offered, or as text; and its prompts."""
    left, prompts = list(answers), []

    def function(messages, info):
        parts = messages[-1].parts
        prompts.append("\n".join(str(part.content) for part in parts if hasattr(part, "content")))
        answer = left.pop(0)
        if isinstance(answer, str):
            return pai.ModelResponse(parts=[pai.TextPart(answer)])
        return pai.ModelResponse(parts=[pai.ToolCallPart(info.output_tools[0].name, answer)])

    return FunctionModel(function), prompts


# --- agent ------------------------------------------------------------------------------------------------------------


def test_everything_that_is_wrong_with_an_agent_is_told_at_once():
    with pytest.raises(PipelineError) as caught:
        agent(
            "gpt",
            output_type=Opaque,
            output_mode="magic",
            tools=["search"],
            base_url="ftp://x",
            retry=3,
            max_tokens=0,
            price=1,
            max_requests=True,
            repairs=-1,
            fallback=["local:nowhere.gguf", 7],
        )
    told = "\n".join(caught.value.problems)
    words = ["'gpt'", "Opaque", "'magic'", "'search'", "ftp://x", "RetryPolicy", "max_tokens", "Price", "max_requests"]
    assert [word for word in [*words, "repairs", "nowhere.gguf", "7 is neither"] if word not in told] == []


WRONG = [
    (lambda: agent("openai:x", temperature="hot"), "temperature='hot'"),
    (lambda: agent("openai:x", temperature=float("nan")), "temperature=nan"),
    (lambda: agent("openai:x", temperature=-0.1), "temperature=-0.1"),
    (lambda: agent("openai:x", base_url=5), "base_url=5"),
    (lambda: agent("openai:x", api_key=5), "api_key="),
    (lambda: agent("openai:x", name=5), "name=5"),
    (lambda: agent("openai:x", name=""), "name=''"),
    (lambda: agent("openai:x", tools=None), "tools="),
    (lambda: agent("openai:x", tools=[len, len]), "'len'"),
    (lambda: agent("openai:x", tools=[len, Tool(print, name="len")]), "'len'"),
    (lambda: agent("openai:x", reads=3), "reads="),
    (lambda: agent("openai:x", fallback="openaii:y"), "'openai'"),
    (lambda: agent("openaii:x"), "did you mean 'openai'"),
    (lambda: agent("nobody:x"), "no provider 'nobody'"),
    (lambda: agent("groq:x"), "pip install 'pydantic-ai-slim[groq]'"),
    (lambda: agent("mistral:x"), "pip install 'pydantic-ai-slim[mistral]'"),
    (lambda: wrap(None), "None"),
    (lambda: wrap(PaiAgent("test"), retry=3), "RetryPolicy"),
    (lambda: wrap(PaiAgent("test"), price=3), "Price"),
    (lambda: wrap(PaiAgent("test"), reads=3), "reads=3"),
    (lambda: wrap(PaiAgent("test"), name=5), "name=5"),
    (lambda: AgentBuilder("openai:x").role("x").temperature("hot").build(), "temperature='hot'"),
    (lambda: AgentBuilder("openai:x", api_key=5).role("x").build(), "api_key="),
    (lambda: AgentBuilder("openai:x", name=5).role("x").build(), "name=5"),
    (lambda: AgentBuilder("openai:x").role("x").output(Code).example("p", "no code").build(), "does not fit"),
    (lambda: AgentBuilder("openai:x").role("x").output(int).example("p", "no number").build(), "does not fit"),
    (lambda: AgentBuilder().output(int).example("p", "no number").timeout(-1).build(), "timeout"),
    (lambda: CodeGenAgent("openai:x", tests="test"), "tests="),
    (lambda: CodeGenAgent("openai:x", imports="json"), "imports="),
    (lambda: CodeGenAgent("openai:x", imports=7), "imports=7"),
    (lambda: CodeGenAgent("openai:x", sandbox_limits=5), "sandbox_limits="),
    (lambda: CodeGenAgent("openai:x", environment=5), "environment="),
    (lambda: SQLAgent("openai:x", "sqlite:///x.db", tables=["t"], name=5), "name=5"),
    (lambda: ReviewAgent("openai:x", name=5), "name=5"),
]


@pytest.mark.parametrize(("make", "told"), WRONG)
def test_each_part_that_is_wrong_is_told_when_it_is_built(make, told):
    with pytest.raises(PipelineError) as caught:
        make()
    assert told in str(caught.value)
    assert "5" not in str(caught.value).partition("api_key=")[2]


def test_every_provider_that_pydantic_ai_knows_is_one():
    """Also one that a later version of it brings: its providers are looked up, not listed."""
    source = inspect.getsource(infer_provider_class)
    names = {name for line in re.findall(r"case (.+):", source) for name in re.findall(r"'([\w-]+)'", line)}
    assert len(names) > 30
    found = {name: problem_with(f"{name}:x", None) for name in names}
    assert [name for name, problem in found.items() if problem and "no provider" in problem] == []


def test_an_example_may_be_what_the_output_is_read_from():
    built = AgentBuilder(TestModel()).role("x").output(Code).example("p", Code(text="x", tests=1))
    built.example("p", {"text": "y", "tests": 2}).build()


@pytest.mark.parametrize("model", ["openai:", ":name", "", "gpt-4o", None, 7, object()])
def test_a_model_that_is_none_is_refused(model):
    with pytest.raises(PipelineError, match="model"):
        agent(model)


def test_base_url_is_for_openais_protocol_only():
    with pytest.raises(PipelineError, match="openai:claude"):
        agent("anthropic:claude", base_url="https://localhost/v1")


def test_a_missing_client_is_told_with_its_pip_line():
    with pytest.raises(PipelineError, match=r"pip install 'flujo-agent\[anthropic\]'"):
        agent("anthropic:claude-sonnet-4-5")


@pytest.mark.parametrize(
    ("model", "name"), [("openai:org/model", "org_model"), ("openai:gpt-4o", "gpt-4o"), (TestModel(), "test")]
)
def test_an_agent_is_named_after_its_model(model, name):
    assert Step(agent(model)).name == name


def test_a_prompt_may_be_anything_that_is_json_and_secrets_stay_masked():
    @dataclass
    class Note:
        text: str

    model, prompts = scripted("ok", "ok", "ok")
    for value in ("plain", Note("kept"), Code(text="x", tests=1)):
        assert Flujo(agent(model)).run(value).status == "completed"
    assert prompts == ["plain", '{\n  "text": "kept"\n}', '{\n  "text": "x",\n  "tests": 1\n}']
    for bad in (b"bytes", Opaque()):
        result = Flujo(agent(model)).run(bad)
        assert result.status == "failed"
        assert "cannot be prompted" in str(result.error)


# --- AgentBuilder -----------------------------------------------------------------------------------------------------


def test_a_builder_makes_a_pipeline_and_stays_as_it_was():
    model, prompts = scripted({"text": "a", "tests": 1})
    start = AgentBuilder(model, name="coder").role("a careful coder")
    coder = start.instructions("Write code.").output(Code).example("add", Code(text="a+b", tests=2))
    pipeline = coder.limits(requests=1).build()
    assert isinstance(pipeline, Pipeline)
    result = Flujo(pipeline).run("go")
    assert (result.output, result.status) == (Code(text="a", tests=1), "completed")
    assert prompts == ["go"]
    assert Flujo(start.build()).plan.nodes[0].output_type is str


def test_role_instructions_and_examples_are_what_the_model_is_told():
    told = []

    def function(messages, info):
        told.append(info.instructions)
        return pai.ModelResponse(parts=[pai.TextPart("ok")])

    built = AgentBuilder(FunctionModel(function)).role("a clerk.").instructions("File it.").example({"n": 1}, "one")
    assert Flujo(built.build()).run("go").status == "completed"
    assert told == [
        'You are a clerk.\n\nFile it.\n\nExample of a prompt:\n{\n  "n": 1\n}\nThe right answer to it:\none'
    ]


def test_everything_that_is_wrong_with_or_missing_in_a_builder_is_told_at_once():
    builder = (
        AgentBuilder(name="bad/name")
        .output(Opaque)
        .tools("x")
        .limits(usd=-1)
        .retry(0)
        .max_tokens(-5)
        .timeout(-1)
        .guard("no")
        .validate(3)
        .example(b"x", Opaque())
    )
    with pytest.raises(PipelineError) as caught:
        builder.build()
    told = str(caught.value)
    words = [
        "model is missing",
        "what it is to do is missing",
        "Opaque",
        "tool 'x'",
        ".limits",
        ".retry(0)",
        "guard 'no'",
    ]
    assert [
        word for word in [*words, "max_tokens", "validator 3", "example", "timeout", "bad/name"] if word not in told
    ] == []
    with pytest.raises(PipelineError, match="bad/name"):
        AgentBuilder(TestModel(), name="bad/name").role("x").build()


def test_what_a_validator_finds_goes_back_to_the_model_as_often_as_repairs_says():
    async def long_enough(text: str) -> str | None:
        return "write more" if len(text) < 5 else None

    def polite(text: str) -> None:
        if "please" not in text:
            raise ValueError("say please")

    model, prompts = scripted("x", "please")
    built = AgentBuilder(model).role("a clerk").validate(long_enough, polite).repairs(1)
    result = Flujo(built.build()).run("go")
    assert (result.output, result.usage.requests) == ("please", 2)
    assert "write more" in prompts[1]
    assert "say please" in prompts[1]
    result = Flujo(AgentBuilder(scripted("x", "y")[0]).role("a clerk").validate(long_enough).build()).run("go")
    assert (result.status, result.error.error_type, result.usage.requests) == ("failed", "AgentFault", 2)


@pytest.mark.parametrize("answer", [Deny("no"), None, True, ValueError("oops")])
def test_a_guard_of_the_prompt_that_does_not_allow_denies_and_no_model_is_asked(answer):
    def guard(prompt: object) -> Allow | Deny:
        if isinstance(answer, Exception):
            raise answer
        return answer

    model, prompts = scripted("never")
    result = Flujo(AgentBuilder(model).role("x").guard(guard).build()).run("hello")
    assert (result.status, prompts) == ("aborted", [])


def test_a_guard_that_allows_lets_the_prompt_through():
    async def guard(prompt: object) -> Allow | Deny:
        return Allow() if prompt == "hello" else Deny("what?")

    model, prompts = scripted("ok")
    assert Flujo(AgentBuilder(model).role("x").guard(guard).build()).run("hello").output == "ok"
    assert prompts == ["hello"]


def test_limits_retry_and_fallback_of_a_builder_hold():
    second, prompts = scripted("second")

    def broken(messages, info):
        from pydantic_ai.exceptions import ModelAPIError

        raise ModelAPIError("m", "down")

    built = AgentBuilder(FunctionModel(broken), price=Price()).role("x").retry(1).fallback(second).max_tokens(5)
    assert Flujo(built.temperature(0.1).timeout(5).build()).run("go").output == "second"
    assert Flujo(built.limits(requests=1).build()).run("go").status == "stopped"
    assert len(prompts) == 1
    assert Flujo(built.retry(RetryPolicy(max_attempts=2)).limits(tokens=0).build()).run("go").status == "stopped"


# --- generate_review_validate -----------------------------------------------------------------------------------------

APPROVED = {"approved": True, "problems": []}


def rejected(*problems: str) -> dict[str, object]:
    return {"approved": False, "problems": list(problems)}


def test_a_good_first_answer_takes_two_requests_and_four_steps():
    model, prompts = scripted("the answer", APPROVED)
    logged = []

    def look(payload: PreStepExecution) -> None:
        logged.append(payload.name)

    pipeline = generate_review_validate(model, task="Answer.", review="It is an answer.")
    result = Flujo(pipeline, hooks=[look]).run("a question")
    assert (result.output, result.usage.requests) == ("the answer", 2)
    assert logged == ["generate", "review", "revise", "validate"]
    assert "a question" in prompts[1]
    assert "the answer" in prompts[1]


def test_a_rejected_answer_is_made_again_with_the_reviewers_words_and_reviewed_again():
    reviewer, _ = scripted(rejected("too short"), rejected("still too short"), APPROVED)
    model, prompts = scripted("a", "ab", "abc")
    pipeline = generate_review_validate(model, reviewer=reviewer, task="Answer.", review="It is long.")
    result = Flujo(pipeline).run("a question")
    assert (result.output, result.usage.requests) == ("abc", 6)
    assert "- too short" in prompts[1]
    assert "- still too short" in prompts[2]


def test_an_answer_that_is_never_approved_is_a_failure_with_all_it_cost():
    reviewer, _ = scripted(rejected("bad"), rejected("worse"))
    model, _ = scripted("a", "b")
    pipeline = generate_review_validate(model, reviewer=reviewer, task="Answer.", review="Good.", max_revisions=1)
    result = Flujo(pipeline).run("a question")
    assert (result.status, result.error.error_type, result.usage.requests) == ("failed", "AgentFault", 4)
    assert "worse" in str(result.error)


def test_what_the_users_functions_refuse_is_repaired_and_types_are_kept():
    def tested(code: Code) -> str | None:
        return None if code.tests else "it has no tests"

    model, prompts = scripted({"text": "a", "tests": 0}, APPROVED, {"text": "a", "tests": 3})
    pipeline = generate_review_validate(model, task="Code.", review="It runs.", validate=tested, output_type=Code)
    result = Flujo(pipeline).run("add")
    assert result.output == Code(text="a", tests=3)
    assert "- it has no tests" in prompts[2]
    assert Flujo(pipeline).plan.nodes[-1].output_type is Code


def test_the_recipe_stops_at_a_limit_and_keeps_what_was_paid_for():
    model, _ = scripted("a", rejected("no"))
    pipeline = generate_review_validate(model, task="x", review="y", limits=UsageLimits(requests_limit=2))
    result = Flujo(pipeline).run("go")
    assert (result.status, result.usage.requests) == ("stopped", 2)


def test_everything_that_is_wrong_with_the_recipe_is_told_at_once():
    with pytest.raises(PipelineError) as caught:
        generate_review_validate(
            "gpt", task="", review="", validate=[7], reviewer="other", max_revisions=-1, max_repairs=-1
        )
    told = str(caught.value)
    words = ["'gpt'", "'other'", "task=", "review=", "validator 7", "max_revisions", "max_repairs"]
    assert [word for word in words if word not in told] == []
