"""Policies: what an operator demands, read from code or from a settings table."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from flujo.core import Policy


def test_a_policy_demands_nothing_unless_told() -> None:
    assert Policy().require == frozenset()
    assert Policy().guard_timeout_s == 5.0


@pytest.mark.parametrize("given", ["flujo-audit", ["flujo-audit"], {"flujo-audit"}, ("flujo-audit", "flujo-audit")])
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
