"""The reference of the fuzz tests, held to examples that were worked out by hand; and what its pipelines are like."""

from __future__ import annotations

import statistics
from collections import Counter

import pytest
from fuzz_make import seeded
from fuzz_reference import Bad, Good, Open, Reference, Visit
from fuzz_specs import (
    COMBINATORS,
    NEVER,
    Choice,
    Each,
    Either,
    Fan,
    Graph,
    Node,
    Repeat,
    Row,
    Source,
    Spec,
    Wired,
    Work,
    depth,
    walk,
    works,
)
from fuzz_values import change, mix, worth

A, B, C = (Work(name) for name in "abc")
FAILS = Work("bad", fails=NEVER)
BOOM = frozenset({("Boom", "bad")})


def value(name: str, *inputs: object, held: object = ()) -> object:
    return worth(name, "int", 0, inputs, held)


def ended(root: Node, **how: object) -> tuple[object, Reference]:
    reference = Reference(**how)  # type: ignore[arg-type]
    return reference.run(Spec(root, 7)), reference


def given_by(root: Node) -> object:
    end, _ = ended(root)
    assert isinstance(end, Good)
    return end.flow


def status(reference: Reference) -> dict[str, str]:
    return {path: visit.status for path, visit in reference.visits.items()}


def test_a_row_hands_on_and_each_step_waits_for_the_one_before() -> None:
    end, reference = ended(Row((A, B)))
    assert end == Good(value("b", value("a", 7)), value("b", value("a", 7)), (), frozenset({"b"}))
    assert reference.visits == {"a": Visit("completed", 1, frozenset()), "b": Visit("completed", 1, frozenset({"a"}))}


def test_a_graph_gives_its_ends_by_name_and_each_node_its_sources() -> None:
    second = Wired(B, (Source("node", 0), Source("run")))
    graph = Graph("p", (Wired(A, ()), second, Wired(C, (Source("after", 0),))))
    end, reference = ended(graph)
    a = value("a", 7)
    assert isinstance(end, Good)
    assert end.value == {"b": value("b", a, 7), "c": value("c", a)}
    assert reference.visits["b"].after == reference.visits["c"].after == frozenset({"a"})
    assert ended(Row((Work("before"), graph)))[1].visits["p/a"].after == frozenset({"before"})


def test_an_explicit_output_is_a_declared_edge() -> None:
    skipped = Work("a", skips_on=1)
    assert given_by(Graph("p", (Wired(skipped, ()),))) == 7
    assert given_by(Graph("p", (Wired(skipped, ()),), output=0)) is None


def test_a_skipped_step_hands_its_input_on_and_gives_none_to_a_declared_edge() -> None:
    skipped = Work("a", skips_on=1)
    assert given_by(Row((skipped, B))) == value("b", 7)
    assert given_by(Graph("p", (Wired(skipped, ()), Wired(B, (Source("node", 0),))))) == value("b", None)
    assert ended(skipped)[1].visits == {"a": Visit("skipped", 0, frozenset())}


def test_a_branch_runs_the_case_of_its_label_or_fails() -> None:
    label = mix("on", 7) % 2
    one, other = Choice("ch", ((label, A),), modulo=2), Choice("ch", ((f"c{1 - label}", A),), B, modulo=2)
    assert given_by(one) == value("a", 7)
    assert list(ended(one)[1].visits) == [f"ch[{label}]/a"]
    assert list(ended(other)[1].visits) == ["ch[otherwise]/b"]
    none = ended(Choice("ch", ((1 - label, A),), modulo=2))
    assert none[0] == Bad(frozenset({("NoCase", "ch")}))


def test_a_loop_feeds_its_output_back_until_it_is_told_to_stop() -> None:
    a1, a2 = value("a", 7), value("a", value("a", 7))
    assert given_by(Repeat("l", A, most=2)) == a2
    assert given_by(Repeat("l", A, until=1, most=9)) == a1
    endless = next(n for n in range(2, 99) if mix("until", a1) % n and mix("until", a2) % n)
    end, reference = ended(Repeat("l", A, until=endless, most=2, returns=False))
    assert end == Bad(frozenset({("LoopLimit", "l")}))
    assert list(reference.visits) == ["l#1/a", "l#2/a"]


def test_a_parallel_gives_a_dict_and_joins_changes_in_declared_order() -> None:
    left, right = Work("a", writes="log", delay=9), Row((B, Work("c", writes="log")))
    end, reference = ended(Row((Fan("f", (left, right)), Work("d", reads=True))))
    a, c = value("a", 7), value("c", value("b", 7))
    assert isinstance(end, Good)
    log = (*change("log", a), *change("log", c))  # type: ignore[misc]
    assert end.value == value("d", {"a": a, "c": c}, held=(log, 0, 0))
    assert list(reference.visits) == ["f/a", "f/c/b", "f/c/c", "d"]
    assert reference.visits["d"].after == frozenset({"f/a", "f/c/c"})


