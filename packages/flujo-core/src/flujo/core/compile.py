"""`compile_plan`: turn a pipeline into a plan, or say everything that is wrong with it."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from typing import Any

from pydantic import BaseModel

from .assignable import assignable, classes_of, type_name
from .bind import Binding, bind, part_type
from .errors import PipelineError
from .pipeline import Pipeline, PipelineLike, as_pipeline
from .plan import RUN_INPUT, Plan, PlanNode, Source
from .reducers import check_context_model, reducers_of
from .resources import Resources, specs_of
from .step import Chain, Ref, Step, ref_parts

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
        self.by_name: dict[str, Step] = {}
        self.index: dict[int, int] = {}

    def plan(self) -> Plan:
        self._collect()
        self._stop_on_problems()
        for draft in self.drafts.values():
            self._resolve(draft)
        self._stop_on_problems()
        order = self._order()
        self._stop_on_problems()
        nodes = self._nodes(order)
        output = self._output(nodes)
        input_type = self._input_type(nodes)
        self._check_writes(nodes)
        self._stop_on_problems()
        return Plan(self.pipeline.name, nodes, output, input_type, self.context_model, self.pipeline.limits)

    def _stop_on_problems(self) -> None:
        if self.problems:
            raise PipelineError(f"pipeline {self.pipeline.name!r} cannot work", self.problems)

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
        if id(step) in self.drafts:
            return
        if step.name in self.by_name:
            self.problems.append(f"two steps are called {step.name!r}; give one another name: Step(..., name='...')")
            return
        self.by_name[step.name] = step
        try:
            binding = bind(step, self.specs, self.resources_type, self.context_model)
        except PipelineError as error:
            self.problems.append(str(error))
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
        takes = f"{len(free)} free inputs ({', '.join(map(repr, free))})" if free else "no free input"
        self.problems.append(
            f"step {draft.step.name!r} follows {before.name!r} but has {takes}; `>>` needs exactly one, "
            f"name the others with inputs="
        )

    def _unfilled(self, draft: _Draft, missing: list[str]) -> None:
        wanted = ", ".join(f"{p!r} ({type_name(draft.binding.inputs[p])})" for p in missing)
        self.problems.append(
            f"step {draft.step.name!r} gets nothing for {wanted}; name a source with inputs=, "
            f"or pass resources= if it is a resource"
        )

    def _connect(self, draft: _Draft, parameter: str, source: Step | Ref | str) -> None:
        found = self._source(source, f"input {parameter!r} of step {draft.step.name!r}")
        if found is None:
            return
        step, path = found
        wanted = draft.binding.inputs[parameter]
        draft.sources.append(Source(parameter, RUN_INPUT if step is None else id(step), path, wanted))
        if step is None:
            return
        given, problem = part_type(self.drafts[id(step)].binding.output, path)
        here = f"step {step.name!r}" + "".join(f".{part}" for part in path)
        if problem:
            self.problems.append(f"input {parameter!r} of step {draft.step.name!r} cannot be read: {problem}")
        elif not assignable(given, wanted):
            self.problems.append(
                f"{here} gives {type_name(given)}, but input {parameter!r} of step {draft.step.name!r} "
                f"takes {type_name(wanted)}"
            )

    def _source(self, source: object, where: str) -> tuple[Step | None, tuple[str | int, ...]] | None:
        """The step (None: run input) and path that `source` names; a problem when there is none."""
        path: tuple[str | int, ...] = ()
        if isinstance(source, Ref):
            source, path = ref_parts(source)
            if source is None:
                return None, path
        if isinstance(source, str):
            if source in self.by_name:
                return self.by_name[source], path
            self.problems.append(f"{where} names an unknown step {source!r}{_hint(source, self.by_name)}")
        elif isinstance(source, Step):
            if id(source) in self.drafts:
                return source, path
            self.problems.append(f"{where} names step {source.name!r}, which is not in the pipeline; add it")
        else:
            self.problems.append(f"{where} is {source!r}; it must be a step, a part of one, or run_input()")
        return None

    # --- order ------------------------------------------------------------------------------------------------------

    def _order(self) -> list[_Draft]:
        """Drafts in declared order, each after what it depends on."""
        open_drafts = dict(self.drafts)
        order: list[_Draft] = []
        while open_drafts:
            ready = [key for key, draft in open_drafts.items() if not any(s.node in open_drafts for s in draft.sources)]
            if not ready:
                self.problems.append(f"steps depend on each other in a circle: {self._circle(open_drafts)}")
                return order
            order.extend(open_drafts.pop(key) for key in ready)
        return order

    def _circle(self, left: Mapping[int, _Draft]) -> str:
        key, path = next(iter(left)), []
        while key not in path:
            path.append(key)
            key = next(s.node for s in left[key].sources if s.node in left)
        circle = [left[k].step.name for k in (*path[path.index(key) :], key)]
        return " -> ".join(repr(name) for name in reversed(circle))

    # --- the plan ---------------------------------------------------------------------------------------------------

    def _nodes(self, order: list[_Draft]) -> tuple[PlanNode, ...]:
        self.index = {id(draft.step): place for place, draft in enumerate(order)} | {RUN_INPUT: RUN_INPUT}
        before = [sorted({self.index[s.node] for s in draft.sources} - {RUN_INPUT}) for draft in order]
        ancestors: list[set[int]] = []
        for direct in before:
            ancestors.append(reduce(operator.or_, (ancestors[i] | {i} for i in direct), set()))
        return tuple(
            PlanNode(
                index=place,
                step=draft.step,
                sources=tuple(Source(s.parameter, self.index[s.node], s.path, s.type) for s in draft.sources),
                predecessors=tuple(before[place]),
                successors=tuple(i for i, direct in enumerate(before) if place in direct),
                writers=tuple(i for i in sorted(ancestors[place]) if order[i].step.options.writes),
                ctx_parameter=draft.binding.ctx_parameter,
                context_parameter=draft.binding.context_parameter,
                all_resources_parameter=draft.binding.all_resources_parameter,
                resources=draft.binding.resources,
                output_type=draft.binding.output,
                output_classes=classes_of(draft.binding.output),
            )
            for place, draft in enumerate(order)
        )

    def _output(self, nodes: tuple[PlanNode, ...]) -> Source | dict[str, Source]:
        if self.pipeline.output is not None:
            found = self._source(self.pipeline.output, "the pipeline's output")
            step, path = found or (None, ())
            return Source("", self.index.get(id(step), RUN_INPUT), path, Any)
        sinks = {n.step.name: Source("", n.index, (), n.output_type) for n in nodes if not n.successors}
        return next(iter(sinks.values())) if len(sinks) == 1 else sinks

    def _input_type(self, nodes: tuple[PlanNode, ...]) -> object:
        """The narrowest type that the steps want the run input to be."""
        narrowest: object = Any
        taken_by = ""
        for node in nodes:
            for source in node.sources:
                if source.node != RUN_INPUT or source.path or source.type is Any:
                    continue
                if narrowest is Any or assignable(source.type, narrowest):
                    narrowest, taken_by = source.type, node.step.name
                elif not assignable(narrowest, source.type):
                    self.problems.append(
                        f"steps {taken_by!r} and {node.step.name!r} take the run input as "
                        f"{type_name(narrowest)} and as {type_name(source.type)}; no value is both"
                    )
        return narrowest

    def _check_writes(self, nodes: tuple[PlanNode, ...]) -> None:
        fields = {} if self.context_model is None else self.context_model.model_fields
        reducers = reducers_of(self.context_model)
        writers = [node for node in nodes if node.step.options.writes]
        for node in nodes:
            for field in (*node.step.options.writes, *node.step.options.reads):
                if field not in fields:
                    have = "there is no context model" if not fields else f"it has {', '.join(fields)}"
                    self.problems.append(f"step {node.step.name!r} declares context field {field!r}; {have}")
        for place, one in enumerate(writers):
            for other in writers[place + 1 :]:
                shared = set(one.step.options.writes) & set(other.step.options.writes) - set(reducers)
                if shared and one.index not in other.writers:
                    self.problems.append(
                        f"steps {one.step.name!r} and {other.step.name!r} may run at the same time and both write "
                        f"{', '.join(map(repr, sorted(shared)))}; let one follow the other, or give the field a "
                        f"reducer: Annotated[..., operator.add]"
                    )


def _hint(name: str, known: Mapping[str, object]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
