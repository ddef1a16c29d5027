"""`flujo validate`, `graph`, `plugins` and `doctor`: they look, and run nothing."""

from __future__ import annotations

import json

DAG = """
from flujo.core import Pipeline, RetryPolicy, Step, run_input

async def page(url: str) -> str: ...
async def facts(page: str) -> dict[str, int]: ...
async def tone(page: str) -> str: ...
async def report(facts: dict[str, int], label: str, url: str) -> str: ...

p = Step(page, retry=RetryPolicy(max_attempts=3), timeout_s=5)
f, t = Step(facts, inputs={"page": p}), Step(tone, inputs={"page": p}, effect="pure")
pipeline = Pipeline(p, f, t, Step(report, inputs={"facts": f, "label": t, "url": run_input()}))
"""
PLUGIN = """
from flujo.core import Allow, hookimpl

flujo_api = "1.0"

@hookimpl
def register_commands():
    return []

class Plugin:
    def __init__(self, needed): ...

    @hookimpl
    def guard_step(self, payload) -> Allow:
        return Allow()

    @hookimpl
    def on_run_end(self, payload) -> None: ...
"""


def test_validate_names_what_can_run(cli) -> None:
    cli.write("dag.py", DAG)
    said = cli("validate", "dag.py")
    assert said.code == 0
    assert "4: page, facts, tone, report" in said.out
    facts = json.loads(cli("validate", "dag.py", "--json").out)
    assert (facts["ok"], facts["input"], facts["plugins"]) == (True, "str", [])
    assert len(facts["fingerprint"]) == 64


def test_validate_lists_every_problem(cli) -> None:
    cli.write(
        "dag.py", DAG.replace('"page": p}), Step(tone', '"pge": p}), Step(tone').replace('"label": t', '"label": f')
    )
    said = cli("validate", "dag.py")
    assert said.code == 2
    listed = [line for line in said.out.splitlines() if line.startswith("  - ")]
    assert len(listed) > 1
    assert any("'pge'" in line for line in listed)
    assert json.loads(cli("validate", "dag.py", "--json").out)["problems"] == [line[4:] for line in listed]


NESTED = """
from flujo.core import Branch, Fallback, Loop, Map, Pipeline, Step

async def page(url: str) -> str: ...
async def number(page: str) -> int: ...
async def two(a: str, b: str) -> str: ...

inner = Pipeline(Step(page) >> Step(two), name="inner")
tried = Fallback(Step(number, inputs={"page": "nobody"}), inner)
pipeline = Pipeline(
    Step(page) >> Branch(len, {1: Map(Loop(tried, until=bool))}, otherwise=Step(page, inputs={"pge": "page"})),
    Loop(Step(number), until=bool, name="again"),
)
"""


def test_validate_lists_the_problems_of_everything_in_it(cli) -> None:
    cli.write("nested.py", NESTED)
    said = cli("validate", "nested.py", "--json")
    assert said.code == 2
    facts = json.loads(said.out)
    assert (facts["ok"], facts["what"]) == (False, "pipeline 'pipeline' cannot work")
    for words in (
        ("in branch 'branch'", "in map 'map'", "in loop 'loop'", "in fallback 'fallback'", "'nobody'"),
        ("in branch 'branch'", "in fallback 'fallback'", "step 'two' follows 'page'"),
        ("in branch 'branch'", "'pge'"),
        ("the body of loop 'again' gives int",),
    ):
        assert any(all(word in problem for word in words) for problem in facts["problems"]), words
    listed = [line[4:] for line in cli("validate", "nested.py").out.splitlines() if line.startswith("  - ")]
    assert listed == facts["problems"]


def test_validate_names_the_steps_in_combinators(cli) -> None:
    cli.write(
        "looped.py", "from flujo.core import *\n@step\nasync def a(x: str) -> str: ...\nflow = Map(Loop(a, bool))\n"
    )
    said = cli("validate", "looped.py:flow")
    assert said.code == 0
    assert "1: map[*]/loop#*/a" in said.out
    assert json.loads(cli("validate", "looped.py:flow", "--json").out)["steps"] == ["map[*]/loop#*/a"]


