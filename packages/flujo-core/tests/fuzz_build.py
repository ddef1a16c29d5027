"""Real pipelines of descriptions, and the world in which their steps run and leave traces."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import anyio
from fuzz_specs import Choice, Each, Either, Fan, Graph, Node, Repeat, Row, Source, Spec, Wired, Work, members
from fuzz_values import Memory, change, mix, seen, skips, worth
from pydantic import PlainSerializer, PlainValidator, TypeAdapter

from flujo.core import (
    Branch,
    Fallback,
    Flujo,
    FlujoError,
    Loop,
    Map,
    Parallel,
    PauseForHumanInput,
    Pipeline,
    RetryPolicy,
    RunContext,
    Step,
    ToolCall,
    ToolResult,
    Update,
    run_input,
)

NO_GOOD = -1
"""What the first attempt of a step gives whose validator is to refuse it; the second gives -2, and so on."""


def tagged(value: Any) -> Any:
    """A value as JSON that says which lists are tuples."""
    if isinstance(value, FlujoError):
        return {"error": value.as_data()}
    if isinstance(value, dict):
        return {"dict": {key: tagged(part) for key, part in value.items()}}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [tagged(part) for part in value]}
    return value


def untagged(value: Any) -> Any:
    """What `tagged` wrote; a value that it did not write is returned as it is."""
    if isinstance(value, dict) and len(value) == 1:
        [(kind, parts)] = value.items()
        if kind == "error":
            return TypeAdapter(FlujoError).validate_python(parts)
        if kind == "dict" and isinstance(parts, dict):
            return {key: untagged(part) for key, part in parts.items()}
        if kind in ("list", "tuple") and isinstance(parts, list):
            return {"list": list, "tuple": tuple}[kind](untagged(part) for part in parts)
    return value


Anything = Annotated[Any, PlainSerializer(tagged), PlainValidator(untagged)]
"""What a generated step takes: whatever another gave. A skipped one hands it on, so it must come back as it was."""

GIVES = {"int": int, "list": list[int], "pair": tuple[int, int]}


class Boom(Exception):
    """A step's own failure."""


Event = tuple[Literal["start", "end", "stop", "cut", "tool", "fail", "cancel", "effect"], str]


@dataclass
class World:
    """What the steps of one run share, and what they leave behind.

    Attributes:
        pauses: Whether steps pause where their description says so.
        healed: Whether flaky steps give their value.
        events: What bodies did, by path, in order: "start" and "stop" of each call ("cut" where it was
            cancelled), "end" of a visit that gave a value, "tool" of a tool's answer, "fail" of one that raised for
            the last time, "cancel" of one that cancelled the run, "effect" of what may happen at most once.
        answers: The decision for each pause that was asked for, by path.
        active: Paths of the bodies that run now.
        happened: How often tools and what may happen at most once happened, by path, since the run began.
        cancel: Cancels the run.
        wrong: What a step found that must not be.
    """

    pauses: bool = True
    healed: bool = False
    events: list[Event] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    active: list[str] = field(default_factory=list)
    happened: Counter[Event] = field(default_factory=Counter)
    cancel: Callable[[], None] | None = None
    wrong: list[str] = field(default_factory=list)

    @contextmanager
    def running(self, path: str) -> Iterator[None]:
        """Take note that a body runs."""
        self.events.append(("start", path))
        self.active.append(path)
        kind: Event = ("stop", path)
        try:
            yield
        except Exception:
            raise
        except BaseException:  # trio's and asyncio's cancels
            kind = ("cut", path)
            raise
        finally:
            self.active.remove(path)
            self.events.append(kind)

    def happens(self, kind: Literal["tool", "effect"], path: str) -> None:
        """Take note that something happened to the world."""
        self.events.append((kind, path))
        self.happened[kind, path] += 1

    def begin(self, *, pauses: bool, healed: bool = True, anew: bool = True) -> World:
        """Forget all traces, for another run, or for another part of one: what happened to the world stays then."""
        if anew:
            self.happened.clear()
            self.answers.clear()
        self.pauses, self.healed, self.cancel = pauses, healed, None
        for traces in (self.events, self.active, self.wrong):
            traces.clear()
        return self


def flujo_of(spec: Spec, world: World, **options: Any) -> Flujo:
    """A Flujo of a description, whose steps run in `world`."""
    made = built(spec.root, world)
    return Flujo(made, context_model=Memory, **options)


def built(node: Node, world: World, **inputs: Any) -> Any:
    """The node, chain or pipeline of a description."""
    return MAKERS[type(node)](node, world, **inputs)


def chain(row: Row, world: World) -> Any:
    first, *rest = (built(node, world) for node in row.nodes)
    for node in rest:
        first = first >> node
    return first


# --- combinators ------------------------------------------------------------------------------------------------------


