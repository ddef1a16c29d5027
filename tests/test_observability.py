"""Dashboard, scrape example and alert rules of the documentation, against a real Prometheus and real runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from locks import locked
from otlp_receiver import receiving

from flujo.core import signals

pytestmark = pytest.mark.timeout(300)  # Prometheus may have to be installed first

ROOT = Path(__file__).parents[1]
FILES = ROOT / "docs" / "observability"
KINDS = {"counter": "counter", "histogram": "histogram", "up_down_counter": "up-down counter"}
GUIDE = ROOT / "docs" / "how-to" / "watch-runs.md"
DASHBOARD: dict[str, Any] = json.loads((FILES / "grafana-dashboard.json").read_text())
RULES: list[dict[str, Any]] = yaml.safe_load((FILES / "alerts.yml").read_text())["groups"][0]["rules"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [(panel, target) for panel in PANELS for target in panel["targets"]]
QUERIES: list[str] = [target["expr"] for _, target in TARGETS]
EXPRESSIONS: list[str] = [*QUERIES, *(rule["expr"] for rule in RULES)]
OURS = re.compile(r"\b(?:flujo|gen_ai)_[a-z_]+")
GROUPS = re.compile(r"\bby\s*\(([^)]*)\)")


def metrics_in(query: str) -> set[str]:
    """Names of metrics in a query: what is of ours, and neither a label to group by nor one to choose by."""
    return set(OURS.findall(re.sub(r"\{[^}]*\}", " ", GROUPS.sub(" ", query))))


def grouped_by(query: str) -> set[str]:
    return {name.strip() for found in GROUPS.findall(query) for name in found.split(",")}


def shown_by(legend: str) -> set[str]:
    return set(re.findall(r"\{\{(\w+)\}\}", legend))


@pytest.fixture(scope="session")
def prometheus_binary(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> str:
    """Prometheus, a Debian package: installed here where that is possible."""
    own = tmp_path_factory.getbasetemp()
    with locked((own if worker_id == "master" else own.parent) / "prometheus.lock"):
        if shutil.which("prometheus") is None and os.geteuid() == 0 and shutil.which("apt-get"):
            quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "prometheus"]):
                subprocess.run(command, env=quiet, capture_output=True, timeout=110, check=False)
    found = shutil.which("prometheus")
    if found is None:
        pytest.fail("these tests need Prometheus: apt-get install prometheus")
    return found


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def process(command: list[str], log: Path) -> Iterator[None]:
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as started:
        try:
            yield
            assert started.poll() is None, log.read_text()
        finally:
            started.terminate()
            started.wait(20)


class Prometheus:
    """A Prometheus that scrapes a process which runs Flujo."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **query: str) -> Any:
        text = urllib.parse.urlencode(query)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{text}", timeout=10) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]

    def result(self, query: str) -> list[Any]:
        listed: list[Any] = self.ask("query", query=query)["result"]
        return listed

    def wait_for(self, query: str, seconds: float = 60) -> list[Any]:
        """The result of a query, once it has one."""
        until = time.monotonic() + seconds
        while not (found := self.result(query)) and time.monotonic() < until:
            time.sleep(0.5)
        return found


