"""Policies: what an operator demands, read from code or from a file, and held to."""

from __future__ import annotations

import importlib
import re
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flujo.core import (
    Allow,
    Budget,
    ConfigurationError,
    Flujo,
    GuardModelCall,
    Message,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    NamedLimit,
    OnGuardDenied,
    OnUsageWarning,
    PauseForHumanInput,
    Pipeline,
    PluginError,
    Plugins,
    Policy,
    Price,
    RetryPolicy,
    RunContext,
    Step,
    UsageLimits,
    hookimpl,
    step,
)

pytestmark = pytest.mark.anyio


def test_a_policy_demands_nothing_unless_told() -> None:
    policy = Policy()
    assert (policy.require, policy.allow_plugins, policy.allow_models, policy.max_limits) == (set(), None, None, None)
    assert policy.allow_provider_tools is False
    assert policy.guard_timeout_s == 5.0


@pytest.mark.parametrize("given", ["flujo-audit", ["Flujo_Audit"], {"flujo-audit"}, ("flujo-audit", "flujo.audit")])
def test_one_name_or_several_may_be_required(given: Any) -> None:
    assert Policy(require=given).require == {"flujo-audit"}


def test_a_policy_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Policy().require = frozenset({"x"})  # type: ignore[misc]


def test_an_unusable_policy_does_not_show_what_it_was_given() -> None:
    with pytest.raises(ValidationError) as caught:
        Policy(requires=["hunter2"])  # type: ignore[call-arg]
    assert "requires" in str(caught.value)
    assert "hunter2" not in str(caught.value)


# --- from a file ------------------------------------------------------------------------------------------------------

WHOLE = """
require = ["Flujo_Audit"]
allow_plugins = ["flujo-audit>=1,<2", "flujo-hitl"]
allow_models = ["openai:gpt-4o*"]
allow_provider_tools = true
guard_timeout_s = 2.5

[max_limits]
total_cost_usd_limit = "5.00"
total_tokens_limit = 1000
"""


@pytest.mark.parametrize("where", ["policy.toml", "pyproject.toml"])
def test_a_policy_is_read_from_a_file_of_its_own_or_from_pyproject(tmp_path: Path, where: str) -> None:
    text = WHOLE
    if where == "pyproject.toml":
        text = "[project]\nname = 'x'\nrequire = 3\n[tool.flujo.policy]" + WHOLE.replace(
            "[max", "[tool.flujo.policy.max"
        )
    (tmp_path / where).write_text(text)
    policy = Policy.load(tmp_path / where)
    assert policy == Policy(
        require=frozenset({"flujo-audit"}),
        allow_plugins=frozenset({"flujo-audit>=1,<2", "flujo-hitl"}),
        allow_models=frozenset({"openai:gpt-4o*"}),
        allow_provider_tools=True,
        guard_timeout_s=2.5,
        max_limits=UsageLimits("5.00", 1000),
    )
    assert policy.plugins == {"flujo-audit": ">=1,<2", "flujo-hitl": ""}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it is empty"),
        ("# require = 'x'\n", "it is empty"),
        ("require = ['a'\nx = 3\n", "line 2"),
        ("require = ['a']\nrequire = ['b']\n", "line 2"),
        ("\nrequires = ['a']\n", "requires (line 2): Extra inputs are not permitted"),
        ("require = 3\n", "require (line 1): "),
        ("require = ['flujo-audit>=1']\n", "require.0 (line 1): String should match pattern"),
        ("require = ['flujo audit']\n", "require.0 (line 1): String should match pattern"),
        ("require = ['']\n", "require.0 (line 1): String should match pattern"),
        ("require = ['a']\nallow_plugins = ['a b']\n", "'a b' cannot be allowed"),
        ("allow_plugins = ['a >= x']\n", "allow_plugins (line 1): "),
        ("allow_plugins = ['a @ https://evil/a.whl']\n", "cannot be allowed"),
        ("allow_plugins = ['']\n", "cannot be allowed"),
        ("allow_models = [1]\n", "allow_models.0 (line 1): "),
        ("allow_provider_tools = 'yes'\n", "allow_provider_tools (line 1): "),
        ("allow_provider_tools = 1\n", "allow_provider_tools (line 1): "),
        ("guard_timeout_s = 0\n", "guard_timeout_s (line 1): "),
        ("guard_timeout_s = nan\n", "guard_timeout_s (line 1): "),
        ("guard_timeout_s = true\n", "guard_timeout_s (line 1): "),
        ("write_timeout_s = '5'\n", "write_timeout_s (line 1): "),
        ("require = ['a']\n\n[max_limits]\ntotal_cost_usd_limit = -1\n", "max_limits (line 3): "),
        ("[max_limits]\nusd = 1\n", "'usd'"),
        ("max_limits = 3\n", "max_limits (line 1): "),
        ("[tool.flujo]\nuse = []\n", "it has no [tool.flujo.policy]"),
        ("[tool]\nflujo = 3\n", "it has no [tool.flujo.policy]"),
        ("[tool.other]\nguard_timeout_s = 1\n[tool.flujo.policy]\nguard_timeout_s = 0\n", "guard_timeout_s (line 4): "),
    ],
)
def test_a_malformed_file_is_refused_with_the_cause(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        Policy.load(file)
    assert str(file) in caught.value.what
    assert told in caught.value.why
    assert caught.value.do


@pytest.mark.parametrize("wrong", ["policy.toml", {"require": ["flujo-audit"]}, 5])
def test_what_is_no_policy_is_refused_and_told_how_to_read_one(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Policy\.load"):
        Flujo(Step(lambda value: value, name="same", inline=True), policy=wrong)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"require = ['\0']", None])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "policy.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"policy\.toml"):
        Policy.load(file)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Policy.load(tmp_path)


