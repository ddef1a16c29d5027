"""What holds for the store in SQLite holds for that in PostgreSQL: the same tests, on a real server."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import test_hitl_race as races
from hitl_trials import child, store_at
from test_hitl_decisions import (  # noqa: F401
    test_a_cancel_is_asked_for_until_the_run_ended,
    test_a_decision_survives_the_process,
    test_a_decision_that_is_withdrawn_leaves_its_question_open,
    test_a_recorded_decision_is_applied_once_and_no_other_is,
    test_a_worker_goes_on_with_a_decision_that_was_only_recorded,
    test_all_decisions_of_a_run_are_listed,
    test_one_of_two_questions_is_answered_while_the_other_waits,
    test_pages_hold_each_run_once_and_can_be_filtered,
    test_the_first_decision_counts_and_the_same_again_gets_its_receipt,
    test_what_is_not_open_not_shown_or_expired_is_refused,
    test_what_was_ended_waits_for_nobody,
    test_who_has_a_role_sees_what_it_may_answer,
)
from test_hitl_holds import (  # noqa: F401
    holder,
    test_a_clock_set_back_or_forth_changes_nothing,
    test_a_lease_is_renewed_while_writes_go_on_and_while_none_does,
    test_a_process_that_hangs_loses_its_runs_when_its_lease_ended,
    test_a_run_of_a_killed_process_is_an_orphan_at_once,
    test_what_a_store_held_is_free_when_it_is_closed,
    test_who_was_taken_over_writes_no_more,
)
from test_hitl_kill import POINTS, test_a_run_that_was_killed_is_gone_on_with, test_the_matrix_is_whole  # noqa: F401
from test_hitl_retention import (  # noqa: F401
    test_a_tenant_is_deleted_but_for_what_runs,
    test_all_about_a_person_is_deleted_but_for_what_runs,
    test_what_ended_long_ago_is_purged,
)

from flujo.core.testing import assert_conforms
from flujo.hitl.store import KeepingStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the rules of core, which are tried too, run on trio as well


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory, postgres_server: Any) -> dict[str, dict[str, Any]]:
    lines = child("hitl_matrix.py", tmp_path_factory.mktemp("matrix"), postgres_server.get_uri()).splitlines()
    return {case["case"]: case for case in map(json.loads, lines)}


@pytest.fixture
def path(place: str) -> str:
    return place


@pytest.fixture
def open_store(place: str) -> Iterator[object]:
    opened: list[KeepingStore] = []

    def open_store(durability: str = "full", **options: object) -> KeepingStore:
        opened.append(store_at(place, **options))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


def test_it_conforms(place: str) -> None:
    number = count()
    assert "one_claim_wins" in assert_conforms(lambda: store_at(f"{place}_{next(number)}"))


def test_one_store_for_all_rules_and_loops_conforms(place: str) -> None:
    store = store_at(place)
    assert "one_claim_wins" in assert_conforms(store)
    store.close()


def test_each_of_200_questions_has_one_winner(place: str, tmp_path: Path, open_store: object) -> None:
    races.check(place, tmp_path / "effects", open_store, 4)  # type: ignore[arg-type]


@pytest.mark.soak
def test_each_of_200_questions_has_one_winner_of_eight(place: str, tmp_path: Path, open_store: object) -> None:
    races.check(place, tmp_path / "effects", open_store, 8)  # type: ignore[arg-type]
