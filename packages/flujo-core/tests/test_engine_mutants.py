"""The fuzz finds bugs: each of these, put into the real engine, is seen within the pipelines of the default run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from fuzz_check import check_on
from fuzz_make import seeded

from flujo.core import Success, frames, restore, schedule, values, work
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
    right = schedule._choose

    def choose(state: RunState, part: Part, choice: int) -> None:
        right(state, part, 1 - choice if part.node.kind == "loop" else choice)

    patch.setattr(schedule, "_choose", choose)


def a_branch_takes_the_first_case(patch: pytest.MonkeyPatch) -> None:
    right = schedule._choose

    def choose(state: RunState, part: Part, choice: int) -> None:
        right(state, part, 0 if part.node.kind == "branch" else choice)

    patch.setattr(schedule, "_choose", choose)


def a_fan_gives_its_results_backwards(patch: pytest.MonkeyPatch) -> None:
    right = schedule._fan_in

    def fan_in(state: RunState, part: Part) -> None:
        if part.ended == part.total:
            part.results.reverse()
        right(state, part)

    patch.setattr(schedule, "_fan_in", fan_in)


def a_renewed_frame_remembers_contexts(patch: pytest.MonkeyPatch) -> None:
    right = frames.Frame.renew

    def renew(self: Frame, id: int, part: Part, value: object) -> None:
        seen = dict(self.seen)
        right(self, id, part, value)
        self.seen.update(seen)

    patch.setattr(frames.Frame, "renew", renew)


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

    patch.setattr(work, "advance", advance)


MUTANTS: Iterable[Callable[[pytest.MonkeyPatch], None]] = (
    the_context_of_an_iteration_is_lost,
    changes_are_merged_backwards,
    a_closed_body_still_counts,
    nothing_catches_a_failure,
    a_loop_ends_when_it_should_go_on,
    a_branch_takes_the_first_case,
    a_fan_gives_its_results_backwards,
    a_renewed_frame_remembers_contexts,
    nothing_is_tried_again,
    context_changes_are_lost_in_a_snapshot,
    a_skipped_step_hands_nothing_on,
)


@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda mutate: mutate.__name__)
def test_a_bug_in_the_engine_is_found(mutate: Callable[[pytest.MonkeyPatch], Any], monkeypatch) -> None:
    mutate(monkeypatch)
    for seed in range(SEEDS):
        try:
            check_on("asyncio", seeded(seed))
        except Exception:  # a difference, or the engine itself falls over its bug: either is seen
            return
    pytest.fail(f"{SEEDS} pipelines show nothing of it")


def test_the_engine_as_it_is_passes_the_first_of_them() -> None:
    for seed in range(200):
        check_on("asyncio", seeded(seed))
