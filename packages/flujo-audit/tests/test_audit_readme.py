"""What the README shows is run: the quick start, and the verifier written from the file format alone."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flujo.audit import AuditLog
from flujo.audit.chain import Chain
from flujo.audit.format import encode_record

README = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
QUICK_START, VERIFIER = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(code: str, folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=240).stdout


def test_the_quick_start_writes_a_record_and_finds_it_intact(tmp_path):
    seq, verdict = run(QUICK_START, tmp_path).splitlines()
    [record] = [json.loads(line) for line in (tmp_path / "out" / "audit.jsonl").read_text().splitlines()]
    assert seq == f"1 {record['hash']}"
    assert verdict.startswith("Verification(ok=True, records=1, first_bad=None")


@pytest.mark.parametrize("bad", [None, 1, 4, 7])
def test_a_verifier_written_from_the_format_alone_agrees_with_ours(tmp_path, bad):
    path = tmp_path / "log"
    chain = Chain(path)
    chain.append([encode_record({"event": "test", "text": "é\n\u2028"}) for _ in range(7)])
    chain.close()
    lines = path.read_bytes().splitlines(keepends=True)
    if bad is not None:
        lines[bad - 1] = lines[bad - 1].replace(b"test", b"tesu")
        path.write_bytes(b"".join(lines))
    assert run(VERIFIER, tmp_path, str(path)).strip() == str(bad)
    assert AuditLog.verify(path).first_bad == bad


def test_the_readme_names_every_record_and_setting_of_the_plugin():
    source = Path(__file__).parents[1] / "src" / "flujo" / "audit"
    recorded = set(re.findall(r'"((?:run|step|llm|tool|guard|limit)\.[a-z]+)"', (source / "records.py").read_text()))
    assert len(recorded) == 12
    assert {event for event in recorded if f"`{event}`" not in README} == set()
    variables = set(re.findall(r"FLUJO_\w+", (source / "plugin.py").read_text()))
    assert {name for name in variables if name not in README} == set()
