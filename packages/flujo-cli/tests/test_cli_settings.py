"""`[tool.flujo]` and FLUJO_PLUGINS."""

from __future__ import annotations

import pytest

from flujo.core import ConfigurationError, Policy
from flujo_cli.prepare import joined, policy_of, read_policy
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
    assert read_settings().allowed == {"a", "b-c"}
    cli.write("pyproject.toml", "[tool.flujo.plugins]\nallow = ['a']\n[tool.flujo.plugins.flujo_audit]\npath = 'x'\n")
    settings = read_settings()
    assert settings.allowed == {"a"}
    assert settings.plugins == {"flujo-audit": {"path": "x"}}
    cli.write("pyproject.toml", "[tool.flujo.plugins.a]\nallow = ['x']\n")
    assert read_settings().allowed is None


@pytest.mark.parametrize(("value", "allowed"), [("", frozenset()), ("a, B_c,", {"a", "b-c"})])
def test_the_environment_wins_over_the_file(cli, monkeypatch, value: str, allowed: set[str]) -> None:
    cli.write("pyproject.toml", "[tool.flujo]\nplugins = ['z']\n")
    monkeypatch.setenv("FLUJO_PLUGINS", value)
    settings = read_settings()
    assert (settings.allowed, settings.allowed_from) == (allowed, "FLUJO_PLUGINS")


def test_policies_add_up_and_a_longer_time_may_be_chosen(cli) -> None:
    assert policy_of(Settings(), None, ()) == Policy()
    file = cli.write("policy.toml", "guard_timeout_s = 8\nrequire = 'Acme_A'\n")
    assert policy_of(Settings(), file, ("b",)) == Policy(guard_timeout_s=8, require=frozenset({"acme-a", "b"}))
    settings = Settings(policy={"guard_timeout_s": 20, "observer_timeout_s": 9, "require": ["c"]})
    both = policy_of(settings, file, ())
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


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"require": 3}, "require: "),
        ({"requires": ["x"]}, "requires: Extra inputs"),
        ({"guard_timeout_s": 0}, "guard_timeout_s: Input should be greater than 0"),
        ({"guard_timeout_s": -1}, "guard_timeout_s"),
        ({"guard_timeout_s": float("nan")}, "guard_timeout_s"),
        ({"observer_timeout_s": float("inf")}, "observer_timeout_s"),
        ({"observer_timeout_s": "soon"}, "observer_timeout_s"),
        ("strict", "policy: "),
        (None, "policy: "),
    ],
    ids=str,
)
def test_settings_that_cannot_be_used_name_the_entry_and_the_file(settings: object, words: str) -> None:
    with pytest.raises(ConfigurationError, match=r"policy in flujo\.toml cannot be used") as caught:
        read_policy(settings, "flujo.toml")
    assert words in str(caught.value)


def test_all_wrong_entries_of_a_policy_are_told() -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_policy({"requires": [], "guard_timeout_s": 0}, "flujo.toml")
    assert "requires" in str(caught.value)
    assert "guard_timeout_s" in str(caught.value)


def test_two_policies_hold_together_as_the_stricter_of_both() -> None:
    one = Policy(require={"a"}, guard_timeout_s=1)
    other = Policy(require={"b"}, guard_timeout_s=3, observer_timeout_s=2)
    assert (
        joined(one, other) == joined(other, one) == Policy(require={"a", "b"}, guard_timeout_s=1, observer_timeout_s=2)
    )


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
