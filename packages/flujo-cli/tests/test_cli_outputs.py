"""Results as text, JSON and files."""

from __future__ import annotations

import json
import math
from datetime import date
from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr

from flujo_cli.outputs import OutputFolder, as_text, json_of
from flujo_cli.problems import Problem


class Report(BaseModel):
    """An output with parts."""

    day: date
    key: SecretStr
    share: float = math.nan


class Odd:
    """Knows nothing of JSON, and shows a secret."""

    def __repr__(self) -> str:
        return "Odd(password=hunter22)"


def test_a_text_stays_as_it_is_and_a_model_becomes_json_without_its_secrets() -> None:
    assert as_text("two\nlines") == "two\nlines"
    text = as_text(Report(day=date(2024, 1, 2), key=SecretStr("hunter22")))
    assert json.loads(text) == {"day": "2024-01-02", "key": "**********", "share": None}
    assert json.loads(json_of([math.nan, math.inf])) == ["NaN", "Infinity"]
    assert json.loads(json_of([Odd()])) == ["Odd(password=[SECRET]"]


def test_what_holds_itself_is_refused_in_words() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        json_of(loop)


def test_files_are_named_after_items_and_no_two_share_one(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "a", ["one.txt", "two.md"], None)
    assert folder.write("one.txt", "text").name == "one.txt"
    assert folder.write("two.md", {"a": 1}).name == "two.json"
    names = ["one.txt", "one.md", "_summary.txt"]
    folder = OutputFolder(tmp_path / "b", names, None)
    written = {folder.write(name, [name]) for name in names} | {folder.write_summary("{}")}
    assert len(written) == 4


def test_a_failed_write_leaves_the_older_file_as_it_was(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path, ["one.txt"], None)
    folder.write("one.txt", {"a": 1})
    loop: dict[str, object] = {}
    loop["a"] = loop
    with pytest.raises(ValueError, match="JSON"):
        folder.write("one.txt", loop)
    assert json.loads((tmp_path / "one.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["one.json"]


def test_a_lone_surrogate_is_written_visibly(tmp_path: Path) -> None:
    path = OutputFolder(tmp_path, ["one"], None).write("one", "a\udc80b")
    assert path.read_text(encoding="utf-8") == "a\\udc80b\n"


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Problem) as caught:
        OutputFolder(tmp_path / "file", [], None)
    assert "--out" in caught.value.what
