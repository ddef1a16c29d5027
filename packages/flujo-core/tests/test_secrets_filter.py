"""The filter for logs: whatever way a secret gets into a record, no handler after it shows it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scrub import BODY, SECRETS

from flujo.core import SecretsFilter

KEY = SECRETS["OpenAI"]


class Holder:
    """Tells its secret by its text, and another by its repr."""

    def __str__(self) -> str:
        return f"holder of {SECRETS['AWS']}"

    def __repr__(self) -> str:
        return f"Holder({KEY})"


class JsonFormatter(logging.Formatter):
    """As such formatters are made: everything a record has."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text + json.dumps(vars(record), default=str)


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, Callable[[], str]]]:
    logger, handlers, streams = logging.getLogger("of a test"), [], [StringIO(), StringIO()]
    logger.propagate = False
    for stream, formatter in zip(streams, (logging.Formatter(), JsonFormatter()), strict=True):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        handler.addFilter(SecretsFilter())
        handlers.append(handler)
        logger.addHandler(handler)
    yield logger, lambda: "".join(stream.getvalue() for stream in streams)
    for handler in handlers:
        logger.removeHandler(handler)


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def nested() -> Exception:
    try:
        try:
            raise ValueError(KEY)
        except ValueError as cause:
            raise KeyError(f"no {SECRETS['AWS']}") from cause
    except KeyError as caught:
        return caught


