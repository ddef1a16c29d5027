"""The inbox in a real browser: a run that pauses is answered with feedback, and goes on with its tally.

Chromium is Debian's; what is served is `flujo hitl serve`, as a user starts it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

ROOT = Path(__file__).parents[3]
AXE = Path(__file__).parent / "vendored" / "axe-4.14.1.min.js"
PASSWORD = "correct horse battery"
PACKAGE = "chromium"

expect.set_options(timeout=60_000)  # a machine may be busy; no test measures time

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True)
class Site:
    url: str
    folder: Path

    def flujo(self, *words: str, answer: str = "") -> str:
        command = [sys.executable, "-m", "flujo_cli", *words]
        store = {**os.environ, "FLUJO_STORE": "sqlite:///runs.db"}
        done = subprocess.run(
            command, cwd=self.folder, env=store, input=answer, capture_output=True, text=True, timeout=240, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    def begin(self, case: str) -> str:
        """Run the pipeline until it asks; the id of the run."""
        told = self.flujo("run", "letters.py", "--text", case, "--json")
        return str(json.loads(told.splitlines()[0])["run_id"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """`flujo hitl serve letters.py`: the inbox with a worker."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "examples" / "approvals" / "letters.py", folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = Site(f"http://127.0.0.1:{port}", folder)
    found.flujo("hitl", "user", "add", "ann", "--role", "editor", "--password-stdin", answer=PASSWORD)
    found.flujo(
        "hitl", "user", "add", "eve", "--role", "operator", "--role", "editor", "--password-stdin", answer=PASSWORD
    )
    command = [sys.executable, "-m", "flujo_cli", "hitl", "serve", "letters.py", "--port", str(port), "--poll", "0.1"]
    log = (folder / "log").open("w")
    server = subprocess.Popen(
        command, cwd=folder, stdout=log, stderr=log, env={**os.environ, "FLUJO_STORE": "sqlite:///runs.db"}
    )
    try:
        while True:
            assert server.poll() is None, (folder / "log").read_text()
            try:
                httpx.get(f"{found.url}/sign-in")
                break
            except httpx.ConnectError:
                time.sleep(0.1)
        yield found
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 130
        log.close()
    assert "Traceback" not in (folder / "log").read_text()


