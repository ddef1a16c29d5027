"""`flujo hitl user` and what `flujo hitl serve` refuses; that it serves is what the tests in a browser say."""

from __future__ import annotations

import io
import json
import re
import socket
import sys
from pathlib import Path

import click
import pytest
import trio
from conftest import FlujoCommand as Flujo
from fastapi import FastAPI

from flujo.hitl import NeedsAsyncio
from flujo.hitl.cli import runs
from flujo.hitl.cli_web import hitl
from flujo.hitl.web.people import Users
from flujo.hitl.web.serving import Serving

ROOT = Path(__file__).parents[3]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse battery\n"))


@pytest.mark.usefixtures("said")
def test_users_are_added_listed_and_removed(flujo: Flujo) -> None:
    told = flujo("hitl", "user", "add", "ann", "--role", "finance", "--tenant", "t1", "--password-stdin")
    assert (told.code, told.out) == (0, "ann may sign in.\n")
    assert json.loads(flujo("hitl", "user", "list", "--json").out) == {
        "name": "ann", "roles": ["finance"], "tenant": "t1",
    }  # fmt: skip
    token = json.loads(flujo("hitl", "user", "token", "ann", "--json").out)["token"]
    person = Users(Path("hitl-users.json")).of_token(token)
    assert person is not None
    assert flujo("hitl", "user", "token", "ann", "--drop").out == "1 tokens are void.\n"
    assert Users(Path("hitl-users.json")).of_token(token) is None
    assert flujo("hitl", "user", "remove", "ann").code == 0
    assert flujo("hitl", "user", "list").out == ""
    assert flujo("hitl", "user", "remove", "ann").code == 2


@pytest.mark.parametrize("words", [["user", "list"], ["serve", "flows.py:pay"]])
def test_an_extra_that_is_missing_is_named(flujo: Flujo, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)  # as where it is not installed
    told = flujo("hitl", *words)
    assert (told.code, "pip install 'flujo-hitl[cli,web]'" in told.err) == (2, True)


def test_it_is_served_with_asyncio_alone() -> None:
    serving = Serving(FastAPI(), "127.0.0.1", 0)
    with pytest.raises(NeedsAsyncio):
        trio.run(serving.run)
    serving.close()


@pytest.mark.usefixtures("said")
def test_a_password_is_not_taken_from_the_command_line(flujo: Flujo) -> None:
    told = flujo("hitl", "user", "add", "ann")
    assert (told.code, "--password-stdin" in told.err) == (2, True)


def test_serving_for_nobody_is_refused(flujo: Flujo) -> None:
    told = flujo("hitl", "serve", "flows.py:pay")
    assert (told.code, "flujo hitl user add NAME" in told.err) == (2, True)


@pytest.mark.usefixtures("said")
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--host", "0.0.0.0"], "could read passwords"),
        (["--user-header", "X-User"], "no proxy is named"),
        (["--user-header", "X-User", "--proxy", "somewhere"], "write 10.0.0.5"),
        (["--oidc-issuer", "https://login.example.org"], "FLUJO_OIDC_SECRET is missing"),
        (["--webhook", "https://example.org"], "FLUJO_WEBHOOK_SECRET"),
    ],
)
def test_serving_what_is_not_safe_is_refused(flujo: Flujo, words: list[str], why: str) -> None:
    flujo("hitl", "user", "add", "ann", "--password-stdin")
    told = flujo("hitl", "serve", *words)
    assert (told.code, why in told.err) == (2, True), told.err


@pytest.mark.usefixtures("said")
def test_an_address_that_is_taken_is_told(flujo: Flujo) -> None:
    flujo("hitl", "user", "add", "ann", "--password-stdin")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        told = flujo("hitl", "serve", "--port", str(taken.getsockname()[1]))
    assert (told.code, "Address already in use" in told.err) == (2, True)


@pytest.mark.usefixtures("said")
def test_the_url_of_an_ipv6_address_is_one(flujo: Flujo) -> None:
    flujo("hitl", "user", "add", "ann", "--password-stdin")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        told = flujo("hitl", "serve", "--host", "::1", "--port", str(taken.getsockname()[1]))
    assert (told.code, "Address already in use" in told.err) == (2, True), told.err


GUIDES = [*sorted(ROOT.glob("docs/how-to/*.md")), ROOT / "packages/flujo-hitl/README.md"]
LINES = re.findall(r"^\$ (?:TOKEN=\$\()?flujo ((?:hitl|runs) .*)", "\n".join(one.read_text() for one in GUIDES), re.M)


@pytest.mark.parametrize("words", LINES)
def test_every_command_in_the_guides_exists_with_its_options(words: str) -> None:
    known: click.Command = {"hitl": hitl, "runs": runs}[words.split()[0]]
    for word in words.split()[1:]:
        if isinstance(known, click.Group):
            found = known.commands.get(word.strip(")"))
            assert found is not None, words
            known = found
    options = {option for one in known.params for option in one.opts}
    assert set(re.findall(r"(?<!\S)--[a-z-]+", words)) <= options


def test_there_are_commands_in_the_guides() -> None:
    assert len(LINES) > 15


def test_the_help_teaches(flujo: Flujo) -> None:
    assert "flujo hitl serve flows.py" in flujo("hitl", "--help").out
    assert "--proxy 10.0.0.5" in flujo("hitl", "serve", "--help").out
