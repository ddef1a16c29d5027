"""The pipeline that answers: a rule for each command, a human's approval of a risky one, an answer in sentences.

    understand >> approve >> act >> word >> sentences()

The last two are streaming steps: a sentence is spoken while the next ones are not made yet, and an interruption closes
all of it. By default ``word`` says what ``act`` returned; where a model is configured, the model words it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import cast

from pydantic import BaseModel, ConfigDict

from flujo.core import (
    Budget,
    Chunk,
    Flujo,
    Pipeline,
    PipelineResult,
    Price,
    Resources,
    ResultItem,
    RunContext,
    StepEnded,
    UsageLimits,
    step,
)
from flujo.streaming import RunStream, StreamingStep, sentences

from .ears import Heard
from .phrases import AGAIN, APPROVALS, BY_PHRASE, COMMANDS, GO_ON, NO, YES, House

HOW = f"Say: {YES.replace(' ', ', ', 1)}. Or: {NO.replace(' ', ', ', 1)}."
WORDING = "You are the voice of a house. Say this to its owner in one or two short, friendly sentences, without lists:"
FAILED = "Sorry, that did not work."
TRIES = 2
"""How often an answer to "shall I?" may be something else before that counts as no."""

COUGH_S = 0.4
"""What is shorter than any command, and none, is not answered."""


class Home(Resources):
    """What steps are given."""

    house: House


class Memory(BaseModel):
    """What a run knows of the answer before: all of it, and what the human has heard of it."""

    model_config = ConfigDict(frozen=True)

    whole: str = ""
    heard: str = ""


class Order(BaseModel):
    """A command, and whether it is to be carried out."""

    phrase: str
    approved: bool = True


@step
async def understand(heard: str) -> Order:
    """Find the rule. With a grammar before it, nothing else arrives here; a model could take free text."""
    return Order(phrase=BY_PHRASE[heard].phrase)


@step
async def approve(order: Order, ctx: RunContext) -> Order:
    """Ask a human before a risky command: the run waits, and goes on with the answer."""
    if not BY_PHRASE[order.phrase].risky:
        return order
    approved = await ctx.ask(f"Shall I {order.phrase}?", bool, payload={"command": order.phrase})
    return Order(phrase=order.phrase, approved=approved)


@step(reads=("whole", "heard"))
async def act(order: Order, house: House, memory: Memory) -> str:
    """Carry the command out, and give the answer."""
    if not order.approved:
        return "I leave it."
    if order.phrase in (AGAIN, GO_ON):
        rest = memory.whole if order.phrase == AGAIN else memory.whole.removeprefix(memory.heard).strip()
        return rest or "There is nothing to say."
    house.log.append(order.phrase)
    return BY_PHRASE[order.phrase].deed(house)


async def word(answer: str) -> AsyncIterator[str]:
    """Give the answer as a model would: word by word."""
    for part in answer.split(" "):
        yield f"{part} "


def model_wording(model: str, base_url: str | None = None) -> StreamingStep:
    """Let a model say the answer in its own words, and stream them.

    Args:
        model: As of `flujo.agent.agent`: "openai:gpt-5-mini", "local:FILE.gguf".
        base_url: A server of your own that speaks OpenAI's protocol, taken as free of charge; None is the provider's.
    """
    from flujo.agent import agent  # the rules need no model, and it takes 0.5 s to import

    free = Price() if base_url is not None else None
    words = agent(model, name="word", instructions=WORDING, base_url=base_url, max_tokens=80, price=free)
    return StreamingStep(words)


def pipeline(wording: StreamingStep | None = None) -> Pipeline:
    """Put the steps together.

    Args:
        wording: A streaming step that takes the answer and gives its words; None says it as it is.
    """
    said = StreamingStep(sentences(), collect="list")
    return Pipeline(understand >> approve >> act >> (wording or StreamingStep(word)) >> said, name="voice_bot")


class Butler:
    """Answers by running the pipeline, and knows what the human has heard.

    Args:
        house: What there is to command.
        wording: See `pipeline`.
        usd: What a model may cost in the whole conversation.
    """

    def __init__(self, house: House, wording: StreamingStep | None = None, usd: str = "0.50") -> None:
        budget = Budget(UsageLimits(total_cost_usd_limit=usd))
        self._flow = Flujo(pipeline(wording), resources=Home(house=house), context_model=Memory, limits=budget)
        self._memory = Memory()
        self._whole = ""
        self._waiting: PipelineResult | None = None
        self._tries = 0
        self._asked = False  # whether the question has been heard to its end

    @property
    def grammar(self) -> str:
        """What may be said next: a command, or the answer to a question."""
        return COMMANDS if self._waiting is None else APPROVALS

    def said(self, text: str, interrupted: bool) -> None:
        """Be told what the human has heard of the last answer."""
        if self._waiting is not None:
            self._asked = self._asked or text.startswith(self._waiting.pauses[0].question)
        elif self._whole:
            heard = text if interrupted else self._whole
            self._memory = Memory(whole=self._whole, heard=heard)

    @asynccontextmanager
    async def answer(self, heard: Heard) -> AsyncIterator[AsyncIterator[str]]:
        """Give the sentences to say to what was heard; leaving the block ends the run that makes them."""
        if self._waiting is not None:
            yield self._decided(self._waiting, heard)
        elif heard.text is None:
            yield _one_by_one(["Sorry, I did not understand that."] if heard.seconds > COUGH_S else [])
        else:
            async with (
                self._flow.stream_async(heard.text, context=self._memory) as stream,
                aclosing(self._read(stream)) as given,
            ):
                yield given

    async def _read(self, stream: RunStream) -> AsyncGenerator[str, None]:
        """Give the sentences of a run, and the question it ends with where it waits for a human."""
        self._whole = ""
        async for item in stream:
            if isinstance(item, Chunk):
                yield item.value
            elif isinstance(item, StepEnded) and item.record.name == "act":
                self._whole = str(item.record.output)
            elif isinstance(item, ResultItem) and item.result.status == "paused":
                self._waiting, self._tries, self._asked = item.result, 0, False
                yield item.result.pauses[0].question
                yield HOW
            elif isinstance(item, ResultItem) and item.result.status != "completed":
                yield FAILED

    async def _decided(self, waiting: PipelineResult, heard: Heard) -> AsyncIterator[str]:
        """Go on with the run that waits, or ask again: a question that was not heard to its end cannot be approved."""
        self._tries += 1
        if not self._asked or (heard.text is None and self._tries < TRIES):
            yield waiting.pauses[0].question
            yield HOW
            return
        self._waiting, self._whole = None, ""
        result = await self._flow.resume_async(waiting, heard.text == YES)
        if result.status != "completed":
            yield FAILED
            return
        for sentence in cast("list[str]", result.output):  # the last step collects its chunks in a list
            yield sentence


async def _one_by_one(texts: list[str]) -> AsyncIterator[str]:
    for text in texts:
        yield text
