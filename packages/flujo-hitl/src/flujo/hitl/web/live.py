"""Live progress of a run, by server-sent events: each is the part of the page that changed, as HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import anyio
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from flujo.core import ResumeError

from .access import Signed
from .pages import TEMPLATES, desk_of, drawing_of
from .people import Person
from .problems import Refused

__all__ = ["router"]

_POLL_S = 1.0
_BEAT_S = 15.0
_LONGEST_S = 600.0
"""After that the browser connects anew, and who it is, is asked again."""
_DONE = "event: done\ndata: \n\n"
"""Tells the browser not to connect anew, as it does when a stream ends without."""
_MOST = 20
"""Streams of one person at once."""

router: APIRouter = APIRouter(include_in_schema=False)


@router.get("/run/live")
async def live(request: Request, person: Signed, id: str = "") -> Response:
    """The changing part of a run's page, whenever it changed, until the run is over."""
    await desk_of(request).run(person, id)  # refuses who may not see it
    open_: Counter[str] = request.app.state.streams
    if open_[person.name] >= _MOST:
        raise Refused(429, "Too many pages follow a run", "", "Close some", headers={"Retry-After": "60"})
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(_events(request, person, id), media_type="text/event-stream", headers=headers)


async def _events(request: Request, person: Person, run_id: str) -> AsyncIterator[str]:
    desk, seen = desk_of(request), None
    end = anyio.current_time() + _LONGEST_S
    beat = anyio.current_time()
    with _counted(request.app.state.streams, person.name):
        while (now := anyio.current_time()) < end and not request.app.state.is_ending:
            try:
                length = await desk.length(run_id)
                view = None if length == seen else await desk.run(person, run_id)
            except (Refused, ResumeError):  # it was deleted, or is not theirs any more
                yield _DONE
                return
            if view is not None:
                seen = length
                facts = {"view": view, "drawing": drawing_of(request, view), "person": person}
                yield _message(TEMPLATES.get_template("_live.html").render(**facts))
                if view.is_over:
                    yield _DONE
                    return
            elif now - beat > _BEAT_S:
                beat = now
                yield ": still here\n\n"
            await anyio.sleep(_POLL_S)


def _message(html: str) -> str:
    return "".join(f"data: {line}\n" for line in html.splitlines() if line.strip()) + "\n"


@contextmanager
def _counted(streams: Counter[str], name: str) -> Iterator[None]:
    streams[name] += 1
    try:
        yield
    finally:
        streams[name] -= 1
        if not streams[name]:
            del streams[name]
