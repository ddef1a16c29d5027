"""Agents on a real OpenAI-compatible server with a real, if tiny, model."""

import asyncio

import pytest
from pydantic import BaseModel, Field

from flujo.agent import agent
from flujo.core import Budget, Flujo, OnModelCall, PipelineError, Price, RetryPolicy, Step, UsageLimits, step

FREE = Price()
ONE_A_TOKEN = Price(input_usd="0.001", output_usd="0.001")


class Verdict(BaseModel):
    good: bool
    why: str = Field(max_length=12)


def test_an_answer_and_its_usage_come_from_the_server(server):
    before = server.counted()
    result = Flujo(agent("openai:tiny", base_url=server.base_url, max_tokens=20)).run("hello")
    after = server.counted()
    assert result.status == "completed"
    assert isinstance(result.output, str)
    assert result.output
    assert (result.usage.input_tokens, result.usage.output_tokens) == (after[0] - before[0], after[1] - before[1])
    assert result.usage.output_tokens <= 20
    assert result.usage.unpriced == 1


def test_the_governors_count_is_the_servers_over_50_concurrent_calls(server):
    budget = Budget(UsageLimits(total_cost_usd_limit=1000, total_tokens_limit=10**6))
    flujo = Flujo(agent("openai:tiny", base_url=server.base_url, max_tokens=30, price=ONE_A_TOKEN), limits=budget)

    async def main():
        return await asyncio.gather(*(flujo.run_async(f"call number {number}") for number in range(50)))

    before = server.counted()
    results = asyncio.run(main())
    after = server.counted()
    sent, received = after[0] - before[0], after[1] - before[1]
    assert [result.status for result in results] == ["completed"] * 50
    assert sum(result.usage.input_tokens for result in results) == sent
    assert sum(result.usage.output_tokens for result in results) == received
    assert sum(result.total_cost_usd for result in results) * 1000 == sent + received
    assert sum(result.usage.unmeasured for result in results) == 0
    assert sum(result.usage.overshoot_usd for result in results) == 0


def test_a_typed_output_is_valid_and_feeds_the_next_step(server):
    @step(inline=True)
    def told(verdict: Verdict) -> str:
        return f"{verdict.good} {verdict.why}"

    judge = agent(
        "openai:tiny", base_url=server.base_url, output_type=Verdict, output_mode="native", max_tokens=200, name="judge"
    )
    result = Flujo(agent("openai:tiny", base_url=server.base_url, max_tokens=10) >> judge >> told).run("a plan")
    assert result.status == "completed", result.error
    assert result.output.split(" ")[0] in ("True", "False")
    assert [record.name for record in result.step_history] == ["tiny", "judge", "told"]


def test_an_output_that_does_not_fit_the_next_step_is_found_before_anything_runs(server):
    @step
    async def count(number: int) -> int:
        return number

    with pytest.raises(PipelineError, match=r"Verdict.*int"):
        Flujo(agent("openai:tiny", base_url=server.base_url, output_type=Verdict) >> count)


def test_max_tokens_is_clamped_to_what_the_budget_still_holds(server):
    requests = []

    def look(payload: OnModelCall) -> None:
        requests.append(payload.request.max_tokens)

    talker = agent("openai:tiny", base_url=server.base_url, max_tokens=500, price=FREE)
    result = Flujo(talker, limits=UsageLimits(total_tokens_limit=120), hooks=[look]).run("hi")
    assert result.status == "completed"
    assert requests == [500]  # what was asked for
    assert result.usage.total_tokens <= 120
    assert 0 < result.usage.output_tokens < 110


def test_under_a_limit_an_agent_that_says_no_max_tokens_asks_for_4096_and_not_for_all_that_is_left(server):
    seen = []

    def look(payload: OnModelCall) -> None:
        seen.append(payload.request.max_tokens)

    asks = agent("openai:tiny", base_url=server.base_url, price=FREE)
    assert Flujo(asks, limits=UsageLimits(total_tokens_limit=10**6), hooks=[look]).run("hi").status == "completed"
    assert Flujo(asks, hooks=[look]).run("hi").status == "completed"
    assert seen == [4096, None]


def test_a_server_without_a_price_is_refused_under_a_money_limit_before_anything_is_sent(server):
    before = server.counted()
    flujo = Flujo(agent("openai:gpt-4o", base_url=server.base_url), limits=UsageLimits(total_cost_usd_limit=1))
    result = flujo.run("hello")
    assert result.status == "stopped"
    assert "price" in str(result.error)
    assert result.usage.requests == 0
    assert server.counted() == before


def test_a_gguf_file_is_a_model_in_this_process_and_free(gguf_file):
    pipeline = agent(f"local:{gguf_file}", max_tokens=20) >> agent(
        f"local:{gguf_file}", output_type=Verdict, max_tokens=200, name="judge"
    )
    flujo = Flujo(pipeline, limits=UsageLimits(total_cost_usd_limit=0))
    first, second = flujo.run("hello"), flujo.run("hello")  # each on an event loop of its own
    assert first.status == second.status == "completed"
    assert isinstance(first.output, Verdict)
    assert first.total_cost_usd == 0
    assert (first.usage.unpriced, first.usage.unmeasured) == (0, 0)


def test_a_file_that_is_no_model_is_told_so(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF but not really")
    result = Flujo(agent(f"local:{broken}")).run("hello")
    assert result.status == "failed"
    assert "broken.gguf" in str(result.error)


def test_nothing_is_left_open_and_nothing_is_imported_before_an_agent_runs(gguf_file, run_python):
    code = f"""
import sys
from flujo.agent import AgentBuilder, agent, generate_review_validate
from flujo.core import Flujo
flujo = Flujo(agent("local:{gguf_file}", max_tokens=5))
AgentBuilder("local:{gguf_file}").role("a clerk").build()
generate_review_validate("local:{gguf_file}", task="write", review="is it good")
assert not {{"pydantic_ai", "genai_prices", "openai", "xllamacpp"}} & set(sys.modules)
assert flujo.run("hello").status == "completed"
assert flujo.run("hello").status == "completed"
"""
    assert run_python(code) == ""


def test_a_cancelled_run_closes_its_request_and_the_server_serves_the_next(server):
    slow = Flujo(agent("openai:tiny", base_url=server.base_url, max_tokens=3000, temperature=2.0))

    async def main():
        try:
            async with asyncio.timeout(0.3):
                await slow.run_async("tell me everything")
        except TimeoutError:
            pass
        return await Flujo(agent("openai:tiny", base_url=server.base_url, max_tokens=3)).run_async("hello")

    assert asyncio.run(main()).status == "completed"


def test_the_options_of_its_step_hold_for_an_agent(server):
    before = server.at_rest()
    asks = agent("openai:tiny", base_url=server.base_url, max_tokens=5, price=FREE)
    limited = Step(asks, name="limited", limits=UsageLimits(requests_limit=0), retry=RetryPolicy(max_attempts=3))
    result = Flujo(limited).run("hello")
    assert (result.status, result.step_history[0].attempts) == ("stopped", 1)
    assert server.counted() == before