def test_validate_gives_machines_an_object_whatever_is_wrong(cli) -> None:
    cli.write(
        "built.py",
        "from flujo.core import *\n@step\nasync def a(x: str) -> str: ...\nflow = Loop(a, max_iterations=0)\n",
    )
    for arguments in (["built.py"], ["missing.py"], ["flows.py", "--require", "acme-missing"]):
        said = cli("validate", *arguments, "--json")
        facts = json.loads(said.out)
        assert (said.code, said.err, facts["ok"]) == (2, "", False)
        assert all(facts["problems"])
    assert "max_iterations=0" in json.loads(cli("validate", "built.py", "--json").out)["problems"][0]
    assert len(json.loads(cli("validate", "built.py", "--json").out)["problems"]) == 2
    assert "max_iterations=0" in cli("validate", "built.py").err


def test_validate_misses_a_required_plugin(cli) -> None:
    said = cli("validate", "flows.py", "--require", "acme-missing")
    assert said.code == 2
    assert "pip install acme-missing" in said.err


def test_graph_is_mermaid_in_a_pipe_and_boxes_when_asked_for(cli) -> None:
    cli.write("dag.py", DAG)
    assert cli("graph", "dag.py").out.startswith("flowchart TD\n")
    boxes = cli("graph", "dag.py", "--format", "terminal").out
    row = next(line for line in boxes.splitlines() if "facts" in line)
    assert "tone" in row, "what runs at the same time stands side by side"
    for words in ("run input: str", "up to 3 attempts", "timeout 5 s", "pure", "url <- run input", "output <- report"):
        assert words in boxes


def test_graph_of_a_pipeline_that_cannot_work_says_why(cli) -> None:
    cli.write("dag.py", DAG.replace('"label": t', '"label": f'))
    said = cli("graph", "dag.py")
    assert (said.code, said.out) == (2, "")
    assert "'label'" in said.err


def test_plugins_lists_state_tiers_hooks_and_source(cli, monkeypatch) -> None:
    cli.plugin("acme-guard", PLUGIN)
    cli.plugin("acme-broken", "raise RuntimeError('password=hunter22')")
    cli.plugin("acme-blocked", "raise AssertionError('imported')")
    monkeypatch.setenv("FLUJO_PLUGINS", "acme-guard,acme-broken")
    said = cli("plugins", "--json")
    assert said.code == 0
    found = {plugin["name"]: plugin for plugin in json.loads(said.out)["plugins"]}
    assert found["acme-guard"] == {
        "name": "acme-guard",
        "version": "1.0",
        "state": "loaded",
        "acts": False,
        "tiers": ["guard", "observe", "register"],
        "hooks": ["guard_step", "on_run_end", "register_commands"],
        "source": "acme_guard = acme_guard",
        "error": "",
    }
    assert found["acme-broken"]["state"] == "failed"
    assert "[SECRET]" in found["acme-broken"]["error"]
    assert found["acme-blocked"]["state"] == "blocked"
    table = cli("plugins").out
    assert all(words in table for words in ("acme-guard", "guard observe register", "guard_step", "blocked"))


def test_plugins_check_finds_what_would_stop_a_run(cli) -> None:
    assert cli("plugins", "check").code == 0
    cli.plugin("acme-guard", PLUGIN)
    assert cli("plugins", "check").code == 0, "a plugin that does not act needs no settings"
    cli.write("pyproject.toml", "[tool.flujo]\nuse = ['acme-guard']\n")
    said = cli("plugins", "check")
    assert said.code == 1
    assert "needed" in said.out
    cli.write("pyproject.toml", "[tool.flujo]\nuse = ['acme-guard']\n[tool.flujo.plugins.acme-guard]\nneeded = 1\n")
    assert cli("plugins", "check").code == 0
    cli.write(
        "pyproject.toml", "[tool.flujo]\nplugins = []\n[tool.flujo.policy]\nrequire = ['acme-guard', 'acme-gone']\n"
    )
    said = cli("plugins", "check", "--json")
    assert said.code == 1
    problems = json.loads(said.out)["problems"]
    assert any("'acme-gone'" in text and "pip install" in text for text in problems)
    assert any("'acme-guard'" in text and "allow-list" in text for text in problems)
    cli.write("pyproject.toml", "[tool.flujo]\nplugins = 3\n")
    assert cli("plugins", "check").code == 2


def test_plugins_check_finds_a_broken_plugin(cli) -> None:
    cli.plugin("acme-broken", "raise RuntimeError('broken')")
    said = cli("plugins", "check")
    assert said.code == 1
    assert "acme-broken" in said.out


