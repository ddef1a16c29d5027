"""Recipes solve tasks: with models that know the answers, with agents of the user's own, over pauses, under limits."""

import asyncio
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from pydantic import BaseModel, ConfigDict
from pydantic_ai import messages as pai
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.test import TestModel

from flujo.agent import (
    AgentBuilder,
    AgenticLoop,
    AskHumanCommand,
    Checklist,
    Conversation,
    Criterion,
    CriterionResult,
    Decision,
    Default,
    Dialogue,
    Draft,
    FinishCommand,
    Judged,
    Recipe,
    Reflection,
    ReflectionAgent,
    ReviewAgent,
    RunAgentCommand,
    Solution,
    Validation,
    ValidatorAgent,
    agent,
    generate_review_validate,
    wrap,
)
from flujo.core import (
    Agent,
    Flujo,
    LocalBackend,
    PipelineError,
    Plugins,
    PreStepExecution,
    Resource,
    Resources,
    Snapshot,
    Step,
    StepExecutionRequest,
    StepOutcome,
    UsageLimits,
)


@dataclass
class Scripted:
    """Answers in order, as the output tool it is offered or as text; keeps what it was asked."""

    answers: list[object]
    prompts: list[str] = field(default_factory=list)
    messages: list[list[pai.ModelMessage]] = field(default_factory=list)

    def __call__(self, messages, info):
        self.messages.append(list(messages))
        parts = messages[-1].parts
        self.prompts.append("\n".join(str(part.content) for part in parts if hasattr(part, "content")))
        answer = self.answers.pop(0)
        if isinstance(answer, str):
            return pai.ModelResponse(parts=[pai.TextPart(answer)])
        return pai.ModelResponse(parts=[pai.ToolCallPart(info.output_tools[0].name, answer)])


def model(*answers):
    """A model that gives these answers, and its script."""
    script = Scripted(list(answers))
    return FunctionModel(script), script


def checklist(*criteria: str) -> dict[str, object]:
    return {"criteria": [{"text": one} for one in criteria]}


def verdicts(*passed: bool) -> dict[str, object]:
    return {"results": [{"number": n, "passed": one, "why": f"look at {n}"} for n, one in enumerate(passed, 1)]}


LESSON = {"cause": "it was written in haste", "changes": ["count before you answer"]}

# --- roles ------------------------------------------------------------------------------------------------------------


def test_the_roles_are_agents_with_typed_outputs():
    draft = Draft[str](task="add 2 and 3", answer="6", checklist=Checklist(criteria=[Criterion(text="is right")]))
    judged = Judged[str](task="add 2 and 3", answer="6", score=0, failed=["is right (it is 5)"])
    for role, given, answer, kind in (
        (ReviewAgent, "add 2 and 3", checklist("is right"), Checklist),
        (ValidatorAgent, draft, verdicts(False), Validation),
        (ReflectionAgent, judged, LESSON, Reflection),
    ):
        played, script = model(answer)
        made = role(played, instructions="Be strict.")
        assert isinstance(made, Agent)
        result = Flujo(Step(made)).run(given)
        assert (type(result.output), result.usage.requests) == (kind, 1), result.error
        assert "add 2 and 3" in script.prompts[0]
        assert "Be strict." in script.messages[0][0].instructions
        with pytest.raises(PipelineError, match="'gpt'"):
            role("gpt")


def test_a_score_is_the_weight_of_what_is_met_and_what_nobody_judged_is_not():
    criteria = Checklist(criteria=[Criterion(text="a", weight=3), Criterion(text="b"), Criterion(text="c")])
    met, unmet = (lambda n: CriterionResult(number=n, passed=True)), (lambda n: CriterionResult(number=n, passed=False))
    assert Validation(results=[met(1), met(2), met(3)]).score(criteria) == 1
    assert Validation(results=[met(1), unmet(2)]).score(criteria) == pytest.approx(3 / 5)
    assert Validation(results=[met(1), met(2), met(3), unmet(1)]).score(criteria) == pytest.approx(2 / 5)
    assert Validation(results=[met(1), met(2), met(3)]).score(criteria, 5) == pytest.approx(0.5)
    assert Validation(results=[met(7)]).score(criteria) == 0
    assert list(Validation(results=[met(1)]).failed(criteria)) == ["b (it was not judged)", "c (it was not judged)"]


