"""The fuzz finds bugs: each of these, put into the real engine, is seen within the pipelines that the soak tries."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import pytest
from fuzz_check import fault
from fuzz_make import seeded
from fuzz_mutants import MUTANTS as FRAGMENTS
from fuzz_mutants import one_cancels

from flujo.core import Success, codec, frames, plan, relay, restore, running, schedule, values, work
from flujo.core.frames import Frame, Part, RunState
from flujo.core.journal import Entry
from flujo.core.outcome import Failure, Skipped

SEEDS = 2000


def the_context_of_an_iteration_is_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(schedule, "final_context", lambda frame: frame.context)


def changes_are_merged_backwards(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(schedule, "changes_of", lambda frame: tuple(reversed(values.changes_of(frame))))


def a_closed_body_still_counts(patch: pytest.MonkeyPatch) -> None:
    def close(state: RunState, part: Part, body: Frame) -> None:
        del part.bodies[body.slot]

    patch.setattr(schedule, "_close", close)


def nothing_catches_a_failure(patch: pytest.MonkeyPatch) -> None:
    def fail(state: RunState, frame: Frame, node: object, failure: Failure) -> None:
        state.failure = state.failure or failure

    patch.setattr(schedule, "_fail", fail)


def a_loop_ends_when_it_should_go_on(patch: pytest.MonkeyPatch) -> None:
    right = schedule.choose

    def choose(state: RunState, part: Part, choice: int) -> None:
        right(state, part, 1 - choice if part.node.kind == "loop" else choice)

    patch.setattr(schedule, "choose", choose)
    patch.setattr(work, "choose", choose)


def a_branch_takes_the_first_case(patch: pytest.MonkeyPatch) -> None:
    right = schedule.choose

    def choose(state: RunState, part: Part, choice: int) -> None:
        right(state, part, 0 if part.node.kind == "branch" else choice)

    patch.setattr(schedule, "choose", choose)
    patch.setattr(work, "choose", choose)


def a_fan_gives_its_results_backwards(patch: pytest.MonkeyPatch) -> None:
    right = schedule._fan_in

    def fan_in(state: RunState, part: Part) -> None:
        if part.ended == part.total:
            part.results.reverse()
        right(state, part)

    patch.setattr(schedule, "_fan_in", fan_in)


def nothing_is_tried_again(patch: pytest.MonkeyPatch) -> None:
    async def again(*_: object) -> bool:
        return False

    patch.setattr(work.Work, "_again", again)


def context_changes_are_lost_in_a_snapshot(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(restore._Restorer, "_changes", lambda self, data, where: {})


def a_skipped_step_hands_nothing_on(patch: pytest.MonkeyPatch) -> None:
    right = schedule.advance

    def advance(state: RunState, entry: Entry) -> None:
        if isinstance(entry.outcome, Skipped):
            entry.outcome = Success(None)
        right(state, entry)

    patch.setattr(running, "advance", advance)


def replace(patch: pytest.MonkeyPatch, module: Any, name: str, new: Callable[..., Any]) -> None:
    """Put a function in the place of another, in every module of the engine that knows it."""
    old = getattr(module, name)
    for key, one in list(sys.modules.items()):
        if key.startswith("flujo.core.") and vars(one).get(name) is old:
            patch.setattr(one, name, new)


def no_limit_is_kept(patch: pytest.MonkeyPatch) -> None:
    """`limit=` is not looked at."""

    def open_more(state: Any, part: Any) -> None:
        while part.next < part.total:
            schedule._open(state, part, part.next)
            part.next += 1

    replace(patch, schedule, "_open_more", open_more)


def changes_of_a_failed_body_stay(patch: pytest.MonkeyPatch) -> None:
    """What a failed body wrote into the context stays."""
    close = schedule._close

    def keep(state: Any, part: Any, body: Any) -> None:
        part.changes[body.slot] = values.changes_of(body)
        close(state, part, body)

    replace(patch, schedule, "_close", keep)


def a_step_sees_the_context_of_the_start(patch: pytest.MonkeyPatch) -> None:
    """A step sees the context as its body began with it."""
    replace(patch, values, "context_at", lambda frame, node: frame.context)


def a_declared_edge_gives_what_a_skipped_step_was_given(patch: pytest.MonkeyPatch) -> None:
    """A declared edge hands on what a skipped step was given, as `>>` does."""
    read = values.read

    def handed_on(frame: Any, source: Any) -> Any:
        output = frame.outputs[source.place] if source.place >= 0 else None
        return values.part_of(output.value, source.path) if type(output) is frames.Passed else read(frame, source)

    replace(patch, values, "read", handed_on)


def changes_are_merged_by_arrival(patch: pytest.MonkeyPatch) -> None:
    """Changes are merged in the order in which bodies ended, not as declared."""
    finish = schedule._finish

    def by_arrival(state: Any, part: Any, output: Any) -> None:
        part.changes = dict(enumerate(part.changes.values()))
        finish(state, part, output)

    replace(patch, schedule, "_finish", by_arrival)


def a_step_starts_before_its_last_predecessor_ended(patch: pytest.MonkeyPatch) -> None:
    """A step that waits for several starts when the first of them ends."""
    end = schedule._end

    def eager(state: Any, frame: Any, node: Any, output: Any, changes: Any) -> None:
        for place in node.successors:
            if frame.waiting and frame.waiting[place] > 1:
                frame.waiting[place] = 1
        end(state, frame, node, output, changes)

    replace(patch, schedule, "_end", eager)


def types_do_not_come_back_from_a_snapshot(patch: pytest.MonkeyPatch) -> None:
    """A snapshot gives plain JSON for typed outputs."""
    load = codec.load

    def untyped(hint: Any, data: Any, where: str) -> Any:
        return data if hint == tuple[int, int] else load(hint, data, where)

    patch.setattr(restore, "load", untyped)


def a_resumed_run_asks_again_what_is_open(patch: pytest.MonkeyPatch) -> None:
    """A resumed run runs paused steps again that nobody decided."""
    find_due = schedule.find_due

    def forgetful(state: Any) -> None:
        kept, state.pauses = state.pauses, {}
        find_due(state)
        state.pauses = kept

    replace(patch, schedule, "find_due", forgetful)


def a_cancel_is_not_heard(patch: pytest.MonkeyPatch) -> None:
    """The end of a run cancels none of its steps."""

    def stop(self: Any, error: Any, keep: Any = None) -> None:
        self.verdict = self.verdict or error

    def cancel(self: Any, reason: str, by: str = "cancel()") -> None:
        self.stop(running.RunAborted(reason, by))

    patch.setattr(running.Running, "stop", stop)
    patch.setattr(running.Running, "cancel", cancel)


def run_input_is_always_that_of_the_run(patch: pytest.MonkeyPatch) -> None:
    """`run_input()` in a sub-pipeline is the input of the run."""
    read = values.read

    def outermost(frame: Any, source: Any) -> Any:
        if source.place != plan.RUN_INPUT:
            return read(frame, source)
        while frame.parent is not None:
            frame = frame.parent
        return values.part_of(frame.run_input, source.path)

    replace(patch, values, "read", outermost)


def a_step_begins_after_its_run_was_cancelled_from_outside(patch: pytest.MonkeyPatch) -> None:
    """Where the run has not been woken for the cancel, its workers know nothing of it."""
    patch.setattr(relay.Relay, "_is_cancelled", property(lambda self: self._stopped is not None))


MUTANTS: Iterable[Callable[[pytest.MonkeyPatch], None]] = (
    the_context_of_an_iteration_is_lost,
    changes_are_merged_backwards,
    a_closed_body_still_counts,
    nothing_catches_a_failure,
    a_loop_ends_when_it_should_go_on,
    a_branch_takes_the_first_case,
    a_fan_gives_its_results_backwards,
    nothing_is_tried_again,
    context_changes_are_lost_in_a_snapshot,
    a_skipped_step_hands_nothing_on,
    no_limit_is_kept,
    changes_of_a_failed_body_stay,
    a_step_sees_the_context_of_the_start,
    a_declared_edge_gives_what_a_skipped_step_was_given,
    changes_are_merged_by_arrival,
    a_step_starts_before_its_last_predecessor_ended,
    types_do_not_come_back_from_a_snapshot,
    a_resumed_run_asks_again_what_is_open,
    a_cancel_is_not_heard,
    run_input_is_always_that_of_the_run,
    a_step_begins_after_its_run_was_cancelled_from_outside,
)


BUGS = {mutate.__name__: mutate for mutate in MUTANTS} | {one.name: one.install for one in FRAGMENTS}
SHOWN_BY = {one.name: one.shown_by for one in FRAGMENTS}
SHOWN_BY["a_step_begins_after_its_run_was_cancelled_from_outside"] = tuple(map(one_cancels, range(8)))

RARE = {
    "a body that was given up still counts": 107,
    "a cancel lets the running step go on": 174,
    "a decision whose process was gone cannot be given again": 226,
    "a loop is restored with the context it began with": 120,
    "a skipped step is restored as one that gave its input": 103,
    "that a step begins that may happen at most once is not noted": 52,
    "that a tool begins that may be used at most once is not noted": 17,
    "what a human says of a step that may happen at most once is not believed": 14,
    "what follows from an entry begins before that is kept": 72,
    "what is reserved is not looked at": 38,
    "what runs in a closed body is not cancelled": 107,
}
"""The first seeds that found what few pipelines show, so that not all those before are looked through each time."""


BY_DEFAULT = 10
"""How many are tried by the default run; the soak tries the others."""

NAMED = [pytest.param(name, marks=() if place < BY_DEFAULT else pytest.mark.soak) for place, name in enumerate(BUGS)]


@pytest.mark.parametrize("name", NAMED)
def test_a_bug_in_the_engine_is_found(name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        BUGS[name](patch)
        specs = chain(SHOWN_BY.get(name, ()), map(seeded, (RARE.get(name, 0), *range(SEEDS))))
        found = next((spec for spec in specs if fault("asyncio", spec)), None)
    assert found is not None, f"{SEEDS} pipelines show nothing of it"
    assert fault("asyncio", found) is None, f"the engine without the bug fails on {found} too"
