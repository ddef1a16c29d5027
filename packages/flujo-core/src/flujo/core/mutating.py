"""Changing the pipeline of a run that goes on, as one of its steps says: between two steps, where nothing else runs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import rshift
from types import ModuleType

from .assignable import assignable, type_names
from .drafts import bodies_of
from .errors import GuardDenied, PipelineError, SnapshotError, StepFailed
from .flow import Flow
from .foreign import attempt, text_of
from .frames import UNSET, RunState
from .journal import Entry, Journal, as_entry
from .kept import Past
from .mutation import MAX_ADDED, MAX_DEPTH, MAX_MUTATIONS, Mutations, PipelineChange, PipelineMutation, PutIn
from .outcome import Mutated, Success
from .payloads import GuardMutation, OnMutation
from .pipeline import Pipeline, PipelineLike
from .plan import FlowNode, Plan, PlanNode, StepNode
from .result import StepRecord
from .running import Keep, Running
from .setup import Setup
from .snapshot import EntryData
from .steps import Chain, Node, Step, as_member
from .written import entry_data

Live = Mapping[str, Node]
"""What is put in, by its name there."""

_DO = "Use it as it was kept"


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
    made, fault = attempt(_asked, run, visit, path, outcome.mutation)  # its mappings are the user's own
    if fault is not None:
        raise fault if isinstance(fault, StepFailed) else StepFailed(path, "MutationRefused", text_of(fault))
    if made is None:
        return Success(outcome.output)
    setup, change = made
    denial = await run.hooks.guard(GuardMutation(run.info, path, change), "guard_mutation", run.values)
    if isinstance(denial, GuardDenied):
        await run.deny(denial, path, keep)
    return Agreed(outcome.output, setup, OnMutation(run.info, path, change))


def adopt(run: Running, entry: Entry, outcome: Agreed) -> None:
    """Go on with the changed pipeline, once that stands in the journal."""
    info, setup, plan, journal, past = run.info, outcome.setup, run.setup.plan, run.journal, run.past
    records, rows = partial(_records, past, plan, journal), partial(_rows, past, plan, journal)
    length = len(journal) + (0 if past is None else past.length)
    run.past = Past(records, rows, length, "running", 0.0 if past is None else past.began)
    run.journal, run.setup = [], setup
    run.direct = run.watch is None and setup.is_here
    if not outcome.event.change.step:  # it is no data: the run is known by what its pipeline became
        info = replace(info, fingerprint=setup.plan.fingerprint)
    run.info = outcome.event.run = info
    take_over(run.state, setup.plan, entry.node)
    entry.outcome = Success(outcome.output)  # the journal holds no plan that is over


def take_over(state: RunState, plan: Plan, place: int) -> None:
    """Let a state go on with another plan: what ended stands where it stood, and what did not begin is another.

    Raises:
        SnapshotError: The step of that place is not the one that is due: what was read back has been tampered with.
    """
    root = state.root
    if root.outputs[place] is not UNSET or root.left != len(root.outputs) - place:
        raise SnapshotError("snapshot cannot be used", "its journal has a change by a step that was not due", _DO)
    state.plan, root.scope = plan, plan.root
    root.left = len(root.scope.nodes) - place
    root.outputs = root.outputs[:place] + [UNSET] * root.left
    # In a row each waits for the one before, and for those that its inputs= names.
    nodes = root.scope.nodes if root.scope.waiting else ()
    root.waiting = [sum(one >= place for one in node.predecessors) for node in nodes]
    root.seen = {}


def _records(past: Past | None, plan: Plan, journal: Journal) -> list[StepRecord]:
    """The facts for people of what was done before a pipeline changed."""
    entries = (as_entry(plan, ended) for ended in journal)
    return [*(past.records() if past else ()), *(entry.record() for entry in entries if entry.path)]


def _rows(past: Past | None, plan: Plan, journal: Journal) -> list[EntryData]:
    """The same as data."""
    return [*(past.rows() if past else ()), *(entry_data(plan, as_entry(plan, ended)) for ended in journal)]


# --- what is asked ----------------------------------------------------------------------------------------------------


def _asked(
    run: Running, visit: tuple[int, int], path: str, mutation: PipelineMutation[object]
) -> tuple[Setup, PipelineChange] | None:
    """What the run is to go on with, and how that came; None where it stays as it is.

    Raises:
        FlujoError: It cannot be.
    """
    setup = run.setup
    if not mutation.names:
        return None
    if (was := setup.row) is None:
        why = "it returned a PipelineMutation, which is experimental, and not for a step that runs elsewhere"
        do = "Pass experimental={'mutation'}, or --experimental"
        raise StepFailed(path, "MutationRefused", why, do)
    _refuse(_problems(setup.plan, was, visit[1] if visit[0] == 0 else -1, mutation))
    change, live = _described(setup.plan, was.nodes + MAX_ADDED, visit[1], mutation)
    _refuse(_unkept(setup, setup.plan.root.nodes[visit[1]], change))
    made, change = _changed(setup, was, change, live)
    closed = {name for name in made.run_resources - run.step_values.keys() if made.specs[name].scope != "step"}
    if closed:
        names = ", ".join(sorted(closed))
        _refuse(iter([f"this run has not opened {names}: a step of the pipeline as written must take it"]))
    return made, change


def _refuse(problems: Iterator[str]) -> None:
    if listed := [*problems]:
        raise PipelineError("its pipeline cannot be changed so", listed)


def _problems(
    plan: Plan, was: Mutations, place: int, wanted: PipelineMutation[object] | PipelineChange
) -> Iterator[str]:
    """Why a change cannot be made by the step of that place, whatever comes of it; below 0 it is not of the row."""
    members, names = was.pipeline.members, [node.name for node in plan.root.nodes]
    if place < 0 or len(members) != 1 or was.pipeline.given is not None:
        yield "only a step of the outermost row `a >> b >> c` can change what comes after it"
        return
    after = names[place + 1 :]
    wrong = [name for name in wanted.insert_after if name not in names[place:]]
    for name in (*wrong, *(name for name in (*wanted.replace, *wanted.remove) if name not in after)):
        yield f"no step {name!r} stands after it; there are {', '.join(map(repr, after)) or 'none'}"
    if both := sorted({*wanted.remove} & wanted.replace.keys()):
        yield f"{', '.join(map(repr, both))} cannot be replaced and removed"
    if was.count >= MAX_MUTATIONS:
        yield f"the pipeline of a run may be changed {MAX_MUTATIONS} times"


def _unkept(setup: Setup, asks: PlanNode, change: PipelineChange) -> Iterator[str]:
    """Why a change could be lost where its run goes on later."""
    if isinstance(asks, StepNode) and asks.step.options.effect == "at_most_once":
        yield "a step that may happen at most once cannot: a human who settles it cannot say that. Let one after it"
    if setup.is_kept:
        why = "a store keeps the run, and no module has it under a name by which another process could find it"
        yield from (f"{one.name!r} cannot be put in: {why}" for one in change.put_in if not one.path)


def _described(
    plan: Plan, most: int, place: int, mutation: PipelineMutation[object]
) -> tuple[PipelineChange, dict[str, Node]]:
    """What is asked as data, without what comes of it; and what is put in, by the name that it has there."""
    asks, live = plan.root.nodes[place], dict[str, Node]()
    names = {node.name for node in plan.root.nodes} - {*mutation.replace, *mutation.remove}
    home, size = _home(asks), 0

    def put_in(source: PipelineLike) -> tuple[PutIn, ...]:
        nonlocal size
        row: list[PutIn] = []
        nodes = _nodes(as_member(source, "cannot be put into a pipeline"))
        if (size := size + _size(nodes, most)) > most:  # not only once they are compiled: that may take seconds
            _refuse(iter([f"a run may gain {MAX_ADDED} steps and combinators, and more than {most} are put in"]))
        for node in nodes:
            number, name = 1, node.name
            while name in names:
                number += 1
                name = f"{node.name}-{number}"
            names.add(name)
            live[name] = _named(node, name)
            row.append(PutIn(name, _path_of(node, home)))
        return tuple(row)

    inserted = {name: put_in(source) for name, source in mutation.insert_after.items()}
    replaced = {name: put_in(source) for name, source in mutation.replace.items()}
    return PipelineChange("", "", (), (), asks.name, inserted, replaced, tuple(sorted(mutation.remove))), live


def _nodes(member: Node | Chain) -> tuple[Node, ...]:
    return member.nodes if isinstance(member, Chain) else (member,)


def _size(nodes: Iterable[Node], most: int) -> int:
    """How many nodes these are with all that stands inside of them; counted until there are too many."""
    found = [*nodes]
    for node in found:  # grows on the way
        if len(found) > most:
            break
        found += [one for body in bodies_of(node).values() for part in body.members for one in _nodes(part)]
    return len(found)


def _named(node: Node, name: str) -> Node:
    """The node itself, or where it is called otherwise there, one like it: a step may be put in twice."""
    if node.name == name:
        return node
    made = copy(node)
    made.name = name
    if isinstance(made, (Flow, Pipeline)):
        made.auto_named = False
    return made


# --- where it stands --------------------------------------------------------------------------------------------------


def _home(node: PlanNode) -> str:
    """The module of a step's function: it is loaded wherever its pipeline is."""
    step = node.step if isinstance(node, StepNode) else None
    return step.function.__module__ if isinstance(step, Step) else ""


