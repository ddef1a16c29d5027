"""How the app is set up."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from flujo.core import ConfigurationError

from .people import Users

__all__ = ["Oidc", "TrustedHeader", "WebSettings"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class TrustedHeader:
    """A proxy that signs people in and says in a header who it is.

    Attributes:
        user: Name of the header with the name of the user.
        proxies: Addresses from which it is believed; from any other it is as if it were not there.
        roles: Name of the header with roles, separated by commas; None takes them from the users file.
    """

    user: str
    proxies: Sequence[Network]
    roles: str | None = None

    def __post_init__(self) -> None:
        if not self.proxies:
            what, do = "a header cannot be trusted from everywhere", "Name it: --proxy 10.0.0.5"
            raise ConfigurationError(what, "no proxy is named", do)


@dataclass(frozen=True, slots=True)
class Oidc:
    """A provider that signs people in by OpenID Connect.

    Attributes:
        issuer: Its URL; `/.well-known/openid-configuration` is read there.
        client_id: How it knows this app.
        client_secret: The secret of that.
        name_claim: The claim that names the user.
        roles_claim: The claim that lists roles.
        tenant_claim: The claim that names the tenant, which must then be there; None takes it from the users file.
    """

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    name_claim: str = "email"
    roles_claim: str = "groups"
    tenant_claim: str | None = None


@dataclass(frozen=True, slots=True)
class WebSettings:
    """How the app is set up.

    Attributes:
        url: Where people reach it, e.g. `https://approvals.example.org`.
        users: People who sign in here, and whose tokens programs use.
        header: A proxy that signs people in.
        oidc: A provider that does.
        key: Signs session cookies; a new one signs everybody out.
        session_s: Seconds after which one must sign in anew.
        sign_ins: How often in five minutes a name, and an address, may try to sign in.
        decisions: How often in a minute somebody may decide.

    Raises:
        ConfigurationError: The URL is none, or without TLS where others could listen.
    """

    url: str = "http://127.0.0.1:8321"
    users: Users | None = None
    header: TrustedHeader | None = None
    oidc: Oidc | None = None
    key: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    session_s: int = 12 * 3600
    sign_ins: int = 10
    decisions: int = 60

    def __post_init__(self) -> None:
        what = f"url {self.url!r} cannot be used"
        try:
            parts = urlsplit(self.url)
            _ = parts.port  # it is read here
        except ValueError as error:
            raise ConfigurationError(what, str(error), "Give https://approvals.example.org") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ConfigurationError(what, "it is no scheme with a host", "Give https://approvals.example.org")
        if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            do = "Put a proxy with TLS before it, and give the https URL"
            raise ConfigurationError(what, "whoever is on the way could read passwords and sessions", do)
        if len(self.key) < 32:
            raise ConfigurationError("the key of the sessions cannot be used", "it has fewer than 32 characters")
        if self.users is None and self.header is None and self.oidc is None:
            raise ConfigurationError("nobody could sign in", "there are no users, no proxy and no provider")

    @property
    def is_https(self) -> bool:
        """Whether cookies are for TLS only."""
        return self.url.startswith("https:")

    @property
    def origin(self) -> str:
        """As browsers write it."""
        parts = urlsplit(self.url)
        usual = {"http": 80, "https": 443}[parts.scheme]
        return f"{parts.scheme}://{self.host}" + ("" if parts.port in (None, usual) else f":{parts.port}")

    @property
    def host(self) -> str:
        """The name of the host; an IPv6 address stands in brackets."""
        name = str(urlsplit(self.url).hostname)
        return f"[{name}]" if ":" in name else name
