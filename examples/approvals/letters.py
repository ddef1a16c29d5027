"""A letter is drafted and validated; then a human says whether it is good, and what to change."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

from pydantic import BaseModel, Field

from flujo.core import Pipeline, RunContext, Step, UsageLimits, step
from flujo.hitl import human_input


class Letter(BaseModel):
    """What is to be sent."""

    to: str
    amount: int
    text: str


class Tone(StrEnum):
    """How a letter sounds."""

    formal = "formal"
    friendly = "friendly"


class Feedback(BaseModel):
    """What a reviewer says."""

    approved: bool = Field(description="Whether it may be sent, after your changes if there are any.")
    tone: Tone = Field(Tone.formal, description="How it should sound.")
    changes: str = Field("", description="What to change, in your words.")
    amount: int | None = Field(None, ge=0, le=500, description="Another amount, where it is wrong.")


async def spend(ctx: RunContext, usd: str) -> None:
    """What a call of a model would cost: reserved before, settled after. (No model is needed to try the inbox.)"""
    async with ctx.usage.reserve(cost_usd=Decimal(usd), tokens=400) as lease:
        lease.settle(cost_usd=Decimal(usd), tokens=400)


@step
async def draft(case: str, ctx: RunContext) -> Letter:
    """Write a first version."""
    await spend(ctx, "0.012")
    return Letter(to="Ann Lee", amount=40, text=f"Dear Ann,\n\nabout {case}: we pay back 40 USD.\n\nYours")


@step
async def validate(letter: Letter) -> Letter:
    """What a program can check, it checks; the rest is for a human."""
    if not 0 < letter.amount <= 500:
        raise ValueError(f"{letter.amount} USD is not ours to give")
    return letter


review = human_input("May this letter be sent?", schema=Feedback, of=Letter, name="review", roles=["editor"])


async def revise(letter: Letter, feedback: Feedback, ctx: RunContext) -> Letter:
    """Write the last version, as the reviewer wants it."""
    if not feedback.approved:
        raise ValueError(f"the reviewer refused it: {feedback.changes or 'no reason was given'}")
    await spend(ctx, "0.020")
    amount = letter.amount if feedback.amount is None else feedback.amount
    words = {Tone.formal: "Dear Ms Lee", Tone.friendly: "Hello Ann"}[feedback.tone]
    text = letter.text.replace("Dear Ann", words).replace("40 USD", f"{amount} USD")
    return Letter(to=letter.to, amount=amount, text=f"{text}\n\nPS: {feedback.changes}" if feedback.changes else text)


@step
async def send(letter: Letter) -> str:
    """Hand it to the post; here it is only said."""
    return f"To {letter.to}:\n{letter.text}"


drafted = Step(draft)
checked = Step(validate, inputs={"letter": drafted})
said = Step(review, inputs={"value": checked})
revised = Step(revise, inputs={"letter": checked, "feedback": said})

letters = Pipeline(
    drafted, checked, said, revised, Step(send, inputs={"letter": revised}),
    name="letters", limits=UsageLimits(total_cost_usd_limit="0.05"),
)  # fmt: skip
