"""FILE[:NAME]: which pipeline is meant, and what is said when a file does not import."""

from __future__ import annotations

import sys

import pytest

from flujo_cli.problems import Problem
from flujo_cli.target import load_target

STEP = """from flujo.core import *
@step
async def one(x: str) -> str: return x
@step
async def two(x: str) -> str: return x
"""


@pytest.mark.parametrize(
    ("source", "chosen"),
    [
        ("only = Step(one, name='s'); del one, two", "only"),
        ("chain = one >> two; pipeline = two >> Step(one, name='b')", "pipeline"),
        ("chain = one >> two; app = Flujo(chain)", "app"),
        ("chain = one >> two; whole = Pipeline(chain)", "whole"),
        ("a = Pipeline(one); app = Flujo(a); pipeline = Pipeline(two)", "pipeline"),
        ("pipeline = one; again = one; del one, two", "pipeline"),
    ],
)
def test_the_name_may_be_left_out_where_it_is_clear(cli, source: str, chosen: str) -> None:
    cli.write("some_flow.py", STEP + source)
    assert load_target("some_flow.py").name == chosen


@pytest.mark.parametrize("source", ["", "a = Pipeline(one); b = Pipeline(two)", "a = Flujo(one); b = Flujo(two)"])
def test_where_it_is_not_clear_all_candidates_are_named(cli, source: str) -> None:
    cli.write("some_flow.py", STEP + source)
    with pytest.raises(Problem) as caught:
        load_target("some_flow.py")
    assert "one, two" in caught.value.why
    assert "some_flow.py:one" in caught.value.do


def test_a_file_without_a_pipeline_says_what_to_define(cli) -> None:
    cli.write("empty_flow.py", "x = 1\n")
    said = cli("validate", "empty_flow.py")
    assert said.code == 2
    assert "no pipeline" in said.err


def test_a_wrong_name_is_answered_with_the_nearest(cli) -> None:
    said = cli("validate", "flows.py:pipelin")
    assert said.code == 2
    assert "flows.py:pipeline?" in said.err


def test_a_name_that_is_something_else_says_what_it_is(cli) -> None:
    said = cli("validate", "flows.py:send")
    assert said.code == 2
    assert "function" in said.err
    assert "Step(send)" in said.err


def test_a_module_and_a_file_in_a_package_are_found(cli) -> None:
    cli.write("shop/__init__.py", "")
    cli.write("shop/words.py", "NAME = 'inner'\n")
    cli.write("shop/flow.py", STEP + "from .words import NAME\npipeline = Step(one, name=NAME)\n")
    assert load_target("shop.flow").found.name == "inner"
    assert load_target("shop/flow.py:pipeline").found.name == "inner"


def test_a_file_may_be_called_like_a_module_of_python(cli) -> None:
    cli.write("json.py", STEP + "pipeline = one\n")
    before = sys.modules["json"]
    assert load_target("json.py").found.name == "one"
    assert sys.modules["json"] is before


@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        ("x = 1\ny = (\n", 2, "SyntaxError"),
        ("\n\nraise RuntimeError('password=hunter22')", 3, "RuntimeError: password=[SECRET]"),
        ("import sys\nsys.exit('bye')", 2, "SystemExit: bye"),
        ("import nowhere_to_be_found", 1, "nowhere_to_be_found"),
        (STEP + "Pipeline(3)", 6, "neither a step nor a chain"),
        ("from flujo.core import Step\nStep(1)", 2, "cannot be a step"),
    ],
)
def test_a_file_that_does_not_import_says_where_and_what(cli, source: str, line: int, words: str) -> None:
    cli.write("broken_flow.py", source)
    said = cli("run", "broken_flow.py", "--text", "x")
    assert said.code == 2
    assert f"broken_flow.py:{line}: " in said.err
    assert words in said.err
    assert "hunter22" not in said.err
    assert "broken_flow" not in sys.modules


def test_debug_shows_the_traceback(cli) -> None:
    cli.write("broken_flow.py", "raise RuntimeError('password=hunter22')")
    said = cli("run", "broken_flow.py", "--text", "x", "--debug")
    assert said.code == 2
    assert "Traceback" in said.err
    assert "hunter22" not in said.err.replace("raise RuntimeError('password=hunter22')", "")


def test_what_a_file_prints_when_imported_does_not_mix_with_results(cli) -> None:
    cli.write("chatty_flow.py", "print('loading')\n" + STEP + "pipeline = one\n")
    said = cli("run", "chatty_flow.py", "--text", "result", "-q")
    assert (said.out, said.err) == ("result\n", "loading\n")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("flow.py", "'flows.py'"),
        ("nothing/like/it.py", "does not exist"),
        (".", "is a folder"),
        ("notes.txt", "no Python file"),
        ("no.such.module", "there is no 'no'"),
        ("flows.py:", "nothing follows the colon"),
    ],
)
def test_a_file_that_is_not_there_says_what_to_do(cli, spec: str, words: str) -> None:
    cli.write("notes.txt", "text")
    said = cli("validate", spec)
    assert said.code == 2
    assert words in said.err
    assert "\nDo: " in said.err
