"""Who sends a request, and that it comes from our own pages."""

from __future__ import annotations

import ipaddress
import secrets
from typing import Annotated

from fastapi import Depends, Request

from .guards import Rate
from .people import Person
from .problems import Refused
from .settings import WebSettings

__all__ = ["Access", "Caller", "Signed", "access_of", "csrf_of"]


def access_of(request: Request) -> Access:
    """The Access of the app that got a request."""
    access: Access = request.app.state.access
    return access


def csrf_of(request: Request) -> str:
    """The word that every form of this session carries."""
    word: str = request.session.setdefault("csrf", secrets.token_urlsafe(24))
    return word


class Access:
    """Finds out who sends a request.

    Args:
        settings: How people sign in.
    """

    def __init__(self, settings: WebSettings) -> None:
        self.settings: WebSettings = settings
        self.sign_ins: Rate = Rate(settings.sign_ins, 300)
        self.decisions: Rate = Rate(settings.decisions, 60)

    def person(self, request: Request) -> tuple[Person | None, bool]:
        """Who it is, and whether a browser may have sent it without them: by a cookie, or a proxy's word."""
        bearer = request.headers.get("authorization", "")
        if bearer[:7].lower() == "bearer ":
            users = self.settings.users
            return (None if users is None else users.of_token(bearer[7:].strip())), False
        return self._by_header(request) or self._by_session(request), True

    def address(self, request: Request) -> str:
        """The address that sends a request; where a proxy of ours hands it on, the one that the proxy names last."""
        sender = _address(_sender(request))
        proxies = () if self.settings.header is None else self.settings.header.proxies
        if sender is None or not (sender.is_loopback or any(sender in proxy for proxy in proxies)):
            return _sender(request)
        # whatever stands before the last was written by who sends the request
        last = ",".join(request.headers.getlist("x-forwarded-for")).rpartition(",")[2].strip()
        return str(_address(last) or sender)

    def _by_header(self, request: Request) -> Person | None:
        header = self.settings.header
        name = None if header is None else request.headers.get(header.user)
        if header is None or not name or not name.isprintable():
            return None
        address = _address(_sender(request))
        if address is None or not any(address in proxy for proxy in header.proxies):
            return None
        known = None if self.settings.users is None else self.settings.users.get(name)
        if header.roles is None:
            return known or Person(name)
        roles = frozenset(filter(None, (one.strip() for one in request.headers.get(header.roles, "").split(","))))
        return Person(name, roles, None if known is None else known.tenant)

    def _by_session(self, request: Request) -> Person | None:
        session, users = request.session, self.settings.users
        name = session.get("name")
        if not isinstance(name, str):
            return None
        if session.get("how") == "oidc" and self.settings.oidc is not None:
            tenant, known = session.get("tenant"), None if users is None else users.get(name)
            if not tenant and self.settings.oidc.tenant_claim is not None:
                return None  # it began before that was asked for, and who has no tenant sees all
            tenant = tenant or (None if known is None else known.tenant)
            return Person(name, frozenset(session.get("roles", ())), tenant)
        if users is None or session.get("stamp") != users.stamp(name):
            return None
        return users.get(name)

    def sign_in(self, request: Request, person: Person, how: str) -> str:
        """Begin a session: what was in the one before is forgotten, but for the page that was wanted: it is returned.

        That is a path of ours: it was noted when somebody asked for it here.
        """
        wanted: str = request.session.get("next", "/")
        request.session.clear()
        request.session.update({"name": person.name, "how": how})
        if how == "oidc":
            request.session.update({"roles": sorted(person.roles), "tenant": person.tenant})
        elif self.settings.users is not None:
            request.session["stamp"] = self.settings.users.stamp(person.name)
        csrf_of(request)
        return wanted if wanted[:2] not in ("//", "/\\") else "/"

    def check_source(self, request: Request, word: str) -> None:
        """Refuse what another site made a browser send: `word` must be that of the session.

        Raises:
            Refused: It is not.
        """
        expected = request.session.get("csrf", "")
        origin = request.headers.get("origin")
        is_ours = origin is None or origin == self.settings.origin
        if not expected or not is_ours or not secrets.compare_digest(word.encode(), expected.encode()):
            raise Refused(
                403, "The form is not valid any more", "it was made for another session", "Load the page anew"
            )


def _sender(request: Request) -> str:
    return "" if request.client is None else request.client.host


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:  # a socket of this machine has none
        return None


def _signed(request: Request) -> Person:
    """Who is signed in; raises Refused (401)."""
    person, _ = access_of(request).person(request)
    if person is None:
        headers = {"WWW-Authenticate": "Bearer"} if request.url.path.startswith("/api/") else {}
        raise Refused(401, "You are not signed in", "", "Sign in", headers=headers)
    return person


def _caller(request: Request) -> Person:
    """Who calls the API to change something: by a token, or from our own pages, with the session's word in a header."""
    person, is_ambient = access_of(request).person(request)
    if person is None:
        raise Refused(401, "You are not signed in", "", "Send a token", headers={"WWW-Authenticate": "Bearer"})
    if is_ambient:
        access_of(request).check_source(request, request.headers.get("x-csrf-token", ""))
    return person


Signed = Annotated[Person, Depends(_signed)]
Caller = Annotated[Person, Depends(_caller)]
