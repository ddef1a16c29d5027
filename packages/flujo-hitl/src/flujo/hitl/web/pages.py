"""The pages: plain forms and links, which work without JavaScript."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

import anyio.to_thread
from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.templating import Jinja2Templates
from pydantic import JsonValue
from starlette.datastructures import FormData

from flujo.hitl.shown import printable

from .access import Signed, access_of, csrf_of
from .desk import Desk, Question, RunView
from .drawing import Drawing, draw, draw_path, standing
from .forms import Unreadable, fields_of, fill, read
from .problems import Refused

__all__ = ["TEMPLATES", "drawing_of", "page", "router", "said"]

TEMPLATES: Jinja2Templates = Jinja2Templates(Path(__file__).parent / "templates")
TEMPLATES.env.trim_blocks = TEMPLATES.env.lstrip_blocks = True
router: APIRouter = APIRouter(include_in_schema=False)


def link(path: str, **words: object) -> str:
    """A link with these words; those that are None are left out."""
    return f"{path}?{urlencode({key: word for key, word in words.items() if word is not None})}"


def when(moment: datetime | None) -> str:
    """A time, for people."""
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def plain(text: str) -> str:
    """A value that stands as JSON, for people: a text without its quotes."""
    value = json.loads(text)
    return printable(value if isinstance(value, str) else text)


def as_json(value: object) -> str:
    """A value as JSON, for people."""
    return printable(json.dumps(value, ensure_ascii=False, indent=2), keep="\n")


TEMPLATES.env.globals.update(link=link, when=when)
TEMPLATES.env.filters.update(plain=plain, as_json=as_json, shown=lambda text: printable(text, keep="\n"))


def page(request: Request, template: str, code: int = 200, **facts: object) -> Response:
    """A page."""
    access = access_of(request)
    person, _ = access.person(request)
    common = {"person": person, "csrf": csrf_of(request), "can_leave": "name" in request.session}
    return TEMPLATES.TemplateResponse(request, template, {**common, **facts}, status_code=code)


def said(request: Request, refused: Refused) -> Response:
    """What was refused, as a page."""
    if refused.status == 401 and request.method == "GET" and request.url.path != "/run/live":
        request.session["next"] = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse("/sign-in", 303)
    facts = {"status": refused.status, "what": refused.what, "why": refused.why, "do": refused.do}
    answer = page(request, "problem.html", refused.status, receipt=refused.receipt, **facts)
    answer.headers.update(refused.headers)
    return answer


def desk_of(request: Request) -> Desk:
    """The Desk of the app that got a request."""
    desk: Desk = request.app.state.desk
    return desk


async def posted(request: Request) -> FormData:
    """A form that comes from our own page; raises Refused where it does not."""
    form = await request.form(max_files=0, max_fields=1000)
    access_of(request).check_source(request, _word(form, "csrf"))
    return form


def _word(form: FormData, name: str) -> str:
    word = form.get(name)
    return word if isinstance(word, str) else ""


# --- signing in -------------------------------------------------------------------------------------------------------


@router.get("/sign-in")
async def sign_in(request: Request) -> Response:
    """The form to sign in."""
    settings = access_of(request).settings
    ways = {"has_users": settings.users is not None, "has_oidc": settings.oidc is not None}
    return page(request, "sign_in.html", **ways)


@router.post("/sign-in")
async def signed_in(request: Request) -> Response:
    """Sign in by name and password."""
    form, access = await posted(request), access_of(request)
    name, password, users = _word(form, "name"), _word(form, "password"), access.settings.users
    access.sign_ins.take(f"name {name}")
    access.sign_ins.take(f"address {access.address(request)}")
    person = None if users is None else await anyio.to_thread.run_sync(users.check, name, password[:1000])
    if person is None:
        ways = {"has_users": users is not None, "has_oidc": access.settings.oidc is not None}
        return page(request, "sign_in.html", 401, name=name, is_wrong=True, **ways)
    return RedirectResponse(access.sign_in(request, person, "local"), 303)


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    """End the session."""
    await posted(request)
    request.session.clear()
    return RedirectResponse("/sign-in", 303)


# --- looking ----------------------------------------------------------------------------------------------------------


@router.get("/")
async def inbox(request: Request, person: Signed, pipeline: str = "", after: str | None = None) -> Response:
    """What waits for an answer."""
    found = await desk_of(request).inbox(person, pipeline.strip() or None, after)
    return page(request, "inbox.html", found=found, pipeline=pipeline.strip(), after=after)


@router.get("/runs")
async def runs(request: Request, person: Signed, status: str = "", after: str | None = None) -> Response:
    """Runs, the newest first."""
    found = await desk_of(request).runs(person, status or None, after)
    return page(request, "runs.html", found=found, status=status, after=after)


@router.get("/run")
async def run(request: Request, person: Signed, id: str = "") -> Response:
    """One run."""
    view = await desk_of(request).run(person, id)
    return page(request, "run.html", view=view, drawing=drawing_of(request, view))


@router.post("/cancel")
async def cancel(request: Request, person: Signed) -> Response:
    """Ask that a run ends."""
    form = await posted(request)
    access_of(request).decisions.take(person.name)
    await desk_of(request).cancel(person, _word(form, "run"))
    return RedirectResponse(link("/run", id=_word(form, "run")), 303)


def drawing_of(request: Request, view: RunView) -> Drawing:
    """The picture of a run: of its plan where that is known here, else of what it did."""
    done = [(step.path, step.kind) for step in view.steps]
    asking = [pause.step_path for pause in view.snapshot.pauses] if view.snapshot.status == "paused" else []
    plan = request.app.state.plan
    if plan is not None and plan.fingerprint == view.snapshot.fingerprint and not view.snapshot.mutations:
        return draw(plan, standing(done, asking))
    states = dict(standing(done, asking))
    return draw_path([*states.items()][-200:])


# --- deciding ---------------------------------------------------------------------------------------------------------


@router.get("/question")
async def question(request: Request, person: Signed, run: str = "", id: str = "") -> Response:
    """An open question, with exactly what is decided on, and the form for the answer."""
    found = await desk_of(request).question(person, run, id)
    if found.decided is not None:
        return RedirectResponse(link("/receipt", run=run, id=id), 303)
    return _ask(request, found)


@router.post("/question")
async def answer(request: Request, person: Signed) -> Response:
    """Record an answer."""
    form = await posted(request)
    access_of(request).decisions.take(person.name)
    run_id, pause_id, digest = (_word(form, name) for name in ("run", "pause", "shown"))
    given = {key: [one for one in form.getlist(key) if isinstance(one, str)] for key in form}
    found: Question | None = None
    try:
        found = await desk_of(request).question(person, run_id, pause_id)
        decision = _decision(found, given)
    except Unreadable as error:
        assert found is not None
        return _ask(request, found, 422, given, error.problems)
    reason = _word(form, "reason") or _own_reason(decision)
    try:
        await desk_of(request).decide(person, run_id, pause_id, decision, digest=digest, reason=reason)
    except Refused as refused:
        if refused.status != 422:
            raise
        return _ask(request, found, 422, given, {"answer": refused.why})
    return RedirectResponse(link("/receipt", run=run_id, id=pause_id), 303)


@router.get("/receipt")
async def receipt(request: Request, person: Signed, run: str = "", id: str = "") -> Response:
    """How a question was answered."""
    decided = await desk_of(request).receipt(person, run, id)
    return page(request, "receipt.html", decided=decided)


def _ask(
    request: Request,
    found: Question,
    status: int = 200,
    given: Mapping[str, list[str]] | None = None,
    problems: Mapping[str, str] | None = None,
) -> Response:
    top = fields_of(found.schema)
    if given is not None:
        top = fill(top, given, problems or {})
    wrong = [field for field in top.all() if field.problem]
    facts = {"asks_reason": "answer.reason" not in {field.name for field in top.all()}, "given": given or {}}
    return page(request, "question.html", status, found=found, top=top, wrong=wrong, problems=problems or {}, **facts)


def _decision(found: Question, given: Mapping[str, list[str]]) -> JsonValue:
    """The answer: of the field for JSON, where something stands in it, or else of the form."""
    raw = "".join(given.get("json", ()))
    top = fields_of(found.schema)
    return read(fields_of(None), {"answer": [raw]}) if raw.strip() else read(top, given)


def _own_reason(decision: JsonValue) -> str | None:
    reason = decision.get("reason") if isinstance(decision, dict) else None
    return reason if isinstance(reason, str) else None
