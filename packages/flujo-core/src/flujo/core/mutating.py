"""Changing the pipeline of a run that goes on, as one of its steps says: between two steps, where nothing else runs."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import rshift

from .assignable import assignable, type_names
from .errors import GuardDenied, StepFailed
from .foreign import attempt, text_of
from .frames import UNSET
from .journal import Entry, Journal, as_entry
from .kept import Past
from .mutation import MAX_ADDED, MAX_DEPTH, MAX_MUTATIONS, Mutations, PipelineChange, PipelineMutation
from .outcome import Mutated, Success
from .payloads import GuardMutation, OnMutation
from .pipeline import PipelineLike
from .plan import FlowNode, Plan, PlanNode, StepNode
from .result import StepRecord
from .running import Keep, Running
from .setup import Setup
from .snapshot import EntryData
from .steps import Chain, Node, as_member
from .written import entry_data


@dataclass(slots=True)
class Agreed(Success):
    """The step gave an output, and every guard agrees that the run goes on with another pipeline."""

    setup: Setup
    event: OnMutation

    def told(self) -> OnMutation:
        """What observers are told."""
        return self.event


async def agreed(run: Running, visit: tuple[int, int], path: str, outcome: Mutated, keep: Keep) -> Success:
    """Make what a run is to go on with, and ask the guards, before the end of the step is recorded.

    Raises:
        StepFailed: It cannot be made.
        GuardDenied: A guard denied.
    """
    setup, fault = attempt(_changed, run, visit, path, outcome.mutation)  # its mappings are the user's own
    if fault is not None:
        raise fault if isinstance(fault, StepFailed) else StepFailed(path, "MutationRefused", text_of(fault))
    if setup is None:
        return Success(outcome.output)
    before, after = run.setup.plan, setup.plan
    kept = {*_written(before)} & {*_written(after)} - (setup.row.fresh if setup.row is not None else set())
    change = PipelineChange(before.fingerprint, after.fingerprint, _others(after, kept), _others(before, kept))
    denial = await run.hooks.guard(GuardMutation(run.info, path, change), "guard_mutation", run.values)
    if isinstance(denial, GuardDenied):
        await run.deny(denial, path, keep)
    return Agreed(outcome.output, setup, OnMutation(run.info, path, change))


def _others(plan: Plan, kept: set[Node]) -> tuple[str, ...]:
    """Paths of the steps of a plan beside those that were kept."""
    found: list[PlanNode] = [at for node, at in zip(_written(plan), plan.root.nodes, strict=True) if node not in kept]
    for node in found:  # grows on the way
        found += [one for body in node.bodies for one in body.nodes] if isinstance(node, FlowNode) else ()
    others = {node.index for node in found}
    return tuple(step.path for step in plan.steps if step.index in others)


def _written(plan: Plan) -> list[Node]:
    """The nodes of the outermost row as they were written."""
    return [node.step if isinstance(node, StepNode) else node.flow for node in plan.root.nodes]


def _changed(run: Running, visit: tuple[int, int], path: str, mutation: PipelineMutation[object]) -> Setup | None:
    """What the run is to go on with; None where it stays as it is.

    Raises:
        StepFailed: It cannot be.
    """
    setup = run.setup
    if not mutation.names:
        return None
    if (was := setup.row) is None:
        why = "it returned a PipelineMutation, which is experimental, and not for a step that runs elsewhere"
        do = "Pass experimental={'mutation'}, or --experimental"
        raise StepFailed(path, "MutationRefused", why, do)
    problems = [*_problems(setup.plan, was, visit, mutation)]
    if not problems:
        row = _row(setup.plan, was, visit[1], mutation)
        made = was.change(row.pipeline)
        made.row = row
        problems = [*_misfits(run, was, row, made)]
    if problems:
        raise StepFailed(path, "MutationRefused", "; ".join(problems))
    return made


def _problems(plan: Plan, was: Mutations, visit: tuple[int, int], mutation: PipelineMutation[object]) -> Iterator[str]:
    """Why a mutation cannot be made, whatever comes of it."""
    (frame, place), members, names = visit, was.pipeline.members, [node.name for node in plan.root.nodes]
    if frame != 0 or len(members) != 1 or was.pipeline.given is not None:
        yield "only a step of the outermost row `a >> b >> c` can change what comes after it"
        return
    after = names[place + 1 :]
    for name in mutation.names:
        if name not in after and not (name in mutation.insert_after and name == names[place]):
            yield f"no step {name!r} stands after it; there are {', '.join(map(repr, after)) or 'none'}"
    if both := sorted(mutation.remove & mutation.replace.keys()):
        yield f"{', '.join(map(repr, both))} cannot be replaced and removed"
    if was.count >= MAX_MUTATIONS:
        yield f"the pipeline of a run may be changed {MAX_MUTATIONS} times"


def _row(plan: Plan, was: Mutations, place: int, mutation: PipelineMutation[object]) -> Mutations:
    """The pipeline as it is to be."""
    nodes = _written(plan)
    depth = was.depths.get(nodes[place], 0) + 1
    found: list[Node | Chain] = []
    made = Mutations(was.pipeline, was.nodes, was.change)
    made.count, made.depths = was.count + 1, dict(was.depths)
    for node, planned in zip(nodes, plan.root.nodes, strict=True):
        new: list[Node] = [] if planned.name in mutation.remove else [node]
        if planned.name in mutation.replace:
            new = [*_nodes(mutation.replace[planned.name])]
        if planned.name in mutation.insert_after:
            new += _nodes(mutation.insert_after[planned.name])
        made.fresh.update(one for one in new if one is not node)
        found += new
    made.depths.update(dict.fromkeys(made.fresh, depth))
    made.pipeline = copy(was.pipeline)
    made.pipeline.members = (reduce(rshift, found),)
    return made


def _nodes(source: PipelineLike) -> tuple[Node, ...]:
    """The nodes of a chain, or the one node that anything else is."""
    member = as_member(source, "cannot be put into a pipeline")
    return member.nodes if isinstance(member, Chain) else (member,)


def _misfits(run: Running, was: Mutations, row: Mutations, setup: Setup) -> Iterator[str]:
    """What is wrong with a pipeline that can work, but not in the place of the one before."""
    before, after = run.setup.plan, setup.plan
    given, wanted = after.root.output_type, before.root.output_type
    if not assignable(given, wanted):
        names = type_names(given, wanted)
        yield f"the pipeline would give {names[0]}, and it gave {names[1]}"
    if len(after.nodes) - was.nodes > MAX_ADDED:
        yield f"a run may gain {MAX_ADDED} steps and combinators, not {len(after.nodes) - was.nodes}"
    if (depth := max(row.depths.values(), default=0)) > MAX_DEPTH:
        yield f"a step that was put in may put in others {MAX_DEPTH} deep, not {depth}"
    if closed := {name for name in setup.run_resources - run.step_values.keys() if setup.specs[name].scope != "step"}:
        yield f"this run has not opened {', '.join(sorted(closed))}: a step of the pipeline as written must take it"


def adopt(run: Running, entry: Entry, outcome: Agreed) -> Success:
    """Go on with the changed pipeline: what ended stands where it stood, and what did not begin is another."""
    if run.verdict is not None:
        return Success(outcome.output)
    setup, entry.mutation = outcome.setup, outcome.event.change
    plan, journal, past, root, place = run.setup.plan, run.journal, run.past, run.state.root, entry.node
    records, rows = partial(_records, past, plan, journal), partial(_rows, past, plan, journal)
    length = len(journal) + (0 if past is None else past.length)
    run.past = Past(records, rows, length, "running", 0.0 if past is None else past.began)
    run.journal, run.setup = [], setup
    run.direct = run.watch is None and setup.is_here
    run.info = replace(run.info, fingerprint=setup.plan.fingerprint)
    run.state.plan, root.scope = setup.plan, setup.plan.root
    root.left = len(root.scope.nodes) - place
    root.outputs = root.outputs[:place] + [UNSET] * root.left
    if root.scope.waiting:  # in a row each waits for the one before, and for those that its inputs= names
        root.waiting = [sum(one >= place for one in node.predecessors) for node in root.scope.nodes]
    root.seen, outcome.event.run = {}, run.info
    return outcome


def _records(past: Past | None, plan: Plan, journal: Journal) -> list[StepRecord]:
    """The facts for people of what was done before a pipeline changed."""
    entries = (as_entry(plan, ended) for ended in journal)
    return [*(past.records() if past else ()), *(entry.record() for entry in entries if entry.path)]


def _rows(past: Past | None, plan: Plan, journal: Journal) -> list[EntryData]:
    """The same as data."""
    return [*(past.rows() if past else ()), *(entry_data(plan, as_entry(plan, ended)) for ended in journal)]
