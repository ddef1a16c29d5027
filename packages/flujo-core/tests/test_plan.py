"""Plans: the fingerprint is the same in every process and changes with what a run depends on, never with its text."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, Field

from flujo.core import Pipeline, Plan, Step, compile_plan, run_input

MODULE = '''
"""A pipeline with everything that has no order of its own."""
from typing import Annotated, Literal
from pydantic import AfterValidator, BaseModel, Field
from flujo.core import Pipeline, Step, compile_plan

class Opaque: ...

class Tone(BaseModel):
    """{docstring}"""
    labels: frozenset[str] = frozenset({{"alpha", "beta", "gamma", "delta"}})
    kind: Literal["x", "y", "z"] = "x"
    title: str = Field("t", description="{docstring}")

class Context(BaseModel, frozen=True, arbitrary_types_allowed=True):
    seen: frozenset[str] = frozenset({{"one", "two", "three"}})
    opaque: Opaque = Opaque()

async def make(text: str) -> Tone:
    {body}
    return Tone()

async def use(tone: Tone, odd: Annotated[Opaque, AfterValidator(lambda x: x)] = Opaque()) -> set[str]:
    return set()

print(compile_plan(Step(make) >> Step(use), context_model=Context).fingerprint)
'''


def printed(tmp_path: Path, seed: str, docstring: str = "Words.", body: str = "pass") -> str:
    file = tmp_path / f"pipeline_{seed}.py"
    file.write_text(textwrap.dedent(MODULE).format(docstring=docstring, body=body))
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, str(file)], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""  # no warning about defaults that JSON cannot hold
    return done.stdout.strip()


def test_the_fingerprint_is_the_same_in_every_process_and_whatever_the_text_says(tmp_path: Path) -> None:
    first = printed(tmp_path, "1")
    assert len(first) == 64
    assert printed(tmp_path, "2") == first
    assert printed(tmp_path, "3", docstring="Other words.", body="value = 1 + 1") == first


class Tone(BaseModel):
    label: str


class Loud(Tone):
    score: float


class Notes(BaseModel, frozen=True):
    note: str = ""


class OtherNotes(BaseModel, frozen=True):
    note: int = 0


async def make(text: str) -> Tone:
    return Tone(label=text)


async def make_loud(text: str) -> Loud:
    return Loud(label=text, score=1)


async def use(tone: Tone) -> str:
    return tone.label


def base(**options: Any) -> Plan:
    return compile_plan(Step(make) >> Step(use, **options))


def forked(source: str, **options: Any) -> Plan:
    return compile_plan(Pipeline(Step(make), Step(make, name="again"), Step(use, inputs={"tone": source}), **options))


CHANGES: dict[str, Callable[[], Plan]] = {
    "version": lambda: base(version=2),
    "effect": lambda: base(effect="pure"),
    "name": lambda: base(name="other"),
    "output type": lambda: compile_plan(Step(make_loud, name="make") >> Step(use)),
    "one more step": lambda: forked("make"),
    "edge": lambda: forked("again"),
    "given output": lambda: forked("again", output="again"),
    "part of the output": lambda: forked("again", output=run_input()["x"]),
    "part": lambda: compile_plan(Pipeline(Step(make), Step(use, inputs={"tone": run_input()["tone"]}))),
    "context": lambda: compile_plan(Step(make) >> Step(use), context_model=Notes),
    "context type": lambda: compile_plan(Step(make) >> Step(use), context_model=OtherNotes),
}


def test_the_fingerprint_changes_with_everything_a_run_depends_on() -> None:
    prints = {name: made().fingerprint for name, made in CHANGES.items()} | {"base": base().fingerprint}
    assert len(set(prints.values())) == len(prints), prints


def test_the_fingerprint_does_not_change_with_what_only_concerns_how_a_step_is_tried() -> None:
    assert base().fingerprint == base(timeout_s=3, validate=True).fingerprint
    assert base().fingerprint == compile_plan(Pipeline(Step(make) >> Step(use), name="renamed")).fingerprint


def test_constraints_and_field_names_like_title_count_and_texts_do_not() -> None:
    def of(hint: Any) -> str:
        async def take(value: Any) -> Any: ...

        take.__annotations__["value"] = hint
        return compile_plan(Step(take)).fingerprint

    class Titled(BaseModel):
        title: str

    class Described(BaseModel):
        description: str

    Described.__name__ = "Titled"
    assert of(Annotated[int, Field(gt=0)]) != of(Annotated[int, Field(gt=1)]) != of(int)
    assert of(Annotated[int, Field(description="a")]) == of(Annotated[int, Field(description="b")]) == of(int)
    assert of(Titled) != of(Described)
    assert of(Literal["title"]) != of(Literal["default"])


def test_types_that_json_cannot_hold_are_known_by_name() -> None:
    class Opaque: ...

    async def take(one: Opaque, other: Annotated[Opaque, AfterValidator(lambda x: x)]) -> list[Opaque]: ...

    sources = {"one": run_input()["a"], "other": run_input()["b"]}
    prints = {compile_plan(Step(take, inputs=sources)).fingerprint for _ in range(3)}
    assert len(prints) == 1

    class Other: ...

    take.__annotations__["return"] = list[Other]
    assert compile_plan(Step(take, inputs=sources)).fingerprint not in prints


def test_a_plan_is_frozen_and_its_nodes_name_each_other() -> None:
    plan = base()
    assert [(n.path, n.predecessors, n.successors) for n in plan.nodes] == [("make", (), (1,)), ("use", (0,), ())]
    with pytest.raises(AttributeError):
        plan.name = "other"  # type: ignore[misc]
