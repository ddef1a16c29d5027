"""What the runs are given is read and checked in full before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from flujo.core import Plan, Step, compile_plan
from flujo_cli.inputs import Item, read_items
from flujo_cli.problems import Problem


class Case(BaseModel, frozen=True):
    """An input with parts."""

    id: int
    tags: tuple[str, ...] = ()


def plan_of(hint: object) -> Plan:
    """A plan whose input has this type."""

    async def work(value: Any) -> str:
        return str(value)

    work.__annotations__["value"] = hint
    return compile_plan(Step(work))


TEXT = plan_of(str)


def items(value: object = None, *, plan: Plan = TEXT, text: str | None = None, max_mb: float = 1) -> list[Item]:
    return read_items(None if value is None else str(value), text, max_mb, plan)


def refused(*arguments: object, **options: Any) -> str:
    with pytest.raises(Problem) as caught:
        items(*arguments, **options)
    problem = caught.value
    assert problem.do, "a refusal must say what to do next"
    return f"{problem.what}\n{problem.why}\n{problem.do}"


def test_a_file_is_read_a_text_is_taken_and_text_wins_over_a_path(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("inside\n", encoding="utf-8")
    assert items(path) == [Item("note.txt", "inside\n")]
    assert items("some words") == [Item("text", "some words")]
    assert items(text=str(path)) == [Item("text", str(path))]
    assert items("x" * 5000) == [Item("text", "x" * 5000)]


def test_a_text_that_looks_like_a_path_is_taken_with_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    assert items("notes/one.txt") == [Item("text", "notes/one.txt")]
    assert "'notes/one.txt'" in capsys.readouterr().err
    items("a text with a / in it")
    assert capsys.readouterr().err == ""


def test_a_folder_gives_its_files_sorted_without_hidden_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("b.txt", "a.md", ".hidden"):
        (tmp_path / name).write_text(name)
    (tmp_path / "inner").mkdir()
    assert [item.name for item in items(tmp_path)] == ["a.md", "b.txt"]
    assert "1 folder(s)" in capsys.readouterr().err


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_bytes(b"\xef\xbb\xbftext")
    assert items(tmp_path / "note.txt")[0].value == "text"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b" \n\t\n", "empty"),
        (b"text\0more", "binary"),
        (b"line\nna\xefve", "byte 7, line 2"),
        (b"\xff\xfet\0e\0", "UTF-16"),
        (b"x" * (1024 * 1024 + 1), "larger than 1 MB"),
    ],
)
@pytest.mark.parametrize("name", ["note.txt", "notes.jsonl"])
def test_a_file_that_cannot_be_used_is_named_with_the_reason(
    tmp_path: Path, data: bytes, words: str, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    said = refused(path)
    assert words in said
    assert name in said


def test_fifty_megabytes_are_refused_without_reading_them_all(tmp_path: Path) -> None:
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.truncate(50 * 1024 * 1024 * 1024)  # sparse: reading all of it would not fit into memory
    said = refused(path, max_mb=10)
    assert "larger than 10 MB" in said
    assert "--max-input-mb" in said


def test_every_bad_file_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.bin").write_bytes(b"\0")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    said = refused(tmp_path)
    assert "3 bad files" in said
    for name in ("empty.txt", "binary.bin", "gone.txt"):
        assert name in said
    assert "good.txt" not in said


def test_an_empty_folder_and_an_empty_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("x")
    assert "is empty" in refused(tmp_path)
    assert "--text" in refused(text="  ")


def test_jsonl_is_one_item_per_line_of_the_input_type(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text('{"id": 1, "tags": ["a"]}\n\n{"id": 2}\n')
    found = items(path, plan=plan_of(Case))
    assert found == [Item("cases-0001", Case(id=1, tags=("a",))), Item("cases-0003", Case(id=2))]


def test_every_bad_line_of_jsonl_is_named_by_its_number_without_its_value(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text('{"id": 1}\n{"id": "secret-name"}\nnot json\n' + "[]\n" * 20)
    said = refused(path, plan=plan_of(Case))
    assert "22 bad lines" in said
    assert "line 2: id: " in said
    assert "line 3: " in said
    assert "and 12 more" in said
    assert "secret-name" not in said


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (str, "5", "5"),
        (Any, "5", "5"),
        (int, "5", 5),
        (Case, '{"id": 3}', Case(id=3)),
        (list[int], "[1, 2]", [1, 2]),
        (str | None, "null", "null"),
        (Literal["a", "b"], "a", "a"),
        (dict[str, Any], '{"a": null}', {"a": None}),
    ],
)
def test_text_is_taken_as_it_is_where_the_pipeline_takes_text_else_as_json(
    hint: object, text: str, value: object
) -> None:
    assert items(text=text, plan=plan_of(hint)) == [Item("text", value)]


def test_what_does_not_fit_the_input_type_says_what_does() -> None:
    assert "list[int] as JSON" in refused(text="[1, 'x']", plan=plan_of(list[int]))
    short = Field(min_length=3)
    from typing import Annotated

    assert "at least 3" in refused(text="ab", plan=plan_of(Annotated[str, short]))


def test_an_input_may_be_left_out_only_where_no_step_needs_one() -> None:
    async def alone() -> str:
        return "done"

    assert items(plan=compile_plan(Step(alone))) == [Item("text", None)]
    assert items(plan=plan_of(str | None)) == [Item("text", None)]
    assert "it takes str" in refused()
    assert "--input" in refused(plan=plan_of(Any))


def test_stdin_is_read_and_checked_like_a_file(cli) -> None:
    said = cli.process("run", "flows.py:check", "--input", "-", "-q", given="grüße".encode())
    assert (said.code, said.out) == (0, "grüße\n")
    said = cli.process("run", "flows.py:check", "--input", "-", given=b"a\0b")
    assert said.code == 2
    assert "'stdin'" in said.err


def test_a_pipe_given_as_a_path_is_read(cli) -> None:
    import os
    import threading

    fifo = cli.folder / "pipe"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_text, args=("through the pipe",))
    writer.start()
    assert items(fifo) == [Item("pipe", "through the pipe")]
    writer.join()


@pytest.mark.parametrize("value", ["empty.txt", "binary.bin", "latin.txt", "folder", "lines.jsonl"])
def test_bad_input_is_one_message_and_nothing_runs_or_is_written(cli, value: str) -> None:
    cli.write("empty.txt", "")
    cli.write("binary.bin", b"\0\1\2")
    cli.write("latin.txt", b"na\xefve")
    cli.write("folder/good.txt", "good")
    cli.write("folder/bad.txt", b"\0")
    cli.write("lines.jsonl", '"good"\n{}\n')
    said = cli("run", "flows.py:check", "--input", value, "--out", "out", "--json")
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith("flujo: ")
    assert "\nDo: " in said.err
    assert not (cli.folder / "out").exists()
