"""The README's examples run, its figures are those of the other tests, and its lists name what exists."""

import contextlib
import io
import re
from pathlib import Path

from flujo.deidentifier import ENTITIES

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def printed(code):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    return out.getvalue().splitlines()


def test_the_quick_start_runs_and_shows_what_it_says():
    lines = printed(BLOCKS[0])
    assert lines[:2] == ["PERSON Vargadottir", "MRN 0044178"]
    assert (
        lines[-2]
        == "Mrs. [PERSON] (MRN [MRN]), [AGE_OVER_89] years old, was seen by Dr. [PERSON] on [DATE]. BP 120/80."
    )
    assert lines[-1] == "{'PERSON': 2, 'MRN': 1, 'AGE_OVER_89': 1, 'DATE': 1}"


def test_the_plugin_example_runs():
    assert printed(BLOCKS[1]) == ["Dr. [PERSON] called [PHONE]. {'PERSON': 1, 'PHONE': 1}"]


def test_the_stream_example_runs():
    assert printed(BLOCKS[2]) == ["Write to [EMAIL] or call [PHONE], Jane."]


def test_the_quick_start_is_ten_lines_or_fewer():
    assert len(BLOCKS[0].strip().splitlines()) <= 10


def test_every_placeholder_is_explained():
    assert set(re.findall(r"`\[([A-Z_0-9]+)\]`", README)) == set(ENTITIES)
