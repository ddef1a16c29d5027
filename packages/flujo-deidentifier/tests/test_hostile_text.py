"""Texts made to be slow, to break offsets, or to reach the network."""

import gc
import subprocess
import sys
import textwrap
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flujo.deidentifier import Deidentifier
from flujo.deidentifier.normalise import plain

UNITS = [
    "a.", "1234567890 ", "1", "A", "Aa ", "1/", "12:30 ", " ", "Smith, ", "\u0436", "\u0301", "[PERSON]", "|", "x@y.",
    "a b ", "dash one ", "AB (", "Ann Lo (AL) ", "policy . . ", "A1 ", "wife ", "St. ", "at Xx ", "\t", "Dr. ", "A-",
    "AB\n", "from aa bb ", "1.23, ", "A & ", "plan  ", "Aa, ", "\n ",
]  # fmt: skip


@pytest.fixture(scope="module")
def deidentifier():
    made = Deidentifier()
    made.detect("warm up 555-0142")
    return made


@pytest.fixture(autouse=True)
def no_collector():
    """What other tests have left on the heap is no part of the time that a text takes."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.alone
@pytest.mark.parametrize("unit", UNITS, ids=repr)
@pytest.mark.parametrize("size", [10_000, pytest.param(40_000, marks=pytest.mark.soak)])
def test_four_times_the_text_takes_no_more_than_linear_time_and_a_margin(deidentifier, unit, size):
    # Four times the text takes four times as long; a quadratic pattern sixteen times: spaces once took minutes.
    def seconds(length):
        text = (unit * length)[:length]
        before = time.process_time()
        deidentifier.detect(text)
        return time.process_time() - before

    small = min(seconds(size // 4) for _ in range(2))
    most = 10 * max(small, 0.005)
    assert seconds(size) <= most or seconds(size) <= most


@pytest.mark.alone
def test_time_grows_with_the_text_not_with_its_square(deidentifier):
    def seconds(size):
        before = time.process_time()
        deidentifier.detect("a." * (size // 2))
        return time.process_time() - before

    seconds(5_000)
    small, large = min(seconds(10_000) for _ in range(3)), min(seconds(40_000) for _ in range(2))
    assert large < 10 * small


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300))
def test_any_text_keeps_offsets_in_range_and_redaction_settles(deidentifier, text):
    found = deidentifier.detect(text)
    assert all(0 <= f.start < f.end <= len(text) for f in found)
    once = deidentifier.redact(text)
    assert deidentifier.redact(once) == once


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("aé\u0301\u200b\ufb01\uff11\u2167 [PERSON]\n"), max_size=40), st.data())
def test_every_span_of_the_plain_view_maps_to_the_characters_it_came_from(text, data):
    view = plain(text)
    if not view.text:
        return
    start = data.draw(st.integers(0, len(view.text) - 1))
    end = data.draw(st.integers(start + 1, len(view.text)))
    from flujo.deidentifier import Finding

    found = view.original(Finding(start, end, "ID", 1.0))
    assert 0 <= found.start < found.end <= len(text)
    assert view.position(found.start) <= start


def test_nothing_is_looked_up_on_the_network_and_nothing_is_written_in_the_home(tmp_path):
    code = textwrap.dedent(
        """
        import logging, socket, sys
        def refuse(*args, **kwargs):
            raise SystemExit("a socket was asked for")
        socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
        logging.basicConfig(level=logging.WARNING)
        from flujo.deidentifier import Deidentifier
        from presidio_analyzer import predefined_recognizers as stock
        extra = [stock.EmailRecognizer(), stock.UrlRecognizer()]  # the two that ask for public suffixes
        text = "mail m.okafor@mail.example.org, see example.org, call 937-555-0142"
        print(Deidentifier().redact(text))
        print(Deidentifier(recognizers=extra).redact(text))
        """
    )
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin", "PYTHONPATH": ":".join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=100)
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "mail [EMAIL], see [URL], call [PHONE]"
    assert list(tmp_path.iterdir()) == []
