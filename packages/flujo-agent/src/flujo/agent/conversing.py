"""Conversation: an agent and a human in turn, with a memory, over as many pauses as there are turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Unpack

from flujo.core import Agent, Loop, PauseForHumanInput, Pipeline, Step, UsageLimits, run_input

from .agents import agent
from .parts import Players, whole
from .prompts import Dialogue, Turn, prompt_of
from .spec import AgentOptions

if TYPE_CHECKING:
    from pydantic_ai.models import Model

__all__ = ["Conversation"]

_SILENT = "(no answer)"
"""Stands for an empty answer: a question to a human is a text."""


class Conversation(Pipeline):
    """An agent and a human talk in turn; the run's input is what the human says first.

    Each answer of the agent pauses the run: it is the question of `result.pauses[0]`, and what the human says next, a
    text, is the decision to resume with. An empty text ends the conversation, as do `max_turns`; then the run gives the
    whole `Dialogue`. Between two turns the run is a snapshot, or in a store: it may go on elsewhere, any time later.

    Args:
        talker: A model, or an agent, function or step of your own, which is given the `Dialogue` and gives its answer.
        instructions: What a talker that is a model is to do.
        memory: Most messages before the last that the talker is shown, the newest of them; at least 2.
        max_turns: Most answers of the agent.
        limits: Limits of the whole conversation, under those of the Flujo.
        name: Name of the pipeline.
        **options: As for `agent`.

    Raises:
        PipelineError: Something cannot work; all of it is told at once.
    """

    def __init__(
        self,
        talker: str | Model | Agent | Step | Callable[..., object],
        *,
        instructions: str = "",
        memory: int = 40,
        max_turns: int = 100,
        limits: UsageLimits | None = None,
        name: str = "conversation",
        **options: Unpack[AgentOptions],
    ) -> None:
        players = Players()
        whole(players.problems, 1, max_turns=max_turns)
        whole(players.problems, 2, memory=memory)

        def talks(model: Any) -> Any:
            return agent(model, instructions=instructions, output_type=str, name="reply", **options)

        reply = players.step("reply", talker, talks)
        players.check(f"recipe {name!r}", limits, options)
        loop = Loop(_turn(reply, memory, max_turns), _is_over, max_turns, name="turns")
        super().__init__(Step(_begin, name="begin") >> loop, name=name, limits=limits)


async def _begin(message: object) -> Dialogue:
    return Dialogue(turns=(Turn(speaker="human", text=prompt_of(message, "reply")),))


def _is_over(dialogue: Dialogue) -> bool:
    return dialogue.ended


def _turn(reply: Step, memory: int, most: int) -> Pipeline:
    """The agent's answer, and what the human says to it."""

    async def recall(dialogue: Dialogue) -> Dialogue:
        shown = dialogue.turns[-(memory + 1) :]
        return Dialogue(turns=shown if shown[0].speaker == "human" else shown[1:])  # as providers want it

    async def say(dialogue: Dialogue, answer: object) -> Dialogue:
        text = prompt_of(answer, "reply")
        answers = sum(turn.speaker == "agent" for turn in dialogue.turns) + 1
        turns = (*dialogue.turns, Turn(speaker="agent", text=text))
        return Dialogue(turns=turns, ended=answers >= most)

    async def listen(dialogue: Dialogue) -> str:
        raise PauseForHumanInput(dialogue.latest.strip() or _SILENT, schema=str)

    async def hear(dialogue: Dialogue, heard: str | None) -> Dialogue:
        if not heard:
            return dialogue.model_copy(update={"ended": True})
        return Dialogue(turns=(*dialogue.turns, Turn(speaker="human", text=heard)))

    said = Step(say, inputs={"dialogue": run_input(), "answer": reply})
    listened = Step(listen, pauses=True, when=_goes_on)
    heard = Step(hear, inputs={"dialogue": said, "heard": listened})
    return Pipeline(Step(recall) >> reply, said >> listened, heard, name="turn")


def _goes_on(dialogue: Dialogue) -> bool:
    return not dialogue.ended
