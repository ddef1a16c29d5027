"""What the nodes of a plan are, in words: the same for every picture of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import cast

from flujo.core import BODY_INPUT, RUN_INPUT, Branch, FlowNode, Loop, Map, Parallel, Plan, Scope, Source, StepNode

__all__ = [
    "body_path",
    "body_word",
    "input_scopes",
    "input_used",
    "paths_of",
    "printable",
    "rules",
    "step_notes",
    "steps_in_all",
    "title",
]


def title(node: FlowNode) -> str:
    """Kind and name of a combinator; a name that nobody chose says the kind already."""
    return node.name if node.flow.auto_named else f"{node.kind} {node.name}"


def printable(text: str) -> str:
    """A text without line breaks and control characters; the label of a branch may hold any."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def rules(node: FlowNode) -> Iterator[str]:
    """How a combinator goes about its bodies, beyond its kind and name."""
    flow = node.flow
    if isinstance(flow, Branch):
        yield f"on {_name(flow.on.function)}"
    elif isinstance(flow, Loop):
        if flow.until is not None:
            yield f"until {_name(flow.until.function)}"
        times = f"{flow.max_iterations:,} time{'s'[: flow.max_iterations != 1]}"
        yield times if flow.until is None else f"at most {times}"
        if flow.until is not None:
            yield "then fails" if flow.on_limit == "fail" else "then gives the last output"
    elif isinstance(flow, (Map, Parallel)):
        if flow.limit is not None:
            yield f"at most {flow.limit:,} at once"
        if flow.on_failure == "collect":
            yield "failures are collected"


def body_word(node: FlowNode, place: int) -> str:
    """What one of several bodies is called; empty where the combinator has one only."""
    word = printable(node.words[place])
    if isinstance(node.flow, Branch):
        is_otherwise = node.flow.has_otherwise and place == len(node.bodies) - 1
        return "otherwise" if is_otherwise else f"case {word or repr(word)}"
    if node.kind == "fallback":
        return f"first {word}" if place == 0 else f"else {word}"
    return word


def body_path(node: FlowNode, place: int) -> str:
    """Where a body stands, as the paths of its steps begin."""
    word = node.words[place]
    tail = {"loop": "#*", "map": "[*]", "branch": f"[{word}]", "parallel": f"/{word}", "fallback": f"/{word}"}
    return printable(node.path + tail.get(node.kind, ""))


def step_notes(node: StepNode) -> Iterator[str]:
    """The options of a step that a reader of a picture wants to know."""
    options = node.step.options
    if options.when is not None:
        yield f"when {_name(options.when.function)}"
    if options.pauses:
        yield "may ask a human"
    if options.cache:
        yield "cached"
    if options.validators:
        yield f"validated by {', '.join(_name(one.function) for one in options.validators)}"
    if options.retry is not None:
        yield f"up to {options.retry.max_attempts} attempts"
    if options.timeout_s is not None:
        yield f"timeout {options.timeout_s:g} s"
    if options.limits is not None:
        yield "has limits of its own"
    if options.effect != "idempotent":
        yield options.effect.replace("_", " ")


def _name(function: object) -> str:
    """A function's name. All lambdas have the same, which looks like markup."""
    name = getattr(function, "__name__", type(function).__name__)
    return "lambda" if name == "<lambda>" else str(name)


def input_scopes(plan: Plan) -> list[Scope]:
    """For each scope the one whose input `run_input()` in it is: itself, or the nearest pipeline around."""
    found = list(plan.scopes)
    for scope in plan.scopes:  # each before those in it
        for node in scope.nodes:
            for body in node.bodies if isinstance(node, FlowNode) else ():
                found[body.index] = body if body.owns_input else found[scope.index]
    return found


def input_used(plan: Plan) -> bool:
    """Whether anything in a plan looks at the run input; a combinator only hands it on to what it runs."""
    used = [False] * len(plan.scopes)
    owners = input_scopes(plan)
    for scope in reversed(plan.scopes):  # each after those in it
        for node in scope.nodes:
            hands_on = isinstance(node, FlowNode) and node.kind not in ("branch", "map")
            if hands_on and not any(used[body.index] for body in cast("FlowNode", node).bodies):
                continue
            for source in node.sources:
                _use(used, source, scope, owners)
        for source in [scope.output] if isinstance(scope.output, Source) else scope.output.values():
            _use(used, source, scope, owners)
    return used[0]


def _use(used: list[bool], source: Source, scope: Scope, owners: list[Scope]) -> None:
    if source.node == BODY_INPUT:
        used[scope.index] = True
    elif source.node == RUN_INPUT:
        used[owners[scope.index].index] = True


def paths_of(plan: Plan) -> Callable[[str], str]:
    """A function from where a step stood in a run to where it stands in the plan: `map[7]/a` is `map[*]/a`."""
    known = {node.path for node in plan.steps}
    by_form: dict[str, list[str]] = {}
    for path in known:
        by_form.setdefault(_form(path), []).append(path)

    def path_in_plan(path: str) -> str:
        if path in known:
            return path
        fits = by_form.get(_form(path), [path])
        return fits[0] if len(fits) == 1 else next((one for one in fits if _pattern(one).fullmatch(path)), path)

    return path_in_plan


def _form(path: str) -> str:
    """A path with nothing where a number may stand. A case may be called by a number, so several may have one form."""
    return re.sub(r"#(\d+|\*)/|\[(\d+|\*)\]/", "*/", path)


@lru_cache(maxsize=1024)
def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.escape(path).replace(r"\#\*/", r"\#\d+/").replace(r"\[\*\]/", r"\[\d+\]/"))


def steps_in_all(plan: Plan) -> int | None:
    """How many steps a run goes through, skipped ones included; None where the input decides that."""
    known = all(node.kind in ("pipeline", "parallel") for node in plan.nodes if isinstance(node, FlowNode))
    return len(plan.steps) if known else None
