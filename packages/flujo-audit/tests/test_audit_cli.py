"""`flujo audit`: exit codes 0, 1 and 2, and what is printed."""

import json

import anyio
import pytest
from click.testing import CliRunner, Result

from flujo.audit import AuditLog
from flujo.audit.cli import audit
from flujo.audit.plugin import register_commands
from flujo.core import Plugins

KEY = "a key of more than sixteen characters"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(audit, [str(argument) for argument in arguments])


@pytest.fixture
def log(tmp_path):
    async def write() -> None:
        async with AuditLog(tmp_path / "log") as log:
            for n, run in enumerate(["r1", "r2", "r1"]):
                await log.append({"event": "step.end", "run_id": run, "step": f"s{n}", "outcome": "completed"})

    anyio.run(write)
    return tmp_path / "log"


def test_the_command_is_registered_as_plain_data_and_its_target_exists():
    [command] = register_commands()
    assert (command.name, command.target) == ("audit", "flujo.audit.cli:audit")
    assert audit.name == command.name
    assert "audit" in [registered.name for _, registered in Plugins().commands()]


def test_an_intact_log_exits_0_and_says_what_a_chain_alone_cannot_show(log):
    done = call("verify", log)
    assert done.exit_code == 0
    assert done.output.startswith("intact: consistent up to record 3\n")
    assert "--checkpoint" in done.output


def test_an_edited_log_exits_1_and_names_the_record(log):
    log.write_bytes(log.read_bytes().replace(b"s1", b"s9"))
    done = call("verify", log)
    assert done.exit_code == 1
    assert done.output == "tampered: record 2 was changed: its bytes do not have its hash\n"
    as_json = call("verify", log, "--json")
    assert as_json.exit_code == 1
    found = json.loads(as_json.output)
    assert (found["verdict"], found["first_bad"], found["records"]) == ("tampered", 2, 1)


@pytest.mark.parametrize(("content", "why"), [(b"", "empty"), (b"notes", "not a Flujo audit log"), (None, "No such")])
def test_what_is_no_log_exits_2_with_one_clear_line(tmp_path, content, why):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    for command in ("verify", "show", "checkpoint"):
        done = call(command, path)
        assert done.exit_code == 2
        assert done.output.startswith("unusable: ")
        assert why in done.output
        assert done.output.count("\n") == 1


def test_a_checkpoint_is_printed_signed_and_finds_a_cut(log, tmp_path):
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "wrong").write_text(KEY + "!")
    printed = call("checkpoint", log, "--key", tmp_path / "key")
    assert printed.exit_code == 0
    (tmp_path / "points").write_text(printed.output)
    good = call("verify", log, "--checkpoint", tmp_path / "points", "--key", tmp_path / "key")
    assert (good.exit_code, good.output.count("\n")) == (0, 1)
    wrong = call("verify", log, "--checkpoint", tmp_path / "points", "--key", tmp_path / "wrong")
    assert (wrong.exit_code, "wrongly signed" in wrong.output) == (2, True)
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:2]))
    cut = call("verify", log, "--checkpoint", tmp_path / "points", "--key", tmp_path / "key")
    assert (cut.exit_code, "the end was cut" in cut.output) == (1, True)


def test_a_checkpoint_can_be_added_to_a_file(log, tmp_path):
    for _ in range(2):
        assert call("checkpoint", log, "--out", tmp_path / "far" / "points").output == ""
    assert len((tmp_path / "far" / "points").read_text().splitlines()) == 2
    refused = call("checkpoint", log, "--out", tmp_path)
    assert (refused.exit_code, "cannot be written" in refused.output) == (2, True)
    refused = call("checkpoint", log, "--key", tmp_path / "missing")
    assert (refused.exit_code, "cannot be read" in refused.output) == (2, True)


def test_no_checkpoint_is_made_of_a_broken_log(log):
    log.write_bytes(log.read_bytes().replace(b"s1", b"s9"))
    done = call("checkpoint", log)
    assert done.exit_code == 1
    assert "flujo_audit_checkpoint" not in done.output


def test_show_prints_the_records_of_a_run(log):
    done = call("show", log, "--run", "r1")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "3"]
    assert all("step.end" in line and line.endswith("r1") for line in lines)
    as_json = call("show", log, "--json")
    assert as_json.output.encode() == log.read_bytes()


def test_show_stops_before_the_first_bad_record(log):
    log.write_bytes(log.read_bytes().replace(b"s1", b"s9"))
    done = call("show", log)
    assert done.exit_code == 1
    assert done.stdout.count("\n") == 1
    assert "record 2 was changed" in done.stderr
