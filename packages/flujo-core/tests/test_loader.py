"""Finding, allowing, importing and activating plugins: with real distributions laid into a folder on sys.path."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from flujo.core import (
    PLUGIN_API_VERSION,
    Command,
    ConfigurationError,
    Flujo,
    OnRunEnd,
    PluginError,
    Plugins,
    Policy,
    Price,
    hookimpl,
    step,
)
from flujo.core.allowed import canonical
from flujo.core.loader import discover, load


@step
async def double(value: int) -> int:
    return 2 * value


def lay(folder: Path, distribution: str, code: str, *, module: str = "", version: str = "1.2") -> Path:
    """Install a distribution with one plugin module into `folder`, as an installer would."""
    module = module or distribution.replace("-", "_")
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[flujo]\n{module} = {module}\n")
    (folder / f"{module}.py").write_text(textwrap.dedent(code))
    return folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is searched for distributions first."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("FLUJO_PLUGINS", raising=False)
    return tmp_path


GOOD = """
    from flujo.core import Allow, Command, hookimpl
    flujo_api = "1.0"

    @hookimpl
    def register_commands():
        return [Command("demo", "A demo", "demo_cli:main")]

    class Plugin:
        def __init__(self, limit: int = 3) -> None:
            self.limit = limit

        @hookimpl
        def guard_step(self, payload):
            return Allow()
