"""Real pipelines of descriptions; `fuzz_world` is where their steps run and leave traces."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from threading import get_ident
from typing import Any

import anyio
from fuzz_specs import Choice, Each, Either, Fan, Graph, Node, Repeat, Row, Source, Spec, Wired, Work, members
from fuzz_values import GIVES, Memory, change, first_number, mix, seen, shaped, skips, worth
from fuzz_world import Anything, Boom, World

from flujo.core import (
    Branch,
    Fallback,
    Flujo,
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
    UsageLimits,
    run_input,
)

NO_GOOD = -1
"""What the first attempt of a step gives whose validator is to refuse it; the second gives -2, and so on."""


SHORT_S = 0.002
"""The timeout of steps that hang. When they do not, they never wait, so that none is late on a slow machine."""


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
    options = options_of(work, world) | ({"inputs": given} if given else {})
    parameters = ["value", *(name for name in given if name != "value")]
    function = (at_once if work.inline or work.threaded else waiting)(work, world, parameters)
    annotate(function, parameters, work)
    return Step(function, name=work.name, inline=work.inline, **options)


def options_of(work: Work, world: World) -> dict[str, Any]:
    """The options of a step, but for its inputs."""
    options: dict[str, Any] = {"cache": work.cached}
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
        options["when"] = wanted_by(work)
    if work.hangs or work.timely:
        options["timeout_s"] = SHORT_S if work.hangs else 60.0
    if work.name in world.limits:
        options["limits"] = UsageLimits(total_tokens_limit=world.limits[work.name])
    return options


def wanted_by(work: Work) -> Callable[..., bool]:
    """The `when=` of a step."""

    def by_both(value: Any, memory: Memory) -> bool:
        return not skips(value, work.skips_on, *seen(memory))

    def by_value(value: Any) -> bool:
        return not skips(value, work.skips_on)

    return by_both if work.sees else by_value


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
        if work.threaded == (get_ident() == world.thread):
            world.wrong.append(f"{ctx.step_path} runs in the wrong thread")
        with world.running(ctx.step_path):
            if work.cost and work.threaded:
                with ctx.usage.reserve(tokens=work.cost + 1) as lease, world.spending(work, lease):
                    pass
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
        if not (work.delay or work.tool or work.cost or work.hangs or work.cancels or work.pause == "ask"):
            return now(ctx, **given)
        with world.running(ctx.step_path):
            await wait(work, world, ctx)
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


async def wait(work: Work, world: World, ctx: RunContext) -> None:
    """Do all that takes a step time before it gives its value."""
    if ctx.attempt <= work.hangs:
        await anyio.sleep_forever()
    if work.cost:
        async with ctx.usage.reserve(tokens=work.cost + 1) as lease:
            with world.spending(work, lease):
                await anyio.sleep(0)
    if work.tool:
        await use_tool(work, world, ctx)
    for _ in range(work.delay):
        await anyio.sleep(0)
    await cancel(work, world, ctx)


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
        value = shaped(work.ends, -ctx.attempt, -ctx.attempt)
    else:
        world.events.append(("end", ctx.step_path))
    return Update(value, **changes) if work.writes else value


def refuse(output: Any) -> str | None:
    """The validator of generated steps: refuses what is below zero."""
    number = first_number(output)
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
