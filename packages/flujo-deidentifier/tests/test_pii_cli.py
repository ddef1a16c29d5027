"""`flujo pii scan`: what it prints, what it never prints, and its exit codes."""

import json

import pytest
from click.testing import CliRunner

from flujo.deidentifier.cli import pii

NOTE = "Seen with Vargadottir on 3/14/2022.\nCall 937-555-0142.\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.txt").write_text(NOTE)
    (tmp_path / "b.txt").write_text("The wound is clean and dry.\n")
    (tmp_path / ".hidden").write_text(NOTE)
    return tmp_path


def scan(*args):
    return CliRunner().invoke(pii, ["scan", *map(str, args)])


def test_a_file_with_identifiers_is_counted_by_type_and_the_exit_code_is_1(folder):
    done = scan(folder / "a.txt")
    assert done.output == f"{folder / 'a.txt'}: PERSON 1, DATE 1, PHONE 1\n"
    assert done.exit_code == 1


def test_a_clean_file_gives_0(folder):
    done = scan(folder / "b.txt")
    assert (done.output, done.exit_code) == (f"{folder / 'b.txt'}: nothing found\n", 0)


def test_a_folder_is_searched_and_summed_up(folder):
    done = scan(folder)
    assert done.output.splitlines()[-1] == "2 files: PERSON 1, DATE 1, PHONE 1"
    assert done.exit_code == 1


def test_found_text_is_printed_only_when_asked_for(folder):
    assert "Vargadottir" not in scan(folder).output + scan("--json", folder).output
    assert "  1: PERSON 'Vargadottir'" in scan("--show", folder).output
    shown = json.loads(scan("--json", "--show", folder / "a.txt").output)
    assert shown["files"][0]["findings"][2] == {"line": 2, "entity": "PHONE", "text": "937-555-0142"}


def test_json_holds_counts_per_file_and_in_all(folder):
    out = json.loads(scan("--json", folder).output)
    assert out["counts"] == {"PERSON": 1, "DATE": 1, "PHONE": 1}
    assert [f["counts"] for f in out["files"]] == [{"PERSON": 1, "DATE": 1, "PHONE": 1}, {}]


def test_what_cannot_be_read_gives_2_and_does_not_stop_the_rest(folder):
    (folder / "c.bin").write_bytes(b"\xff\xfe\x00")
    done = scan(folder, folder / "missing.txt")
    assert done.exit_code == 2
    assert f"{folder / 'c.bin'}: it is not UTF-8 text" in done.output
    assert f"{folder / 'missing.txt'}: No such file or directory" in done.output
    assert "a.txt: PERSON 1" in done.output


def test_an_empty_folder_is_unusable(tmp_path):
    assert scan(tmp_path).exit_code == 2


def test_the_patterns_profile_can_be_chosen(folder):
    assert scan("--profile", "patterns", folder / "a.txt").output.endswith("DATE 1, PHONE 1\n")
