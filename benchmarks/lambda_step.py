"""The step of lambda_invoke.py, in a module that its workers can import."""

from __future__ import annotations

import asyncio
import hashlib
import time

from flujo.core import step


@step
async def hashed(text: str) -> str:
    """Takes 100 ms, of which it only works a little: a hundred at once must not measure how few cores there are."""
    since, digest = time.perf_counter(), text.encode()
    for _ in range(1000):
        digest = hashlib.sha256(digest).digest()
    await asyncio.sleep(max(0.0, 0.1 - (time.perf_counter() - since)))
    return digest.hex()