# --- Default ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Named:
    """A task, what the solver answers in turn, and whether each answer passes."""

    task: str
    answers: tuple[object, ...]
    passes: tuple[bool, ...] = (True,)
    output_type: object = str


class Sum(BaseModel):
    total: int


TASKS = {
    "motto": Named("A motto for an audit team.", ("Trust, then verify.",)),
    "sum": Named("Add 2 and 3.", ({"total": 5},), output_type=Sum),
    "haiku, rejected at first": Named("A haiku on rain.", ("Rain.", "Rain on the tin roof"), (False, True)),
}


@pytest.mark.parametrize("name", TASKS)
def test_default_solves(name):
    task = TASKS[name]
    solver, solved = model(*task.answers)
    reviewer, reviewed = model(checklist("fits the task"))
    validator, _ = model(*(verdicts(passed) for passed in task.passes))
    reflector, reflected = model(LESSON)
    recipe = Default(
        solver, reviewer=reviewer, validator=validator, reflector=reflector, output_type=task.output_type
    )  # fmt: skip
    result = Flujo(recipe).run(task.task)
    assert result.status == "completed", result.error
    given = task.answers[-1]
    assert result.output.answer == (given if isinstance(given, str) else task.output_type.model_validate(given))
    assert (result.output.score, result.output.attempts, result.output.failed) == (1, len(task.answers), [])
    assert reviewed.prompts == [task.task]
    assert "- fits the task" in solved.prompts[0]
    assert len(reflected.prompts) == len(task.answers) - 1
    if len(task.answers) == 2:
        for word in ("Rain.", "look at 1", "it was written in haste", "count before you answer"):
            assert word in solved.prompts[1]
        assert "Rain." in reflected.prompts[0]


def test_an_observer_logs_pre_step_execution_of_the_default_recipe():
    logged = []

    def log(event: PreStepExecution) -> None:
        logged.append(event.name)

    solver, _ = model("one", "two")
    reviewer, _ = model(checklist("is two"))
    validator, _ = model(verdicts(False), verdicts(True))
    reflector, _ = model(LESSON)
    recipe = Default(solver, reviewer=reviewer, validator=validator, reflector=reflector)
    assert Flujo(recipe, hooks=[log]).run("Say two.").status == "completed"
    roles = [name for name in logged if name in ("review", "solution", "validate", "reflect")]
    assert roles == ["review", "solution", "validate", "reflect", "solution", "validate"]
    attempt = ["brief", "solution", "draft", "validate", "score"]
    assert logged == ["review", "begin", *attempt, "reflect", "compare", *attempt, "compare", "answer"]


def test_the_best_answer_is_given_where_its_score_suffices_and_else_the_run_fails_and_keeps_all():
    def recipe(**scores):
        validator, _ = model(verdicts(True, False), verdicts(False, False))
        return Default(
            model("first", "second")[0], reviewer=Checklist(criteria=[Criterion(text="a"), Criterion(text="b")]),
            validator=validator, reflector=model(LESSON)[0], max_attempts=2, **scores,
        )  # fmt: skip

    good = Flujo(recipe(min_score=0.5)).run("go")
    assert isinstance(good.output, Solution)
    assert (good.output.answer, good.output.score, good.output.attempts) == ("first", 0.5, 2)
    assert good.output.failed == ["b (look at 2)"]
    bad = Flujo(recipe()).run("go")
    assert (bad.status, bad.error.error_type, bad.usage.requests) == ("failed", "AgentFault", 5)
    assert "b (look at 2)" in str(bad.error)
    assert [record.output for record in bad.step_history if record.name == "solution"] == ["first", "second"]
    assert Flujo(recipe(target_score=0.5)).run("go").output.attempts == 1


