"""`compile_plan`: turn a pipeline into a plan, or say everything that is wrong with it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import CodeType, FunctionType, MethodType
from typing import Any, cast, get_args

from pydantic import BaseModel

from .assignable import classes_of, plain, type_name
from .check import fitted
from .codec import unkept
from .drafts import Draft, Edge, ScopeDraft, bodies_of, kind_of
from .errors import PipelineError
from .flow import Flow, Loop
from .pipeline import Pipeline, PipelineLike, as_pipeline
from .plan import BODY_INPUT, RUN_INPUT, Claim, Fit, FlowNode, Kind, Plan, Scope, Source, StepNode
from .reducers import check_context_model
from .resources import Resources, specs_of
from .scopes import ScopeCompiler
from .steps import Node, Ref, Step, StepOptions


def compile_plan(
    pipeline: PipelineLike,
    *,
    resources: Resources | None = None,
    context_model: type[BaseModel] | None = None,
    kept: bool = False,
) -> Plan:
    """Check a pipeline and freeze it.

    Args:
        pipeline: A Pipeline, a node, or nodes joined by `>>`.
        resources: What steps may be given; parameters that match a field are not inputs.
        context_model: The context's model; parameters of that type receive it.
        kept: Whether a store keeps its runs, so that all they hold must be such that JSON can hold it.

    Raises:
        PipelineError: It cannot work; `problems` lists everything that is wrong.
    """
    source = as_pipeline(pipeline)
    check_context_model(context_model)
    scopes = _discovered(source)
    specs, kind = specs_of(resources), None if resources is None else type(resources)
    for scope in reversed(scopes):  # each after those in it
        ScopeCompiler(scope, specs, kind, context_model).check()
    scopes[0].problems += _unkept(scopes, context_model, kept)
    if scopes[0].problems:
        raise PipelineError(f"pipeline {source.name!r} cannot work", scopes[0].problems)
    return Plan(source.name, _built(scopes), context_model)


def _unkept(scopes: list[ScopeDraft], context_model: type[BaseModel] | None, kept: bool) -> Iterator[str]:
    """What could not be kept, where a store keeps the runs or a step says that it pauses."""
    drafts = [draft for scope in scopes for draft in scope.drafts.values()]
    pausing = [one.node.name for one in drafts if isinstance(one.node, Step) and one.node.options.pauses]
    if not pausing and not kept:
        return
    who = f"step {pausing[0]!r} pauses" if pausing else "a store keeps its runs"
    do = f"{who}, so what they hold must be kept"
    for one in drafts:
        if isinstance(one.node, Step) and (why := unkept(one.binding.output)):
            yield f"step {one.node.name!r} gives {type_name(one.binding.output)}, which cannot be kept: {why}; {do}"
    for name, field in context_model.model_fields.items() if context_model is not None else ():
        if why := unkept(field.annotation):
            yield f"context field {name!r} cannot be kept: {why}; {do}"
    if scopes[0].input_type is not Any and (why := unkept(scopes[0].input_type)):
        yield f"the run input is {type_name(scopes[0].input_type)}, which cannot be kept: {why}; {do}"


def _discovered(root: Pipeline) -> list[ScopeDraft]:
    """The pipeline and every body in it, each before those in it; without recursion, however deep they nest."""
    found = [ScopeDraft(root, owns_input=True)]
    for scope in found:  # grows on the way
        for member in scope.pipeline.members:
            for node in (member,) if isinstance(member, Node) else member.nodes:
                if node in scope.bodies or not (bodies := bodies_of(node)):
                    continue
                scope.bodies[node] = [ScopeDraft(body, owns_input=not body.is_body) for body in bodies.values()]
                found += scope.bodies[node]
    return found


def _built(drafts: list[ScopeDraft]) -> tuple[Scope, ...]:
    """The scopes of a plan: numbered and named from the outside in, made from the inside out."""
    bases, prefixes, count = {}, {id(drafts[0]): ""}, 0
    for draft in drafts:
        bases[id(draft)] = count
        count += len(draft.order)
        for node, bodies in draft.bodies.items():
            for word, body in zip(bodies_of(node), bodies, strict=True):
                start = prefixes[id(draft)] + _STATIC[kind_of(node)].format(name=draft.names[node], word=word)
                prefixes[id(body)] = start + (f"{word}/" if word and body.segment and _is_fan(node) else "")
    made: dict[int, Scope] = {}
    for number, draft in reversed([*enumerate(drafts)]):
        made[id(draft)] = _ScopeBuilder(number, draft, bases[id(draft)], prefixes[id(draft)], made).scope()
    return tuple(made[id(draft)] for draft in drafts)


_STATIC = {
    "pipeline": "{name}/", "loop": "{name}#*/", "map": "{name}[*]/", "branch": "{name}[{word}]/",
    "parallel": "{name}/", "fallback": "{name}/",
}  # fmt: skip


def _is_fan(node: Node) -> bool:
    return kind_of(node) in ("parallel", "fallback")


def _item_fit(one: Draft, bodies: tuple[Scope, ...]) -> Fit | None:
    """How the items of a map are looked at, where what gives them does not say their type."""
    given = [edge.type for edge in one.edges.values() if edge.node is not None]
    is_open = kind_of(one.node) == "map" and any(plain(hint) is Any or Any in get_args(plain(hint)) for hint in given)
    return fitted(bodies[0].input_type, deep=False) if is_open else None


def _is_bare(step: Step) -> bool:
    """Whether a step asks for nothing but to be called."""
    options = step.options
    effect = "idempotent" if options.effect == "at_most_once" else options.effect  # what it began is journaled
    plain = StepOptions(inputs=options.inputs, reads=options.reads, effect=effect)
    asks = replace(step.options, version=1, writes=(), pauses=False)
    return inspect.iscoroutinefunction(step.function) and asks == plain


def _by_position(function: Callable[..., Any], sources: Sequence[Source]) -> Callable[..., Any] | None:
    """A function that may be given its one input by position: its own code says so, not what it may pretend to be."""
    code = getattr(function, "__code__", None) if isinstance(function, FunctionType | MethodType) else None
    if not isinstance(code, CodeType) or len(sources) != 1 or sources[0].path:
        return None
    first = code.co_varnames[isinstance(function, MethodType) : code.co_argcount][:1]
    return function if first == (sources[0].parameter,) else None


class _ScopeBuilder:
    """Makes the scope of a plan of what was found out about it.

    Args:
        number: Its index.
        draft: What was found out.
        base: Index of its first node.
        prefix: What stands before the names of its nodes in a path.
        made: Scopes made before, by the id of their draft.
    """

    def __init__(self, number: int, draft: ScopeDraft, base: int, prefix: str, made: Mapping[int, Scope]) -> None:
        self.number = number
        self.draft = draft
        self.base = base
        self.prefix = prefix
        self.made = made
        self.place: dict[Node, int] = {one.node: place for place, one in enumerate(draft.order)}
        before = [{self.place[edge.node] for edge in one.edges.values() if edge.node} for one in draft.order]
        self.before = [tuple(sorted(places)) for places in before]
        self.after: list[list[int]] = [[] for _ in draft.order]
        for place, places in enumerate(self.before):
            for one in places:
                self.after[one].append(place)

    def scope(self) -> Scope:
        draft, pipeline = self.draft, self.draft.pipeline
        claims = self._claims()
        nodes = tuple(self._node(one, tuple(claims.get(one.node, ()))) for one in draft.order)
        output: Source | dict[str, Source]
        if draft.output is not None:
            output = self._source("", draft.output, draft.output.type)
        else:
            sinks = [
                (draft.names[one.node], Edge(one.node, (), one.binding.output, chained=True)) for one in draft.sinks
            ]
            output = {name: self._source("", edge, edge.type) for name, edge in sinks}
            output = next(iter(output.values())) if len(output) == 1 else output
        segment = f"{pipeline.name}/" if draft.segment else ""
        facts = (draft.input_type, draft.output_type, segment, draft.owns_input, pipeline.limits)
        return Scope(self.number, nodes, output, *facts)

    def _source(self, parameter: str, edge: Edge, hint: object) -> Source:
        if edge.node is None:
            node = place = BODY_INPUT if edge.body else RUN_INPUT
        else:
            place = self.place[edge.node]
            node = self.base + place
        return Source(parameter, node, edge.path, hint, place, edge.chained or edge.body)

    def _node(self, one: Draft, claims: tuple[Claim, ...]) -> StepNode | FlowNode:
        node, binding, place = one.node, one.binding, self.place[one.node]
        name = self.draft.names[node]
        sources = tuple(self._source(p, edge, binding.inputs[p]) for p, edge in one.edges.items())
        checks = tuple(
            (p, repr(Ref(None, edge.path)), fitted(binding.inputs[p]))
            for p, edge in one.edges.items()
            if edge.node is None and p in one.unknown
        )
        facts = (self.base + place, place, self.number, name, self.prefix + name, binding, sources, self.before[place])
        bare = isinstance(node, Step) and _is_bare(node) and not (binding.injects or checks or claims)
        rest = (tuple(self.after[place]), one.writers, one.writes, checks, claims, bare)
        if isinstance(node, Step):
            classes, call = classes_of(binding.output) or (object,), _by_position(node.function, sources)
            takes, gives = sources[0].place if sources else RUN_INPUT, classes[0] if len(classes) == 1 else None
            return StepNode(*facts, *rest, node, classes, one.passes, call, takes, gives)
        bodies = tuple(self.made[id(body)] for body in self.draft.bodies[node])
        words = tuple(bodies_of(node))
        flow = cast("Flow | Pipeline", node)
        kind, gathers = cast("Kind", kind_of(node)), isinstance(node.inputs, Mapping)
        # a combinator at the beginning of a body may fail as it begins, which is looked at on the longer way
        own = any(b.owns_input or b.has_limits or b.waiting or FlowNode in map(type, b.first) for b in bodies)
        asks = isinstance(flow, Loop) and flow.until is not None
        sure = flow.max_iterations - 1 if isinstance(flow, Loop) and not own else 0
        return FlowNode(*facts, *rest, kind, flow, bodies, words, gathers, _item_fit(one, bodies), sure, asks)

    def _claims(self) -> dict[Node | None, list[Claim]]:
        """What followers take of an output whose type does not tell that it is there and fits."""
        claims: dict[Node | None, list[Claim]] = {}
        output = self.draft.output
        if output is not None and output.path:  # of a whole output its own type is looked at
            taker = f"the pipeline's output takes {Ref(output.node, output.path)!r}"
            claims[output.node] = [Claim(output.path, taker, fitted(output.type, deep=False))]
        for one in self.draft.order:
            for p, edge in one.edges.items():
                if p in one.unknown and edge.node is not None:
                    what = f"{kind_of(one.node)} {self.draft.names[one.node]!r}"
                    taker = f"input {p!r} of {what} takes {Ref(edge.node, edge.path)!r}"
                    # what a node gave is looked at by its class, as everywhere between steps
                    claim = Claim(edge.path, taker, fitted(one.binding.inputs[p], deep=False))
                    claims.setdefault(edge.node, []).append(claim)
        return claims
