"""Engines with one seeded fault each: random pipelines find every one, and nothing in the engine as it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from fuzz_check import check_on
from fuzz_make import seeded

from flujo.core import codec, frames, plan, restore, running, schedule, values, work

PIPELINES = 2000
"""Within so many a fault must be found."""

Patch = pytest.MonkeyPatch


def replace(patch: Patch, module: Any, name: str, new: Callable[..., Any]) -> None:
    """Put a function in the place of another, in every module of the engine that knows it."""
    old = getattr(module, name)
    for key, one in list(sys.modules.items()):
        if key.startswith("flujo.core.") and vars(one).get(name) is old:
            patch.setattr(one, name, new)


# --- the faults -------------------------------------------------------------------------------------------------------


def no_limit(patch: Patch) -> None:
    """`limit=` is not looked at."""

    def open_more(state: Any, part: Any) -> None:
        while part.next < part.total:
            schedule._open(state, part, part.next)
            part.next += 1

    replace(patch, schedule, "_open_more", open_more)


def results_in_another_order(patch: Patch) -> None:
    """A map gives its results backwards."""
    finish = schedule._finish

    def backwards(state: Any, part: Any, output: Any) -> None:
        finish(state, part, output[::-1] if part.node.kind == "map" else output)

    replace(patch, schedule, "_finish", backwards)


def nothing_catches(patch: Patch) -> None:
    """A failure goes past fallbacks and collecting fan-outs."""

    def fail(state: Any, frame: Any, node: Any, failure: Any) -> None:
        state.failure = state.failure or failure

    replace(patch, schedule, "_fail", fail)


def changes_of_the_failed(patch: Patch) -> None:
    """What a failed body wrote into the context stays."""
    close = schedule._close

    def keep(state: Any, part: Any, body: Any) -> None:
        part.changes[body.slot] = values.changes_of(body)
        close(state, part, body)

    replace(patch, schedule, "_close", keep)


def context_of_the_start(patch: Patch) -> None:
    """A step sees the context as its body began with it."""
    replace(patch, values, "context_at", lambda frame, node: frame.context)


def declared_edges_of_the_skipped(patch: Patch) -> None:
    """A declared edge hands on what a skipped step was given, as `>>` does."""
    read = values.read

    def handed_on(frame: Any, source: Any) -> Any:
        output = frame.outputs[source.place] if source.place >= 0 else None
        return values.part_of(output.value, source.path) if type(output) is frames.Passed else read(frame, source)

    replace(patch, values, "read", handed_on)


def one_iteration_less(patch: Patch) -> None:
    """A loop takes its first output for its last but one."""
    go_on = schedule._go_on

    def early(state: Any, part: Any, flow: Any) -> None:
        part.ended += 1
        go_on(state, part, flow)
        part.ended -= 1

    replace(patch, schedule, "_go_on", early)


def joins_by_arrival(patch: Patch) -> None:
    """Changes are merged in the order in which bodies ended, not as declared."""
    finish = schedule._finish

    def by_arrival(state: Any, part: Any, output: Any) -> None:
        part.changes = dict(enumerate(part.changes.values()))
        finish(state, part, output)

    replace(patch, schedule, "_finish", by_arrival)


def starts_before_its_last_predecessor(patch: Patch) -> None:
    """A step that waits for several starts when the first of them ends."""
    end = schedule._end

    def eager(state: Any, frame: Any, node: Any, output: Any, changes: Any) -> None:
        for place in node.successors:
            if frame.waiting[place] > 1:
                frame.waiting[place] = 1
        end(state, frame, node, output, changes)

    replace(patch, schedule, "_end", eager)


def types_that_do_not_come_back(patch: Patch) -> None:
    """A snapshot gives plain JSON for typed outputs."""
    load = codec.load

    def untyped(hint: Any, data: Any, where: str) -> Any:
        return data if where.startswith("output of") and isinstance(data, dict) else load(hint, data, where)

    patch.setattr(restore, "load", untyped)


def questions_asked_again(patch: Patch) -> None:
    """A resumed run runs paused steps again that nobody decided."""
    find_due = schedule.find_due

    def forgetful(state: Any) -> None:
        kept, state.pauses = state.pauses, {}
        find_due(state)
        state.pauses = kept

    replace(patch, schedule, "find_due", forgetful)


def cancel_is_not_heard(patch: Patch) -> None:
    """The end of a run cancels none of its steps."""

    def stop(self: Any, error: Any, keep: Any = None) -> None:
        self.verdict = self.verdict or error

    def cancel(self: Any, reason: str, by: str = "cancel()") -> None:
        self.stop(running.RunAborted(reason, by))

    patch.setattr(running.Running, "stop", stop)
    patch.setattr(running.Running, "cancel", cancel)


def retried_once_less(patch: Patch) -> None:
    """The last attempt that a RetryPolicy allows is not made."""
    again = work.Work._again

    async def too_few(self: Any, node: Any, outcome: Any, trial: Any) -> bool:
        retry = node.step.options.retry
        if retry is not None and trial.number + 1 >= retry.max_attempts:
            return False
        return await again(self, node, outcome, trial)

    patch.setattr(work.Work, "_again", too_few)


def run_input_of_the_whole(patch: Patch) -> None:
    """`run_input()` in a sub-pipeline is the input of the run."""
    read = values.read

    def outermost(frame: Any, source: Any) -> Any:
        if source.place != plan.RUN_INPUT:
            return read(frame, source)
        while frame.parent is not None:
            frame = frame.parent
        return values.part_of(frame.run_input, source.path)

    replace(patch, values, "read", outermost)


FAULTS = [
    no_limit,
    results_in_another_order,
    nothing_catches,
    changes_of_the_failed,
    context_of_the_start,
    declared_edges_of_the_skipped,
    one_iteration_less,
    joins_by_arrival,
    starts_before_its_last_predecessor,
    types_that_do_not_come_back,
    questions_asked_again,
    cancel_is_not_heard,
    retried_once_less,
    run_input_of_the_whole,
]


# --- finding them -----------------------------------------------------------------------------------------------------


def first_difference() -> int | None:
    """Seed of the first pipeline that the engine, as it is now, does not run like the reference."""
    for seed in range(PIPELINES):
        if differs(seed):
            return seed
    return None


def differs(seed: int) -> bool:
    try:
        check_on("asyncio", seeded(seed))
    except Exception:  # a broken engine may break in any way: an assertion, its own errors, a hang that times out
        return True
    return False


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.__name__ for fault in FAULTS])
def test_random_pipelines_find_a_seeded_fault(fault: Callable[[Patch], None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        seed = first_difference()
    assert seed is not None, f"{PIPELINES} pipelines do not notice: {fault.__doc__}"
    assert not differs(seed), f"the engine without the fault fails on the pipeline of seed {seed} too"