def pipeline(graph: Graph, world: World, **inputs: Any) -> Pipeline:
    made: dict[int, Any] = {}
    for at, wired in enumerate(graph.nodes):
        made[at] = built(wired.node, world, **wires(wired, graph, made))
    joined = [made[at[0]] if len(at) == 1 else made[at[0]] >> made[at[1]] for at in members(graph)]
    output = None if graph.output is None else made[graph.output]
    return Pipeline(*joined, name=graph.name, output=output, **inputs)


def wires(wired: Wired, graph: Graph, made: dict[int, Any]) -> dict[str, Any]:
    """The `inputs=` of a node; what follows by `>>`, or takes the pipeline's input alone, needs none."""
    named = {}
    for parameter, source in zip(("value", "second", "third"), wired.sources, strict=False):
        if source.kind != "after" and (source.kind == "node" or len(wired.sources) > 1):
            named[parameter] = origin(source, made)
        elif source.kind == "run" and isinstance(wired.node, Work) and wired.node.raw:
            named[parameter] = run_input()  # where another input is declared, this one must be too
    if isinstance(wired.node, Work):
        return {"inputs": named} if named else {}
    return {"inputs": named["value"]} if named else {}


def origin(source: Source, made: dict[int, Any]) -> Any:
    if source.kind == "run":
        return run_input()
    return getattr(made[source.at].output, source.part) if source.part else made[source.at]


def branch(choice: Choice, world: World, **inputs: Any) -> Branch:
    texts = {case for case, _ in choice.cases if isinstance(case, str)}

    def label(number: int) -> int | str:
        return text if (text := f"c{number}") in texts else number

    def on(value: Any) -> int | str:
        return label(mix("on", value) % choice.modulo)

    async def on_both(value: Any, memory: Memory) -> int | str:
        return label(mix("on", value, *seen(memory)) % choice.modulo)

    cases = {case: built(body, world) for case, body in choice.cases}
    otherwise = None if choice.otherwise is None else built(choice.otherwise, world)
    return Branch(on_both if choice.sees else on, cases, otherwise, name=choice.name, **inputs)


def loop(node: Repeat, world: World, **inputs: Any) -> Loop:
    async def until(value: Any) -> bool:
        return mix("until", value) % node.until == 0

    def until_both(value: Any, memory: Memory) -> bool:
        return mix("until", value, *seen(memory)) % node.until == 0

    ends = None if not node.until else until_both if node.sees else until
    limit = "return" if node.returns else "fail"
    return Loop(built(node.body, world), ends, node.most, limit, name=node.name, **inputs)


def parallel(fan: Fan, world: World, **inputs: Any) -> Parallel:
    failure = "collect" if fan.collect else "cancel"
    branches = [built(one, world) for one in fan.branches]
    return Parallel(*branches, limit=fan.limit, on_failure=failure, name=fan.name, **inputs)


def map_(each: Each, world: World, **inputs: Any) -> Map:
    failure = "collect" if each.collect else "cancel"
    return Map(built(each.body, world), each.limit, failure, name=each.name, **inputs)


def fallback(either: Either, world: World, **inputs: Any) -> Fallback:
    return Fallback(*(built(option, world) for option in either.options), name=either.name, **inputs)


# --- steps ------------------------------------------------------------------------------------------------------------


def step(work: Work, world: World, inputs: dict[str, Any] | None = None) -> Step:
    given = dict(inputs or {})
    if work.raw:
        given["raw"] = run_input()
    options: dict[str, Any] = {}
    if given:
        options["inputs"] = given
    if work.writes:
        options["writes"] = (work.writes,)
    if work.reads:
        options["reads"] = ("log", "total", "last")
    if work.attempts > 1:
        options["retry"] = RetryPolicy(max_attempts=work.attempts, backoff_s=0)
    if work.rejects:
        options["validators"] = (refuse,)
    if work.once == "step":
        options["effect"] = "at_most_once"
    if work.skips_on:
        options["when"] = lambda value: not skips(value, work.skips_on)
    parameters = ["value", *(name for name in given if name != "value")]
    function = (at_once if work.inline else waiting)(work, world, parameters)
    annotate(function, parameters, work)
    return Step(function, name=work.name, inline=work.inline, **options)


def annotate(function: Any, parameters: list[str], work: Work) -> None:
    """Give a function that takes anything the signature of a step."""
    kinds: dict[str, Any] = {**dict.fromkeys(parameters, Anything), "ctx": RunContext}
    if work.reads:
        kinds["memory"] = Memory
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    function.__signature__ = inspect.Signature([inspect.Parameter(name, keyword) for name in kinds])
    gives = GIVES[work.ends]
    function.__annotations__ = {**kinds, "return": Update[gives] if work.writes else gives}
    function.__name__ = function.__qualname__ = work.name