def _path_of(node: Node, home: str) -> str:
    """Where a node stands; empty where no module has it under a name.

    First where the step is that puts it in, then where its own function is: another process has loaded these too.
    """
    own = node.function.__module__ if isinstance(node, Step) else home
    # What stands in the script that was started is not there for a process that imports it.
    others = (module for module in (own, *sys.modules) if module != "__main__")
    for module in dict.fromkeys((home, *others)):
        holder = sys.modules.get(module)
        names = vars(holder) if isinstance(holder, ModuleType) else {}
        for name in [name for name, one in [*names.items()] if one is node]:
            return f"{module}:{name}"
    return ""


def _standing(put: PutIn, home: str) -> Node:
    """What stands at a path. Only modules that are loaded are looked into, and nothing there is called: who can write a
    snapshot does not choose what is imported.
    """
    module, _, name = put.path.partition(":")
    what = f"{put.path!r} cannot be put in"
    holder = sys.modules.get(home if module == "__main__" else module)
    if holder is None:
        do = "Import it at the top of the module that defines the pipeline: a step that imports it did not run here"
        raise SnapshotError(what, f"module {module!r} is not loaded", do)
    found = vars(holder).get(name)
    if found is None:
        raise PipelineError(what, [f"module {module!r} has no attribute {name!r}"])
    if not isinstance(found, Node):
        raise PipelineError(what, [f"it is a {type(found).__name__}, which is no step, combinator or pipeline"])
    base, _, number = put.name.rpartition("-")
    if put.name != found.name and not (base == found.name and number.isdecimal()):
        raise PipelineError(what, [f"it is called {found.name!r}, and was {put.name!r}"])
    return _named(found, put.name)


