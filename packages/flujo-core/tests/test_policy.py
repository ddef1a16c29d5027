"""Policies: what an operator demands, read from code or from a settings table."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from flujo.core import ConfigurationError, Policy


def test_a_policy_demands_nothing_unless_told() -> None:
    assert Policy().require == frozenset()
    assert Policy().guard_timeout_s == 5.0


@pytest.mark.parametrize("given", ["flujo-audit", ["flujo-audit"], {"flujo-audit"}, ("flujo-audit", "flujo-audit")])
def test_one_name_or_several_may_be_required(given: Any) -> None:
    assert Policy(require=given).require == {"flujo-audit"}
    assert Policy.read({"require": given}, "pyproject.toml").require == {"flujo-audit"}


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
        Policy.read(settings, "flujo.toml")
    assert words in str(caught.value)


def test_all_wrong_entries_of_a_policy_are_told() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Policy.read({"requires": [], "guard_timeout_s": 0}, "flujo.toml")
    assert "requires" in str(caught.value)
    assert "guard_timeout_s" in str(caught.value)


def test_two_policies_hold_together_as_the_stricter_of_both() -> None:
    one = Policy(require={"a"}, guard_timeout_s=1)
    other = Policy(require={"b"}, guard_timeout_s=3, observer_timeout_s=2)
    assert one.joined(other) == other.joined(one) == Policy(require={"a", "b"}, guard_timeout_s=1, observer_timeout_s=2)


def test_a_policy_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Policy().require = frozenset({"x"})  # type: ignore[misc]
