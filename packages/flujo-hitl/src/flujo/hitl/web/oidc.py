"""Signing in at a provider, by OpenID Connect. Needs the extra `[oidc]`; Authlib does the protocol."""

from __future__ import annotations

import logging

from authlib.integrations.base_client import OAuthError
from authlib.integrations.starlette_client import OAuth
from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from joserfc.errors import JoseError

from .access import access_of
from .people import Person
from .problems import Refused
from .settings import WebSettings

try:
    import httpx2 as http  # which Authlib takes where it is there
except ImportError:
    import httpx as http  # type: ignore[no-redef]  # the same under its older name

__all__ = ["add_oidc"]

_DONE = "/sign-in/provider/done"
_log = logging.getLogger("flujo.hitl.web")


def add_oidc(app: FastAPI, settings: WebSettings) -> None:
    """Add the pages by which people sign in at the provider: authorization code with PKCE, state and nonce."""
    oidc = settings.oidc
    assert oidc is not None
    provider = OAuth().register(
        "provider",
        client_id=oidc.client_id,
        client_secret=oidc.client_secret,
        server_metadata_url=f"{oidc.issuer.rstrip('/')}/.well-known/openid-configuration",
        client_kwargs={"scope": "openid email profile", "code_challenge_method": "S256"},
    )

    async def leave(request: Request) -> Response:
        access = access_of(request)
        access.sign_ins.take(f"address {access.address(request)}")
        try:
            answer: Response = await provider.authorize_redirect(request, settings.url.rstrip("/") + _DONE)
        except (http.HTTPError, ValueError) as error:
            raise _failed(error) from error
        return answer

    async def back(request: Request) -> Response:
        try:
            token = await provider.authorize_access_token(request)
        except (OAuthError, JoseError, http.HTTPError, ValueError) as error:
            raise _failed(error) from error
        claims = token.get("userinfo") or {}
        name, roles = claims.get(oidc.name_claim), claims.get(oidc.roles_claim) or []
        if not isinstance(name, str) or not name.strip() or claims.get("email_verified") is False:
            raise _unsaid(oidc.name_claim)
        tenant = None if oidc.tenant_claim is None else claims.get(oidc.tenant_claim)
        if oidc.tenant_claim is not None and not (isinstance(tenant, str) and tenant):  # who has none sees all
            raise _unsaid(oidc.tenant_claim)
        listed = roles if isinstance(roles, list) else [roles]
        wanted = access_of(request).sign_in(request, Person(name, frozenset(map(str, listed)), tenant), "oidc")
        return RedirectResponse(wanted, 303)

    app.add_api_route("/sign-in/provider", leave, include_in_schema=False)
    app.add_api_route(_DONE, back, include_in_schema=False)


def _unsaid(claim: str) -> Refused:
    return Refused(403, "The provider does not say who you are", f"there is no {claim!r} that counts")


def _failed(error: Exception) -> Refused:
    _log.warning("signing in at the provider failed: %s: %s", type(error).__name__, error)
    return Refused(502, "Signing in at the provider failed", "", "Try again; the log of the server says more")