def test_a_file_saved_by_an_editor_that_marks_utf_8_is_read(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("require = ['flujo-audit']", encoding="utf-8-sig")
    assert Policy.load(file).require == {"flujo-audit"}


# --- two policies -----------------------------------------------------------------------------------------------------


def test_two_policies_hold_together_as_the_stricter_of_both() -> None:
    one = Policy(
        require={"a"}, guard_timeout_s=1, allow_models={"openai:*"}, allow_plugins={"a>=1", "b"},  # type: ignore[arg-type]
        allow_provider_tools=True, max_limits=UsageLimits(5, 100),
    )  # fmt: skip
    other = Policy(
        require={"b"}, guard_timeout_s=3, allow_models={"*-mini", "local"}, allow_plugins={"a<2", "c"},  # type: ignore[arg-type]
        max_limits=UsageLimits(7, 10, warn_at=0.5),
    )  # fmt: skip
    for both in (one.joined(other), other.joined(one)):
        assert (both.require, both.guard_timeout_s, both.allow_provider_tools) == ({"a", "b"}, 1, False)
        assert set(both.plugins or ()) == {"a"}
        assert sorted((both.plugins or {})["a"].split("&")) == ["<2", ">=1"]
        assert both.max_limits == UsageLimits(5, 10, warn_at=0.5)
        allowed = [
            name for name in ("openai:x-mini", "openai:x", "x-mini", "local") if both.denial(asked(name)) is None
        ]
        assert allowed == ["openai:x-mini"]
    assert one.joined(Policy()).model_copy(update={"allow_provider_tools": True, "guard_timeout_s": 1}) == one


NAMES = st.text("ab:-", max_size=6)
PATTERNS = st.none() | st.frozensets(st.text("ab:-*", max_size=5), max_size=3)


@given(NAMES, PATTERNS, PATTERNS)
def test_joined_patterns_allow_what_each_of_them_allows(name: str, one: Any, other: Any) -> None:
    def allows(patterns: Any) -> bool:
        return patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)

    both = Policy(allow_models=one).joined(Policy(allow_models=other))
    assert (Policy(allow_models=one).denial(asked(name)) is None) == allows(one)
    assert (both.denial(asked(name)) is None) == (allows(one) and allows(other))


# --- models -----------------------------------------------------------------------------------------------------------


def asked(model: str, **fields: Any) -> ModelRequest:
    return ModelRequest(model=model, messages=(Message(role="user", content="hi"),), **fields)


class Provider:
    """Counts what reaches it."""

    def __init__(self) -> None:
        self.models: list[str] = []

    async def send(self, request: ModelRequest) -> ModelResponse:
        self.models.append(request.model)
        return ModelResponse(content="ok", usage=ModelUsage(output_tokens=1))