def test_what_the_users_own_functions_find_counts_and_goes_back():
    def short(text: str) -> str | None:
        return "it is too long" if len(text) > 3 else None

    solver, script = model("long answer", "ok")
    given = Checklist(criteria=[Criterion(text="is an answer")])
    recipe = Default(
        solver, reviewer=given, validator=model(verdicts(True), verdicts(True))[0], reflector=model(LESSON)[0],
        validate=short,
    )  # fmt: skip
    result = Flujo(recipe).run("go")
    assert result.output.answer == "ok"
    assert [record.output.score for record in result.step_history if record.name == "score"] == [0.5, 1.0]
    assert "- it is too long" in script.prompts[1]


class Notes(BaseModel):
    model_config = ConfigDict(frozen=True)

    customer: str = "Ada"
    secret: str = "hidden"


@asynccontextmanager
async def dictionary():
    yield {"greeting": "hello"}


class App(Resources):
    words: dict = Resource(dictionary, scope="run")


class Counting(LocalBackend):
    """A backend that counts the attempts it is given."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        self.names.append(request.step.name)
        return await super().execute_step(request)


class Solver:
    """An agent of the user's own, that takes a resource and the context."""

    async def run(self, prompt: str, words: dict, notes: Notes) -> str:
        return f"{words['greeting']} {notes.customer}"


class Planner:
    """A planner of the user's own."""

    async def run(self, prompt: str, notes: Notes) -> Decision[str]:
        if "Result:" in prompt:
            return Decision[str](command=FinishCommand[str](answer=prompt.split("Result:\n")[1].splitlines()[0]))
        return Decision[str](command=RunAgentCommand(agent="solver", prompt=notes.customer))


def all_recipes() -> dict[str, object]:
    passing = Checklist(criteria=[Criterion(text="is kind")])
    reads = {"context_model": Notes, "reads": "customer"}
    return {
        "default": Default(TestModel(), reviewer=passing, solver=Solver(), validator=_approves, **reads),
        "loop": AgenticLoop(Planner(), {"solver": Solver()}),
        "conversation": Conversation(_Talker(), max_turns=1),
    }


async def _approves(draft: Draft[str]) -> Validation:
    return Validation(results=[CriterionResult(number=1, passed=True)])


@pytest.mark.parametrize("name", ["default", "loop", "conversation"])
def test_recipes_accept_resources_context_limits_and_a_backend(name):
    backend = Counting()
    flujo = Flujo(
        all_recipes()[name], resources=App(), context_model=Notes, limits=UsageLimits(requests_limit=0), backend=backend
    )
    result = flujo.run("greet", context=Notes(customer="Bo"))
    assert result.status == "completed", result.error
    assert "hello Bo" in str(result.output)
    assert len(backend.names) > 3


class _Talker:
    async def run(self, dialogue: Dialogue, words: dict, notes: Notes) -> str:
        return f"{words['greeting']} {notes.customer}, you said {dialogue.latest}"


@pytest.mark.parametrize("recipe", ["default", "loop", "conversation", "review"])
def test_a_recipe_stops_at_its_limits_and_keeps_what_was_paid_for(recipe):
    asked, _ = model("a", "b")
    one = UsageLimits(requests_limit=0)
    made = {
        "default": lambda: Default(asked, limits=one),
        "loop": lambda: AgenticLoop(asked, {"worker": asked}, limits=one),
        "conversation": lambda: Conversation(asked, limits=one),
        "review": lambda: generate_review_validate(asked, task="x", review="y", limits=one),
    }[recipe]()
    result = Flujo(made).run("go")
    assert (result.status, result.usage.requests) == ("stopped", 0)


# --- AgenticLoop ------------------------------------------------------------------------------------------------------


def command(**facts) -> dict[str, object]:
    return {"command": facts}


def run_agent(name: str, prompt: str) -> dict[str, object]:
    return command(kind="run_agent", agent=name, prompt=prompt)


def finish(answer: object) -> dict[str, object]:
    return command(kind="finish", answer=answer)


async def count(prompt: str) -> int:
    """Counts the words of a text."""
    return len(prompt.split())


