"""Where a run stands is mostly names that all runs have: without them it takes a quarter of the room.

What is written begins with a zero byte, which no JSON does, and the number of the words that it was squeezed with.
"""

from __future__ import annotations

import zlib

__all__ = ["MOST", "squeezed", "whole"]

_LEAST = 96
MOST = 16 * 1024
"""Bytes of what is squeezed: a longer one is mostly the user's own, and would take the writer's time."""

_MARK = b"\0\1"
# Never to be changed: what is on disks was written with it. New words get a number of their own. The likeliest stand
# last, where they cost least.
_WORDS = (
    b'"additionalProperties":false,"description":"","enum":[","anyOf":[{"type":"null"}],"items":{"type":"array"},'
    b'"format":"date-time","maximum":,"minimum":,"minLength":"number"},"'
    b'{"tenant":"","actor":"","tags":{"target":""},"trace":"","limits":{"total_cost_usd_limit":"",'
    b'"total_tokens_limit":null,"requests_limit":null,"warn_at":0.8,"on_unknown_price":"refuse"},"counts":{'
    b'"results":{"0":"failed":{"changes":{"0":[{"output":null,"context":{},"known":[{"told":[["begun":[{"decided":[{'
    b'"parent":0,"slot":,"passed":[],"parts":[{"place":0,"ended":,"next":,"asks":true,"spent":{"spent_by":{"0":{'
    b'"input_tokens":,"output_tokens":,"requests":1,"cost_usd":"0.00","reserved_usd":"unmeasured":"unpriced":'
    b'"overshoot_usd":"left_s":'
    b'"wanted":{"additionalProperties":false,"description":"The decision on something that waits for an approval.",'
    b'"properties":{"approved":{"title":"Approved","type":"boolean"},"reason":{"default":"","title":"Reason",'
    b'"type":"string"}},"required":["approved"],"title":"Approval","type":"object"},'
    b'"wanted":{"type":"integer"},"wanted":{"type":"string"},"wanted":{"type":"boolean"},"payload":null,'
    b'"expires_at":"20T:00Z","roles":["on_expiry":{"approved":false,"reason":"nobody decided in time"},'
    b'{"frame":0,"node":1,"kind":"paused","path":"approve","value":{"question":"","expires_at":null,"asked":true,'
    b'"roles":[],"on_expiry":null},"started_at":17,"duration_s":0.00'
    b'{"checkpoint":{"input":,"next_frame":1,"frames":[{"id":0,"outputs":{"0":}}],"pauses":[{"question":"","payload":{'
    b'"asked":true,"frame":0,"node":1,"path":"","number":0}],"usage":{"input_tokens":,"output_tokens":,"requests":1,'
    b'"cost_usd":"0.00"},"position":2}}'
)
_WINDOW = -13
"""8 KiB, raw: a checksum is written beside it anyway."""

_squeezer = zlib.compressobj(6, zlib.DEFLATED, _WINDOW, 5, zlib.Z_DEFAULT_STRATEGY, _WORDS)
_reader = zlib.decompressobj(_WINDOW, _WORDS)


def squeezed(data: bytes) -> bytes:
    """JSON in less room, where that is worth it."""
    if not _LEAST <= len(data) <= MOST:
        return data
    squeezer = _squeezer.copy()
    return _MARK + squeezer.compress(data) + squeezer.flush()


def whole(written: bytes) -> bytes:
    """What `squeezed` was given.

    Raises:
        ValueError: It was squeezed with other words, or is none of ours.
    """
    if not written.startswith(b"\0"):
        return written
    if not written.startswith(_MARK):
        raise ValueError(f"it was squeezed with words {written[1:2].hex() or 'of no number'}, which are not known here")
    reader = _reader.copy()
    try:
        data = reader.decompress(written[2:], MOST + 1)
    except zlib.error as error:
        raise ValueError(f"it cannot be read: {error}") from error
    if len(data) > MOST or not reader.eof:
        raise ValueError("it is cut off, or far too long")
    return data
