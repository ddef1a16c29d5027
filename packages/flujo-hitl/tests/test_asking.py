"""Steps that ask a human: for an input, for an approval, in time or too late."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from pydantic import BaseModel

from flujo.core import ConfigurationError, Flujo, InputError, PauseForHumanInput, PipelineError, ResumeError, step
from flujo.hitl import Approval, HmacSigner, SQLiteStore, approve, human_input

pytestmark = pytest.mark.anyio


class Refund(BaseModel):
    amount: int
    to: str


@step
async def refund(amount: int) -> Refund:
    return Refund(amount=amount, to="Ann")


@step
async def pay(refund: Refund) -> str:
    return f"{refund.amount} to {refund.to}"


async def test_an_approved_value_is_handed_on() -> None:
    flujo = Flujo(refund >> approve("Pay back?", of=Refund, roles=["cfo"]) >> pay)
    paused = await flujo.run_async(40)
    [pause] = paused.pauses
    assert (pause.payload, pause.roles) == ({"amount": 40, "to": "Ann"}, {"cfo"})
    assert (await flujo.resume_async(paused, {"approved": True})).unwrap() == "40 to Ann"


async def test_a_denial_fails_the_step_with_its_reason() -> None:
    flujo = Flujo(refund >> approve(of=Refund) >> pay)
    denied = await flujo.resume_async(await flujo.run_async(40), Approval(approved=False, reason="too much"))
    assert denied.status == "failed"
    assert "too much" in str(denied.error)


async def test_an_approval_needs_a_decision_of_its_kind() -> None:
    flujo = Flujo(refund >> approve(of=Refund) >> pay)
    paused = await flujo.run_async(40)
    with pytest.raises(InputError):
        await flujo.resume_async(paused, "sure, go ahead")  # free text is no decision
    assert (await flujo.resume_async(paused, {"approved": True, "reason": ""})).unwrap() == "40 to Ann"


async def test_types_are_checked_when_it_is_compiled() -> None:
    with pytest.raises(PipelineError):
        Flujo(refund >> approve(of=int) >> pay)
    with pytest.raises(PipelineError):
        Flujo(human_input("How much?", schema=str, of=int) >> refund)


async def test_an_input_is_what_the_human_says() -> None:
    flujo = Flujo(human_input("How much of it?", schema=int, of=int) >> refund)
    paused = await flujo.run_async(100)
    assert paused.pauses[0].payload == 100
    assert (await flujo.resume_async(paused, 40)).unwrap() == Refund(amount=40, to="Ann")


async def test_nobody_in_time_is_a_denial() -> None:
    flujo = Flujo(refund >> approve(of=Refund, expires_in_s=0.05) >> pay)
    paused = await flujo.run_async(40)
    await anyio.sleep(0.1)
    with pytest.raises(ResumeError, match="expired"):
        await flujo.resume_async(paused, {"approved": True})
    late = await flujo.resume_async(paused)
    assert late.status == "failed"
    assert "nobody decided in time" in str(late.error)


async def test_a_declared_answer_counts_when_nobody_answered(tmp_path: Path) -> None:
    asks = human_input("How much?", schema=int, of=int, expires_in_s=0.05, on_expiry=7)
    async with SQLiteStore(tmp_path / "runs.db") as store:
        await Flujo(asks >> refund, store=store).run_async(100, run_id="r")
        await anyio.sleep(0.1)
        done = await Flujo(asks >> refund, store=store).resume_async("r")
    assert done.unwrap() == Refund(amount=7, to="Ann")


async def test_without_a_declared_answer_it_is_too_late() -> None:
    flujo = Flujo(human_input("How much?", schema=int, of=int, expires_in_s=0.01) >> refund)
    paused = await flujo.run_async(100)
    await anyio.sleep(0.05)
    with pytest.raises(ResumeError, match="Start it anew"):
        await flujo.resume_async(paused)


async def test_roles_stand_in_the_token(tmp_path: Path) -> None:
    signer = HmacSigner({"k": b"0123456789abcdef0123456789abcdef"}, "k")
    async with SQLiteStore(tmp_path / "runs.db", signer=signer) as store:
        paused = await Flujo(refund >> approve(of=Refund, roles=["cfo"]), store=store).run_async(1)
        assert paused.pauses[0].token is not None
        facts = signer.open(paused.pauses[0].token)
    assert facts is not None
    assert facts.roles == {"cfo"}


def test_a_default_answer_needs_a_time_and_roles_are_names() -> None:
    with pytest.raises(ConfigurationError, match="never expires"):
        PauseForHumanInput("Really?", on_expiry=1)
    with pytest.raises(ConfigurationError, match="roles"):
        PauseForHumanInput("Really?", roles="cfo")