LOOPS = {
    "count": ([run_agent("count", "one two three"), finish("3")], "3"),
    "report of two agents": (
        [run_agent("count", "a b"), run_agent("writer", "Say 2."), finish("two words")],
        "two words",
    ),
    "rejected at first": ([run_agent("nobody", "hello"), run_agent("count", "a"), finish("1")], "1"),
}


@pytest.mark.parametrize("name", LOOPS)
def test_the_agentic_loop_solves(name):
    commands, answer = LOOPS[name]
    planner, script = model(*commands)
    writer, _ = model("There are two.")
    recipe = AgenticLoop(planner, {"count": count, "writer": writer})
    result = Flujo(recipe).run("How many words?")
    assert (result.status, result.output) == ("completed", answer), result.error
    assert "- count: Counts the words of a text." in script.messages[0][0].instructions
    assert "How many words?" in script.prompts[0]
    if "rejected" in name:
        assert "nobody" not in [record.name for record in result.step_history]
        assert result.usage.requests == 3  # the planner was told, and asked again
    else:
        assert len([r for r in result.step_history if r.name == "plan"]) == len(commands)
        assert "Result:" in script.prompts[1]


def test_the_loop_asks_a_human_and_goes_on_elsewhere_with_the_answer():
    def recipe(*commands):
        planner, script = model(*commands)
        return Flujo(AgenticLoop(planner, {"count": count})), script

    async def main():
        first, _ = recipe(run_agent("count", "a b"), command(kind="ask_human", question="Which language?"))
        paused = await first.run_async("Count in a language.")
        assert [pause.question for pause in paused.pauses] == ["Which language?"]
        kept = Snapshot.model_validate_json(paused.snapshot().model_dump_json())
        then, script = recipe(finish("deux"))
        return await then.resume_async(kept, "French"), script

    result, script = asyncio.run(main())
    assert (result.status, result.output) == ("completed", "deux")
    assert "Which language?\nAnswer:\nFrench" in script.prompts[0]
    assert "count: a b\nResult:\n2" in script.prompts[0]
    assert result.usage.requests == 3


def test_a_loop_without_an_end_is_bounded_and_a_command_that_cannot_be_done_fails():
    class Endless:
        async def run(self, prompt: str) -> Decision[str]:
            return Decision[str](command=RunAgentCommand(agent="count", prompt="again"))

    result = Flujo(AgenticLoop(Endless(), {"count": count}, max_commands=3)).run("go")
    assert (result.status, len([r for r in result.step_history if r.name == "count"])) == ("failed", 3)

    async def lost(prompt: str) -> Decision[str]:
        return Decision[str](command=RunAgentCommand(agent="nobody", prompt="x"))

    async def asks(prompt: str) -> Decision[str]:
        return Decision[str](command=AskHumanCommand(question="May I?"))

    assert "'nobody'" in str(Flujo(AgenticLoop(lost, {"count": count})).run("go").error)
    assert "no human" in str(Flujo(AgenticLoop(asks, {"count": count}, human=False)).run("go").error)
    assert Flujo(AgenticLoop(asks, {"count": count})).run("go").status == "paused"


def test_a_loop_finishes_with_the_type_that_was_asked_for():
    planner, _ = model(finish({"total": 5}))
    flujo = Flujo(AgenticLoop(planner, {"count": count}, output_type=Sum))
    assert flujo.run("add").output == Sum(total=5)
    assert [node.output_type for node in flujo.plan.nodes if node.path == "answer"] == [Sum]


# --- Conversation -----------------------------------------------------------------------------------------------------

TALKS = {
    "greeting": (["hello"], ["Hi!"], "Hi!"),
    "two questions": (["Where is Bern?", "And Basel?"], ["In the middle.", "In the north."], "In the north."),
    "an answer rejected at first": (["Say yes.", "No, in capitals."], ["yes", "YES"], "YES"),
}