def again(setup: Setup, change: PipelineChange) -> Setup:
    """What a run needs whose pipeline a step changed, made anew where it goes on; no guard is asked again.

    Raises:
        SnapshotError: What was put in is not there any more, or is another.
    """
    if setup.row is None:
        why, do = "one of its steps changed its pipeline", "Pass Flujo(..., experimental={'mutation'}), also in a FILE"
        raise SnapshotError("the run cannot go on here", why, do)
    made, error = attempt(_remade, setup, setup.row, change)
    if isinstance(error, SnapshotError):
        raise error
    if made is None or made.row is None or made.row.changes[-1:] != (change,):
        what = f"what step {change.step!r} made of the run's pipeline cannot be made again"
        why = "what it put in, or what was there, has changed since" if error is None else text_of(error)
        raise SnapshotError(what, why, "Let it go on with the code that it was made with")
    return made


def after(setup: Setup, row: EntryData) -> Setup:
    """What a run needs after an entry of its journal: another plan, where that says so.

    Raises:
        SnapshotError: It cannot be made again, or the entry is none of a step that could.
    """
    if (change := row.mutation) is None:
        return setup
    nodes, ended_well = setup.plan.root.nodes, row.kind == "success" and not (row.cancelled or row.is_void)
    step = nodes[row.node].name if ended_well and row.frame == 0 and 0 <= row.node < len(nodes) else None
    if step != change.step:
        why = f"its journal has a change by {change.step!r} where that did not end"
        raise SnapshotError("snapshot cannot be used", why, _DO)
    return again(setup, change)