@pytest.fixture(scope="session")
def prometheus(prometheus_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    shown, port = free_port(), free_port()
    config = (FILES / "prometheus.yml").read_text()
    assert "localhost:9464" in config
    (folder / "prometheus.yml").write_text(config.replace("localhost:9464", f"127.0.0.1:{shown}").replace("15s", "1s"))
    shutil.copy(FILES / "alerts.yml", folder)
    server = [prometheus_binary, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with ExitStack() as stack:
        app = [sys.executable, str(ROOT / "tests" / "observed_app.py"), str(shown)]
        stack.enter_context(process(app, folder / "app.log"))
        stack.enter_context(process([*server, f"--web.listen-address=127.0.0.1:{port}"], folder / "prometheus.log"))
        found = Prometheus(f"http://127.0.0.1:{port}")
        until = time.monotonic() + 60
        while True:
            try:
                found.ask("status/buildinfo")
                break
            except OSError:
                assert time.monotonic() < until, (folder / "prometheus.log").read_text()
                time.sleep(0.2)
        yield found


# --- Prometheus -----------------------------------------------------------------------------------------------------


def test_the_scrape_example_and_the_alert_rules_are_valid_and_the_rules_fire_when_they_should(
    prometheus_binary: str,
) -> None:
    for command in ("check config prometheus.yml", "check rules alerts.yml", "test rules alerts-test.yml"):
        promtool = str(Path(prometheus_binary).with_name("promtool"))
        done = subprocess.run(
            [promtool, *command.split()], cwd=FILES, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_query_of_the_dashboard_returns_data(prometheus: Prometheus) -> None:
    """More than nothing, and not only zeros: the runs that are scraped do something for each panel."""
    for panel, target in TARGETS:
        query = target["expr"].replace("$__rate_interval", "10s").replace("$__range", "1m").replace("$workflow", ".*")
        assert "$" not in query
        assert prometheus.wait_for(f"({query}) > 0", seconds=30), (panel["title"], query)


def test_every_metric_of_a_query_or_rule_is_among_those_that_prometheus_scraped(prometheus: Prometheus) -> None:
    assert prometheus.wait_for("flujo_cache_hit_total")
    scraped = set(prometheus.ask("label/__name__/values"))
    for expression in EXPRESSIONS:
        assert metrics_in(expression)
        assert metrics_in(expression) <= scraped, expression


def test_every_label_of_a_query_or_rule_is_among_those_that_prometheus_scraped(prometheus: Prometheus) -> None:
    assert prometheus.wait_for("flujo_cache_hit_total")
    known = {*prometheus.ask("labels"), "le"}
    chosen = {name for text in EXPRESSIONS for name in re.findall(r"[{,]\s*(\w+)\s*(?:=|!)", text)}
    grouped = {name for text in EXPRESSIONS for name in grouped_by(text)}
    shown = {name for _, target in TARGETS for name in shown_by(target["legendFormat"])}
    assert grouped | chosen | shown <= known


def test_every_rule_is_loaded_and_works(prometheus: Prometheus) -> None:
    assert prometheus.wait_for("flujo_cache_hit_total")
    loaded = {rule["name"]: rule for rule in prometheus.ask("rules")["groups"][0]["rules"]}
    assert loaded.keys() == {rule["alert"] for rule in RULES}
    assert {rule["health"] for rule in loaded.values()} <= {"ok", "unknown"}


def test_every_metric_of_flujo_is_on_the_dashboard() -> None:
    shown = {name for query in QUERIES for name in metrics_in(query)}
    for metric in signals.METRICS:
        name = metric.name.replace(".", "_")
        assert [one for one in shown if one.startswith(name)], metric.name


# --- the dashboard by itself: Debian has no Grafana -------------------------------------------------------------------


def test_panels_do_not_overlap_and_have_a_title_a_description_a_unit_and_legends() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert all(0 <= x < 24 for x, _ in cells)
        taken |= cells
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        legends = [target["legendFormat"] for target in panel["targets"]]
        assert all(legends)
        assert len(legends) == len(set(legends))
        # What a query groups by, its legend shows: else lines look the same.
        for target in panel["targets"]:
            assert grouped_by(target["expr"]) - {"le"} == shown_by(target["legendFormat"]), panel["title"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_dashboard_names_no_data_source_of_its_own() -> None:
    assert [one["name"] for one in DASHBOARD["templating"]["list"]] == ["datasource", "workflow"]
    assert {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]} == {"${datasource}"}


def test_the_table_of_the_guide_has_every_name() -> None:
    guide = GUIDE.read_text()
    names = [value for name, value in vars(signals).items() if name.isupper() and isinstance(value, str)]
    assert [name for name in names if f"`{name}" not in guide] == []
    for metric in signals.METRICS:
        lines = [line for line in guide.splitlines() if line.startswith(f"| `{metric.name}` | {KINDS[metric.kind]} |")]
        (line,) = lines
        assert f"| `{metric.unit}` |" in line
        assert all(f"`{label}`" in line for label in metric.labels), metric.name


def test_the_example_of_the_guide_sends_spans_and_metrics_to_a_collector(tmp_path: Path) -> None:
    (example,) = [one for one in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S) if "sys.argv" in one]
    (tmp_path / "example.py").write_text(example)
    with receiving() as receiver:
        command = [sys.executable, "-W", "error", "example.py", receiver.url]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {span.name for _, span in receiver.spans} == {"request", "invoke_workflow report", "step outline"}
    assert {service for service, _ in receiver.spans} == {"reports"}
    assert "flujo.runs" in receiver.metrics
