"""The inbox as an app of a test, and people who use it."""

from __future__ import annotations

import ipaddress
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from hitl_trials import paused, question

from flujo.core import Plan
from flujo.hitl import HitlStore, SQLiteStore
from flujo.hitl.web.app import create_app
from flujo.hitl.web.people import Users
from flujo.hitl.web.settings import TrustedHeader, WebSettings

URL = "http://127.0.0.1:8321"
PASSWORD = "correct horse battery"


PROXY = TrustedHeader("X-User", [ipaddress.ip_network("127.0.0.1")])
"""Says who it is, where how one signs in is not what is tested: a password takes its time."""


def users_in(folder: Path) -> Users:
    """Ann of finance and the board, Bob of law at tenant t1, an operator."""
    kept = _kept(PASSWORD)
    (folder / "users.json").write_bytes(kept)
    return Users(folder / "users.json")


@cache
def _kept(password: str) -> bytes:
    users = Users(Path(tempfile.mkdtemp()) / "users.json")
    users.add("ann", password, ["finance", "board"])
    users.add("bob", password, ["law"], "t1")
    users.add("ops", password, ["operator"])
    users.add("eve", password, ["operator", "finance", "law"])
    return users.path.read_bytes()


class Browser:
    """A browser without JavaScript: follows no redirect, keeps cookies, fills in the hidden fields of a form."""

    def __init__(self, client: httpx.AsyncClient, app: FastAPI) -> None:
        self.client = client
        self.app = app

    async def get(self, path: str, **options: Any) -> httpx.Response:
        """Load a page."""
        return await self.client.get(path, **options)

    async def send(self, page: httpx.Response, action: str, **fields: object) -> httpx.Response:
        """Send the form of a page with this action."""
        form = re.search(rf'<form method="post" action="{action}".*?</form>', page.text, re.DOTALL)
        assert form, page.text
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form[0]))
        return await self.client.post(action, data={**hidden, **fields})

    def act_as(self, name: str) -> None:
        """Let the proxy of these tests say who it is."""
        self.client.headers["X-User"] = name

    async def sign_in(self, name: str, password: str = PASSWORD) -> httpx.Response:
        """Sign in."""
        return await self.send(await self.get("/sign-in"), "/sign-in", name=name, password=password)


@asynccontextmanager
async def site(
    store: HitlStore, settings: WebSettings, *, plan: Plan | None = None, client: tuple[str, int] = ("127.0.0.1", 1)
) -> AsyncIterator[Browser]:
    """A browser at an inbox."""
    app = create_app(store, settings, plan=plan)
    transport = httpx.ASGITransport(app, client=client, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=settings.url) as http:
        yield Browser(http, app)


SCHEMA = {
    "type": "object",
    "required": ["approved"],
    "properties": {"approved": {"type": "boolean", "title": "Approved"}, "reason": {"type": "string", "default": ""}},
}
"""An approval."""


async def filled(store: SQLiteStore) -> None:
    """Three questions: for finance, for law at t1, for anybody."""
    await paused(
        store, "money", question("Pay <b>40</b>?", wanted=SCHEMA, payload={"to": "<script>"}, roles=["finance"])
    )
    await paused(store, "law", question("Sign?", wanted=SCHEMA, roles=["law"]), tenant="t1")
    await paused(store, "any", question("How many?", wanted={"type": "integer"}))