def at_once(work: Work, world: World, parameters: list[str]) -> Callable[..., object]:
    """The plain function of a step."""

    def run(ctx: RunContext, **given: Any) -> object:
        with world.running(ctx.step_path):
            value = attempt(work, world, ctx, [given[name] for name in parameters], given.get("memory"))
            if work.pause and world.pauses:
                world.answers[ctx.step_path] = value
                raise PauseForHumanInput(question(work.name), schema=GIVES[work.ends])
            if work.once == "step":
                world.answers[ctx.step_path] = value
                world.happens("effect", ctx.step_path)
            return finish(work, world, ctx, value)

    return run


def waiting(work: Work, world: World, parameters: list[str]) -> Callable[..., object]:
    """The coroutine function of a step."""
    now = at_once(work, world, parameters)

    async def run(ctx: RunContext, **given: Any) -> object:
        if not (work.delay or work.tool or work.cancels or work.pause == "ask"):
            return now(ctx, **given)
        with world.running(ctx.step_path):
            if work.tool:
                await use_tool(work, world, ctx)
            for _ in range(work.delay):
                await anyio.sleep(0)
            await cancel(work, world, ctx)
            value = attempt(work, world, ctx, [given[name] for name in parameters], given.get("memory"))
            if work.pause and world.pauses:
                world.answers[ctx.step_path] = value
                if work.pause == "raise":
                    raise PauseForHumanInput(question(work.name), schema=GIVES[work.ends])
                value = await ctx.ask(question(work.name), schema=GIVES[work.ends])
            if work.once == "step":
                world.answers[ctx.step_path] = value
                world.happens("effect", ctx.step_path)
                for _ in range(work.delay):
                    await anyio.sleep(0)
            return finish(work, world, ctx, value)

    return run


def question(name: str) -> str:
    return f"what does {name} give?"


async def use_tool(work: Work, world: World, ctx: RunContext) -> None:
    """Call a tool; wherever the step runs again it must be told what the tool said, and the tool must not run again."""

    async def send(call: ToolCall) -> ToolResult:
        await anyio.sleep(0)
        world.happens("tool", ctx.step_path)
        if work.once == "tool":
            await anyio.sleep(0)
        return ToolResult(content=mix("tool", call.arguments))

    call = ToolCall(name="tool", arguments={"path": ctx.step_path})
    answer = await ctx.call_tool(call, send, effect="at_most_once" if work.once == "tool" else "idempotent")
    if answer.content != mix("tool", call.arguments):
        world.wrong.append(f"{ctx.step_path} is told {answer!r}")


async def cancel(work: Work, world: World, ctx: RunContext) -> None:
    """Cancel the run, where that is for this step to do, and wait for the end."""
    if work.cancels and world.cancel is not None:
        world.events.append(("cancel", ctx.step_path))
        world.cancel()
        for _ in range(10):
            await anyio.sleep(0)
        world.wrong.append(f"{ctx.step_path} goes on after the cancel of its run")


def attempt(work: Work, world: World, ctx: RunContext, inputs: list[Any], memory: Memory | None) -> Any:
    """What the step gives for its inputs, unless this attempt fails."""
    expected = (refuse(1 - ctx.attempt),) if ctx.attempt > 1 else ()
    if work.rejects and ctx.feedback[-1:] != expected:
        world.wrong.append(f"{ctx.step_path} attempt {ctx.attempt} has the feedback {ctx.feedback!r}")
    value = worth(work.name, work.ends, work.size, tuple(inputs), () if memory is None else seen(memory))
    hopeless = (work.fails_on and mix("fails", value) % work.fails_on == 0) or (work.flaky and not world.healed)
    if hopeless or ctx.attempt <= work.fails:
        if ctx.attempt == work.attempts:
            world.events.append(("fail", ctx.step_path))
        raise Boom(f"attempt {ctx.attempt}")
    return value


def finish(work: Work, world: World, ctx: RunContext, value: Any) -> object:
    """What the function returns: the value with its change of the context, or what a validator refuses."""
    changes = {work.writes: change(work.writes, value)} if work.writes else {}
    if ctx.attempt <= work.rejects:
        number = -ctx.attempt
        value = {"int": number, "list": [number], "pair": (number, number)}[work.ends]
    else:
        world.events.append(("end", ctx.step_path))
    return Update(value, **changes) if work.writes else value


def refuse(output: Any) -> str | None:
    """The validator of generated steps: refuses what is below zero."""
    number = output if isinstance(output, int) else output[0] if output else 0
    return f"not {number}" if number <= NO_GOOD else None


MAKERS: dict[type, Callable[..., Any]] = {
    Row: chain,
    Work: step,
    Graph: pipeline,
    Choice: branch,
    Repeat: loop,
    Each: map_,
    Fan: parallel,
    Either: fallback,
}