def test_doctor_says_what_is_in_force_and_where_it_stands(cli, monkeypatch) -> None:
    cli.plugin("acme-guard", PLUGIN)
    monkeypatch.setenv("FLUJO_PLUGINS", "acme-guard, flujo-audit")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "key=hunter22")
    cli.write("pyproject.toml", "[tool.flujo.policy]\nrequire = ['flujo-audit']\nguard_timeout_s = 2\n")
    said = cli("doctor")
    assert said.code == 0, said.out
    for words in (
        "flujo-core ",
        "acme-guard, flujo-audit (from FLUJO_PLUGINS)",
        "require flujo-audit: nothing runs unless",
        "guard_timeout_s 2: a guard that waits longer is cancelled",
        str(cli.folder / "pyproject.toml"),
        "acme-guard 1.0: loaded (guard, observe, register)",
        "acts in every run here",
        "no tracer provider is configured",
        "nothing is wrong",
    ):
        assert words in said.out
    assert "hunter22" not in said.out


def test_doctor_finds_a_broken_plugin_and_the_leftover_of_the_old_package(cli) -> None:
    cli.plugin("acme-broken", "raise RuntimeError('broken')")
    cli.write("flujo-0.4.35.dist-info/METADATA", "Metadata-Version: 2.1\nName: flujo\nVersion: 0.4.35\n")
    cli.write("flujo-0.4.35.dist-info/RECORD", "flujo/__init__.py,,\n")
    said = cli("doctor", "--json")
    assert said.code == 1
    facts = json.loads(said.out)
    assert any("acme-broken" in problem for problem in facts["problems"])
    assert any("0.4.35" in problem and "pip install -U" in problem for problem in facts["problems"])


def test_doctor_explains_each_rule_of_the_policy_and_what_it_cannot_see(cli) -> None:
    cli.plugin("acme-guard", PLUGIN)
    rules = """
        allow_plugins = ["acme-guard>=1,<2", "flujo-audit"]
        allow_models = "openai:*"
        [max_limits]
        total_cost_usd_limit = "2.50"
        requests_limit = 9
        [named_limits."model:openai:*"]
        concurrency = 4
        tokens_per_minute = 90000
    """
    file = cli.write("rules.toml", rules)
    said = cli("doctor", "--policy", file, "--json")
    assert said.code == 0, said.out
    told = "\n".join(json.loads(said.out)["policy"])
    for words in (
        f"from {file}",
        "require: no plugin",
        "allow_plugins acme-guard>=1,<2, flujo-audit: decided before import",
        "allow_models openai:*: checked before every attempt of ctx.call_model",
        "a client of its own is not seen",
        "allow_provider_tools off",
        "max_limits 2.50 USD, 9 requests: holds for each run",
        "named_limits model:openai:* 4 at a time, 90000 tokens a minute: counted in each process",
    ):
        assert words in told, words
    assert "none is set" in cli("doctor").out
    cli.write("rules.toml", 'require = "acme-guard"\nallow_plugins = ["acme-guard<1"]\n')
    said = cli("doctor", "--policy", file)
    assert said.code == 1
    assert "'acme-guard' is to act and not allowed: the allow-list has acme-guard<1, installed is 1.0" in said.out
    cli.write("rules.toml", "allow_model = 3\n")
    said = cli("doctor", "--policy", file)
    assert (said.code, "allow_model (line 1)" in said.err) == (2, True)


ORDERED = """
from flujo.core import Allow, GuardStep, hookimpl
flujo_api = "1.0"

class Plugin:
    @hookimpl({mark})
    def guard_step(self, payload: GuardStep):
        return Allow()

    @hookimpl
    def on_run_end(self, payload):
        pass
"""


def test_plugins_order_shows_who_is_called_when(cli) -> None:
    assert "no plugin acts here" in cli("plugins", "--order").out
    for name, mark in (("acme-a", "trylast=True"), ("acme-b", ""), ("acme-c", "tryfirst=True")):
        cli.plugin(name, ORDERED.format(mark=mark))
    options = [word for name in ("acme-a", "acme-b", "acme-c") for word in ("--plugin", name)]
    said = cli("plugins", "--order", *options, "--json")
    order = json.loads(said.out)["order"]
    assert order["guard_step"] == ["acme-c", "acme-b", "acme-a"]
    assert order["on_run_end"] == ["acme-a", "acme-b", "acme-c"]
    assert "acme-c -> acme-b -> acme-a" in cli("plugins", "--order", *options).out
    cli.write("pyproject.toml", "[tool.flujo]\nuse = ['acme-b']\n")
    said = cli("plugins", "--order", "--target", "flows.py", "--plugin", "acme-a", "--json")
    assert json.loads(said.out)["order"]["guard_step"] == ["acme-b", "acme-a"]
    assert cli("plugins", "--target", "flows.py").code == 2
