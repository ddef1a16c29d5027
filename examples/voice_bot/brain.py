"""The pipeline that answers: a rule for each command, a human's approval before a risky one, and an answer in sentences.

    understand >> approve >> act >> word >> sentences()

The last two are streaming steps: a sentence is spoken while the next ones are not made yet, and an interruption closes
all of it. By default ``word`` says what ``act`` returned; where a model is configured, the model words it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from flujo.streaming import RunStream, StreamingStep, sentences
from pydantic import BaseModel, ConfigDict

from flujo.core import Chunk, Flujo, Pipeline, PipelineResult, Resources, ResultItem, RunContext, StepEnded, step

from .ears import Heard
from .phrases import AGAIN, APPROVALS, BY_PHRASE, COMMANDS, GO_ON, NO, YES, House

HOW = f"Say: {YES.replace(' ', ', ', 1)}. Or: {NO.replace(' ', ', ', 1)}."
TRIES = 2
"""How often an answer to "shall I?" may be something else before that counts as no."""


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
    """

    def __init__(self, house: House, wording: StreamingStep | None = None) -> None:
        self._flow = Flujo(pipeline(wording), resources=Home(house=house), context_model=Memory)
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
            yield _one_by_one(["Sorry, I did not understand that."] if heard.nearest else [])
        else:
            async with (
                self._flow.stream_async(heard.text, context=self._memory) as stream,
                aclosing(self._read(stream)) as given,
            ):
                yield given

    async def _read(self, stream: RunStream) -> AsyncIterator[str]:
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
                yield "Sorry, that did not work."

    async def _decided(self, waiting: PipelineResult, heard: Heard) -> AsyncIterator[str]:
        """Go on with the run that waits, or ask again: a question that was not heard to its end cannot be approved."""
        self._tries += 1
        if not self._asked or (heard.text is None and self._tries < TRIES):
            yield waiting.pauses[0].question
            yield HOW
            return
        self._waiting, self._whole = None, ""
        result = await self._flow.resume_async(waiting, heard.text == YES)
        for sentence in result.output if result.status == "completed" else ["Sorry, that did not work."]:
            yield sentence


async def _one_by_one(texts: list[str]) -> AsyncIterator[str]:
    for text in texts:
        yield text
