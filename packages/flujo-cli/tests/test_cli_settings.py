"""`[tool.flujo]` and FLUJO_PLUGINS."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flujo.core import ConfigurationError, Plugins, Policy
from flujo_cli.prepare import allowed_by, policy_of
from flujo_cli.problems import Problem
from flujo_cli.settings import Settings, read_settings


def test_without_a_file_nothing_is_settled(cli) -> None:
    assert read_settings() == Settings()
    cli.write("pyproject.toml", "[tool.other]\nname = 'flujo'\n")
    assert read_settings() == Settings()


def test_the_nearest_file_with_a_table_counts_and_git_is_the_border(cli) -> None:
    cli.write("pyproject.toml", "[tool.flujo]\nuse = ['Flujo_Audit']\n")
    cli.write("inner/pyproject.toml", "[tool.other]\n")
    inner = cli.folder / "inner"
    assert read_settings(inner).use == ("flujo-audit",)
    assert read_settings(inner).source == cli.folder / "pyproject.toml"
    cli.write("inner/.git/HEAD", "")
    assert read_settings(inner) == Settings()


def test_the_allow_list_may_stand_beside_settings_of_plugins(cli) -> None:
    cli.write("pyproject.toml", "[tool.flujo]\nplugins = ['a', 'B_c']\n")
    assert read_settings().allowed == {"a": "", "b-c": ""}
    cli.write("pyproject.toml", "[tool.flujo.plugins]\nallow = ['a']\n[tool.flujo.plugins.flujo_audit]\npath = 'x'\n")
    settings = read_settings()
    assert settings.allowed == {"a": ""}
    assert settings.plugins == {"flujo-audit": {"path": "x"}}
    cli.write("pyproject.toml", "[tool.flujo.plugins.a]\nallow = ['x']\n")
    assert read_settings().allowed is None


@pytest.mark.parametrize(("value", "allowed"), [("", {}), ("a, B_c,", {"a": "", "b-c": ""})])
def test_the_environment_wins_over_the_file(cli, monkeypatch, value: str, allowed: dict[str, str]) -> None:
    cli.write("pyproject.toml", "[tool.flujo]\nplugins = ['z']\n")
    monkeypatch.setenv("FLUJO_PLUGINS", value)
    settings = read_settings()
    assert (settings.allowed, settings.allowed_from) == (allowed, "FLUJO_PLUGINS")


def test_policies_add_up_and_a_longer_time_may_be_chosen(cli) -> None:
    assert policy_of(Settings(), None, ()) == Policy()
    file = cli.write("policy.toml", "guard_timeout_s = 8\nrequire = 'Acme_A'\n")
    assert policy_of(Settings(), file, ("b",)) == Policy(guard_timeout_s=8, require=frozenset({"acme-a", "b"}))
    cli.write("pyproject.toml", "[tool.flujo.policy]\nguard_timeout_s = 20\nobserver_timeout_s = 9\nrequire = ['c']\n")
    both = policy_of(read_settings(), file, ())
    assert (both.guard_timeout_s, both.observer_timeout_s, both.require) == (8, 5, {"acme-a", "c"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tool.flujo]\npolcy = {}", "'policy'"),
        ("[tool.flujo]\nuse = 'flujo-audit'", "no list of names"),
        ("[tool.flujo]\npolicy = 3", "not a table"),
        ("[tool]\nflujo = 3", "not a table"),
        ("[tool.flujo]\nuse = [", "no valid TOML"),
        ("[tool.flujo.plugins]\nallow = 'a'", "no list of names"),
        ("[tool.flujo.plugins]\nflujo-audit = 'a'", "not a table"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(cli, text: str, words: str) -> None:
    cli.write("pyproject.toml", text)
    with pytest.raises(Problem) as caught:
        read_settings()
    assert words in f"{caught.value.what} {caught.value.why} {caught.value.do}"
    assert "pyproject.toml" in caught.value.what


def test_a_policy_of_the_settings_that_cannot_be_used_names_the_file_the_entry_and_the_line(cli) -> None:
    file = cli.write("pyproject.toml", "[tool.flujo.policy]\nrequires = []\nguard_timeout_s = 0\n")
    with pytest.raises(ConfigurationError) as caught:
        policy_of(read_settings(), None, ())
    told = str(caught.value)
    assert str(file) in told
    assert "requires (line 2): Extra inputs" in told
    assert "guard_timeout_s (line 3): " in told


def test_versions_may_stand_in_the_allow_list(cli, monkeypatch) -> None:
    cli.write("pyproject.toml", "[tool.flujo]\nplugins = ['Flujo_Audit >=1, <2', 'b']\n")
    assert read_settings().allowed == {"flujo-audit": ">=1, <2", "b": ""}
    monkeypatch.setenv("FLUJO_PLUGINS", "Flujo_Audit>=1,<2, b==1.*,c")
    assert read_settings().allowed == {"flujo-audit": ">=1,<2", "b": "==1.*", "c": ""}


def test_a_file_that_may_hold_a_policy_unseen_is_refused(cli) -> None:
    file = cli.folder / "pyproject.toml"
    file.write_bytes("[tool.flujo.policy]\nrequire = ['flujo-deidentifier']\n".encode("utf-16"))
    with pytest.raises(Problem, match="cannot be read") as refused:
        read_settings()
    assert refused.value.why == "it is not UTF-8"
    file.unlink()
    file.symlink_to(cli.folder / "nowhere.toml")
    with pytest.raises(Problem) as refused:
        read_settings()
    assert refused.value.why == "it is a link to nothing"


@pytest.mark.parametrize("where", ["environment", "file"])
def test_of_a_distribution_that_is_listed_twice_both_entries_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """As in core, and in a policy: `flujo-audit<2` is not undone by another entry of that name."""
    monkeypatch.delenv("FLUJO_PLUGINS", raising=False)
    text = "" if where == "environment" else '[tool.flujo]\nplugins = ["flujo-audit<2", "flujo_audit"]\n'
    (tmp_path / "pyproject.toml").write_text(text)
    if where == "environment":
        monkeypatch.setenv("FLUJO_PLUGINS", "flujo-audit<2,flujo_audit")
    policy = Policy(allow_plugins=frozenset({"flujo-audit<2", "flujo_audit"}))
    assert dict(policy.plugins or {}) == {"flujo-audit": "<2"}
    assert dict(Plugins(allowed=allowed_by(read_settings(tmp_path))).allowed or {}) == {"flujo-audit": "<2"}


def test_a_worker_is_told_what_the_plugins_of_a_flujo_were_made_with(cli) -> None:
    """Those that the file names, too: a worker makes none of which it is told that an object was given."""
    cli.plugin(
        "acme-guard",
        """