def found_chromium() -> str | None:
    return next(filter(None, map(shutil.which, (PACKAGE, "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if found_chromium() is None and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", PACKAGE]):
            subprocess.run(["apt-get", *words], check=False, timeout=200, **quiet)  # type: ignore[call-overload]
    path = found_chromium()
    if path is None:
        pytest.fail(f"these tests need Chromium: apt-get install --no-install-recommends {PACKAGE}")
    with sync_playwright() as playwright:
        # as root Chromium has no sandbox; it is shown our own pages only
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def signed_in(browser: Browser, site: Site, name: str = "ann", **options: Any) -> tuple[Page, list[str]]:
    """A page of somebody who signed in, and what the browser complains of."""
    context: BrowserContext = browser.new_context(base_url=site.url, **options)
    page, complaints = context.new_page(), list[str]()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto("/sign-in")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Inbox")).to_be_visible()
    return page, complaints


def late(route: Route) -> None:
    time.sleep(1)
    route.continue_()


def test_a_run_is_answered_with_feedback_and_goes_on_with_its_tally(chromium: Browser, site: Site) -> None:
    run = site.begin("a late parcel")
    page, complaints = signed_in(chromium, site)
    other = page.context.new_page()  # follows the run meanwhile, also where the second of its scripts comes late
    other.route("**/hx-sse-*.js", late)
    other.goto(f"/run?id={run}")
    expect(other.get_by_role("status")).to_contain_text("Cost so far: 0.012 USD, 400 tokens, 1 request")
    expect(other.locator(".step.paused")).to_contain_text("review")

    other.locator("summary").first.focus()
    other.keyboard.press("Enter")
    expect(other.locator("pre").first).to_be_visible()

    page.get_by_role("listitem").filter(has_text=run).get_by_role("link", name="May this letter be sent?").click()
    expect(page.locator("pre.payload")).to_contain_text("about a late parcel: we pay back 40 USD.")
    page.get_by_role("group", name="Approved").get_by_label("Yes").check()
    page.get_by_label("friendly").check()
    page.get_by_label("Changes").fill("Say sorry <b>first</b>.")
    page.get_by_label("Amount").fill("60")
    page.get_by_label("Reason").fill("we were late")
    page.get_by_role("button", name="Send the decision").click()
    expect(page.get_by_role("heading", name="The decision is recorded")).to_be_visible()

    # without a reload: it is sent by the server
    expect(other.get_by_role("status")).to_contain_text("completed")
    expect(other.get_by_role("status")).to_contain_text("Cost so far: 0.032 USD, 800 tokens, 2 requests")
    expect(other.locator(".step.success")).to_have_count(5)
    expect(other.locator("pre").first).to_be_visible()  # what was open stays open, and the focus where it was
    assert other.evaluate("document.activeElement.tagName") == "SUMMARY"
    other.locator("details").last.locator("summary").click()
    expect(other.locator("pre").last).to_contain_text("Hello Ann,\n\nabout a late parcel: we pay back 60 USD.")
    expect(other.locator("pre").last).to_contain_text("PS: Say sorry <b>first</b>.")
    expect(other.get_by_text("we were late")).to_be_visible()

    facts = json.loads(site.flujo("runs", "show", run, "--json"))
    assert (facts["status"], facts["checkpoint"]["usage"]["cost_usd"]) == ("completed", "0.032")
    assert complaints == []
    page.context.close()


def test_it_works_by_keyboard_and_without_javascript(chromium: Browser, site: Site) -> None:
    run = site.begin("a broken cup")
    page, _ = signed_in(chromium, site, java_script_enabled=False)
    page.goto(f"/question?run={run}&id=review")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    for _ in range(30):  # to the first choice: links and the text that is decided on come before
        page.keyboard.press("Tab")
        if page.locator("input[type=radio]:focus").count():
            break
    page.keyboard.press("ArrowRight")  # from Yes to No
    expect(page.get_by_role("group", name="Approved").get_by_label("No", exact=True)).to_be_checked()
    page.get_by_role("button", name="Send the decision").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="The decision is recorded")).to_be_visible()
    while "failed" not in site.flujo("runs", "show", run).splitlines()[0]:
        time.sleep(0.1)
    page.goto(f"/run?id={run}")
    expect(page.get_by_role("status")).to_contain_text("failed")
    page.context.close()


def pages_of(run: str) -> dict[str, str]:
    return {"inbox": "/", "question": f"/question?run={run}&id=review", "run": f"/run?id={run}", "runs": "/runs"}


@pytest.mark.parametrize("width", [360, 1100])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_and_is_accessible(chromium: Browser, site: Site, scheme: str, width: int) -> None:
    run = site.begin(f"a very-long-word-{'x' * 80} in {scheme} at {width}")
    look = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    page, complaints = signed_in(chromium, site, "eve", **look)
    views = {**pages_of(run), "problem": "/run?id=nobody"}
    for name, path in views.items():
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert serious(page) == [], name
    page.goto(views["question"])
    page.get_by_label("Amount").fill("-5")
    page.get_by_role("button", name="Send the decision").click()
    expect(page.get_by_role("alert")).to_contain_text("must be filled in")
    assert serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if folder := os.environ.get("FLUJO_SCREENSHOTS"):  # as docs/ shows them
        for name, path in pages_of(site.begin("a late parcel")).items():
            page.goto(path)
            page.screenshot(path=f"{folder}/{name}-{width}-{scheme}.png", full_page=name != "inbox")
    assert [one for one in complaints if "404" not in one and "422" not in one] == []
    page.context.close()


def serious(page: Page) -> list[object]:
    """What axe finds of weight. It is run by the debugger: the page itself may load nothing but our own files."""
    call = f"{AXE.read_text()}; axe.run(document).then(found => JSON.stringify(found.violations))"
    session = page.context.new_cdp_session(page)
    answer = session.send("Runtime.evaluate", {"expression": call, "awaitPromise": True, "returnByValue": True})
    found = json.loads(answer["result"]["value"])
    return [
        [one["id"], one["impact"], [node["html"] for node in one["nodes"]]]
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def test_focus_is_seen(chromium: Browser, site: Site) -> None:
    page, _ = signed_in(chromium, site)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    width = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert re.fullmatch(r"3(\.\d+)?px", width)
    page.context.close()
