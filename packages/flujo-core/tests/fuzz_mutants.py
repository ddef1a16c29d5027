"""Seeded bugs: one fragment of the real engine's source is another, wherever the engine uses that function."""

from __future__ import annotations

import inspect
import sys
import textwrap
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import pytest
from fuzz_specs import NEVER, Each, Fan, Graph, Repeat, Row, Source, Spec, Wired, Work

from flujo.core import (
    attempt,
    backends,
    budgets,
    cache,
    calls,
    carved,
    engine,
    found,
    frames,
    ledger,
    meter,
    replay,
    restore,
    resume,
    running,
    schedule,
    values,
    work,
    writer,
    written,
)


@dataclass(frozen=True)
class Mutant:
    """A bug.

    Attributes:
        name: What goes wrong.
        home: The module or class where the function stands.
        function: Its name.
        right: The fragment that is replaced; it stands there exactly once.
        wrong: What replaces it.
        shown_by: Pipelines that show it, where random ones hardly ever do.
    """

    name: str
    home: Any
    function: str
    right: str
    wrong: str
    shown_by: tuple[Spec, ...] = ()

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put the bug into the engine, until `patch` is undone."""
        before = self.home.__dict__[self.function]
        after = self.made(before)
        patch.setattr(self.home, self.function, after)
        for name, module in list(sys.modules.items()):  # `from .schedule import advance` took it by its name
            if name.startswith("flujo.core.") and getattr(module, self.function, None) is before:
                patch.setattr(module, self.function, after)

    def made(self, before: FunctionType) -> FunctionType:
        """The function with the bug."""
        source = textwrap.dedent(inspect.getsource(before))
        assert source.count(self.right) == 1, f"{self.function} reads otherwise now: mend the mutant {self.name!r}"
        namespace: dict[str, Any] = {}
        code = compile(
            "from __future__ import annotations\n" + source.replace(self.right, self.wrong), "mutant", "exec"
        )
        exec(code, before.__globals__, namespace)
        made: FunctionType = namespace[self.function]
        return made


def one_branch_lost(delay: int) -> Spec:
    """Each item's inner fan loses a branch, and its outer fan ends by another, so many turns of the event loop later.

    In one of these turns the lost branch is still being cancelled, and the next item has to wait for that.
    """
    cut = Row((Work("first", delay=1), Work("cut", delay=9)))
    inner = Fan("inner", (Work("fails", fails=NEVER, delay=3), cut))
    body = Fan("outer", (inner, Row((Work("other"), Work("ends", delay=delay)))), collect=True)
    return Spec(Row((Work("items", ends="list", size=3), Each("each", body, limit=1))))


def one_cancels(delay: int) -> Spec:
    """A step cancels the scope around its run, and another ends so many turns of the event loop later or before."""
    row = Row((Work("waits", delay=delay), Work("follows", delay=1)))
    return Spec(Fan("fan", (Work("stops", cancels=True, delay=3), row)), outer=True)


NOTHING = Wired(Work("skipped", skips_on=1))
SEES_ANOTHER_CONTEXT = Spec(
    Repeat(
        "loop",
        Graph(
            "p",
            (
                NOTHING,
                Wired(Work("reads", cached=True, reads=True), (Source("node", 0),)),
                Wired(Work("writes", writes="total")),
            ),
        ),
    )
)
"""A step that keeps its output is given None each time, and sees what the iteration before wrote."""


MUTANTS = (
    Mutant(
        "a join starts before the last of its predecessors ended",
        schedule, "_end", "waiting[place] == 0:", "waiting[place] <= 1:",
    ),
    Mutant(
        "changes of concurrent bodies are merged in the order in which these end",
        schedule, "_finish", "sorted(part.changes)", "part.changes",
    ),
    Mutant(
        "a limit lets one body more run",
        schedule, "_open_more", "len(part.bodies) < limit", "len(part.bodies) <= limit",
    ),
    Mutant(
        "a body that was given up still counts",
        schedule, "_close", "frame.is_open = False", "pass",
    ),
    Mutant(
        "run_input() in a sub-pipeline is that of the whole run",
        frames.Frame, "__init__", "scope.owns_input or parent is None", "parent is None",
    ),
    Mutant(
        "changes are applied in reverse",
        values, "context_at", "reversed(ahead)", "ahead",
    ),
    Mutant(
        "a declared edge of a skipped step gives its input",
        values, "read", "if not source.chained:", "if False:",
    ),
    Mutant(
        "what waits for a cancelled step to end is forgotten",
        running.Running, "release", "self.state.due.extend(reversed(items))", "pass",
    ),
    Mutant(
        "a cancel lets the running step go on",
        running.Running, "cancel", "self.scope.cancel()", "pass",
    ),
    Mutant(
        "a step begins after its run was cancelled",
        work.Work, "_begin", "self.verdict is not None or not frame.is_open", "not frame.is_open",
    ),
    Mutant(
        "a failure does not cancel its siblings",
        running.Running, "stop", "worker.scope.cancel()", "pass",
    ),
    Mutant(
        "feedback does not reach the next attempt",
        work.Work, "_attempts", "feedback = trial.feedback", "pass",
    ),
    Mutant(
        "a cancelled step is not journaled",
        work.Work, "_cut_off", "self.put(entry, partial(self.journal.append, entry))", "pass",
    ),
    Mutant(
        "what runs in a closed body is not cancelled",
        running.Running, "hold_back", "worker.scope.cancel()", "pass",
    ),
    Mutant(
        "a skipped step is restored as one that gave its input",
        restore._Restorer, "_fill", "Passed(value)", "value",
    ),
    Mutant(
        "a loop is restored with the context it began with",
        restore._Restorer, "_part", "part.context = self._context(data.context)", "pass",
    ),
    Mutant(
        "a snapshot leaves out the changes of bodies that ended",
        written, "_part", "_changes(plan, part.changes, node.path)", "{}",
    ),
    Mutant(
        "a snapshot leaves out what tools said",
        written, "checkpoint_of", "state.known.items()", "()",
    ),
    Mutant(
        "that a step begins that may happen at most once is not noted",
        attempt.Attempt, "_executed", "await self.run.note_told(self.ctx, Begun())", "pass",
    ),
    Mutant(
        "that a tool begins that may be used at most once is not noted",
        calls.Calls, "call_tool", "await self._begin(ctx, call, key)", "pass",
    ),
    Mutant(
        "what began and may happen at most once is done again",
        schedule, "find_due", "elif (frame.id, node.index) in state.begun:", "elif False:",
    ),
    Mutant(
        "what a human says of a step that may happen at most once is not believed",
        resume, "_reconciled", "Begun(request.key, request.tool, is_over=True), answer", "Begun(request.key), answer",
    ),
    Mutant(
        "a decision is not journaled with its claim",
        engine.Flujo, "_claimed", "for entry in run.resumed.entries", "for entry in ()",
    ),
    Mutant(
        "a decision whose process was gone cannot be given again",
        found, "decide_on", "receipt == now and found.is_orphan", "False",
    ),
    Mutant(
        "what was journaled after the last place where the run was kept is forgotten",
        found, "continued", "for row in found.late:", "for row in ():",
    ),
    Mutant(
        "of entries that are written together only the first is",
        writer.Writer, "_flush", "[row for row, _, _ in rows]", "[rows[0][0]]",
    ),
    Mutant(
        "what follows from an entry begins before that is kept",
        running.Running, "put", "return self.writer.put(row, then)",
        "then(); self.writer.put(row, lambda: None); return None",
    ),
    Mutant(
        "a run that stands still is not kept as it stands",
        writer.Writer, "_give_back", "snapshot, error = attempt(end)", "snapshot, error = None, None",
    ),
    Mutant(
        "a replay does not know what may happen at most once",
        replay, "_difference", "(Begun, Called, Spent)", "(Called, Spent)",
    ),
    Mutant(
        "what lost a body may end while that still cleans up",
        running.Running, "hold_back", "part is not None and part.is_over", "False",
        shown_by=tuple(map(one_branch_lost, range(8))),
    ),
    Mutant(
        "a replay does not go on after a failure",
        replay, "replayed", "find_due(state)", "pass",
    ),
    Mutant(
        "a step that timed out is not tried again",
        work.Work, "_again", "self.verdict is not None", "type(outcome.error).__name__ == 'StepTimeout'",
    ),
    Mutant(
        "a timeout counts for all attempts of a step",
        attempt.Attempt, "_placed", "move_on_after(timeout_s)", "move_on_after(timeout_s if self.number == 1 else 0)",
    ),
    Mutant(
        "a cache knows nothing of the context",
        cache.Cache, "key",
        "sorted(known and (options.reads or (known if node.binding.context_parameter else ())))", "[]",
        shown_by=(SEES_ANOTHER_CONTEXT,),
    ),
    Mutant(
        "a cache does not tell a step from another",
        cache.Cache, "key", "[node.index, ", "[",
    ),
    Mutant(
        "a step that is found in the cache changes no context",
        attempt.Attempt, "_invoke", "return Success(kept[0]), kept[1]", "return Success(kept[0]), None",
    ),
    Mutant(
        "what validators refused is kept in the cache",
        attempt.Attempt, "_invoke",
        "self._fresh = (key, outcome.output, changes)", "cache.keep(key, outcome.output, changes)",
    ),
    Mutant(
        "nothing is found in the cache",
        attempt.Attempt, "_invoke", "cache.find(key) if key is not None and self.number == 1 else None", "None",
    ),
    Mutant(
        "a plain function blocks the event loop",
        backends.LocalBackend, "execute_step", "step.needs_thread", "False",
    ),
    Mutant(
        "when= is asked with the context of the start",
        work, "unwanted", "attempt(context_at, frame, node)", "(frame.context, None)",
    ),
    Mutant(
        "what is reserved is not looked at",
        ledger.Ledger, "_own_room", "self._held_tokens if leases", "self._held_tokens if False",
    ),
    Mutant(
        "what is reserved is not looked at where all or nothing is wanted",
        ledger.Ledger, "_admits", "spent.output_tokens + all_tokens > most", "spent.output_tokens + tokens > most",
    ),
    Mutant(
        "a lease that is settled counts in full",
        meter.Lease, "settle",
        "_used(cost_usd, tokens, input_tokens, output_tokens, self.charge.requests)",
        "Usage(output_tokens=self.charge.tokens, requests=self.charge.requests, cost_usd=self.charge.cost_usd)",
    ),
    Mutant(
        "a lease that was cancelled counts nothing",
        meter.Lease, "settle_in_full", "Usage(output_tokens=charge.tokens, ", "Usage(",
    ),
    Mutant(
        "limits of a step are not looked at",
        carved, "ledger_of", "if limits is None:", "if True:",
    ),
    Mutant(
        "limits of a step count all its visits",
        carved, "ledger_of",
        "frame.ledgers = frame.ledgers or {}", "frame = run.state.root; frame.ledgers = frame.ledgers or {}",
    ),
    Mutant(
        "a resumed run forgets what it spent",
        budgets, "carry", "at.spent.add(used)", "pass",
    ),
)  # fmt: skip
