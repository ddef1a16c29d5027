"""The JSON API: what it says, and that it says nothing else (schemathesis)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from hitl_trials import paused, question
from hypothesis import given
from web_site import PROXY, Browser, filled, site, users_in

from flujo.hitl import SQLiteStore
from flujo.hitl.web.app import create_app
from flujo.hitl.web.guards import MAX_BODY
from flujo.hitl.web.people import Users
from flujo.hitl.web.settings import WebSettings


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # which the web app needs


@pytest.fixture
def users(tmp_path: Path) -> Users:
    return users_in(tmp_path)


@pytest.fixture
async def api(store: SQLiteStore, users: Users) -> AsyncIterator[Browser]:
    await filled(store)
    async with site(store, WebSettings(users=users, header=PROXY)) as found:
        found.client.headers["authorization"] = f"Bearer {users.new_token('ann')}"
        yield found


def decision(run: str, shown: str, decided: object, **more: object) -> dict[str, object]:
    return {"run_id": run, "pause_id": "ask", "decision": decided, "shown_digest": shown, **more}


@pytest.mark.anyio
async def test_a_question_is_listed_shown_and_decided(api: Browser, store: SQLiteStore) -> None:
    listed = (await api.get("/api/inbox")).json()
    assert [one["run_id"] for one in listed["items"]] == ["money", "any"]
    run = (await api.get("/api/run", params={"id": "money"})).json()
    (asked,) = run["open"]
    assert (asked["payload"], asked["answer_schema"]["required"]) == ({"to": "<script>"}, ["approved"])
    assert asked["shown_digest"] == listed["items"][0]["shown_digest"]
    body = decision("money", asked["shown_digest"], {"approved": True}, reason="fine")
    first = await api.client.post("/api/decide", json=body)
    assert first.status_code == 200
    again = await api.client.post("/api/decide", json=body)
    assert (again.status_code, again.json()) == (200, first.json())
    other = await api.client.post("/api/decide", json={**body, "decision": {"approved": False}})
    assert (other.status_code, other.json()["receipt"]) == (409, first.json())
    (one,) = await store.decided()
    assert (one.decision, one.actor, one.reason) == ({"approved": True}, "ann", "fine")
    run = (await api.get("/api/run", params={"id": "money"})).json()
    assert (run["open"], run["decisions"][0]["receipt"]) == ([], first.json())


@pytest.mark.anyio
async def test_what_is_refused_says_why(api: Browser, store: SQLiteStore) -> None:
    shown = (await api.get("/api/inbox")).json()["items"][0]["shown_digest"]
    for body, code in (
        (decision("money", "0" * 64, {"approved": True}), 409),
        (decision("money", shown, {"approved": "perhaps"}), 422),
        (decision("law", shown, {"approved": True}), 404),
        (decision("nobody", shown, {"approved": True}), 404),
        ({**decision("money", shown, {"approved": True}), "pause_id": "other"}, 404),
        ({**decision("money", shown, {"approved": True}), "actor": "eve"}, 422),
        (decision("any", shown, "\ud800"), 409),
    ):
        content, kind = json.dumps(body), {"content-type": "application/json"}
        answer = await api.client.post("/api/decide", content=content, headers=kind)
        assert (answer.status_code, set(answer.json())) == (code, {"what", "why", "do", "receipt"}), body
    assert (await api.client.post("/api/cancel", json={"run_id": "money"})).status_code == 403
    assert not await store.decided()


@pytest.mark.anyio
async def test_a_body_that_is_too_long_is_told_so(api: Browser, store: SQLiteStore) -> None:
    shown = (await api.get("/api/inbox")).json()["items"][1]["shown_digest"]
    answer = await api.client.post("/api/decide", json=decision("any", shown, 7, reason="x" * MAX_BODY))
    assert (answer.status_code, answer.json()["what"]) == (413, "The request is too long")


@pytest.mark.anyio
async def test_a_text_may_name_the_character_that_it_may_not_hold(api: Browser, store: SQLiteStore) -> None:
    shown = (await api.get("/api/inbox")).json()["items"][1]["shown_digest"]
    for typed, code in (("a \0", 422), ("\\\0", 422), ("write \\u0000 for it", 200)):
        answer = await api.client.post("/api/decide", json=decision("any", shown, 7, reason=typed))
        assert answer.status_code == code, typed
    (one,) = await store.decided()
    assert one.reason == "write \\u0000 for it"


@pytest.mark.anyio
async def test_a_role_that_may_see_a_run_may_not_answer_all_it_asks(api: Browser, store: SQLiteStore) -> None:
    mine, other = question("Mine?", pause="mine", roles=["board"]), question("Theirs?", pause="theirs", roles=["law"])
    snapshot = await paused(store, "both", mine, other)
    run = (await api.get("/api/run", params={"id": "both"})).json()
    assert [one["question"] for one in run["open"]] == ["Mine?"]
    body = {**decision("both", snapshot.pauses[1].shown_digest, True), "pause_id": "theirs"}
    assert (await api.client.post("/api/decide", json=body)).status_code == 403


@pytest.mark.anyio
async def test_a_cookie_alone_changes_nothing(api: Browser, store: SQLiteStore) -> None:
    shown = (await api.get("/api/inbox")).json()["items"][0]["shown_digest"]
    del api.client.headers["authorization"]
    api.act_as("ann")
    body = decision("money", shown, {"approved": True})
    assert (await api.client.post("/api/decide", json=body)).status_code == 403
    page = await api.get("/")
    csrf = page.text.partition('name="csrf" value="')[2].partition('"')[0]
    assert not csrf  # who a proxy signs in has nothing to sign out of: the word is on the question's page
    page = await api.get("/question?run=money&id=ask")
    csrf = page.text.partition('name="csrf" value="')[2].partition('"')[0]
    assert (await api.client.post("/api/decide", json=body, headers={"x-csrf-token": csrf})).status_code == 200
    api.client.headers["authorization"] = "Bearer fh1_guessed"
    assert (await api.get("/api/inbox")).status_code == 401


@pytest.mark.anyio
async def test_an_operator_sees_all_runs_and_ends_one(store: SQLiteStore, users: Users) -> None:
    await filled(store)
    async with site(store, WebSettings(users=users)) as api:
        api.client.headers["authorization"] = f"Bearer {users.new_token('ops')}"
        listed = (await api.get("/api/runs", params={"status": "paused"})).json()
        assert [one["run_id"] for one in listed["items"]] == ["any", "law", "money"]
        assert (await api.get("/api/runs", params={"status": "lost"})).status_code == 422
        assert (await api.client.post("/api/cancel", json={"run_id": "law"})).json()["cancel_requested"] is True
        assert await store.cancel_requested() == ["law"]
        assert (await api.get("/api/run", params={"id": "law"})).json()["is_cancel_requested"] is True


# --- whatever is sent -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The API as its own description has it, with questions in it, asked by who may do all."""
    folder = tmp_path_factory.mktemp("api")
    store, users = SQLiteStore(folder / "runs.db"), users_in(folder)
    asyncio.run(filled(store))
    app = create_app(store, WebSettings(url="http://localhost", users=users, decisions=1_000_000))
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app, headers={"host": "localhost"})
    asked_with.update({"authorization": f"Bearer {users.new_token('eve')}", "host": "localhost"})
    yield schema
    store.close()


asked_with: dict[str, str] = {}
OPERATIONS = [
    ("/api/inbox", "GET"),
    ("/api/runs", "GET"),
    ("/api/run", "GET"),
    ("/api/decide", "POST"),
    ("/api/cancel", "POST"),
]


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_it_answers_as_it_is_described_whatever_is_sent(described: Any, path: str, method: str) -> None:
    @given(case=described[path][method].as_strategy())
    @hypothesis.settings(max_examples=40, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
    def sent(case: schemathesis.Case) -> None:
        case.call_and_validate(headers=asked_with)

    sent()


def test_every_operation_that_is_described_is_tried(described: Any) -> None:
    tried = {(path, method.lower()) for path, method in OPERATIONS}
    assert tried == {(path, method) for path, known in described.raw_schema["paths"].items() for method in known}