@pytest.mark.parametrize(
    ("model", "fits"),
    [("openai:gpt-4o", True), ("openai:gpt-4o-mini", True), ("OpenAI:gpt-4o", False), ("openai:gpt-4", False),
     ("evil\nopenai:gpt-4o", False), ("openai:gpt-4o\n", True), ("local", True), ("local2", False), ("a?c", True),
     ("abc", False), ("a[b]", True), ("ab", False)],
)  # fmt: skip
def test_patterns_of_models_know_the_star_alone(model: str, fits: bool) -> None:
    policy = Policy(allow_models=frozenset({"openai:gpt-4o*", "local", "a?c", "a[b]"}))
    assert (policy.denial(asked(model)) is None) == fits


async def test_a_model_that_is_not_allowed_is_never_called_whichever_way_it_is_asked_for() -> None:
    provider, told, guarded = Provider(), [], []

    class Guard:
        @hookimpl
        def guard_model_call(self, payload: GuardModelCall) -> Allow:
            guarded.append(payload.request.model)
            return Allow()

        @hookimpl
        def transform_model_request(self, payload: Any) -> ModelRequest:
            return payload.value.model_copy(update={"model": payload.value.model.replace("good", "bad")})

    async def ask(value: str, ctx: RunContext) -> str:
        try:
            return (await ctx.call_model(asked(value), provider.send, price=Price(), retry=RetryPolicy())).content
        except Exception:
            return "swallowed"

    def watch(event: OnGuardDenied) -> None:
        told.append(event.denial.plugin)

    policy = Policy(allow_models=frozenset({"good", "fine"}))
    flujo = Flujo(Step(ask), policy=policy, plugins=[Guard()], hooks=[watch])
    assert (await flujo.run_async("fine")).output == "ok"
    for model in ("other", "good"):  # a transform made something else of the second
        result = await flujo.run_async(model)
        assert result.status == "aborted"
        assert "is not allowed; allowed are: fine, good" in str(result.error)
    assert provider.models == ["fine"]
    assert guarded == ["fine", "other", "bad"]
    assert told == ["policy", "policy"]
    assert (await Flujo(Step(ask), policy=Policy(allow_models=frozenset())).run_async("fine")).status == "aborted"


async def test_tools_at_the_provider_are_off_unless_the_policy_lets_them() -> None:
    provider = Provider()

    async def ask(value: str, ctx: RunContext) -> str:
        request = asked("m", provider_tools=("web_search",))
        return (await ctx.call_model(request, provider.send, price=Price())).content

    result = await Flujo(Step(ask)).run_async("x")
    assert result.status == "aborted"
    assert "tools that run at the provider (web_search) are off" in str(result.error)
    assert provider.models == []
    assert (await Flujo(Step(ask), policy=Policy(allow_provider_tools=True)).run_async("x")).output == "ok"


# --- limits -----------------------------------------------------------------------------------------------------------


def spends(amount: str) -> Any:
    async def spend(value: int, ctx: RunContext) -> int:
        async with ctx.usage.reserve(cost_usd=amount) as lease:
            lease.settle(cost_usd=amount)
        return value

    return spend


async def test_max_limits_hold_where_nobody_asked_for_any_and_under_a_larger_budget() -> None:
    pipeline = Pipeline(Step(spends("0.4"), name="a") >> Step(spends("0.4"), name="b") >> Step(spends("0.4"), name="c"))
    policy = Policy(max_limits=UsageLimits("1.00"))
    result = await Flujo(pipeline, policy=policy).run_async(1)
    assert (result.status, str(result.total_cost_usd)) == ("stopped", "0.8")
    budget = Budget(UsageLimits(100))
    flujo = Flujo(pipeline, policy=policy, limits=budget)
    assert [(await flujo.run_async(1)).status for _ in range(3)] == ["stopped"] * 3
    assert str(budget.spent.cost_usd) == "2.4"
    assert (await Flujo(pipeline, policy=policy, limits=UsageLimits("0.5")).run_async(1)).total_cost_usd < 1


@pytest.mark.parametrize("field", ["total_cost_usd_limit", "total_tokens_limit", "requests_limit"])
@pytest.mark.parametrize("where", ["flujo", "run", "pipeline", "inner pipeline", "step"])
async def test_who_asks_for_more_than_the_policy_allows_is_refused_before_anything_runs(field: str, where: str) -> None:
    ran = []

    @step(limits=UsageLimits(**{field: 11}) if where == "step" else None)
    async def work(value: int) -> int:
        ran.append(value)
        return value

    policy, more = Policy(max_limits=UsageLimits(**{field: 10})), UsageLimits(**{field: 11})
    inner = Pipeline(work, name="inner", limits=more if where == "inner pipeline" else None)
    pipeline = Pipeline(inner, name="outer", limits=more if where == "pipeline" else None)

    async def run() -> None:
        flujo = Flujo(pipeline, policy=policy, limits=more if where == "flujo" else None)
        await flujo.run_async(1, limits=more)

    with pytest.raises(ConfigurationError, match=rf"{field}=11 of .*the policy allows at most 10"):
        await run()
    assert ran == []
    exact = UsageLimits(**{field: 10})
    assert Flujo(Step(lambda value: value, name="x"), policy=policy, limits=exact).limits == exact


