"""Faults found in how the command line reads the allow-list."""

from __future__ import annotations

from pathlib import Path

import pytest

from flujo.core import Plugins, Policy
from flujo_cli.prepare import allowed_by
from flujo_cli.settings import read_settings


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
