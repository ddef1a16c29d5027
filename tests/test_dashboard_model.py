"""The Grafana dashboard against the data model that Grafana publishes: what that does not know is ignored there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

FILE = Path(__file__).parents[1] / "docs" / "observability" / "grafana-dashboard.json"


def lost(written: Any, read: Any, at: str = "") -> Iterator[str]:
    """Where something stands that was not read, or was read as something else."""
    if isinstance(written, dict) and isinstance(read, dict):
        for name, value in written.items():
            yield from lost(value, read[name], f"{at}.{name}") if name in read else [f"{at}.{name}"]
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for number, pair in enumerate(zip(written, read, strict=True)):
            yield from lost(*pair, f"{at}[{number}]")
    elif written != read:
        yield at


def read_by_grafana(dashboard: dict[str, Any]) -> tuple[Dashboard, list[str]]:
    """The dashboard as Grafana's own model has it, and what of it that does not know."""
    plugins.register_default_plugins()
    model = Dashboard.from_json(dashboard)
    return model, list(lost(dashboard, json.loads(JSONEncoder().encode(model))))


def test_grafanas_own_model_knows_every_field_of_the_dashboard() -> None:
    model, unknown = read_by_grafana(json.loads(FILE.read_text()))
    # What the editor shows of a variable's query, which stands in `query`; the model of 10.1 leaves it out.
    assert unknown == [".templating.list[1].definition"]
    panels = [panel for panel in model.panels or () if isinstance(panel, Panel)]
    assert {panel.type_val for panel in panels} == {"stat", "timeseries"}
    for panel in panels:
        assert type(panel.options).__module__.endswith(f".{panel.type_val}"), "options are read as those of its kind"


def test_a_field_that_grafana_does_not_know_is_found() -> None:
    dashboard = json.loads(FILE.read_text())
    [first, *_] = [panel for panel in dashboard["panels"] if panel["type"] == "timeseries"]
    first["options"]["legend"]["placment"] = "right"
    first["fieldConfig"]["defaults"]["custom"]["fillOpacty"] = 3
    _, unknown = read_by_grafana(dashboard)
    place = f".panels[{dashboard['panels'].index(first)}]"
    assert f"{place}.options.legend.placment" in unknown
    assert f"{place}.fieldConfig.defaults.custom.fillOpacty" in unknown
