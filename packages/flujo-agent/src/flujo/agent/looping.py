"""AgenticLoop: a planner that says what is to be done next, until it says that it is done."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, TypeVar, Union, Unpack

from pydantic import BaseModel, ConfigDict, Field, create_model

from flujo.core import Agent, Branch, Loop, PauseForHumanInput, Pipeline, PipelineLike, Step, UsageLimits, run_input

from .agents import agent
from .errors import AgentFault
from .parts import Players, own, whole
from .prompts import prompt_of
from .spec import AgentOptions

if TYPE_CHECKING:
    from pydantic_ai.models import Model

__all__ = ["AgenticLoop", "AskHumanCommand", "Decision", "ExecutedCommand", "FinishCommand", "RunAgentCommand"]

T = TypeVar("T")

ASK, FINISH = "ask_human", "finish"
_WORDS = (ASK, FINISH, "prompt", "result")

_FROZEN = ConfigDict(frozen=True)

PLANNER = """You reach a goal by commands, one at a time. You are given the goal, and the commands so far with results.
Give the next command:
- run_agent: let an agent do a part of the work. It knows nothing but the prompt that you write for it.
- ask_human: ask the human, where only they can know or decide.
- finish: give the answer, as soon as the results suffice for it.

The agents:
{agents}"""


class RunAgentCommand(BaseModel):
    """Let an agent do a part of the work.

    Attributes:
        kind: Which command this is.
        agent: Name of the agent.
        prompt: All that it is told.
    """

    model_config: ClassVar[ConfigDict] = _FROZEN

    kind: Literal["run_agent"] = "run_agent"
    agent: str
    prompt: str = Field(min_length=1)


class AskHumanCommand(BaseModel):
    """Ask the human: the run pauses, and their answer is the result.

    Attributes:
        kind: Which command this is.
        question: What they are asked.
    """

    model_config: ClassVar[ConfigDict] = _FROZEN

    kind: Literal["ask_human"] = "ask_human"
    question: str = Field(min_length=1)


class FinishCommand(BaseModel, Generic[T]):
    """Give the answer: the loop ends.

    Attributes:
        kind: Which command this is.
        answer: The answer.
    """

    model_config: ClassVar[ConfigDict] = _FROZEN

    kind: Literal["finish"] = "finish"
    answer: T


class Decision(BaseModel, Generic[T]):
    """What a planner gives: the next command, told apart by its `kind`."""

    model_config: ClassVar[ConfigDict] = _FROZEN

    command: Annotated[RunAgentCommand | AskHumanCommand | FinishCommand[T], Field(discriminator="kind")]


class ExecutedCommand(BaseModel):
    """A command that was done.

    Attributes:
        command: The command.
        result: What the agent gave, or the human answered.
    """

    model_config: ClassVar[ConfigDict] = _FROZEN

    command: Annotated[RunAgentCommand | AskHumanCommand, Field(discriminator="kind")]
    result: str


class Progress(BaseModel, Generic[T]):
    """Where the work stands, between two commands."""

    model_config: ClassVar[ConfigDict] = _FROZEN

    goal: str
    done: tuple[ExecutedCommand, ...] = ()
    finish: FinishCommand[T] | None = None


class AgenticLoop(Pipeline):
    """Reaches a goal by commands that a planner gives one by one: run an agent, ask a human, finish.

    `plan` is the planner's step; what it commands is done by a step called after the agent, or by `ask`, where the run
    pauses and goes on with the human's answer. A planner that has not finished after `max_commands` fails the run.

    Args:
        planner: A model, or an agent, function or step of your own, which is given the goal, the agents and what was
            done so far, as a text, and gives a `Decision`.
        agents: Who may be run, by name: agents, functions and steps of your own, or models. Each is given the
            planner's prompt as a text; the planner reads what it gives, as JSON where it is no text.
        about: What each agent is good for, by name, as the planner is told; a function's docstring is used else.
        instructions: What the planner is told beside its role.
        output_type: What a planner that is a model finishes with.
        max_commands: Most commands, the last one included.
        human: Whether the planner may ask a human.
        limits: Limits of each run, under those of the Flujo.
        name: Name of the pipeline.
        **options: As for `agent`; they hold for the planner and every agent that is a model, `tools` for these alone.

    Raises:
        PipelineError: Something cannot work; all of it is told at once.
    """

    def __init__(
        self,
        planner: str | Model | Agent | Step | Callable[..., object],
        agents: Mapping[str, str | Model | Agent | Step | Callable[..., object]],
        *,
        about: Mapping[str, str] | None = None,
        instructions: str = "",
        output_type: Any = str,
        max_commands: int = 10,
        human: bool = True,
        limits: UsageLimits | None = None,
        name: str = "agentic-loop",
        **options: Unpack[AgentOptions],
    ) -> None:
        players, hints = Players(), about or {}
        whole(players.problems, 1, max_commands=max_commands)
        players.problems += _problems(agents, hints, human=human)
        without: AgentOptions = {**options, "tools": ()}
        listed = "\n".join(f"- {one}: {_about(agents[one], hints.get(one, ''))}" for one in agents)
        told = PLANNER.format(agents=listed or "none") + ("" if human else "\n\nThere is no human to ask.")

        def plans(model: Any) -> Any:
            words, decision = f"{told}\n\n{instructions}".strip(), _decision(tuple(agents), output_type, human=human)
            return agent(model, instructions=words, output_type=decision, name="plan", **without)

        def works(one: str, player: object) -> Step:
            return players.step(one, player, lambda model: agent(model, output_type=str, name=one, **options))

        plan = players.step("plan", planner, plans)
        bodies = {one: works(one, player) for one, player in agents.items()}
        players.check(f"recipe {name!r}", limits, options)
        types = _Types(output_type, plan.signature().output)
        body = _command(types, plan, bodies, human=human)
        loop = Loop(body, _is_finished, max_commands, name="commands")
        super().__init__(_begin(types) >> loop >> _answer(types), name=name, limits=limits)


def _problems(agents: Mapping[str, object], about: Mapping[str, str], *, human: bool) -> list[str]:
    problems = [] if agents or human else ["agents= names nobody, and there is no human: nothing could be done"]
    problems += [f"an agent cannot be called {one!r}: it is a word of this recipe" for one in agents if one in _WORDS]
    return [*problems, *(f"about= speaks of {one!r}, which is no agent" for one in about if one not in agents)]


def _about(player: object, hint: str) -> str:
    """What the planner is told of an agent."""
    written = inspect.getdoc(player) if inspect.isroutine(player) else None
    return " ".join((hint or written or "what its name says").split())


def _decision(agents: tuple[str, ...], answer: Any, *, human: bool) -> Any:
    """The type that a model plans with: a `Decision` that can name these agents only."""
    kinds: list[Any] = [AskHumanCommand] if human else []
    if agents:
        named: Any = Literal[agents]
        kinds.insert(0, create_model("RunAgentCommand", __base__=RunAgentCommand, agent=(named, ...)))
    one_of: Any = Union[(*kinds, FinishCommand[answer])]
    return create_model("Decision", __doc__=Decision.__doc__, command=(one_of, Field(discriminator="kind")))


class _Types:
    """What is passed between the steps, by the type of the answer: known when a recipe is built, so here it is Any."""

    def __init__(self, answer: Any, planned: object) -> None:
        self.answer: Any = answer
        self.planned = planned
        self.decision: Any = Decision[answer]
        self.progress: Any = Progress[answer]


def _begin(types: _Types) -> Step:
    async def begin(goal: object) -> object:
        return types.progress(goal=prompt_of(goal, "plan"))

    return own(begin, {"goal": object}, types.progress)


def _is_finished(progress: Progress[Any]) -> bool:
    return progress.finish is not None


def _command(types: _Types, plan: Step, agents: Mapping[str, Step], *, human: bool) -> Pipeline:
    """One command: planned, done, noted."""

    async def brief(progress: Progress[Any]) -> str:
        return _brief(progress)

    async def command(planned: Any) -> object:
        plain = planned.model_dump() if isinstance(planned, BaseModel) else planned
        decision = types.decision.model_validate(plain)
        label = _label(decision)
        if label not in {*agents, FINISH, *([ASK] if human else [])}:
            why = f"{label!r} is none of {', '.join(map(repr, agents))}" if label != ASK else "there is no human to ask"
            raise AgentFault("the planner's command cannot be done", why)
        return decision

    async def note(progress: Progress[Any], decision: Decision[Any], result: str) -> object:
        now = decision.command
        if isinstance(now, FinishCommand):
            return progress.model_copy(update={"finish": now})
        return progress.model_copy(update={"done": (*progress.done, ExecutedCommand(command=now, result=result))})

    progress = {"progress": types.progress}
    commanded = own(command, {"planned": types.planned}, types.decision)
    cases: dict[Any, PipelineLike] = {one: _handed(types) >> step >> _told() for one, step in agents.items()}
    act = Branch(_label, {**cases, ASK: _ask(types), FINISH: _nothing(types)}, name="act")
    noted = own(
        note,
        {**progress, "decision": types.decision, "result": str},
        types.progress,
        inputs={"progress": run_input(), "decision": commanded, "result": act},
    )
    return Pipeline(own(brief, progress, str) >> plan >> commanded >> act, noted, name="command")


def _label(decision: Decision[Any]) -> str:
    command = decision.command
    return command.agent if isinstance(command, RunAgentCommand) else command.kind


def _handed(types: _Types) -> Step:
    async def prompt(decision: Decision[Any]) -> str:
        assert isinstance(decision.command, RunAgentCommand)
        return decision.command.prompt

    return own(prompt, {"decision": types.decision}, str)


def _told() -> Step:
    async def result(given: object) -> str:
        return prompt_of(given, "plan")

    return Step(result)


def _ask(types: _Types) -> Step:
    async def ask(decision: Decision[Any]) -> str:
        assert isinstance(decision.command, AskHumanCommand)
        raise PauseForHumanInput(decision.command.question, schema=str)

    return own(ask, {"decision": types.decision}, str)


def _nothing(types: _Types) -> Step:
    async def finish(decision: Decision[Any]) -> str:
        return ""

    return own(finish, {"decision": types.decision}, str)


def _brief(progress: Progress[Any]) -> str:
    """What the planner is given."""
    said = [f"The goal:\n{progress.goal}"]
    for number, done in enumerate(progress.done, 1):
        command = done.command
        if isinstance(command, RunAgentCommand):
            said.append(f"{number}. run_agent {command.agent}: {command.prompt}\nResult:\n{done.result}")
        else:
            said.append(f"{number}. ask_human: {command.question}\nAnswer:\n{done.result}")
    return "\n\n".join([*said, "Give the next command."])


def _answer(types: _Types) -> Step:
    async def answer(progress: Progress[Any]) -> object:
        assert progress.finish is not None  # the loop ends with it only
        return progress.finish.answer

    return own(answer, {"progress": types.progress}, types.answer)
