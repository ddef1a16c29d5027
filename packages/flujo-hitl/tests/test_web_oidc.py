"""Signing in at a provider."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from joserfc.jwk import RSAKey
from oidc_provider import Provider
from web_site import PASSWORD, Browser, filled, site, users_in

from flujo.hitl import SQLiteStore
from flujo.hitl.web.settings import Oidc, WebSettings

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def provider() -> Iterator[Provider]:
    found = Provider({"sub": "17", "email": "ann@example.org", "groups": ["finance"]})
    yield found
    found.close()


def settings(provider: Provider) -> WebSettings:
    return WebSettings(oidc=Oidc(provider.issuer, "flujo", "secret"))


async def back_from(browser: Browser) -> str:
    """Go to the provider, as a browser does; where it sends one back to, without the host."""
    away = await browser.get("/sign-in/provider")
    assert away.status_code == 302, away.text
    async with httpx.AsyncClient() as there:
        back = await there.get(away.headers["location"])
    return str(back.headers["location"]).removeprefix("http://127.0.0.1:8321")


async def test_the_provider_says_who_it_is_and_in_which_roles(store: SQLiteStore, provider: Provider) -> None:
    await filled(store)
    async with site(store, settings(provider)) as browser:
        assert "Sign in with your organisation" in (await browser.get("/sign-in")).text
        back = await back_from(browser)
        assert (await browser.get(back)).headers["location"] == "/"
        page = (await browser.get("/")).text
        assert "ann@example.org" in page
        assert "Pay &lt;b&gt;" in page
        assert "Sign?" not in page
        assert (await browser.get(back)).status_code == 502  # a way back counts once


async def test_a_way_back_of_somebody_else_is_refused(store: SQLiteStore, provider: Provider) -> None:
    async with site(store, settings(provider)) as mine, site(store, settings(provider)) as theirs:
        back = await back_from(mine)
        assert (await theirs.get(back)).status_code == 502
        assert (await theirs.get("/")).status_code == 303
        assert (await theirs.get("/sign-in/provider/done?error=access_denied")).status_code == 502


async def test_a_token_that_the_provider_did_not_sign_is_refused(store: SQLiteStore, provider: Provider) -> None:
    provider.signs_with = RSAKey.generate_key(2048, {"kid": "1"})
    async with site(store, settings(provider)) as browser:
        assert (await browser.get(await back_from(browser))).status_code == 502
        assert (await browser.get("/")).status_code == 303


async def test_who_is_of_a_tenant_sees_no_other(store: SQLiteStore, provider: Provider, tmp_path: Path) -> None:
    await filled(store)
    provider.claims |= {"groups": ["operator", "law"], "org": "t1"}
    by_claim = WebSettings(oidc=replace(settings(provider).oidc, tenant_claim="org"))  # type: ignore[type-var]
    users = users_in(tmp_path)
    users.add("ann@example.org", PASSWORD, tenant="t1")
    by_file = WebSettings(oidc=settings(provider).oidc, users=users)
    for one in (by_claim, by_file):
        async with site(store, one) as browser:
            await browser.get(await back_from(browser))
            assert re.findall(r"Sign\?|How many\?", (await browser.get("/")).text) == ["Sign?"]
            assert (await browser.get("/run?id=any")).status_code == 404
    del provider.claims["org"]
    async with site(store, by_claim) as browser:  # who is of none would see all
        assert (await browser.get(await back_from(browser))).status_code == 403


async def test_a_session_from_before_tenants_were_asked_for_ends(store: SQLiteStore, provider: Provider) -> None:
    await filled(store)
    before = WebSettings(oidc=settings(provider).oidc, key="k" * 32)
    after = replace(before, oidc=replace(settings(provider).oidc, tenant_claim="org"))  # type: ignore[type-var]
    async with site(store, before) as browser:
        await browser.get(await back_from(browser))
        assert (await browser.get("/")).status_code == 200
        async with site(store, after) as later:
            later.client.cookies = browser.client.cookies
            assert (await later.get("/")).status_code == 303


@pytest.mark.parametrize("claims", [{"sub": "17"}, {"sub": "17", "email": "a@b.c", "email_verified": False}])
async def test_who_it_is_must_be_said(store: SQLiteStore, provider: Provider, claims: dict[str, object]) -> None:
    provider.claims = claims
    async with site(store, settings(provider)) as browser:
        assert (await browser.get(await back_from(browser))).status_code == 403


async def test_a_provider_that_is_away_is_told(store: SQLiteStore, provider: Provider) -> None:
    provider.close()
    async with site(store, settings(provider)) as browser:
        assert (await browser.get("/sign-in/provider")).status_code == 502
