"""`compile_plan`: turn a pipeline into a plan, or say everything that is wrong with it."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pydantic import BaseModel

from .assignable import assignable, classes_of, common, plain, type_name, type_names
from .bind import Binding, bind, part_type
from .check import fitted
from .errors import PipelineError
from .pipeline import Pipeline, PipelineLike, as_pipeline
from .plan import RUN_INPUT, Claim, Plan, PlanNode, Source
from .reducers import check_context_model, reducers_of
from .resources import Resources, specs_of
from .steps import Chain, Ref, Step, path_text, ref_parts, suggestion


def compile_plan(
    pipeline: PipelineLike, *, resources: Resources | None = None, context_model: type[BaseModel] | None = None
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


Path = tuple[str | int, ...]


@dataclass(slots=True)
class _Draft:
    """A step while its pipeline is compiled: what it follows, the source of each input, and those of unknown type."""

    step: Step
    binding: Binding
    before: list[Step] = field(default_factory=list)
    sources: dict[str, tuple[Step | None, Path]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)


class _Compiler:
    """Collects problems instead of stopping at the first, so that a user sees all of them at once."""

    def __init__(self, pipeline: Pipeline, resources: Resources | None, context_model: type[BaseModel] | None) -> None:
        self.pipeline = pipeline
        self.context_model = context_model
        self.problems: list[str] = []
        self.specs = specs_of(resources)
        self.resources_type = None if resources is None else type(resources)
        self.drafts: dict[Step, _Draft] = {}
        self.by_name: dict[str, Step] = {}

    def plan(self) -> Plan:
        self._collect()
        for draft in self.drafts.values():
            self._resolve(draft)
            self._check_fields(draft.step)
        named = self.pipeline.output
        output = None if named is None else self._source(named, "the pipeline's output")
        input_type = self._input_type()
        self._check_parts(input_type)
        nodes = self._nodes(self._order(), output)
        self._check_writes(nodes)
        if self.problems:
            raise PipelineError(f"pipeline {self.pipeline.name!r} cannot work", self.problems)
        given: Source | dict[str, Source]
        if output is not None:
            step, path, hint = output
            given = Source("", next((n.index for n in nodes if n.step is step), RUN_INPUT), path, hint)
        else:
            given = {n.step.name: Source("", n.index, (), n.output_type) for n in nodes if not n.successors}
            given = next(iter(given.values())) if len(given) == 1 else given
        return Plan(self.pipeline.name, nodes, given, input_type, self.context_model, self.pipeline.limits)

    # --- steps and names --------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        for member in self.pipeline.members:
            steps = member.steps if isinstance(member, Chain) else (member,)
            for before, step in zip((None, *steps), steps, strict=False):
                draft = self.drafts.get(step) or self._add(step)
                if before is not None and before not in draft.before:
                    draft.before.append(before)
        if not self.pipeline.members:
            self.problems.append("it has no steps; give at least one")

    def _add(self, step: Step) -> _Draft:
        if self.by_name.setdefault(step.name, step) is not step:
            self.problems.append(f"two steps are called {step.name!r}; give one another name: Step(..., name='...')")
        binding = bind(step, self.specs, self.resources_type, self.context_model)
        self.drafts[step] = _Draft(step, binding)
        return self.drafts[step]

    # --- edges ------------------------------------------------------------------------------------------------------

    def _resolve(self, draft: _Draft) -> None:
        name, inputs, before = draft.step.name, draft.binding.inputs, draft.before
        given = draft.step.options.inputs or {}
        for key, source in given.items():
            if key in inputs:
                self._connect(draft, key, source)
            else:
                self.problems.append(f"step {name!r} has no input {key!r}; {suggestion(key, inputs)}")
        open_ = [p for p in inputs if p not in given]
        missing = [p for p in open_ if p not in draft.binding.optional]
        free = missing or open_
        if len(before) > 1:
            many = " and ".join(repr(step.name) for step in before)
            self.problems.append(f"step {name!r} follows {many}; say which input is which with inputs=")
        elif len(free) == 1 and (before or not given):
            self._connect(draft, free[0], before[0] if before else Ref(None))
        elif before or missing:
            self._unfilled(draft, free)

    def _unfilled(self, draft: _Draft, free: list[str]) -> None:
        """Say that there is not the one input that takes what the step is given by its place."""
        inputs = draft.binding.inputs
        listed = ", ".join(f"{p!r} ({type_name(inputs[p])})" for p in free)
        do = f"name a source with inputs=, or pass resources= if it is a resource{self._resource_hint(inputs, free)}"
        if "self" in free:
            do += "; if it is a method, use Step(object.method)"
        why = f"gets nothing for {listed}"
        if draft.before:
            takes = f"{len(free)} free inputs ({listed})" if free else "no free input (*args and **kwargs are none)"
            why = f"follows {draft.before[0].name!r} but has {takes}; `>>` needs exactly one"
        self.problems.append(f"step {draft.step.name!r} {why}; {do if free else 'give it one parameter'}")

    def _resource_hint(self, inputs: Mapping[str, object], parameters: Iterable[str]) -> str:
        """What a parameter that is perhaps meant as a resource would need to be one."""
        for parameter in parameters:
            for spec in self.specs.values():
                if spec.name == parameter or spec.type == inputs[parameter]:
                    return f"; a resource is given by name and type: {spec.name!r} is {type_name(spec.type)}"
        return ""

    def _connect(self, draft: _Draft, parameter: str, source: object) -> None:
        where = f"input {parameter!r} of step {draft.step.name!r}"
        found = self._source(source, where)
        if found is None:
            return
        step, path, given = found
        wanted = draft.binding.inputs[parameter]
        draft.sources[parameter] = (step, path)
        is_open = path if step is None else plain(given) is Any
        if (step is not None and path) or (is_open and wanted is not Any):
            draft.unknown.add(parameter)
        if step is not None and not assignable(given, wanted):
            gives, takes = type_names(given, wanted)
            part = f" as {path_text(path)}" if path else ""
            hint = self._resource_hint(draft.binding.inputs, [parameter])
            self.problems.append(
                f"step {step.name!r} gives {gives}{part}, but {where} takes {takes}; "
                f"change one of the two, or put a step between{hint}"
            )

    def _source(self, source: object, where: str) -> tuple[Step | None, Path, object] | None:
        """The step (None: run input), path and type that `source` names; a problem when there is none."""
        step, path = ref_parts(source) if isinstance(source, Ref) else (source, ())
        if step is None and isinstance(source, Ref):
            return None, path, Any
        if isinstance(step, str):
            step = self.by_name.get(step, step)
        if isinstance(step, str):
            problem = f"names an unknown step {step!r}; {suggestion(step, self.by_name)}"
        elif not isinstance(step, Step):
            problem = f"is a {type(step).__name__}; it must be a step, a part of one, a step's name, or run_input()"
        elif step not in self.drafts:
            problem = f"names step {step.name!r}, which is not in the pipeline; add it"
        else:
            hint, problem = part_type(self.drafts[step].binding.output, path)
            if not problem:
                return step, path, hint
            problem = f"cannot be read from step {step.name!r}: {problem}"
        self.problems.append(f"{where} {problem}")
        return None

    def _input_type(self) -> object:
        """The type of the values that fit as run input for every step that takes it."""
        wanted: object = Any
        taken_by = ""
        for draft in self.drafts.values():
            for parameter, source in draft.sources.items():
                hint = draft.binding.inputs[parameter]
                if source != (None, ()) or hint is Any:
                    continue
                both = hint if wanted is Any else common(wanted, hint)
                if both is None:
                    one, other = type_names(wanted, hint)
                    self.problems.append(
                        f"steps {taken_by!r} and {draft.step.name!r} take the run input as {one} and as {other}; "
                        f"no value is both; let one take a part of it: run_input().name"
                    )
                elif both is not wanted:
                    wanted, taken_by = both, draft.step.name
        return wanted

    def _check_parts(self, input_type: object) -> None:
        """Compare the parts of the run input that are taken with what is known of it."""
        for draft in self.drafts.values():
            for parameter, (step, path) in draft.sources.items():
                if step is None and path:
                    given, problem = part_type(input_type, path)
                    gives, takes = type_names(given, draft.binding.inputs[parameter])
                    if not problem and not assignable(given, draft.binding.inputs[parameter]):
                        problem = f"{path_text(path)} is {gives}, but it takes {takes}"
                    if problem:
                        where = f"input {parameter!r} of step {draft.step.name!r}"
                        self.problems.append(f"{where} cannot be read from the run input: {problem}")

    # --- order ------------------------------------------------------------------------------------------------------

    def _order(self) -> list[_Draft]:
        """Drafts in declared order, each after what it depends on; none where some depend on each other."""
        drafts = list(self.drafts.values())
        place = {draft.step: number for number, draft in enumerate(drafts)}
        sorter: TopologicalSorter[int] = TopologicalSorter()
        for number, draft in enumerate(drafts):
            sorter.add(number, *(place[step] for step, _ in draft.sources.values() if step is not None))
        try:
            sorter.prepare()
        except CycleError as error:
            circle = " -> ".join(repr(drafts[number].step.name) for number in error.args[1])
            self.problems.append(f"steps depend on each other in a circle: {circle}; take one of these edges away")
            return []
        ready: list[int] = []
        order: list[_Draft] = []
        while sorter.is_active():
            for number in sorter.get_ready():
                heapq.heappush(ready, number)
            number = heapq.heappop(ready)
            order.append(drafts[number])
            sorter.done(number)
        return order

    def _nodes(self, order: list[_Draft], output: tuple[Step | None, Path, object] | None) -> tuple[PlanNode, ...]:
        index: dict[Step | None, int] = {draft.step: place for place, draft in enumerate(order)}
        index[None] = RUN_INPUT
        before = [sorted({index[step] for step, _ in draft.sources.values()} - {RUN_INPUT}) for draft in order]
        after: list[list[int]] = [[] for _ in order]
        claims: dict[Step | None, list[Claim]] = {}
        if output is not None and output[1]:  # of a whole output its own type is looked at
            step, path, hint = output
            claims[step] = [Claim(path, f"the pipeline's output takes {Ref(step, path)!r}", fitted(hint, deep=False))]
        for draft in order:
            for p, (step, path) in draft.sources.items():
                if p in draft.unknown and step is not None:
                    taker = f"input {p!r} of step {draft.step.name!r} takes {Ref(step, path)!r}"
                    # what a step gave is looked at by its class, as everywhere between steps
                    claim = Claim(path, taker, fitted(draft.binding.inputs[p], deep=False))
                    claims.setdefault(step, []).append(claim)
        writers: list[int] = []
        for place, direct in enumerate(before):
            seen = 0
            for one in direct:
                after[one].append(place)
                seen |= writers[one] | (bool(order[one].step.options.writes) << one)
            writers.append(seen)
        return tuple(
            PlanNode(
                index=place,
                step=draft.step,
                binding=draft.binding,
                sources=tuple(
                    Source(p, index[s], path, draft.binding.inputs[p]) for p, (s, path) in draft.sources.items()
                ),
                predecessors=tuple(before[place]),
                successors=tuple(after[place]),
                writers=writers[place],
                output_classes=classes_of(draft.binding.output),
                checks=tuple(
                    (p, repr(Ref(None, path)), fitted(draft.binding.inputs[p]))
                    for p, (s, path) in draft.sources.items()
                    if s is None and p in draft.unknown
                ),
                claims=tuple(claims.get(draft.step, ())),
            )
            for place, draft in enumerate(order)
        )

    # --- context ----------------------------------------------------------------------------------------------------

    def _check_fields(self, step: Step) -> None:
        model = self.context_model
        fields = {} if model is None else model.model_fields
        for name in dict.fromkeys((*step.options.writes, *step.options.reads)):
            if name not in fields:
                why = "there is no context model; pass context_model="
                if model is not None:
                    why = f"{model.__name__} has no such field; {suggestion(name, fields)}"
                self.problems.append(f"step {step.name!r} declares context field {name!r}; {why}")

    def _check_writes(self, nodes: tuple[PlanNode, ...]) -> None:
        """Refuse two steps that may write one field at the same time, unless the field has a reducer."""
        reduced = reducers_of(self.context_model)
        last: dict[str, PlanNode] = {}
        for node in nodes:
            for name in node.step.options.writes:
                # in this order each writer of a field must come after the one before, and so after all of them
                if name in last and name not in reduced and not node.writers >> last[name].index & 1:
                    self.problems.append(
                        f"steps {last[name].step.name!r} and {node.step.name!r} may run at the same time and "
                        f"both write {name!r}; let one follow the other, or give the field a reducer: "
                        f"Annotated[..., operator.add]"
                    )
                last[name] = node
