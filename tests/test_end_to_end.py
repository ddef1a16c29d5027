"""The main job as the README has it: its own line, in a folder of its own, on the real notes."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from fresh_venv import FreshVenv

ROOT = Path(__file__).parents[1]
NOTES = ROOT / "examples" / "clinical_notes" / "notes"
README = (ROOT / "README.md").read_text(encoding="utf-8")
GOLD = [json.loads(line) for line in (NOTES.parent / "gold.jsonl").read_text(encoding="utf-8").splitlines()]


def flujo(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, in `cwd`."""
    command = [sys.executable, "-m", "flujo_cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)


def main_job() -> list[str]:
    """Arguments of the README's first `flujo run` line, with paths that do not depend on the folder."""
    found = re.search(r"^pip install uv && uv run --no-dev flujo (run .*)$", README, re.M)
    assert found is not None, "README.md has no line that runs the main job"
    return [str(ROOT / part) if part.startswith("examples/") else part for part in shlex.split(found[1])]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder in which the main job ran, and what it printed."""
    folder = tmp_path_factory.mktemp("main_job")
    return folder, flujo(*main_job(), cwd=folder)


Done = tuple[Path, "subprocess.CompletedProcess[str]"]


def test_the_readme_line_completes_and_says_what_was_redacted(done: Done) -> None:
    _, process = done
    assert process.returncode == 0, process.stderr
    printed = process.stdout + process.stderr
    assert re.search(r"PERSON\s+\d{2,}", printed), printed[-2000:]
    assert re.search(r"DATE\s+\d{2,}", printed)
    for step in ("extract", "summarise", "check"):
        assert step in printed


def test_every_note_gives_a_report_that_its_note_supports(done: Done) -> None:
    folder, _ = done
    reports = [folder / "out" / f"{note.stem}.json" for note in sorted(NOTES.glob("*.txt"))]
    assert len(reports) >= 20
    for file in reports:
        report = json.loads(file.read_text(encoding="utf-8"))
        assert report["summary"], file.name
        assert report["unsupported"] == [], file.name


def test_what_was_detected_stands_in_no_output_and_no_log(done: Done) -> None:
    """Names of several words and long numbers, so that what is found is the identifier and no chance match."""
    folder, process = done
    from flujo.deidentifier import Deidentifier

    detector = Deidentifier()
    log = (folder / "flujo-audit.jsonl").read_text(encoding="utf-8")
    for note in sorted(NOTES.glob("*.txt")):
        text = note.read_text(encoding="utf-8")
        output = (folder / "out" / f"{note.stem}.json").read_text(encoding="utf-8")
        for finding in detector.detect(text):
            found = text[finding.start : finding.end]
            if len(found) > 7 and (" " in found or found.isdigit()):
                assert found not in output, (note.name, finding.entity)
                assert found not in log, (note.name, finding.entity)
                assert found not in process.stdout + process.stderr, (note.name, finding.entity)


def test_nothing_of_a_note_stands_in_the_audit_log(done: Done) -> None:
    folder, _ = done
    log = (folder / "flujo-audit.jsonl").read_text(encoding="utf-8")
    for span in GOLD:
        if len(span["text"]) > 7 and not span["text"].isdigit():
            assert span["text"] not in log, span
    assert len(log.splitlines()) > 28 * 8  # per note: run, three steps and one model call, each intended and ended


def test_the_audit_log_verifies_and_one_changed_byte_is_found(done: Done, tmp_path: Path) -> None:
    folder, _ = done
    intact = folder / "flujo-audit.jsonl"
    assert flujo("audit", "verify", str(intact), cwd=folder).returncode == 0
    data = bytearray(intact.read_bytes())
    middle = len(data) // 2
    data[middle] ^= 1
    broken = tmp_path / "flujo-audit.jsonl"
    broken.write_bytes(data)
    process = flujo("audit", "verify", str(broken), cwd=folder)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr


def test_without_plugins_the_same_pipeline_runs_and_nothing_is_redacted(tmp_path: Path) -> None:
    pipeline = str(NOTES.parent / "pipeline.py")
    process = flujo("run", pipeline, "--text", "Diagnosis: asthma. Dr. Helga Brandt saw her.", "--json", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "Helga Brandt" in process.stdout
    assert not (tmp_path / "flujo-audit.jsonl").exists()


def test_a_required_plugin_without_its_entry_point_makes_the_run_refuse_to_start(
    wheelhouse: Path, tmp_path: Path
) -> None:
    venv = FreshVenv.create(tmp_path / "venv", wheelhouse)
    venv.install_locked_dependencies_of("flujo-cli", "flujo-audit")
    venv.uv_install_ours("flujo-cli", "flujo-audit[cli]")
    (tmp_path / "policy.toml").write_text('require = ["flujo-audit"]\n')
    (tmp_path / "job.py").write_text(
        "from flujo.core import step\n\n@step\nasync def work(text: str) -> str:\n    print('ran')\n    return text\n"
    )
    command = [str(venv.python), "-m", "flujo_cli", "run", "job.py", "--text", "x", "--policy", "policy.toml"]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert first.returncode == 0, first.stderr
    assert "ran" in first.stdout + first.stderr
    next(venv.site_packages.glob("flujo_audit-*.dist-info/entry_points.txt")).unlink()
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert second.returncode == 2
    assert "ran" not in second.stdout + second.stderr
    assert "flujo-audit" in second.stderr
    assert "Traceback" not in second.stderr