@pytest.mark.parametrize("name", TALKS)
def test_a_conversation_solves_over_as_many_pauses_as_turns(name):
    said, answers, last = TALKS[name]
    played, script = model(*answers)

    def made():
        return Flujo(Conversation(played, instructions="Answer briefly."))

    async def main():
        result = await made().run_async(said[0])
        for text in [*said[1:], ""]:
            assert (result.status, result.pauses[0].question) == ("paused", answers[len(script.prompts) - 1])
            kept = Snapshot.model_validate_json(result.snapshot().model_dump_json())
            result = await made().resume_async(kept, text)
        return result

    result = asyncio.run(main())
    assert result.status == "completed", result.error
    assert result.output.ended
    assert result.output.latest == last
    assert [turn.text for turn in result.output.turns] == [
        text for pair in zip(said, answers, strict=True) for text in pair
    ]
    assert script.prompts == said
    if len(said) == 2:  # as messages of the protocol, not as one text
        kinds = [(type(one).__name__, one.parts[-1].content) for one in script.messages[1]]
        assert kinds == [("ModelRequest", said[0]), ("ModelResponse", answers[0]), ("ModelRequest", said[1])]
    assert result.usage.requests == len(answers)


def test_the_memory_of_a_conversation_is_bounded_and_starts_with_the_human():
    played, script = model(*"abcd")

    async def main():
        flujo = Flujo(Conversation(played, memory=3, max_turns=4))
        result = await flujo.run_async("1")
        for text in "234":
            result = await flujo.resume_async(result, text)
        return result

    result = asyncio.run(main())
    assert (result.status, len(result.output.turns)) == ("completed", 8)
    assert [[part.parts[-1].content for part in messages] for messages in script.messages] == [
        ["1"], ["1", "a", "2"], ["2", "b", "3"], ["3", "c", "4"],
    ]  # fmt: skip


def test_the_limits_hold_for_the_whole_conversation():
    played, _ = model("a", "b", "never")

    async def main():
        flujo = Flujo(Conversation(played), limits=UsageLimits(requests_limit=2))
        result = await flujo.run_async("1")
        return await flujo.resume_async(await flujo.resume_async(result, "2"), "3")

    result = asyncio.run(main())
    assert (result.status, result.usage.requests) == ("stopped", 2)


def test_an_empty_answer_is_a_question_all_the_same():
    async def silent(dialogue: Dialogue) -> str:
        return " "

    assert Flujo(Conversation(silent)).run("hello").pauses[0].question == "(no answer)"


# --- generate_review_validate -----------------------------------------------------------------------------------------

REVIEWED = {
    "title": (["A title"], [True]),
    "summary": (["A summary."], [True]),
    "motto, rejected at first": (["bad", "good"], [False, True]),
}


@pytest.mark.parametrize("name", REVIEWED)
def test_generate_review_validate_solves(name):
    answers, approved = REVIEWED[name]
    maker, script = model(*answers)
    reviewer, _ = model(*({"approved": one, "problems": [] if one else ["make it good"]} for one in approved))
    recipe = generate_review_validate(maker, reviewer=reviewer, task="Write it.", review="It is good.")
    result = Flujo(recipe).run(name)
    assert (result.status, result.output) == ("completed", answers[-1])
    assert len(script.prompts) == len(answers)
    assert approved[0] or "- make it good" in script.prompts[1]


# --- the context ------------------------------------------------------------------------------------------------------


def test_agents_read_the_fields_of_the_context_that_they_declare_and_no_others():
    from pydantic_ai import Agent as PaiAgent

    for make in (
        lambda one: agent(one, context_model=Notes, reads=("customer",)),
        lambda one: wrap(PaiAgent(one, name="w"), context_model=Notes, reads="customer"),
        lambda one: ReviewAgent(one, context_model=Notes, reads=["customer"]),
    ):
        played, script = model("ok" if make(TestModel()).output_type is str else checklist("a"))
        reading = make(played)
        flujo = Flujo(reading, context_model=Notes)
        result = flujo.run("greet", context=Notes(customer="Bo"))
        assert result.status == "completed", result.error
        assert re.search(r'greet\n+What is known beside that:\n\{\s*"customer": "Bo"\s*\}', script.prompts[0])
        assert "hidden" not in script.prompts[0]
        assert reading.reads == ("customer",)
    played, script = model("ok")
    built = AgentBuilder(played).role("a clerk").reads(Notes, "customer").build()
    assert Flujo(built, context_model=Notes).run("greet").output == "ok"
    assert '"customer": "Ada"' in script.prompts[0]
    joined = agent(model("ok", "ok")[0], context_model=Notes, reads="customer", name="one") >> Step(_echo)
    assert joined.nodes[0].options.reads == ("customer",)


