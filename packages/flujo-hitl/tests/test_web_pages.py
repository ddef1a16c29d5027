"""The pages of the inbox, as a browser without JavaScript sees them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import httpx
import pytest
from conftest import OpenStore
from hitl_trials import paused, question
from web_site import PASSWORD, PROXY, SCHEMA, URL, Browser, filled, site, users_in

from flujo.core import ConfigurationError, Flujo, Parallel, PauseForHumanInput, Pipeline, Step
from flujo.hitl import SQLiteStore
from flujo.hitl.web import live
from flujo.hitl.web.guards import MAX_BODY
from flujo.hitl.web.people import Users
from flujo.hitl.web.settings import TrustedHeader, WebSettings

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # which the web app needs


@pytest.fixture
def users(tmp_path: Path) -> Users:
    return users_in(tmp_path)


@pytest.fixture
async def browser(store: SQLiteStore, users: Users) -> AsyncIterator[Browser]:
    await filled(store)
    async with site(store, WebSettings(users=users, header=PROXY)) as found:
        yield found


MONEY = "/question?run=money&id=ask"


# --- signing in -------------------------------------------------------------------------------------------------------


async def test_who_is_not_signed_in_sees_nothing(browser: Browser) -> None:
    assert (await browser.get("/")).headers["location"] == "/sign-in"
    for path in ("/runs", "/run?id=money", MONEY, "/receipt?run=money&id=ask"):
        assert (await browser.get(path)).headers["location"] == "/sign-in"
    assert (await browser.get("/run/live?id=money")).status_code == 401
    assert (await browser.client.post("/question", data={"run": "money"})).status_code == 401
    answer = await browser.get("/api/inbox")
    assert (answer.status_code, answer.json()["what"]) == (401, "You are not signed in")


async def test_one_signs_in_and_out(browser: Browser) -> None:
    wrong = await browser.sign_in("ann", "wrong horse battery")
    assert (wrong.status_code, "is not right" in wrong.text) == (401, True)
    assert (await browser.sign_in("nobody")).status_code == 401
    right = await browser.sign_in("ann")
    assert (right.status_code, right.headers["location"]) == (303, "/")
    assert re.search(r"flujo=\S+; path=/; Max-Age=43200; httponly; samesite=lax$", right.headers["set-cookie"])
    page = await browser.get("/")
    assert page.status_code == 200
    assert (await browser.send(page, "/sign-out")).status_code == 303
    assert (await browser.get("/")).status_code == 303


async def test_who_wanted_a_page_gets_it_after_signing_in(browser: Browser) -> None:
    await browser.get("//evil.example/")
    await browser.get(MONEY)
    assert (await browser.sign_in("ann")).headers["location"] == MONEY


async def test_a_cookie_goes_over_tls_only_where_there_is_tls(store: SQLiteStore, users: Users) -> None:
    settings = WebSettings(url="https://approvals.example.org", users=users)
    async with site(store, settings) as browser:
        answer = await browser.sign_in("ann")
    assert answer.headers["set-cookie"].startswith("__Host-flujo=")
    assert answer.headers["set-cookie"].endswith("httponly; samesite=lax; secure")
    assert "max-age=31536000" in answer.headers["strict-transport-security"]


async def test_who_is_removed_or_has_another_password_is_out_at_once(browser: Browser, users: Users) -> None:
    await browser.sign_in("ann")
    Users(users.path).add("ann", "another horse battery", ["finance"])  # as the command does, in another process
    assert (await browser.get("/")).status_code == 303
    await browser.sign_in("ann", "another horse battery")
    assert (await browser.get("/")).status_code == 200
    Users(users.path).remove("ann")
    assert (await browser.get("/")).status_code == 303


async def test_guessing_a_password_is_slowed_down(store: SQLiteStore, users: Users) -> None:
    async with site(store, WebSettings(users=users, sign_ins=3)) as browser:
        codes = [(await browser.sign_in("ann", f"wrong {number}")).status_code for number in range(4)]
        late = await browser.sign_in("ann")
    assert codes == [401, 401, 401, 429]
    assert (late.status_code, int(late.headers["retry-after"]) > 0) == (429, True)


async def test_people_behind_a_proxy_are_counted_by_their_own_address(store: SQLiteStore, users: Users) -> None:
    async def codes(browser: Browser, *forwarded: str) -> list[int]:
        found = []
        for number, one in enumerate(forwarded):
            browser.client.headers["x-forwarded-for"] = one
            found.append((await browser.sign_in(f"nobody {number} {one}", "wrong")).status_code)
        return found

    settings = WebSettings(users=users, sign_ins=2)
    async with site(store, settings) as browser:  # of this machine, as the guide has the proxy
        assert await codes(browser, *["198.51.100.1"] * 3, "198.51.100.2") == [401, 401, 429, 401]
        forged = ["203.0.113.1, 198.51.100.3", "203.0.113.2, 198.51.100.3", "203.0.113.3, 198.51.100.3"]
        assert await codes(browser, *forged) == [401, 401, 429]
    async with site(store, settings, client=("192.0.2.1", 1)) as browser:  # who is no proxy is not believed
        assert await codes(browser, "198.51.100.1", "198.51.100.2", "198.51.100.3") == [401, 401, 429]


async def test_a_proxy_says_who_it_is_and_nobody_else_does(store: SQLiteStore, users: Users) -> None:
    await filled(store)
    header = TrustedHeader("X-User", [ipaddress.ip_network("10.0.0.0/24")], "X-Roles")
    said = {"X-User": "eve", "X-Roles": "finance, law"}
    async with site(store, WebSettings(users=users, header=header), client=("10.0.0.7", 1)) as browser:
        page = await browser.get("/", headers=said)
        assert "Pay &lt;b&gt;40" in page.text
        assert (await browser.get("/")).status_code == 303
        question_page = await browser.get(MONEY, headers=said)
        browser.client.headers.update(said)
        sent = await browser.send(question_page, "/question", **{"answer.approved": "true"})
        assert sent.status_code == 303
    (one,) = await store.decided()
    assert one.actor == "eve"
    async with site(store, WebSettings(users=users, header=header), client=("10.0.1.7", 1)) as browser:
        assert (await browser.get("/", headers=said)).status_code == 303


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"url": "http://approvals.example.org"}, "could read passwords"),
        ({"url": "ftp://x"}, "no scheme with a host"),
        ({"url": "https://x:99999"}, "Port out of range"),
        ({"url": "https://a.example/inbox"}, "no scheme with a host"),
        ({"key": "short"}, "fewer than 32"),
        ({"users": None}, "there are no users"),
    ],
)
async def test_settings_that_would_not_be_safe_are_refused(users: Users, given: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        WebSettings(**{"users": users, **given})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="no proxy is named"):
        TrustedHeader("X-User", [])


@pytest.mark.parametrize(
    ("url", "host", "origin"),
    [
        ("http://[::1]:8321", "[::1]", "http://[::1]:8321"),
        ("https://Approvals.Example.org:443/", "approvals.example.org", "https://approvals.example.org"),
        ("https://a.example:8443", "a.example", "https://a.example:8443"),
    ],
)
async def test_where_people_reach_it_is_written_as_browsers_do(
    store: SQLiteStore, users: Users, url: str, host: str, origin: str
) -> None:
    settings = WebSettings(url=url, users=users, header=PROXY)
    assert (settings.host, settings.origin) == (host, origin)
    await filled(store)
    async with site(store, settings) as browser:
        browser.act_as("ann")
        browser.client.headers["origin"] = origin
        sent = await browser.send(await browser.get(MONEY), "/question", **{"answer.approved": "true"})
        assert sent.status_code == 303


# --- what every answer has --------------------------------------------------------------------------------------------


async def test_every_page_lets_the_browser_run_nothing_but_our_own_files(browser: Browser) -> None:
    browser.act_as("ops")
    pages = ["/", "/runs", "/run?id=any", "/question?run=any&id=ask", "/run?id=nobody", "/nowhere", "/sign-in"]
    for path in pages:
        answer = await browser.get(path)
        rules = answer.headers["content-security-policy"]
        assert "default-src 'none'" in rules
        assert "unsafe" not in rules
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"\sstyle=|\son[a-z]+=|<style|<script(?! src=\"/static/)|https?://", answer.text), path
        assert re.search(r"<h1[ >]", answer.text)
        assert 'lang="en"' in answer.text


async def test_other_hosts_and_bodies_that_are_too_long_are_refused(browser: Browser) -> None:
    assert (await browser.get("/sign-in", headers={"host": "evil.example"})).status_code == 400
    long = b"name=" + b"x" * MAX_BODY
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert (await browser.client.post("/sign-in", content=long, headers=kind)).status_code == 413

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * (MAX_BODY // 10)

    assert (await browser.client.post("/sign-in", content=parts(), headers=kind)).status_code == 413


async def test_a_form_of_another_site_is_refused(browser: Browser, store: SQLiteStore) -> None:
    browser.act_as("ann")
    page = await browser.get(MONEY)
    browser.client.headers["origin"] = "https://evil.example"
    assert (await browser.send(page, "/question", **{"answer.approved": "true"})).status_code == 403
    del browser.client.headers["origin"]
    for word in ("", "guessed"):
        assert (await browser.send(page, "/question", csrf=word, **{"answer.approved": "true"})).status_code == 403
    assert not await store.decided()
    browser.client.headers["origin"] = URL
    assert (await browser.send(page, "/question", **{"answer.approved": "true"})).status_code == 303


# --- looking ----------------------------------------------------------------------------------------------------------


async def test_the_inbox_shows_what_one_may_answer(browser: Browser) -> None:
    browser.act_as("ann")
    page = (await browser.get("/")).text
    assert "Pay &lt;b&gt;40&lt;/b&gt;?" in page
    assert "How many?" in page
    assert "Sign?" not in page
    for path in ("/run?id=law", "/question?run=law&id=ask", "/receipt?run=law&id=ask"):
        assert (await browser.get(path)).status_code == 404
    assert (await browser.get("/runs")).status_code == 403
    assert "Nothing waits" in (await browser.get("/?pipeline=other")).text


async def test_one_tenant_does_not_see_another(browser: Browser) -> None:
    browser.act_as("bob")
    page = (await browser.get("/")).text
    assert "Sign?" in page
    assert "How many?" not in page
    assert (await browser.get("/question?run=any&id=ask")).status_code == 404


async def test_long_lists_have_parts(browser: Browser, store: SQLiteStore) -> None:
    for number in range(60):
        await paused(store, f"r{number}", question(f"Number {number}?"))
    browser.act_as("ann")
    seen: list[str] = []
    path = "/"
    while path:
        page = (await browser.get(path)).text
        seen += re.findall(r"Number (\d+)\?", page)
        more = re.search(r'href="([^"]*)" rel="next"', page)
        path = more[1].replace("&amp;", "&") if more else ""
    assert seen == [str(number) for number in range(60)]
    assert (await browser.get("/?after=x")).status_code == 422


async def test_a_run_is_drawn_with_how_it_stands(store: SQLiteStore, users: Users) -> None:
    async def ask(value: int) -> int:
        raise PauseForHumanInput("How many?", schema=int)

    async def add(value: int) -> int:
        return value + 1

    both = Parallel(Step(add, name="left"), Step(ask, name="right"), name="both")
    flow = Pipeline(Step(add, name="first") >> both, name="drawn")
    flujo = Flujo(flow, store=store)
    await flujo.run_async(1, run_id="r")
    async with site(store, WebSettings(users=users, header=PROXY), plan=flujo.plan) as browser:
        browser.act_as("ann")
        page = (await browser.get("/run?id=r")).text
        assert len(re.findall(r'class="step success"', page)) == 2
        assert len(re.findall(r'class="step paused"', page)) == 1
        assert "parallel both" in page
        assert "… waits" in page
        assert "hx-sse:connect" in page
    async with site(store, WebSettings(users=users, header=PROXY)) as browser:  # no plan
        browser.act_as("ann")
        page = (await browser.get("/run?id=r")).text
        assert len(re.findall(r'class="step success"', page)) == 2


async def test_what_follows_a_run_ends_with_it(browser: Browser, store: SQLiteStore) -> None:
    async def add(value: int) -> int:
        return value + 1

    await Flujo(Step(add), store=store).run_async(1, run_id="done")
    browser.act_as("ops")
    answer = await browser.get("/run/live?id=done")
    assert answer.headers["content-type"].startswith("text/event-stream")
    first, last = answer.text.strip().split("\n\n")
    assert all(line.startswith("data: ") for line in first.splitlines())
    assert "completed" in first
    assert last.startswith("event: done")


async def test_a_page_follows_on_after_a_stream_had_its_time(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_LONGEST_S", 0.0)
    browser.act_as("ops")
    answer = await browser.get("/run/live?id=money")
    assert answer.status_code == 200
    assert "event: done" not in answer.text  # which tells the browser not to connect anew


async def test_what_follows_a_run_ends_where_it_is_deleted(browser: Browser, store: SQLiteStore) -> None:
    browser.act_as("ops")
    answers: list[httpx.Response] = []

    async def follow() -> None:
        answers.append(await browser.get("/run/live?id=money"))

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        while not browser.app.state.streams:
            await anyio.sleep(0.01)
        await store.delete("money")
    assert answers[0].text.endswith("event: done\ndata: \n\n")


async def test_what_a_page_leaves_out_is_told_by_a_command_that_gives_it(store: SQLiteStore, users: Users) -> None:
    async def write(value: int) -> str:
        return "x" * 5000 + "the end"

    await Flujo(Step(write), store=store).run_async(1, run_id="r")
    async with site(store, WebSettings(users=users, header=PROXY)) as browser:
        browser.act_as("ops")
        page = (await browser.get("/run?id=r")).text
    assert "the end" not in page
    assert "cut here; flujo runs show RUN --json gives all" in page


async def test_an_operator_ends_a_run(browser: Browser, store: SQLiteStore) -> None:
    browser.act_as("ops")
    page = await browser.get("/run?id=money")
    assert (await browser.send(page, "/cancel")).status_code == 303
    assert await store.cancel_requested() == ["money"]
    assert "to be cancelled" in (await browser.get("/run?id=money")).text
    browser.act_as("ann")
    assert "End this run" not in (await browser.get("/run?id=money")).text
    page = await browser.get(MONEY)
    csrf = re.search(r'name="csrf" value="([^"]*)"', page.text)
    assert csrf
    assert (await browser.client.post("/cancel", data={"csrf": csrf[1], "run": "any"})).status_code == 403


# --- deciding ---------------------------------------------------------------------------------------------------------


async def test_a_decision_is_recorded_with_who_and_why(browser: Browser, store: SQLiteStore) -> None:
    browser.act_as("ann")
    page = await browser.get(MONEY)
    assert "to: &#34;&lt;script&gt;&#34;" in page.text  # text only, whatever a model wrote
    sent = await browser.send(page, "/question", **{"answer.approved": "true", "answer.reason": "as agreed"})
    assert (sent.status_code, sent.headers["location"]) == (303, "/receipt?run=money&id=ask")
    (one,) = await store.decided()
    assert (one.decision, one.actor, one.reason) == ({"approved": True, "reason": "as agreed"}, "ann", "as agreed")
    receipt = (await browser.get(sent.headers["location"])).text
    assert one.receipt.digest in receipt
    assert "Pay" not in (await browser.get("/")).text
    assert (await browser.get(MONEY)).headers["location"] == "/receipt?run=money&id=ask"


async def test_the_same_again_is_fine_and_another_is_a_conflict(browser: Browser, store: SQLiteStore) -> None:
    browser.act_as("ann")
    page = await browser.get(MONEY)
    yes, no = {"answer.approved": "true"}, {"answer.approved": "false"}
    assert (await browser.send(page, "/question", **yes)).status_code == 303
    assert (await browser.send(page, "/question", **yes)).status_code == 303
    other = await browser.send(page, "/question", **no)
    (one,) = await store.decided()
    assert (other.status_code, one.receipt.digest in other.text) == (409, True)
    assert one.decision == {"approved": True}


async def test_what_was_not_seen_cannot_be_decided(browser: Browser, store: SQLiteStore) -> None:
    browser.act_as("ann")
    page = await browser.get(MONEY)
    stale = await browser.send(page, "/question", shown="0" * 64, **{"answer.approved": "true"})
    assert (stale.status_code, "What you saw is not what it asks now" in stale.text) == (409, True)
    await paused(store, "long", question("Good?", wanted={"type": "boolean"}, payload="x" * 300_000))
    page = await browser.get("/question?run=long&id=ask")
    assert "too long to be shown whole" in page.text
    assert '<form method="post" action="/question"' not in page.text
    assert not await store.decided()


async def test_a_question_that_expired_is_told(browser: Browser, store: SQLiteStore) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    await paused(store, "soon", question("Now?", wanted={"type": "boolean"}, expires_at=soon))
    browser.act_as("ann")
    page = await browser.get("/question?run=soon&id=ask")
    while datetime.now(UTC) < soon:
        late = await browser.get("/question?run=soon&id=ask")
    late = await browser.get("/question?run=soon&id=ask")
    assert "too late to answer" in late.text
    sent = await browser.send(page, "/question", answer="true")
    assert (sent.status_code, "expired at" in sent.text) == (410, True)


async def test_an_answer_that_does_not_fit_is_kept_in_the_form(browser: Browser, store: SQLiteStore) -> None:
    browser.act_as("ann")
    page = await browser.get("/question?run=any&id=ask")
    for wrong, why in (("many", "is no whole number"), ("", "must be filled in")):
        again = await browser.send(page, "/question", answer=wrong, reason="because")
        assert again.status_code == 422
        assert why in again.text
        assert 'aria-invalid="true"' in again.text
        assert f'value="{wrong}"' in again.text
        assert "because" in again.text
    raw = await browser.send(page, "/question", answer="", json="{not json")
    assert (raw.status_code, "This is no JSON" in raw.text) == (422, True)
    assert (await browser.send(page, "/question", answer="", json="7", reason="because")).status_code == 303
    (one,) = await store.decided()
    assert (one.decision, one.reason) == (7, "because")


async def test_deciding_too_often_is_slowed_down(open_store: OpenStore, users: Users) -> None:
    store = open_store()
    await filled(store)
    async with site(store, WebSettings(users=users, header=PROXY, decisions=2)) as browser:
        browser.act_as("ann")
        page = await browser.get(MONEY)
        codes = [(await browser.send(page, "/question", **{"answer.approved": "x"})).status_code for _ in range(3)]
    assert codes == [422, 422, 429]


async def test_a_store_that_cannot_be_used_is_told_without_its_path(browser: Browser, store: SQLiteStore) -> None:
    browser.act_as("ann")
    store.close()
    answer: httpx.Response = await browser.get("/")
    assert answer.status_code == 503
    assert str(store.path) not in answer.text


def test_passwords_and_tokens_are_not_in_the_file(users: Users) -> None:
    token = users.new_token("ann")
    text = users.path.read_text()
    assert PASSWORD not in text
    assert token not in text
    assert users.path.stat().st_mode & 0o077 == 0
    person = users.of_token(token)
    assert person is not None
    assert person.name == "ann"
    assert users.drop_tokens("ann") == 1
    assert users.of_token(token) is None


def test_users_that_cannot_be_are_refused(users: Users) -> None:
    for name, password, roles in (
        ("", PASSWORD, []),
        ("a\nb", PASSWORD, []),
        ("a", "short", []),
        ("a", PASSWORD, ["x,y"]),
    ):
        with pytest.raises(ConfigurationError):
            users.add(name, password, roles)
    with pytest.raises(ConfigurationError, match="no user 'nobody'"):
        users.remove("nobody")
    users.path.write_text("{")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Users(users.path).all()


def test_the_schema_of_the_tests_is_that_of_an_approval() -> None:
    from flujo.hitl import Approval

    assert set(Approval.model_json_schema()["properties"]) == set(SCHEMA["properties"])  # type: ignore[call-overload]
