"""Checks one pipeline or body, those in it known already: names, edges, types, order, context fields."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, Optional

from pydantic import BaseModel

from .assignable import assignable, common, plain, type_name, type_names
from .bind import Binding, bind, part_type
from .drafts import Demand, Draft, Edge, ScopeDraft, dict_type, flow_binding, kind_of
from .errors import PipelineError
from .flow import Map, Parallel
from .reducers import reducers_of
from .resources import Resources, ResourceSpec
from .steps import Chain, Node, Ref, Step, path_text, ref_parts, suggestion

_UNKNOWN = Binding({}, frozenset(), Any, (), False)


class ScopeCompiler:
    """Collects problems instead of stopping at the first, so that a user sees all of them at once.

    Args:
        scope: The pipeline or body; what is found is written into it.
        specs: The resources by name.
        resources_type: The user's Resources class.
        context_model: The context's model.
    """

    def __init__(
        self,
        scope: ScopeDraft,
        specs: Mapping[str, ResourceSpec],
        resources_type: type[Resources] | None,
        context_model: type[BaseModel] | None,
    ) -> None:
        self.scope = scope
        self.specs = specs
        self.resources_type = resources_type
        self.context_model = context_model
        self.problems: list[str] = scope.problems
        self.drafts: dict[Node, Draft] = scope.drafts
        self.by_name: dict[str, Node] = {}
        self.joined: dict[Node, Node] = {}

    def check(self) -> None:
        """Fill the scope's draft."""
        scope = self.scope
        self._collect()
        for draft in self.drafts.values():
            self._resolve(draft)
            if isinstance(draft.node, Step):
                self._check_fields(draft.node)
        given = scope.pipeline.given
        scope.output = None if given is None else self._edge(given, "the pipeline's output")
        scope.input_type = self._input_type()
        self._check_parts()
        scope.order = self._order()
        self._check_writes()
        scope.output_type = self._output_type()

    def _what(self, node: Node) -> str:
        return f"{kind_of(node)} {self.scope.names.get(node, node.name)!r}"

    # --- nodes and names --------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        members = self.scope.pipeline.members
        for member in members:
            nodes = member.nodes if isinstance(member, Chain) else (member,)
            for before, node in zip((None, *nodes), nodes, strict=False):
                draft = self.drafts.get(node) or self._add(node)
                if before is not None and before not in draft.before:
                    draft.before.append(before)
        if not members:
            self.problems.append("it has no steps; give at least one")

    def _add(self, node: Node) -> Draft:
        name = node.name
        if node.auto_named:
            number = 1
            while name in self.by_name:
                number += 1
                name = f"{node.name}-{number}"
        if self.by_name.setdefault(name, node) is not node:
            self.problems.append(f"two steps are called {name!r}; give one another name: Step(..., name='...')")
        self.scope.names[node] = name
        self.joined |= dict.fromkeys(node.made_of, node)
        draft = self.drafts[node] = Draft(node, self._binding(node))
        bodies = self.scope.bodies.get(node, [])
        draft.writes = frozenset().union(*(body.writes for body in bodies))
        if isinstance(node, Step):
            draft.writes = frozenset(node.options.writes)
        return draft

    def _binding(self, node: Node) -> Binding:
        if not isinstance(node, Step):
            bodies = self.scope.bodies[node]
            self.problems += [f"in {self._what(node)}: {problem}" for body in bodies for problem in body.problems]
            return flow_binding(node, bodies, self._what(node), self.problems)
        try:
            return bind(node, self.specs, self.resources_type, self.context_model)
        except PipelineError as error:
            self.problems += [f"{error.what}: {problem}" for problem in error.problems]
            return _UNKNOWN

    # --- edges ------------------------------------------------------------------------------------------------------

    def _resolve(self, draft: Draft) -> None:
        inputs, before, given = draft.binding.inputs, draft.before, self._given(draft.node)
        what = self._what(draft.node)
        for key, source in given.items():
            if key in inputs:
                self._connect(draft, key, self._edge(source, f"input {key!r} of {what}"))
            elif draft.binding is not _UNKNOWN:
                self.problems.append(f"{what} has no input {key!r}; {suggestion(key, inputs)}")
        open_ = [p for p in inputs if p not in given]
        missing = [p for p in open_ if p not in draft.binding.optional]
        free = missing or open_
        if draft.binding is _UNKNOWN:
            return
        if len(before) > 1:
            many = " and ".join(repr(self.scope.names[node]) for node in before)
            self.problems.append(f"{what} follows {many}; say which input is which with inputs=")
        elif len(free) == 1 and (before or not given or not self.scope.owns_input):
            self._connect(draft, free[0], self._before(before))
        elif before or missing:
            self._unfilled(draft, free)

    @staticmethod
    def _given(node: Node) -> Mapping[str, object]:
        inputs = node.inputs
        return {} if inputs is None else inputs if isinstance(inputs, Mapping) else {"input": inputs}

    def _before(self, before: list[Node]) -> Edge:
        """What a node gets by its place: what the one before gave, or the input."""
        if before:
            return Edge(before[0], (), self.drafts[before[0]].gives(chained=True), chained=True)
        return Edge(None, (), Any, body=not self.scope.owns_input)

    def _unfilled(self, draft: Draft, free: list[str]) -> None:
        """Say that there is not the one input that takes what the node is given by its place."""
        inputs, what = draft.binding.inputs, self._what(draft.node)
        listed = ", ".join(f"{p!r} ({type_name(inputs[p])})" for p in free)
        do = f"name a source with inputs=, or give Flujo resources= for a resource{self._resource_hint(inputs, free)}"
        if "self" in free:
            do += "; if it is a method, use Step(object.method)"
        why = f"gets nothing for {listed}"
        if draft.before:
            takes = f"{len(free)} free inputs ({listed})" if free else "no free input (*args and **kwargs are none)"
            why = f"follows {self.scope.names[draft.before[0]]!r} but has {takes}; `>>` needs exactly one"
        self.problems.append(f"{what} {why}; {do if free else 'give it one parameter'}")

    def _resource_hint(self, inputs: Mapping[str, object], parameters: Iterable[str]) -> str:
        """What a parameter that is perhaps meant as a resource would need to be one."""
        for parameter in parameters:
            for spec in self.specs.values():
                if spec.name == parameter or spec.type == inputs[parameter]:
                    return f"; a resource is given by name and type: {spec.name!r} is {type_name(spec.type)}"
        return ""

    def _connect(self, draft: Draft, parameter: str, edge: Edge | None) -> None:
        if edge is None:
            return
        wanted = draft.binding.inputs[parameter]
        draft.edges[parameter] = edge
        is_open = edge.path if edge.node is None else plain(edge.type) is Any
        if (edge.node is not None and edge.path) or (is_open and wanted is not Any):
            draft.unknown.add(parameter)
        if edge.node is not None and not assignable(edge.type, wanted):
            gives, takes = type_names(edge.type, wanted)
            part = f" as {path_text(edge.path)}" if edge.path else ""
            hint = self._resource_hint(draft.binding.inputs, [parameter])
            self.problems.append(
                f"{self._what(edge.node)} gives {gives}{part}, but input {parameter!r} of {self._what(draft.node)} "
                f"takes {takes}; change one of the two, or put a step between{hint}"
            )

    def _edge(self, source: object, where: str) -> Edge | None:
        """The node (None: run input), path and type that `source` names; a problem when there is none."""
        node, path = ref_parts(source) if isinstance(source, Ref) else (source, ())
        if node is None and isinstance(source, Ref):
            return Edge(None, path, Any)
        if isinstance(node, str):
            node = self.by_name.get(node, node)
        whole = self.joined.get(node) if isinstance(node, Node) and node not in self.drafts else None
        node = whole if whole is not None and node is whole.made_of[-1] else node
        if isinstance(node, str):
            problem = f"names an unknown step {node!r}; {suggestion(node, self.by_name)}"
        elif not isinstance(node, Node):
            problem = f"is a {type(node).__name__}; it must be a step, a part of one, a step's name, or run_input()"
        elif node not in self.drafts:
            why = "which is not in the pipeline; add it"
            problem = f"names step {node.name!r}, {why if whole is None else 'whose chunks go to the next one only'}"
        else:
            draft = self.drafts[node]
            hint, problem = part_type(draft.gives(chained=False), path)
            if not problem:
                return Edge(node, path, Optional[hint] if draft.may_be_skipped else hint)  # noqa: UP045
            problem = f"cannot be read from {self._what(node)}: {problem}"
        self.problems.append(f"{where} {problem}")
        return None

    # --- input and output -------------------------------------------------------------------------------------------

    def _takers(self) -> Iterable[tuple[str, Edge, object]]:
        """Who takes the scope's input, or a part of it: a name for people, the edge, the type it is taken as."""
        for draft in self.drafts.values():
            for parameter, edge in draft.edges.items():
                if edge.node is None:
                    yield self.scope.names[draft.node], edge, draft.binding.inputs[parameter]

    def _input_type(self) -> object:
        """The type of the values that fit as input for every node that takes it."""
        taken = [(name, edge.path, hint) for name, edge, hint in self._takers() if edge.body or self.scope.owns_input]
        passed = [demand for bodies in self.scope.bodies.values() for body in bodies for demand in body.demands]
        if self.scope.owns_input:
            taken += [(demand.where, demand.path, demand.type) for demand in passed]
        else:
            own = [(name, edge, hint) for name, edge, hint in self._takers() if not edge.body]
            self.scope.demands = [*passed, *(Demand(name, edge.path, hint) for name, edge, hint in own)]
        wanted: object = Any
        taken_by = ""
        for name, path, hint in taken:
            if path or hint is Any:
                continue
            both = hint if wanted is Any else common(wanted, hint)
            if both is None:
                one, other = type_names(wanted, hint)
                self.problems.append(
                    f"steps {taken_by!r} and {name!r} take the run input as {one} and as {other}; "
                    f"no value is both; let one take a part of it: run_input().name"
                )
            elif both is not wanted:
                wanted, taken_by = both, name
        return wanted

    def _check_parts(self) -> None:
        """Compare the parts of the input that are taken with what is known of it."""
        if not self.scope.owns_input:
            return
        for draft in self.drafts.values():
            for parameter, edge in draft.edges.items():
                if edge.node is None and edge.path:
                    given, problem = part_type(self.scope.input_type, edge.path)
                    gives, takes = type_names(given, draft.binding.inputs[parameter])
                    if not problem and not assignable(given, draft.binding.inputs[parameter]):
                        problem = f"{path_text(edge.path)} is {gives}, but it takes {takes}"
                    if problem:
                        where = f"input {parameter!r} of {self._what(draft.node)}"
                        self.problems.append(f"{where} cannot be read from the run input: {problem}")

    def _output_type(self) -> object:
        output, sinks = self.scope.output, self.scope.sinks
        if output is not None:
            return self.scope.input_type if output.node is None and not output.path else output.type
        if len(sinks) == 1:
            return sinks[0].gives(chained=True)
        names = {self.scope.names[draft.node]: draft.gives(chained=True) for draft in sinks}
        return dict_type(names) if names else Any

    # --- order ------------------------------------------------------------------------------------------------------

    def _order(self) -> list[Draft]:
        """Drafts in declared order, each after what it depends on; none where some depend on each other."""
        drafts = list(self.drafts.values())
        place = {draft.node: number for number, draft in enumerate(drafts)}
        sorter: TopologicalSorter[int] = TopologicalSorter()
        for number, draft in enumerate(drafts):
            sorter.add(number, *(place[edge.node] for edge in draft.edges.values() if edge.node is not None))
        try:
            sorter.prepare()
        except CycleError as error:
            circle = " -> ".join(repr(self.scope.names[drafts[number].node]) for number in error.args[1])
            do = "take one of these edges away, or, where a step is to run twice, give it twice: Step(it, name=...)"
            self.problems.append(f"steps depend on each other in a circle: {circle}; {do}")
            return []
        ready: list[int] = []
        order: list[Draft] = []
        while sorter.is_active():
            for number in sorter.get_ready():
                heapq.heappush(ready, number)
            number = heapq.heappop(ready)
            order.append(drafts[number])
            sorter.done(number)
        return order

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

    def _check_writes(self) -> None:
        """Refuse two nodes that may write one field at the same time, unless the field has a reducer."""
        reduced = reducers_of(self.context_model)
        do = "or give the field a reducer: Annotated[..., operator.add]"
        place = {draft.node: number for number, draft in enumerate(self.scope.order)}
        last: dict[str, Draft] = {}
        for draft in self.scope.order:
            for edge in draft.edges.values():
                if edge.node is not None:
                    source = self.drafts[edge.node]
                    draft.writers |= source.writers | (bool(source.writes) << place[edge.node])
            for name in sorted(draft.writes - reduced.keys()):
                # in this order each writer of a field must come after the one before, and so after all of them
                if name in last and not draft.writers >> place[last[name].node] & 1:
                    names = self.scope.names
                    one, other = names[last[name].node], names[draft.node]
                    self.problems.append(
                        f"steps {one!r} and {other!r} may run at the same time and both write {name!r}; "
                        f"let one follow the other, {do}"
                    )
                last[name] = draft
            self._check_bodies(draft.node, reduced.keys(), do)

    def _check_bodies(self, node: Node, reduced: Iterable[str], do: str) -> None:
        """The same for the bodies of one combinator."""
        bodies = self.scope.bodies.get(node, [])
        if isinstance(node, Map) and (names := bodies[0].writes - set(reduced)):
            self.problems.append(
                f"the items of {self._what(node)} run at the same time and all write {sorted(names)[0]!r}; "
                f"write it in a step after the map, {do}"
            )
        seen: dict[str, str] = {}
        for word, body in zip(node.bodies, bodies, strict=True) if isinstance(node, Parallel) else ():
            for name in sorted(body.writes - set(reduced)):
                if name in seen:
                    self.problems.append(
                        f"branches {seen[name]!r} and {word!r} of {self._what(node)} may run at the same time and both "
                        f"write {name!r}; let one follow the other, {do}"
                    )
                seen[name] = word
