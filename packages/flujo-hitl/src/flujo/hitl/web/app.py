"""The app: pages, API and live parts, behind their guards."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.staticfiles import StaticFiles

from flujo.core import FlujoError, Plan, scrub
from flujo.hitl.protocol import HitlStore

from . import api, live, pages
from .access import Access
from .api import Problem, ReceiptOut
from .desk import Desk
from .guards import Headers, SmallBodies
from .problems import Refused
from .settings import WebSettings

__all__ = ["create_app"]

_log = logging.getLogger("flujo.hitl.web")


def create_app(store: HitlStore, settings: WebSettings, *, plan: Plan | None = None) -> FastAPI:
    """The inbox as an ASGI app. It records decisions; a worker goes on with the runs.

    Args:
        store: Where runs are kept.
        settings: How people sign in, and where they reach it.
        plan: Of a pipeline whose runs are drawn as it is; of others what they did is drawn.
    """
    app = FastAPI(
        title="Flujo inbox", version="1.0", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json",
        description="Questions of runs that wait for a human. Send a token: `Authorization: Bearer ...`.",
    )  # fmt: skip
    app.state.desk, app.state.access, app.state.plan = Desk(store), Access(settings), plan
    app.state.streams, app.state.is_ending = Counter(), False
    for router in (api.router, live.router, pages.router):
        app.include_router(router)
    if settings.oidc is not None:
        from .oidc import add_oidc  # authlib is an extra of its own

        add_oidc(app, settings)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _unfit)
    app.add_exception_handler(FlujoError, _fault)
    app.add_exception_handler(Exception, _fault)
    # a session of an unsigned request is read by what stands inside of it: the last that is added is the first asked
    app.add_middleware(
        SessionMiddleware, settings.key, session_cookie="__Host-flujo" if settings.is_https else "flujo",
        max_age=settings.session_s, same_site="lax", https_only=settings.is_https,
    )  # fmt: skip
    app.add_middleware(SmallBodies)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[settings.host])
    app.add_middleware(Headers, is_https=settings.is_https)
    return app


def _answer(request: Request, refused: Refused) -> Response:
    if not request.url.path.startswith("/api/"):
        return pages.said(request, refused)
    receipt = None if refused.receipt is None else ReceiptOut.of(refused.receipt)
    problem = Problem(what=refused.what, why=refused.why, do=refused.do, receipt=receipt)
    return JSONResponse(problem.model_dump(mode="json"), refused.status, refused.headers)


async def _refused(request: Request, error: Exception) -> Response:
    return _answer(request, cast("Refused", error))


async def _http(request: Request, error: Exception) -> Response:
    found = cast("HTTPException", error)
    return _answer(request, Refused(found.status_code, str(found.detail), headers=found.headers))


async def _unfit(request: Request, error: Exception) -> Response:
    first = cast("RequestValidationError", error).errors()[0]
    place = ".".join(map(str, first["loc"]))
    status = 400 if first["type"] == "json_invalid" else 422
    return _answer(request, Refused(status, "The request does not fit", f"{place}: {first['msg']}"))


async def _fault(request: Request, error: Exception) -> Response:
    """A store that cannot be used, or a fault of ours: said in the log, not to the browser."""
    _log.error("%s %s: %s: %s", request.method, request.url.path, type(error).__name__, scrub(str(error)))
    status = 503 if isinstance(error, FlujoError) else 500
    do = "Try again in a moment; the log of the server says more"
    return _answer(request, Refused(status, "The server cannot do that now", "", do))
