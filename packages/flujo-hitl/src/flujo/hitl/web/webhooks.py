"""Telling others of new questions: signed as Standard Webhooks has it, tried again, never to a private address."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import logging
import socket
import time
from collections.abc import AsyncIterator
from urllib.parse import urlencode, urlsplit

import anyio
import httpx

from flujo.core import ConfigurationError
from flujo.hitl.errors import StoreError
from flujo.hitl.listed import OpenPause
from flujo.hitl.protocol import HitlStore

__all__ = ["Webhooks", "signature", "waits"]

_log = logging.getLogger("flujo.hitl.web")

_AT_ONCE = 4


def signature(secret: str, message_id: str, at: int, body: bytes) -> str:
    """What `webhook-signature` says: HMAC-SHA256 over id, time and body."""
    mac = hmac.new(secret.encode(), f"{message_id}.{at}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(mac.digest()).decode()}"


def waits(first_s: float) -> list[float]:
    """Seconds between two tries, each twice the one before and five minutes at most: half an hour and more in all."""
    found: list[float] = []
    while sum(found) < 30 * 60:
        found.append(min(300.0, first_s * 2 ** len(found)))
    return found


class Webhooks:
    """Tells one URL of each question that is open: at least once, and after a new start again, with the same id.

    What is asked is not sent, it may be private: the ids of run and question are, and where to answer.

    Args:
        store: Where runs are kept.
        url: Who is told.
        secret: Signs what is sent.
        inbox: URL of the inbox.
        allow_private: Whether it may be at a private address.
        poll_s: Seconds between two looks at the store.

    Raises:
        ConfigurationError: The URL or the secret cannot be used.
    """

    def __init__(
        self, store: HitlStore, url: str, secret: str, inbox: str, *, allow_private: bool = False, poll_s: float = 2.0
    ) -> None:
        parts, what = urlsplit(url), f"webhook {url!r} cannot be used"
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.username:
            raise ConfigurationError(what, "it is no http URL", "Give https://example.org/hook")
        if parts.scheme == "http" and not allow_private:
            raise ConfigurationError(
                what, "it is without TLS", "Give an https URL, or --webhook-private for one inside"
            )
        if len(secret) < 32:
            do = "Set FLUJO_WEBHOOK_SECRET: openssl rand -hex 32"
            raise ConfigurationError(what, "the secret has fewer than 32 characters", do)
        self._store = store
        self._url = httpx.URL(url)
        self._secret = secret
        self._inbox = inbox.rstrip("/")
        self._allow_private = allow_private
        self._poll_s = poll_s
        self._told: set[tuple[str, str, str]] = set()

    async def run(self) -> None:
        """Tell of what is open, until it is cancelled."""
        limiter = anyio.CapacityLimiter(_AT_ONCE)
        client = httpx.AsyncClient(follow_redirects=False, timeout=10, trust_env=False)
        async with client, anyio.create_task_group() as group:
            while True:
                try:
                    open_ = {(one.run_id, one.pause_id, one.shown_digest): one async for one in self._open()}
                    for key in open_.keys() - self._told:
                        group.start_soon(self._tell, client, limiter, open_[key])
                    self._told = set(open_)
                except StoreError as error:
                    _log.warning("webhook: %s", error)
                await anyio.sleep(self._poll_s)

    async def _open(self) -> AsyncIterator[OpenPause]:
        after: str | None = None
        while True:
            page = await self._store.open_pauses(after=after, limit=1000)
            for one in page.items:
                yield one
            if (after := page.next) is None:
                return

    async def _tell(self, client: httpx.AsyncClient, limiter: anyio.CapacityLimiter, one: OpenPause) -> None:
        message_id = hashlib.sha256(json.dumps([one.run_id, one.pause_id, one.shown_digest]).encode()).hexdigest()[:32]
        body = json.dumps({"type": "pause.opened", "data": self._data(one)}).encode()
        for wait_s in (0.0, *waits(self._poll_s)):
            await anyio.sleep(wait_s)
            async with limiter:
                if await self._is_sent(client, message_id, body):
                    return
        _log.error("webhook %s was not told of question %r of run %r", self._url.host, one.pause_id, one.run_id)

    def _data(self, one: OpenPause) -> dict[str, object]:
        until = None if one.expires_at is None else one.expires_at.isoformat()
        where = f"{self._inbox}/question?{urlencode({'run': one.run_id, 'id': one.pause_id})}"
        names = {"run_id": one.run_id, "pause_id": one.pause_id, "pipeline": one.pipeline, "tenant": one.tenant}
        return {
            **names,
            "roles": sorted(one.roles),
            "expires_at": until,
            "shown_digest": one.shown_digest,
            "url": where,
        }

    async def _is_sent(self, client: httpx.AsyncClient, message_id: str, body: bytes) -> bool:
        at = int(time.time())
        headers = {
            "content-type": "application/json",
            "host": self._url.netloc.decode(),
            "webhook-id": message_id,
            "webhook-timestamp": str(at),
            "webhook-signature": signature(self._secret, message_id, at, body),
        }
        try:
            # the address that was looked at is the one that is used, whatever its name says a moment later
            url = self._url.copy_with(host=await self._address())
            more = {"sni_hostname": self._url.host}
            answer = await client.post(url, content=body, headers=headers, extensions=more)
        except (httpx.HTTPError, OSError) as error:
            _log.warning("webhook %s: %s: %s", self._url.host, type(error).__name__, error)
            return False
        if not answer.is_success:
            _log.warning("webhook %s answered %d", self._url.host, answer.status_code)
        return answer.is_success

    async def _address(self) -> str:
        """An address of the host; raises OSError where it is one that must not be used."""
        found = await anyio.getaddrinfo(self._url.host, self._url.port or 443, type=socket.SOCK_STREAM)
        addresses = [str(one[4][0]) for one in found]
        for address in addresses:
            if not self._allow_private and not ipaddress.ip_address(address).is_global:
                raise OSError(f"its address {address} is private; --webhook-private allows that")
        return addresses[0]