async def test_a_resumed_run_is_held_to_max_limits_with_what_it_spent_before() -> None:
    async def ask(value: int) -> int:
        raise PauseForHumanInput("go on?", schema=int)

    pipeline = (
        Step(spends("0.4"), name="a") >> Step(ask) >> Step(spends("0.4"), name="b") >> Step(spends("0.4"), name="c")
    )
    flujo = Flujo(pipeline, policy=Policy(max_limits=UsageLimits("1.00")))
    paused = await flujo.run_async(1)
    with pytest.raises(ConfigurationError, match="the policy allows at most 1"):
        await flujo.resume_async(paused, 2, limits=UsageLimits(3))
    result = await flujo.resume_async(paused, 2)
    assert (result.status, str(result.total_cost_usd)) == ("stopped", "0.8")


async def test_a_warning_of_equal_limits_is_told_once() -> None:
    told: list[tuple[str, float]] = []

    def watch(event: OnUsageWarning) -> None:
        told.append((event.limit, event.share))

    pipeline = Step(spends("0.9"), name="a") >> Step(spends("0.05"), name="b")
    policy, limits = Policy(max_limits=UsageLimits(1)), UsageLimits(1)
    await Flujo(pipeline, policy=policy, limits=limits, hooks=[watch]).run_async(1)
    assert told == [("total_cost_usd_limit", 0.9)]


def test_the_words_of_the_policy_stand_in_its_docstring() -> None:
    for name in Policy.model_fields:
        assert re.search(rf"^\s+{name}: ", Policy.__doc__ or "", re.M), name


def lay(folder: Path, target: str, files: dict[str, str], version: str = "1.0") -> None:
    """Install the distribution `acme-rules` there."""
    info = folder / f"acme_rules-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-rules\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[flujo]\nacme = {target}\n")
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


PLUGIN = """
from flujo.core import hookimpl
flujo_api = "1.0"
class Plugin:
    @hookimpl
    def on_run_end(self, payload): ...
"""


@pytest.mark.parametrize(
    ("package", "target", "module"),
    [("acme_one", "acme_one", "acme_one.impl"), ("acme_two", "acme_two.plugin", "acme_two")],
)
def test_an_object_of_a_distribution_that_is_not_allowed_does_not_act_wherever_in_its_package_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, target: str, module: str
) -> None:
    """Policy.allow_plugins; as `test_an_object_or_a_registry_that_was_made_before_is_held_to_the_policy_too`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    files = {f"{package}/__init__.py": "", f"{package}/plugin.py": PLUGIN, f"{package}/impl.py": PLUGIN}
    files[f"{package}/__init__.py"] = PLUGIN
    lay(tmp_path, target, files)
    made = importlib.import_module(module).Plugin()

    async def work(value: int) -> int:
        return value

    with pytest.raises(PluginError):
        Flujo(Step(work), plugins=[made], policy=Policy(allow_plugins=frozenset({"other"})))


def test_who_narrows_an_allow_list_lets_no_pre_release_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two lists allow what both allow: `>=1` alone does not allow 2.0a1."""
    monkeypatch.syspath_prepend(str(tmp_path))
    lay(tmp_path, "acme_rules", {"x/acme_rules.py": ""}, version="2.0a1")
    policy = Policy(allow_plugins=frozenset({"acme-rules>=1"}))
    alone = {one.distribution: one.state for one in Plugins(policy=policy).installed}
    assert alone["acme-rules"] == "blocked"
    both = {one.distribution: one.state for one in Plugins(allowed=["acme-rules>=2.0a1"], policy=policy).installed}
    assert both["acme-rules"] == "blocked"


def test_a_policy_cannot_be_emptied() -> None:
    """A policy cannot be changed afterwards."""
    policy = Policy(named_limits={"model:m": NamedLimit(concurrency=1)})
    with suppress(TypeError, AttributeError):
        policy.named_limits.clear()
    assert policy.named_limits