WAYS: dict[str, Callable[[logging.Logger], object]] = {
    "the message": lambda log: log.warning(f"cannot call with {KEY}"),
    "an argument": lambda log: log.warning("cannot call with %s", KEY),
    "arguments by name": lambda log: log.warning("cannot call with %(key)s", {"key": KEY}),
    "an object as the message": lambda log: log.warning(Holder()),
    "an object as an argument": lambda log: log.warning("%s and %r", Holder(), Holder()),
    "a message in two parts": lambda log: log.warning("sk-%s", KEY.removeprefix("sk-")),
    "arguments that do not fit": lambda log: log.warning("cannot call", KEY),
    "an exception": lambda log: log.warning("it failed", exc_info=raised(ValueError(KEY))),
    "an exception that is shown as the message": lambda log: log.warning(raised(ValueError(KEY))),
    "the cause of an exception": lambda log: log.warning("it failed", exc_info=nested()),
    "a group of exceptions": lambda log: log.warning("x", exc_info=raised(ExceptionGroup("g", [ValueError(KEY)]))),
    "a text of extra": lambda log: log.warning("x", extra={"header": f"Authorization: Bearer {KEY}"}),
    "a name of extra": lambda log: log.warning("x", extra={"api_key": f"plain{BODY}"}),
    "a name within extra": lambda log: log.warning("x", extra={"data": {"password": f"plain{BODY}"}}),
    "a list of extra": lambda log: log.warning("x", extra={"data": [1, (KEY,), {KEY}]}),
    "an object of extra": lambda log: log.warning("x", extra={"holder": Holder()}),
    "bytes of extra": lambda log: log.warning("x", extra={"body": KEY.encode()}),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_no_way_into_a_record_leads_out_of_it(
    log: tuple[logging.Logger, Callable[[], str]], way: Callable[[logging.Logger], object], capsys: Any
) -> None:
    logger, shown = log
    way(logger)
    text = shown() + capsys.readouterr().err
    assert "[SECRET]" in text
    assert BODY not in text
    assert SECRETS["AWS"] not in text


@settings(deadline=None)
@given(st.sampled_from(sorted(SECRETS.values())), st.text(max_size=50), st.text(max_size=50))
def test_no_secret_of_any_form_leads_out_whatever_stands_around_it(secret: str, before: str, after: str) -> None:
    text = f"{before} {secret} {after}"
    error = raised(ValueError(text))
    facts = ("flujo", logging.WARNING, "f.py", 1, "%s", (text,), (type(error), error, error.__traceback__))
    record = logging.LogRecord(*facts)
    record.more = {"deep": [text]}
    assert SecretsFilter().filter(record)
    assert secret not in JsonFormatter().format(record)


def test_what_is_no_secret_stays_what_it_is(log: tuple[logging.Logger, Callable[[], str]]) -> None:
    seen: list[logging.LogRecord] = []
    logger, _ = log
    watch = logging.Handler()
    watch.emit = seen.append  # type: ignore[method-assign]
    logger.addHandler(watch)
    try:
        place = object()
        logger.warning("%d of %s", 3, "four", extra={"count": 3, "place": place, "ok": True, "none": None})
    finally:
        logger.removeHandler(watch)
    (record,) = seen
    assert record.getMessage() == "3 of four"
    kept: Any = record
    assert (kept.count, kept.place, kept.ok, kept.none) == (3, place, True, None)


def test_handlers_are_given_no_exception_but_its_text(log: tuple[logging.Logger, Callable[[], str]]) -> None:
    logger, shown = log
    logger.warning("it failed", exc_info=raised(ValueError("an ordinary text")))
    assert "\nValueError: an ordinary text" in shown()
    assert '"exc_info": null' in shown()


BASIC = "dXNlcjpwYXNzd29yZA=="


def logged(message: object, *args: object, **extra: object) -> str:
    """What a handler with the filter is handed, as text."""
    record = logging.makeLogRecord({"msg": message, "args": args or None, **extra})
    assert SecretsFilter().filter(record)
    return f"{record.getMessage()} {record.exc_text} { ({name: vars(record)[name] for name in extra}) }"


@pytest.mark.parametrize(
    ("told", "secret"),
    [
        (lambda: logged("a", seen={KEY: 1}), KEY),
        (lambda: logged("a", headers=[("Authorization", f"Basic {BASIC}")]), BASIC),
        (lambda: logged("postgres://u:p@ssw0rd@host/db"), "ssw0rd"),
        (lambda: logged(f'Authorization: Digest username="bob", response="{"0f" * 16}"'), "0f0f0f"),
        (lambda: logged("-----BEGIN PGP PRIVATE KEY BLOCK-----\nlQOY\n-----END PGP PRIVATE KEY BLOCK-----"), "lQOY"),
    ],
    ids=["key of a dict", "pairs of headers", "URL", "digest", "PGP"],
)
def test_no_secret_of_a_known_form_is_left_in_a_record(told: Callable[[], str], secret: str) -> None:
    assert secret not in told()


class _Silent:
    def __repr__(self) -> str:
        raise ValueError("no text")


def circle() -> dict[str, object]:
    """Holds itself twice, so that who follows it never comes to an end, and a secret."""
    found: dict[str, object] = {"key": KEY}
    found["selves"] = [found, found]
    return found


def deep() -> object:
    found: object = KEY
    for _ in range(10 * sys.getrecursionlimit()):
        found = [found]
    return found


@pytest.mark.parametrize(
    "told",
    [
        lambda: logged("a", seen=circle()),
        lambda: logged("a", seen=deep()),
        lambda: logged("a", seen=_Silent()),
        lambda: logged("a", seen={_Silent(): KEY}),
        lambda: logged("%s", _Silent()),
        lambda: logged(_Silent()),
    ],
    ids=["circle", "depth", "extra", "key", "argument", "message"],
)
def test_what_cannot_be_shown_does_not_end_the_program(told: Callable[[], str]) -> None:
    assert KEY not in told()


def test_a_pair_of_words_is_no_header() -> None:
    assert "['Accept', 'text/html']" in logged("a", seen=[("Accept", "text/html")])
    assert "['name', 'password', 'mail']" in logged("a", seen=["name", "password", "mail"])


def test_core_alone_installs_it_nowhere() -> None:
    program = (
        "import logging\nfrom flujo.core import *\n"
        f"async def bad(x): logging.getLogger('mine').warning({KEY!r})\n"
        "Flujo(Step(bad)).run(1)\n"
        "assert not logging.root.filters and not logging.lastResort.filters and not logging.root.handlers"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (0, f"{KEY}\n")