def _remade(setup: Setup, was: Mutations, change: PipelineChange) -> Setup:
    by_name = {node.name: node for node in setup.plan.root.nodes}
    asks = by_name.get(change.step)
    _refuse(_problems(setup.plan, was, -1 if asks is None else asks.place, change))
    home = "" if asks is None else _home(asks)
    return _changed(setup, was, change, {put.name: _standing(put, home) for put in change.put_in})[0]


# --- what comes of it -------------------------------------------------------------------------------------------------


def _changed(setup: Setup, was: Mutations, change: PipelineChange, live: Live) -> tuple[Setup, PipelineChange]:
    """What a run goes on with, and how it came to that; that is no data where something in it has no path."""
    before, (row, fresh) = setup.plan, _row(setup.plan, was, change, live)
    made = was.change(row.pipeline)
    made.row = row
    after = made.plan
    _refuse(_misfits(before, was, row, after))
    kept = {*_written(before)} & {*_written(after)} - fresh
    facts = (before.fingerprint, after.fingerprint, _others(after, kept), _others(before, kept))
    if all(one.path for one in change.put_in):
        whole = PipelineChange(*facts, change.step, change.insert_after, change.replace, change.remove)
        row.changes = (*was.changes, whole)
        return made, whole
    return made, PipelineChange(*facts)


def _row(plan: Plan, was: Mutations, change: PipelineChange, live: Live) -> tuple[Mutations, set[Node]]:
    """The pipeline as it is to be, and what was put in: that may have stood elsewhere."""
    fresh, depth = set[Node](), 0
    found: list[Node | Chain] = []
    for node, planned in zip(_written(plan), plan.root.nodes, strict=True):
        new = [] if planned.name in change.remove or planned.name in change.replace else [node]
        new += [live[one.name] for one in change.replace.get(planned.name, ())]
        new += [live[one.name] for one in change.insert_after.get(planned.name, ())]
        fresh.update(one for one in new if one is not node)
        found += new
        depth = was.depths.get(node, 0) + 1 if planned.name == change.step else depth
    made = Mutations(copy(was.pipeline), was.nodes, was.change)
    made.count, made.depths = was.count + 1, was.depths | dict.fromkeys(fresh, depth)
    made.pipeline.members = (reduce(rshift, found),)
    return made, fresh


def _misfits(before: Plan, was: Mutations, row: Mutations, after: Plan) -> Iterator[str]:
    """What is wrong with a pipeline that can work, but not in the place of the one before."""
    given, wanted = after.root.output_type, before.root.output_type
    if not assignable(given, wanted):
        names = type_names(given, wanted)
        yield f"the pipeline would give {names[0]}, and it gave {names[1]}"
    if len(after.nodes) - was.nodes > MAX_ADDED:
        yield f"a run may gain {MAX_ADDED} steps and combinators, not {len(after.nodes) - was.nodes}"
    if (depth := max(row.depths.values(), default=0)) > MAX_DEPTH:
        yield f"a step that was put in may put in others {MAX_DEPTH} deep, not {depth}"


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