from flujo.core import Allow, GuardStep, hookimpl
flujo_api = "1.0"

class Plugin:
    @hookimpl
    def guard_step(self, payload: GuardStep) -> Allow:
        return Allow()
""",
    )
    cli.write(
        "away.py",
        """
from pathlib import Path
from flujo.core import Capabilities, Failure, Flujo, StepExecutionRequest, StepOutcome, WorkerLost, step

@step
async def greet(name: str) -> str:
    return name

class Elsewhere:
    capabilities = Capabilities(remote=True)

    async def execute_step(self, request: StepExecutionRequest) -> StepOutcome:
        Path("told").write_text(repr([(one.name, one.settings) for one in request.task().plugins]))
        return StepOutcome(Failure(WorkerLost(request.ctx.step_path, "it was never there")))

flujo = Flujo(greet, plugins=["acme-guard"], backend=Elsewhere())
""",
    )
    said = cli("run", "away.py:flujo", "--text", "Ann")
    assert said.code == 3
    assert "it was never there" in said.err
    assert (cli.folder / "told").read_text() == "[('acme-guard', {})]"


CLUSTER = """
import os
from flujo.core import BackendFactory, Capabilities, ConfigurationError, Worker, hookimpl

flujo_api = "1.0"

class Cluster:
    capabilities = Capabilities(remote=True, pickle=True, loops=("asyncio",))

    async def execute_step(self, request):
        async with Worker(engine="cluster") as worker:
            return request.outcome(await worker.execute(request.task().model_dump_json()))

def missing():
    raise ConfigurationError("backend 'far' cannot be used", "FAR_AWAY names nothing", "Set it")

def broken():
    raise RuntimeError("no route, password=hunter22")

@hookimpl
def register_backends():
    return [BackendFactory("cluster", Cluster), BackendFactory("far", missing), BackendFactory("odd", broken)]
"""
DOUBLE = """
from flujo.core import Step, step

@step
async def double(number: int) -> int:
    return 2 * number