def test_bodies_start_from_the_context_at_the_fan_out() -> None:
    before, reader = Work("w", writes="total"), Work("r", reads=True)
    end = given_by(Row((before, Fan("f", (Work("a", writes="total"), reader)))))
    total = change("total", value("w", 7))
    assert end["r"] == value("r", value("w", 7), held=((), total, 0))  # type: ignore[index]


def test_a_failure_leaves_open_what_its_siblings_did() -> None:
    end, reference = ended(Fan("f", (Row((A, FAILS)), B)))
    assert end == Bad(frozenset({("Boom", "f/bad/bad")}))
    assert {path: visit.sure for path, visit in reference.visits.items()} == {
        "f/bad/a": True,
        "f/bad/bad": True,
        "f/b": False,
    }
    two, reference = ended(Fan("f", (FAILS, Work("worse", fails=NEVER))))
    assert two == Bad(frozenset({("Boom", "f/bad"), ("Boom", "f/worse")}))
    assert not any(visit.sure for visit in reference.visits.values())


def test_in_a_graph_only_what_a_failed_node_depends_on_is_sure() -> None:
    graph = Graph("p", (Wired(A), Wired(FAILS, (Source("node", 0),)), Wired(B), Wired(C, (Source("node", 1),))))
    end, reference = ended(graph)
    assert end == Bad(BOOM)
    assert {path: visit.sure for path, visit in reference.visits.items()} == {"a": True, "bad": True, "b": False}


def test_collected_errors_stand_in_the_value_and_drop_their_changes() -> None:
    bodies = (Row((Work("a", writes="total"), FAILS)), Work("b", writes="total"))
    end, reference = ended(Fan("f", bodies, collect=True))
    assert isinstance(end, Good)
    assert end.value == {"bad": "error", "b": value("b", 7)}
    assert end.deltas == (("total", change("total", value("b", 7))),)
    assert all(visit.sure for visit in reference.visits.values())


def test_a_failure_closes_its_branch_its_option_or_the_whole_run() -> None:
    collected = ended(Fan("f", (Row((A, FAILS)), B), collect=True))[1]
    assert collected.closed == [(Bad(frozenset({("Boom", "f/bad/bad")})), frozenset({"f/bad/a", "f/bad/bad"}))]
    tried = ended(Either("e", (FAILS, B)))[1]
    assert tried.closed == [(Bad(frozenset({("Boom", "e/bad")})), frozenset({"e/bad"}))]
    assert ended(Row((A, FAILS, B)))[1].closed == [(Bad(BOOM), frozenset({"a", "bad"}))]


def test_a_map_gives_its_results_in_order() -> None:
    three = Work("l", ends="list", size=3)
    items = worth("l", "list", 3, (7,), ())
    assert given_by(Row((three, Each("m", A)))) == [value("a", item) for item in items]  # type: ignore[attr-defined]
    assert given_by(Row((Work("l", ends="list"), Each("m", A)))) == []
    assert list(ended(Row((three, Each("m", A))))[1].visits) == ["l", "m[0]/a", "m[1]/a", "m[2]/a"]


def test_a_fallback_gives_the_next_the_same_input_and_forgets_the_changes_of_the_failed() -> None:
    end, reference = ended(Either("e", (Row((Work("a", writes="total"), FAILS)), Work("b", reads=True), C)))
    assert isinstance(end, Good)
    assert end == Good(value("b", 7, held=((), 0, 0)), value("b", 7, held=((), 0, 0)), (), frozenset({"e/b"}))
    assert list(reference.visits) == ["e/bad/a", "e/bad/bad", "e/b"]


def test_retries_count_and_only_the_last_failure_stays() -> None:
    assert ended(Work("a", fails=2, attempts=3))[1].visits["a"] == Visit("completed", 3, frozenset())
    assert ended(Work("a", rejects=2, attempts=2))[0] == Bad(frozenset({("ValidationFailed", "a")}))
    assert ended(Work("a", fails=NEVER, attempts=2))[1].visits["a"] == Visit("failed", 2, frozenset())


def test_a_step_that_hangs_is_ended_and_tried_again() -> None:
    assert ended(Work("a", hangs=2, attempts=3))[1].visits["a"] == Visit("completed", 3, frozenset())
    end, reference = ended(Work("a", hangs=NEVER, attempts=2))
    assert end == Bad(frozenset({("StepTimeout", "a")}))
    assert reference.visits["a"] == Visit("failed", 2, frozenset())


