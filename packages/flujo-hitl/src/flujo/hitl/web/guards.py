"""What stands before every request: headers that bind the browser, a limit of what is read, and of how often."""

from __future__ import annotations

import time
from collections import OrderedDict

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import Refused

__all__ = ["MAX_BODY", "Headers", "Rate", "SmallBodies"]

MAX_BODY = 1_000_000
"""Bytes of a request; more is refused."""

_CSP = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_ALWAYS = {
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    # with "no-referrer" browsers send no origin with a form, by which a request of another site is told
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
}


class Headers:
    """Adds to every answer what keeps scripts, frames and caches out."""

    def __init__(self, app: ASGIApp, *, is_https: bool) -> None:
        self._app = app
        self._more = {"Strict-Transport-Security": "max-age=31536000"} if is_https else {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in {**_ALWAYS, **self._more}.items():
                    headers[name] = value
                if not scope["path"].startswith("/static/"):
                    headers["Cache-Control"] = "no-store"
            await send(message)

        await self._app(scope, receive, send_more)


class SmallBodies:
    """Refuses a request that is longer than MAX_BODY, whether it says so or not: who reads it gets an HTTPException."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = 0

        async def receive_some() -> Message:
            nonlocal length
            message = await receive()
            length += len(message.get("body", b""))
            if length > MAX_BODY:
                raise HTTPException(413, "The request is too long")
            return message

        await self._app(scope, receive_some, send)


class Rate:
    """So many times in so many seconds, for each key; what is known of keys is bounded.

    Args:
        times: How often.
        seconds: In what time.
    """

    def __init__(self, times: int, seconds: float) -> None:
        self._times = times
        self._seconds = seconds
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> None:
        """Count one; raises Refused (429) where it is one too many. What was taken comes back evenly."""
        now = time.monotonic()
        left, at = self._left.pop(key, (float(self._times), now))
        left = min(self._times, left + (now - at) * self._times / self._seconds)
        self._left[key] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > 10_000:
            self._left.popitem(last=False)
        if left < 1:
            wait_s = int((1 - left) * self._seconds / self._times) + 1
            why = f"it is allowed {self._times} times in {self._seconds:g} s"
            raise Refused(429, "Too often", why, f"Wait {wait_s} s", headers={"Retry-After": str(wait_s)})