here = Step(double, backend="local")
"""


def test_a_backend_of_the_settings_counts_as_the_option_does(cli) -> None:
    cli.plugin("acme-cluster", CLUSTER)
    cli.write("flow.py", DOUBLE)
    cli.write("pyproject.toml", "[tool.flujo]\nbackend = 'cluster'\n")

    def ran(*arguments: str) -> dict[str, object]:
        said = cli("run", *arguments, "--text", "21", "--json")
        assert said.code == 0, said.err
        [item] = [row for row in map(json.loads, said.out.splitlines()) if row["type"] == "item"]
        assert item["output"] == 42
        return item["counts"].get("executed_by", {})

    assert ran("flow.py:double") == {"cluster": 1}
    assert ran("flow.py:here") == {}  # what a step says itself stays
    assert ran("flow.py:double", "--backend", "local") == {}


@pytest.mark.parametrize(
    ("line", "said"), [("backend = 3", "it is no text"), ("backends = 'ray'", "Did you mean 'backend'?")]
)
def test_a_backend_of_the_settings_that_is_none_is_refused(cli, line: str, said: str) -> None:
    cli.write("pyproject.toml", f"[tool.flujo]\n{line}\n")
    assert said in cli("plugins").err


def test_validate_says_what_cannot_leave(cli) -> None:
    cli.plugin("acme-cluster", CLUSTER.replace("pickle=True, ", ""))
    cli.write("flow.py", DOUBLE + "\nmade = Step(lambda number: number, name='made')\n")
    assert cli("validate", "flow.py:double", "--backend", "cluster").code == 0
    assert cli("validate", "flow.py:made").code == 0
    said = cli("validate", "flow.py:made", "--backend", "cluster")
    assert said.code == 2
    assert "step 'made' runs on Cluster, but nothing can import its code" in said.out
    cli.write("pyproject.toml", "[tool.flujo]\nbackend = 'cluster'\n")
    assert cli("validate", "flow.py:made").code == 2


def test_doctor_tells_whether_chunks_come_back_from_a_backend(cli) -> None:
    cli.plugin("acme-cluster", CLUSTER.replace("pickle=True, ", "streams=True, "))
    assert (
        "cluster (acme-cluster 1.0): in another process, hands over chunks of streams, on asyncio" in cli("doctor").out
    )
    cluster = next(one for one in json.loads(cli("doctor", "--json").out)["backends"] if one["name"] == "cluster")
    assert cluster["streams"] is True


def test_doctor_tells_the_backends_what_they_can_do_and_what_is_missing(cli) -> None:
    cli.plugin("acme-cluster", CLUSTER)
    said = cli("doctor")
    assert said.code == 0, said.out
    assert "cluster (acme-cluster 1.0): in another process, ships code as pickles, on asyncio" in said.out
    assert "far (acme-cluster 1.0): not set up here: backend 'far' cannot be used" in said.out
    assert "FAR_AWAY names nothing" in said.out
    assert "odd (acme-cluster 1.0): not set up here: RuntimeError: no route, password=[SECRET]" in said.out
    assert "local (flujo-core " in said.out
    cli.write("pyproject.toml", "[tool.flujo]\nbackend = 'clustr'\n")
    said = cli("doctor", "--json")
    facts = json.loads(said.out)
    assert (said.code, facts["backend"]) == (1, "clustr")
    assert "backend 'clustr'" in facts["problems"][0]
    cluster = next(one for one in facts["backends"] if one["name"] == "cluster")
    assert (cluster["distribution"], cluster["remote"], cluster["loops"]) == ("acme-cluster", True, ["asyncio"])


MUTATES = """
from flujo.core import PipelineMutation, step

@step
async def first(number: int) -> PipelineMutation[int]:
    return PipelineMutation(number, insert_after={"first": more})

@step
async def more(number: int) -> int:
    return number + 1

@step
async def double(number: int) -> int:
    return 2 * number

pipeline = first >> double
"""


def test_an_experiment_is_switched_on_by_an_option_also_of_a_flujo_that_the_file_made(cli) -> None:
    cli.write("flow.py", MUTATES)
    cli.write("made.py", MUTATES + "\nfrom flujo.core import Flujo\nflujo = Flujo(pipeline)\n")
    for target in ("flow.py", "made.py:flujo"):
        assert cli("run", target, "--text", "20", "--experimental").out.strip() == "42"
        refused = cli("run", target, "--text", "20")
        assert refused.code == 3
        assert "it returned a PipelineMutation, which is experimental" in refused.err
    kept = cli("run", "flow.py", "--text", "20", "--experimental", "--store", "sqlite:///runs.db")
    assert (kept.code, kept.out.strip()) == (0, "42")