def test_a_step_that_keeps_its_output_finds_it_for_equal_inputs() -> None:
    same = Row((Work("l", ends="list", size=2), Each("m", Row((Work("s"), Work("a", cached=True))))))
    root = Row((Repeat("o", Graph("p", (Wired(Work("a", cached=True), (Source("run"),)),)), most=1), same))
    assert not any(visit.hit for visit in ended(root)[1].visits.values())
    assert ended(Work("a", cached=True), known=None)[1].visits["a"].hit == "perhaps"
    first = ended(Work("a", cached=True))[1]
    assert ended(Work("a", cached=True), known=first.kept)[1].visits["a"].hit == "yes"
    skipped = Graph("p", (Wired(Work("s", skips_on=1)), Wired(Work("a", cached=True), (Source("node", 0),))))
    assert ended(Repeat("o", skipped, most=2))[1].visits["o#2/a"].hit == "yes"
    numbers = Work("l", ends="list", size=2)
    both = ended(Row((numbers, Each("m", skipped))))[1].visits
    assert (both["m[0]/a"].hit, both["m[1]/a"].hit) == ("perhaps", "perhaps")


def test_when_may_look_at_the_context() -> None:
    total = change("total", value("w", 7))
    odd = next(n for n in range(2, 99) if mix("when", value("w", 7), (), total, 0) % n == 0)
    asked = Row((Work("w", writes="total"), Work("a", skips_on=odd, sees=True)))
    assert status(ended(asked)[1]) == {"w": "completed", "a": "skipped"}


def test_run_input_is_that_of_the_pipeline_around() -> None:
    raw = Work("r", raw=True)
    assert given_by(Row((A, raw))) == value("r", value("a", 7), 7)
    assert given_by(Row((A, Repeat("l", Row((B, raw)), most=1)))) == value("r", value("b", value("a", 7)), 7)
    a = value("a", 7)
    assert given_by(Row((A, Graph("p", (Wired(raw),))))) == value("r", a, a)


def test_pauses_stay_open_until_they_are_decided_and_other_work_goes_on() -> None:
    asks = Work("q", pause="ask")
    root = Row((Fan("f", (Row((asks, A)), B, Row((Work("r", pause="raise"), C)))), Work("z")))
    end, reference = ended(root, decided=())
    assert end == Open(frozenset({"f/a/q", "f/c/r"}))
    assert status(reference) == {"f/a/q": "paused", "f/b": "completed", "f/c/r": "paused"}
    end, reference = ended(root, decided={"f/a/q"})
    assert end == Open(frozenset({"f/c/r"}))
    assert "f/a/a" in reference.visits
    assert ended(root, decided={"f/a/q", "f/c/r"})[0] == ended(root)[0]


def test_a_paused_body_holds_its_place_under_the_limit() -> None:
    bodies = (Work("q", pause="ask"), A, Work("r", pause="ask"), B, C)
    end, reference = ended(Fan("f", bodies, limit=2), decided=())
    assert end == Open(frozenset({"f/q", "f/r"}))
    assert list(reference.visits) == ["f/q", "f/a", "f/r"]


def test_a_failure_outweighs_a_pause() -> None:
    end, reference = ended(Fan("f", (Work("q", pause="ask"), FAILS)), decided=())
    assert end == Bad(frozenset({("Boom", "f/bad")}))
    assert not reference.visits["f/q"].sure


# --- what is generated ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [500, pytest.param(2000, marks=pytest.mark.soak)])
def test_the_pipelines_are_long_nested_and_troubled(count: int) -> None:
    pipelines = [seeded(seed) for seed in range(count)]
    assert len(set(map(repr, pipelines))) == count
    assert statistics.median(len(works(spec.root)) for spec in pipelines) >= 12
    shares = Counter(trait for spec in pipelines for trait in traits_of(spec))
    assert shares["nested three deep"] >= count * 0.3
    assert shares["troubled"] >= count * 0.5
    assert all(shares[kind.__name__] >= count * 0.1 for kind in COMBINATORS), shares
    assert all(shares[trait] >= count * 0.05 for trait in PECULIAR), shares


PECULIAR = (
    "cached", "cancels", "cost", "fails", "flaky", "hangs", "inline", "once", "pause", "reads", "rejects", "sees",
    "skips_on", "threaded", "timely", "tool", "writes",
)  # fmt: skip
"""What steps of the pipelines are like, some in each twentieth pipeline at least."""


def traits_of(spec: Spec) -> set[str]:
    """What a pipeline is made of, and what happens in it."""
    found = {type(node).__name__ for node in walk(spec.root)}
    found |= {trait for work in works(spec.root) for trait in PECULIAR if getattr(work, trait)}
    found |= {"limits"} if spec.limits else set()
    found |= {"troubled"} if troubled(spec) else set()
    return found | ({"nested three deep"} if depth(spec.root) >= 3 else set())


def troubled(spec: Spec) -> bool:
    """Whether a pause, a failure or a cancel happens in its run."""
    reference = Reference(decided=(), healed=False)
    reference.run(spec)
    cancels = {work.name for work in works(spec.root) if work.cancels}
    trouble = ("paused", "failed")
    return any(v.status in trouble or path.split("/")[-1] in cancels for path, v in reference.visits.items())


def test_a_description_can_be_pasted() -> None:
    for seed in range(50):
        spec = seeded(seed)
        assert eval(repr(spec)) == spec