async def _echo(text: str) -> str:
    return text


def test_every_agent_of_a_recipe_reads_the_context():
    reads = {"context_model": Notes, "reads": "customer"}
    maker, made = model("bad", "good")
    reviewer, seen = model({"approved": False, "problems": ["no"]}, {"approved": True, "problems": []})
    recipe = generate_review_validate(maker, reviewer=reviewer, task="x", review="y", **reads)
    assert Flujo(recipe, context_model=Notes).run("go").output == "good"
    solver, solved = model("an answer")
    whole = Default(solver, reviewer=model(checklist("a"))[0], validator=model(verdicts(True))[0], **reads)
    assert Flujo(whole, context_model=Notes).run("go").output.answer == "an answer"
    for prompt in (*made.prompts, *seen.prompts, *solved.prompts):
        assert '"customer": "Ada"' in prompt


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reads": "customer"}, "context_model"),
        ({"context_model": Notes}, "reads="),
        ({"context_model": Notes, "reads": ["age"]}, "'age'"),
        ({"context_model": 7, "reads": "x"}, "no pydantic model"),
    ],
)
def test_fields_of_a_context_that_cannot_be_read_are_refused(options, words):
    from pydantic_ai import Agent as PaiAgent

    with pytest.raises(PipelineError, match=words):
        agent(TestModel(), **options)
    with pytest.raises(PipelineError, match=words):
        wrap(PaiAgent(TestModel()), **options)


# --- what cannot work, and what is offered ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Default("gpt", max_attempts=0, target_score=2, min_score="x", validate=[7], limits=5),
            ["'gpt'", "max_attempts", "target_score", "min_score", "validator 7", "limits="],
        ),
        (lambda: Default(), ["model is missing"]),
        (
            lambda: AgenticLoop("gpt", {"ask_human": count, "x": 7}, about={"y": "z"}, max_commands=0),
            ["'gpt'", "'ask_human'", "'y'", "max_commands", "x:"],
        ),
        (lambda: AgenticLoop(TestModel(), {}, human=False), ["nobody"]),
        (lambda: Conversation("gpt", memory=1, max_turns=0), ["'gpt'", "memory", "max_turns"]),
    ],
)
def test_everything_that_is_wrong_with_a_recipe_is_told_at_once(make, words):
    with pytest.raises(PipelineError) as caught:
        make()
    told = "\n".join(caught.value.problems)
    assert [word for word in words if word not in told] == []
    assert told.count("'gpt' is no name") <= 1


def test_recipes_are_offered_by_the_plugin_and_each_is_made_of_a_model_alone():
    offered = {recipe.name: recipe for _, recipe in Plugins().registered("register_recipes", Recipe)}
    assert set(offered) == {"default", "loop", "review", "conversation"}
    for recipe in offered.values():
        pipeline = recipe.make(TestModel(), instructions="Be brief.", max_tokens=50)
        assert Flujo(pipeline).plan.input_type is not None
        assert recipe.help


def test_an_option_that_no_agent_has_and_scores_that_contradict_each_other_are_refused():
    async def work(task: str) -> str:
        return task

    for plays in ("openai:gpt-4o", work):
        with pytest.raises(TypeError, match="no option max_iterations"):
            AgenticLoop(plays, {"a": work}, max_iterations=3)
    with pytest.raises(TypeError, match="no option validators"):
        ReviewAgent("openai:gpt-4o", validators=())
    with pytest.raises(PipelineError, match=r"min_score=0\.6 is above target_score=0\.3"):
        Default("openai:gpt-4o", target_score=0.3, min_score=0.6)
