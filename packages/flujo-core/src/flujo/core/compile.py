"""`compile_plan`: turn a pipeline into a plan, or say everything that is wrong with it."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from .assignable import assignable, classes_of, common, type_name, type_names
from .bind import Binding, bind, part_type
from .errors import PipelineError
from .pipeline import Pipeline, PipelineLike, as_pipeline
from .plan import RUN_INPUT, Plan, PlanNode, Source, Views
from .reducers import check_context_model, reducers_of
from .resources import Resources, specs_of
from .steps import Chain, Ref, Step, ref_parts

__all__ = ["compile_plan"]


def compile_plan(
    pipeline: PipelineLike,
    *,
    resources: Resources | None = None,
    context_model: type[BaseModel] | None = None,
) -> Plan:
    """Check a pipeline and freeze it.

    Args:
        pipeline: A Pipeline, a Step, or steps joined by `>>`.
        resources: What steps may be given; parameters that match a field are not inputs.
        context_model: The context's model; parameters of that type receive it.

    Raises:
        PipelineError: It cannot work; `problems` lists everything that is wrong.
    """
    source = as_pipeline(pipeline)
    check_context_model(context_model)
    return _Compiler(source, resources, context_model).plan()


@dataclass(slots=True)
class _Draft:
    """A step while its pipeline is compiled."""

    step: Step
    binding: Binding
    before: list[Step]
    sources: list[Source]


class _Compiler:
    """Collects problems instead of stopping at the first, so that a user sees all of them at once."""

    def __init__(self, pipeline: Pipeline, resources: Resources | None, context_model: type[BaseModel] | None) -> None:
        self.pipeline = pipeline
        self.context_model = context_model
        self.problems: list[str] = []
        self.specs = specs_of(resources)
        self.resources_type = None if resources is None else type(resources)
        self.drafts: dict[int, _Draft] = {}
        self.broken: set[int] = set()
        self.by_name: dict[str, Step] = {}
        self.index: dict[int, int] = {}

    def plan(self) -> Plan:
        self._collect()
        for draft in self.drafts.values():
            self._resolve(draft)
            self._check_fields(draft.step)
        output = self._given_output()
        input_type = self._input_type()
        order = self._order()
        before = [sorted({self.index[s.node] for s in draft.sources} - {RUN_INPUT}) for draft in order]
        views = Views(before, [bool(draft.step.options.writes) for draft in order])
        self._check_writes(order, views)
        if self.problems:
            raise PipelineError(f"pipeline {self.pipeline.name!r} cannot work", self.problems)
        nodes = self._nodes(order, before, views)
        limits = self.pipeline.limits
        made = tuple(views.made)
        return Plan(
            self.pipeline.name, nodes, self._output(output, nodes), input_type, self.context_model, limits, made
        )

    # --- steps and names --------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        for member in self.pipeline.members:
            steps = member.steps if isinstance(member, Chain) else (member,)
            for before, step in zip((None, *steps), steps, strict=False):
                self._add(step)
                if before is not None and id(step) in self.drafts and before not in self.drafts[id(step)].before:
                    self.drafts[id(step)].before.append(before)
        if not self.pipeline.members:
            self.problems.append("it has no steps; give at least one")

    def _add(self, step: Step) -> None:
        if id(step) in self.drafts or id(step) in self.broken:
            return
        if self.by_name.setdefault(step.name, step) is not step:
            self.problems.append(f"two steps are called {step.name!r}; give one another name: Step(..., name='...')")
        try:
            binding = bind(step, self.specs, self.resources_type, self.context_model)
        except PipelineError as error:
            self.problems.append(str(error))
            self.broken.add(id(step))
            return
        self.drafts[id(step)] = _Draft(step, binding, [], [])

    # --- edges ------------------------------------------------------------------------------------------------------

    def _resolve(self, draft: _Draft) -> None:
        name, binding = draft.step.name, draft.binding
        given = dict(draft.step.options.inputs or {})
        for key in [key for key in given if key not in binding.inputs]:
            takes = ", ".join(map(repr, binding.inputs)) or "none"
            self.problems.append(f"step {name!r} has no input {key!r}; it takes {takes}{_hint(key, binding.inputs)}")
            del given[key]
        for parameter, source in given.items():
            self._connect(draft, parameter, source)
        missing = [p for p in binding.inputs if p not in given and p not in binding.optional]
        if len(draft.before) > 1:
            many = " and ".join(repr(step.name) for step in draft.before)
            self.problems.append(f"step {name!r} follows {many}; say which input is which with inputs=")
        elif draft.before:
            self._follow(draft, draft.before[0], missing, given)
        elif len(missing) == 1 and not given:
            self._connect(draft, missing[0], Ref(None))
        elif not given and not missing and len(binding.inputs) == 1:
            self._connect(draft, next(iter(binding.inputs)), Ref(None))
        elif missing:
            self._unfilled(draft, missing)

    def _follow(self, draft: _Draft, before: Step, missing: list[str], given: Mapping[str, object]) -> None:
        """Give the output of `before` to the one input that is still free."""
        free = missing or [p for p in draft.binding.inputs if p not in given]
        if len(free) == 1:
            self._connect(draft, free[0], Ref(before))
            return
        name = draft.step.name
        if free:
            takes = f"{len(free)} free inputs ({self._listed(draft, free)})"
            hint = self._resource_hint(draft, free)
            do = f"name the others with inputs=, or pass resources= if one is a resource{hint}"
        else:
            takes = "no free input"
            do = "give it one parameter (*args and **kwargs are none), or take it out of the chain"
        self.problems.append(f"step {name!r} follows {before.name!r} but has {takes}; `>>` needs exactly one; {do}")

    def _unfilled(self, draft: _Draft, missing: list[str]) -> None:
        first = next(iter(draft.binding.inputs))
        method = "; if it is a method, use Step(object.method)" if first in ("self", "cls") else ""
        self.problems.append(
            f"step {draft.step.name!r} gets nothing for {self._listed(draft, missing)}; name a source with inputs=, "
            f"or pass resources= if it is a resource{self._resource_hint(draft, missing)}{method}"
        )

    def _listed(self, draft: _Draft, parameters: list[str]) -> str:
        return ", ".join(f"{p!r} ({type_name(draft.binding.inputs[p])})" for p in parameters)

    def _resource_hint(self, draft: _Draft, parameters: list[str]) -> str:
        """What a parameter that is perhaps meant as a resource would need to be one."""
        for parameter in parameters:
            hint = draft.binding.inputs[parameter]
            if parameter in self.specs:
                return f"; resource {parameter!r} is {type_name(self.specs[parameter].type)}"
            for spec in self.specs.values():
                if spec.type == hint:
                    return f"; a resource is given by name and type: call {parameter!r} {spec.name!r}"
        return ""

    def _connect(self, draft: _Draft, parameter: str, source: object) -> None:
        where = f"input {parameter!r} of step {draft.step.name!r}"
        found = self._source(source, where)
        if found is None:
            return
        step, path = found
        wanted = draft.binding.inputs[parameter]
        draft.sources.append(Source(parameter, RUN_INPUT if step is None else id(step), path, wanted))
        if step is None:
            return
        given, problem = part_type(self.drafts[id(step)].binding.output, path)
        if problem:
            self.problems.append(f"{where} cannot be read from step {step.name!r}: {problem}")
        elif not assignable(given, wanted):
            part = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)
            gives, takes = type_names(given, wanted)
            hint = self._resource_hint(draft, [parameter])
            self.problems.append(
                f"step {step.name!r} gives {gives}{' as ' + part if part else ''}, but {where} takes {takes}; "
                f"change one of the two, or put a step between{hint}"
            )

    def _source(self, source: object, where: str) -> tuple[Step | None, tuple[str | int, ...]] | None:
        """The step (None: run input) and path that `source` names; a problem when there is none."""
        path: tuple[str | int, ...] = ()
        if isinstance(source, Ref):
            source, path = ref_parts(source)
            if source is None:
                return None, path
        if isinstance(source, str):
            if source not in self.by_name:
                known = _hint(source, self.by_name) or f"; there are: {', '.join(map(repr, [*self.by_name][:20]))}"
                self.problems.append(f"{where} names an unknown step {source!r}{known}")
                return None
            source = self.by_name[source]
        if not isinstance(source, Step):
            kind = f"a {type(source).__name__}"
            self.problems.append(f"{where} is {kind}; it must be a step, a part of one, a step's name, or run_input()")
        elif id(source) in self.drafts:
            return source, path
        elif id(source) not in self.broken:
            self.problems.append(f"{where} names step {source.name!r}, which is not in the pipeline; add it")
        return None

    # --- order ------------------------------------------------------------------------------------------------------

    def _order(self) -> list[_Draft]:
        """Drafts in declared order, each after what it depends on; none where some depend on each other."""
        place = {key: number for number, key in enumerate(self.drafts)}
        keys = list(self.drafts)
        waiting = {key: {s.node for s in draft.sources} - {RUN_INPUT} for key, draft in self.drafts.items()}
        after: defaultdict[int, list[int]] = defaultdict(list)
        for key, sources in waiting.items():
            for source in sources:
                after[source].append(key)
        ready = [place[key] for key, sources in waiting.items() if not sources]
        order: list[_Draft] = []
        while ready:
            key = keys[heapq.heappop(ready)]
            self.index[key] = len(order)
            order.append(self.drafts[key])
            for following in after[key]:
                waiting[following].discard(key)
                if not waiting[following]:
                    heapq.heappush(ready, place[following])
        left = {key: draft for key, draft in self.drafts.items() if waiting[key]}
        if left:
            self.problems.append(
                f"steps depend on each other in a circle: {self._circle(left)}; take one of these edges away"
            )
            return []
        self.index[RUN_INPUT] = RUN_INPUT
        return order

    def _circle(self, left: Mapping[int, _Draft]) -> str:
        key, path = next(iter(left)), dict[int, None]()
        while key not in path:
            path[key] = None
            key = next(s.node for s in left[key].sources if s.node in left)
        walked = list(path)
        circle = [left[k].step.name for k in (*walked[walked.index(key) :], key)]
        return " -> ".join(repr(name) for name in reversed(circle))

    # --- the plan ---------------------------------------------------------------------------------------------------

    def _nodes(self, order: list[_Draft], before: list[list[int]], views: Views) -> tuple[PlanNode, ...]:
        after: list[list[int]] = [[] for _ in order]
        for place, direct in enumerate(before):
            for one in direct:
                after[one].append(place)
        return tuple(
            PlanNode(
                index=place,
                step=draft.step,
                sources=tuple(Source(s.parameter, self.index[s.node], s.path, s.type) for s in draft.sources),
                predecessors=tuple(before[place]),
                successors=tuple(after[place]),
                view=views.of[place],
                ctx_parameter=draft.binding.ctx_parameter,
                context_parameter=draft.binding.context_parameter,
                all_resources_parameter=draft.binding.all_resources_parameter,
                resources=draft.binding.resources,
                output_type=draft.binding.output,
                output_classes=classes_of(draft.binding.output),
            )
            for place, draft in enumerate(order)
        )

    def _given_output(self) -> tuple[Step | None, tuple[str | int, ...]] | None:
        """What the pipeline says it gives; None when it says nothing."""
        if self.pipeline.output is None:
            return None
        found = self._source(self.pipeline.output, "the pipeline's output")
        if found is not None and found[0] is not None:
            _, problem = part_type(self.drafts[id(found[0])].binding.output, found[1])
            if problem:
                self.problems.append(f"the pipeline's output cannot be read from step {found[0].name!r}: {problem}")
        return found

    def _output(
        self, given: tuple[Step | None, tuple[str | int, ...]] | None, nodes: tuple[PlanNode, ...]
    ) -> Source | dict[str, Source]:
        if given is not None:
            step, path = given
            return Source("", RUN_INPUT if step is None else self.index[id(step)], path, Any)
        sinks = {n.step.name: Source("", n.index, (), n.output_type) for n in nodes if not n.successors}
        return next(iter(sinks.values())) if len(sinks) == 1 else sinks

    def _input_type(self) -> object:
        """The type of the values that fit as run input for every step that takes it."""
        wanted: object = Any
        taken_by = ""
        for draft in self.drafts.values():
            for source in draft.sources:
                if source.node != RUN_INPUT or source.path or source.type is Any:
                    continue
                both = source.type if wanted is Any else common(wanted, source.type)
                if both is None:
                    one, other = type_names(wanted, source.type)
                    self.problems.append(
                        f"steps {taken_by!r} and {draft.step.name!r} take the run input as {one} and as {other}; "
                        f"no value is both; let one take a part of it: run_input().name"
                    )
                elif both is not wanted:
                    wanted, taken_by = both, draft.step.name
        return wanted

    # --- context ----------------------------------------------------------------------------------------------------

    def _check_fields(self, step: Step) -> None:
        fields = {} if self.context_model is None else self.context_model.model_fields
        for field in dict.fromkeys((*step.options.writes, *step.options.reads)):
            if field not in fields:
                model = self.context_model
                have = "there is no context model; pass context_model="
                if model is not None:
                    have = f"{model.__name__} has {', '.join(fields) or 'no fields'}{_hint(field, fields)}"
                self.problems.append(f"step {step.name!r} declares context field {field!r}; {have}")

    def _check_writes(self, order: list[_Draft], views: Views) -> None:
        """Refuse two steps that may write one field at the same time, unless the field has a reducer."""
        reduced = reducers_of(self.context_model)
        last: dict[str, int] = {}
        for place, draft in enumerate(order):
            for field in draft.step.options.writes:
                # in this order each writer of a field must come after the one before, and so after all of them
                if field in last and field not in reduced and not views.sees(place, last[field]):
                    self.problems.append(
                        f"steps {order[last[field]].step.name!r} and {draft.step.name!r} may run at the same time and "
                        f"both write {field!r}; let one follow the other, or give the field a reducer: "
                        f"Annotated[..., operator.add]"
                    )
                last[field] = place


def _hint(name: str, known: Mapping[str, object]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