"""


def found(name: str) -> object:
    return next(plugin for plugin in discover() if plugin.distribution == name)


def test_a_plugin_is_found_without_being_imported(site: Path) -> None:
    lay(site, "Acme_Plugin", GOOD, module="acme_found")
    plugin = next(plugin for plugin in discover() if plugin.distribution == "acme-plugin")
    assert (plugin.version, plugin.target, plugin.state) == ("1.2", "acme_found", "found")
    assert "acme_found" not in sys.modules


def test_a_blocked_plugin_is_never_imported(site: Path, tmp_path: Path) -> None:
    sentinel = tmp_path / "imported"
    lay(site, "evil-plugin", f"open({str(sentinel)!r}, 'w').close()\nflujo_api = '1.0'")
    plugins = Plugins(allowed=frozenset({"flujo-audit"}))
    plugins.commands()
    assert {p.distribution: p.state for p in plugins.installed}["evil-plugin"] == "blocked"
    with pytest.raises(PluginError, match="allow-list"):
        Flujo(double, plugins=Plugins(["evil-plugin"], allowed=frozenset({"flujo-audit"})))
    assert not sentinel.exists()


@pytest.mark.parametrize(("value", "allowed"), [("", False), ("other", False), ("Free.Plugin , other", True)])
def test_the_environment_names_who_may_be_imported(
    site: Path, monkeypatch: pytest.MonkeyPatch, value: str, allowed: bool
) -> None:
    lay(site, "free-plugin", GOOD, module=f"free_{len(value)}")
    monkeypatch.setenv("FLUJO_PLUGINS", value)
    states = {plugin.distribution: plugin.state for plugin in Plugins().installed}
    assert states["free-plugin"] == ("found" if allowed else "blocked")


def test_an_installed_plugin_does_not_act_until_it_is_named(site: Path) -> None:
    lay(site, "quiet-plugin", GOOD, module="quiet_plugin")
    assert Flujo(double).plugins.acting == []
    assert "quiet_plugin" not in sys.modules
    named = Flujo(double, plugins=["Quiet_Plugin"])
    assert [name for name, _ in named.plugins.acting] == ["quiet-plugin"]
    assert named.run(2).output == 4


def test_settings_reach_the_plugin_and_wrong_ones_name_their_table(site: Path) -> None:
    lay(site, "set-plugin", GOOD, module="set_plugin")
    plugins = Plugins(["set-plugin"], settings={"set-plugin": {"limit": 9}})
    assert plugins.acting[0][1].limit == 9  # type: ignore[attr-defined]
    with pytest.raises(PluginError, match=r"\[tool\.flujo\.plugins\.set-plugin\]"):
        Plugins(["set-plugin"], settings={"set-plugin": {"colour": 1}})


def test_a_broken_plugin_is_reported_and_stops_only_who_names_it(site: Path) -> None:
    lay(site, "broken-plugin", "raise RuntimeError('no GPU, password=hunter2secret')", module="broken_plugin")
    lay(site, "fine-plugin", GOOD, module="fine_plugin")
    commands = Plugins().commands()
    assert ("fine-plugin", Command("demo", "A demo", "demo_cli:main")) in commands
    with pytest.raises(PluginError, match="broken-plugin") as caught:
        Flujo(double, plugins=["broken-plugin"])
    assert "RuntimeError: no GPU" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("made_for", ["2.0", "1.7", "0.9", "", "one", None])
def test_a_plugin_for_another_api_is_refused(site: Path, made_for: str | None) -> None:
    line = "" if made_for is None else f"flujo_api = {made_for!r}"
    name = f"api{abs(hash(made_for))}"
    lay(site, name, f"{line}\n", module=name)
    plugin = load(next(plugin for plugin in discover() if plugin.distribution == name))
    assert plugin.state == "failed"
    assert f"this is {PLUGIN_API_VERSION}" in plugin.error


def test_a_missing_plugin_says_how_to_get_it(site: Path) -> None:
    with pytest.raises(PluginError, match="pip install flujo-nowhere"):
        Flujo(double, plugins=["flujo-nowhere"])
    with pytest.raises(PluginError, match=r"the policy requires it.*pip install flujo-nowhere"):
        Flujo(double, policy=Policy(require={"flujo-nowhere"}))


def test_a_required_plugin_acts_without_being_named(site: Path) -> None:
    lay(site, "must-plugin", GOOD, module="must_plugin")
    flujo = Flujo(double, policy=Policy(require="must-plugin"))
    assert [name for name, _ in flujo.plugins.acting] == ["must-plugin"]


def test_removing_the_entry_point_of_a_required_plugin_makes_the_run_refuse_to_start(site: Path) -> None:
    lay(site, "gone-plugin", GOOD, module="gone_plugin")
    policy = Policy(require={"gone-plugin"})
    assert Flujo(double, policy=policy).run(1).output == 2
    next(site.glob("gone_plugin-*.dist-info/entry_points.txt")).unlink()
    with pytest.raises(PluginError, match="gone-plugin"):
        Flujo(double, policy=policy)


def test_an_object_of_a_required_plugin_counts_as_it_and_is_not_made_twice(site: Path) -> None:
    lay(site, "own-plugin", GOOD, module="own_plugin")
    import importlib

    module = importlib.import_module("own_plugin")
    mine = module.Plugin(limit=5)
    flujo = Flujo(double, plugins=[mine], policy=Policy(require={"own-plugin"}))
    assert flujo.plugins.acting == [("own-plugin", mine)]


def test_the_same_entry_point_name_from_another_distribution_is_not_what_was_required(site: Path) -> None:
    lay(site, "imposter", GOOD, module="wanted_plugin")
    with pytest.raises(PluginError, match="wanted-plugin"):
        Flujo(double, policy=Policy(require={"wanted-plugin"}))


def test_price_books_of_installed_plugins_are_asked(site: Path) -> None:
    lay(
        site,
        "price-plugin",
        """
        from decimal import Decimal
        from flujo.core import Price, hookimpl
        flujo_api = "1.0"

        class Book:
            def price(self, model):
                return Price(Decimal("0.001"), Decimal("0.002")) if model == "acme:m" else None

        @hookimpl
        def register_price_books():
            return [Book()]
        """,
        module="price_plugin",
    )
    plugins = Plugins()
    assert plugins.price_of("acme:m") == Price("0.001", "0.002")  # type: ignore[arg-type]
    assert plugins.price_of("other") is None


def test_a_plugin_that_acts_may_also_offer_recipes() -> None:
    class Both:
        @hookimpl
        def on_run_end(self, payload: OnRunEnd) -> None: ...

        @hookimpl
        def register_recipes(self) -> list[object]:
            return ["a recipe"]

    flujo = Flujo(double, plugins=[Both()])
    assert flujo.plugins.registered("register_recipes", object)[0] == ("Both", "a recipe")


def test_a_plugin_that_registers_something_else_is_named(site: Path) -> None:
    code = GOOD.replace('[Command("demo", "A demo", "demo_cli:main")]', '["demo"]')
    lay(site, "odd-plugin", code, module="odd_plugin")
    with pytest.raises(PluginError, match="odd-plugin"):
        Plugins().commands()


def test_names_are_compared_in_canonical_form() -> None:
    assert canonical("Flujo_Audit") == canonical("flujo.audit") == "flujo-audit"


def test_importing_core_neither_reads_the_environment_nor_imports_a_plugin(site: Path, tmp_path: Path) -> None:
    sentinel = tmp_path / "imported"
    lay(site, "eager-plugin", f"open({str(sentinel)!r}, 'w').close()\nflujo_api = '1.0'")
    code = f"import sys; sys.path.insert(0, {str(site)!r}); import flujo.core; flujo.core.Plugins().installed"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not sentinel.exists()


# --- what a policy allows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "version", "allowed"),
    [
        (["acme-rules"], "1.2", True),
        (["Acme_Rules >= 1.2 , < 2"], "1.2", True),
        (["acme-rules>=1,<2"], "2.0", False),
        (["acme-rules==1.*"], "1.9.3", True),
        (["acme-rules>=1,<2"], "1.9rc1", False),
        (["acme-rules==1.2"], "1.2+local.build", True),
        (["acme-rules===1.2"], "1.2+local.build", False),
        (["acme-rules>=1", "acme-rules<1.1"], "1.2", False),
        (["acme-rules>=0"], "not-a-version", False),
        (["rules"], "1.2", False),
        ([], "1.2", False),
    ],
)
@pytest.mark.parametrize("where", ["policy", "environment", "allowed"])
def test_the_distribution_and_its_version_decide_before_anything_is_imported(
    site: Path, monkeypatch: pytest.MonkeyPatch, entries: list[str], version: str, allowed: bool, where: str
) -> None:
    sentinel = site / "imported"
    module = "acme_rules_sentinel"
    monkeypatch.delitem(sys.modules, module, raising=False)
    lay(site, "acme-rules", f"open({str(sentinel)!r}, 'w').close()" + GOOD.replace("\n    ", "\n"),
        module=module, version=version)  # fmt: skip
    policy = Policy(allow_plugins=frozenset(entries)) if where == "policy" else None
    if where == "environment":
        monkeypatch.setenv("FLUJO_PLUGINS", ",".join(entries))

    def build() -> Flujo:
        if where == "allowed":
            return Flujo(double, plugins=Plugins(["acme-rules"], allowed=entries))
        return Flujo(double, plugins=["acme-rules"], policy=policy)

    if allowed:
        assert build().run(1).output == 2
    else:
        with pytest.raises(PluginError, match=r"'acme-rules' cannot be used: the allow-list"):
            build()
    assert sentinel.exists() == allowed


def test_a_policy_blocks_registries_and_stores_of_others_too(site: Path) -> None:
    sentinel = site / "imported"
    lay(site, "sneaky-plugin", f"open({str(sentinel)!r}, 'w').close()\nflujo_api = '1.0'", module="sneaky_plugin")
    flujo = Flujo(double, policy=Policy(allow_plugins=frozenset({"acme"})))
    assert flujo.plugins.price_of("some-model") is None
    assert flujo.plugins.commands() == []
    with pytest.raises(PluginError, match="no plugin knows"):
        Flujo(double, policy=Policy(allow_plugins=frozenset({"acme"})), store="sneaky://x")
    assert not sentinel.exists()


def test_the_entry_points_name_does_not_help_an_imposter(site: Path) -> None:
    sentinel = site / "imported"
    code = f"open({str(sentinel)!r}, 'w').close()\nflujo_api = '1.0'"
    lay(site, "other-dist", code, module="flujo_audit_imposter")
    (next(site.glob("other_dist-*")) / "entry_points.txt").write_text("[flujo]\nflujo-audit = flujo_audit_imposter\n")
    with pytest.raises(PluginError, match="other-dist"):
        Flujo(double, plugins=["other-dist"], policy=Policy(allow_plugins=frozenset({"flujo-audit"})))
    assert not sentinel.exists()


def test_a_required_plugin_that_is_not_allowed_stops_the_run(site: Path) -> None:
    lay(site, "both-plugin", GOOD, module="both_plugin", version="3.1")
    with pytest.raises(PluginError, match=r"the allow-list has both-plugin<3, installed is 3\.1"):
        Flujo(double, policy=Policy(require=frozenset({"both-plugin"}), allow_plugins=frozenset({"both-plugin<3"})))
    assert "both_plugin" not in sys.modules


def test_an_object_or_a_registry_that_was_made_before_is_held_to_the_policy_too(site: Path) -> None:
    lay(site, "early-plugin", GOOD, module="early_plugin")
    early = Plugins(["early-plugin"])
    policy = Policy(allow_plugins=frozenset({"other"}))
    for plugins in (early, [early.acting[0][1]]):
        with pytest.raises(PluginError, match="'early-plugin' cannot be used"):
            Flujo(double, plugins=plugins, policy=policy)

    class Own:
        @hookimpl
        def on_run_end(self, payload: object) -> None:
            pass

    assert Flujo(double, plugins=[Own()], policy=policy).run(1).output == 2, "what no distribution brings is not held"


@pytest.mark.parametrize("value", ["a b", "-a", "a==", "a>=1;python_version>'3'", "a[extra]"])
def test_an_environment_that_cannot_be_read_allows_nothing(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FLUJO_PLUGINS", value)
    with pytest.raises(ConfigurationError, match="cannot be allowed"):
        Plugins()


def test_versions_without_the_package_that_compares_them_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "packaging.specifiers", None)
    assert Plugins(allowed=["a"]).allowed == {"a": ""}
    with pytest.raises(ConfigurationError, match=r"pip install 'flujo-core\[policy\]'"):
        Plugins(allowed=["a>=1"])
