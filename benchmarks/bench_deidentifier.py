"""How much text the de-identifier reads per second of CPU: `uv run pytest benchmarks -k deidentifier --benchmark-only`.

The dense text is the package's own notes (one identifier per 45 characters), the prose holds none.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import process_time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from flujo.deidentifier import Deidentifier

TESTS = Path(__file__).parents[1] / "packages" / "flujo-deidentifier" / "tests"
MARK = re.compile(r"\{\{[A-Z_0-9]+\|(.*?)\}\}", re.DOTALL)
DENSE = "\n\n".join(MARK.sub(r"\1", p.read_text("utf-8")) for p in sorted((TESTS / "notes").glob("*.txt")))
PROSE = (TESTS / "clean_texts.txt").read_text("utf-8").replace("===\n", "\n") * 8
TYPES = ("EMAIL", "SSN", "PHONE", "IBAN")
MOST_US_A_PIECE = {"prose": 5.0, "dense": 9.0}
LEAST_KB_S = {"detect": 20.0, "redact": 10.0, "patterns": 60.0}
"""Floors that only a real slowdown breaks; the README quotes what was measured."""


@pytest.fixture(scope="module")
def deidentifier() -> Deidentifier:
    made = Deidentifier(reference_year=2024)
    made.detect("call 937-555-0142")  # loads Presidio and the word lists
    return made


def rate(benchmark: BenchmarkFixture, work: Callable[[str], object], text: str) -> float:
    """KB of text per second of CPU; also written into the benchmark's `extra_info`."""
    benchmark.pedantic(work, args=(text,), rounds=3, warmup_rounds=1)
    found = len(text) / 1000 / benchmark.stats.stats.min
    benchmark.extra_info["kb_per_cpu_second"] = round(found, 1)
    return found


@pytest.mark.benchmark(timer=process_time)
@pytest.mark.parametrize("text", [DENSE, PROSE], ids=["dense", "prose"])
def test_detect(benchmark: BenchmarkFixture, deidentifier: Deidentifier, text: str) -> None:
    """One look at the text."""
    assert rate(benchmark, deidentifier.detect, text) >= LEAST_KB_S["detect"]


@pytest.mark.benchmark(timer=process_time)
def test_redact(benchmark: BenchmarkFixture, deidentifier: Deidentifier) -> None:
    """Until nothing more is found: two looks at a dense text."""
    assert rate(benchmark, deidentifier.redact, DENSE) >= LEAST_KB_S["redact"]


@pytest.mark.benchmark(timer=process_time)
def test_patterns_profile(benchmark: BenchmarkFixture) -> None:
    """Without names, places and Presidio."""
    assert rate(benchmark, Deidentifier("patterns").detect, DENSE) >= LEAST_KB_S["patterns"]


@pytest.mark.benchmark(timer=process_time)
def test_stream(benchmark: BenchmarkFixture, deidentifier: Deidentifier) -> None:
    """A stream in pieces of four characters, about a token each."""
    text = DENSE[:6_000]

    async def pieces() -> AsyncIterator[str]:
        for start in range(0, len(text), 4):
            yield text[start : start + 4]

    async def read() -> int:
        return sum([len(piece) async for piece in deidentifier.redact_stream(pieces())])

    assert rate(benchmark, lambda _: asyncio.run(read()), text) > 0


@pytest.mark.benchmark(timer=process_time)
@pytest.mark.parametrize("kind", MOST_US_A_PIECE)
def test_stream_of_chosen_types(benchmark: BenchmarkFixture, kind: str) -> None:
    """The same with types that have a shape of their own: microseconds for each piece."""
    chosen, text = Deidentifier("patterns", entities=TYPES), {"prose": PROSE, "dense": DENSE}[kind][:16_000]
    chosen.detect("call 937-555-0142")
    pieces = [text[start : start + 4] for start in range(0, len(text), 4)]

    def read() -> int:
        state = chosen.hold_back()
        return sum(len(state.feed(piece)) for piece in pieces) + len(state.finish())

    benchmark.pedantic(read, rounds=10, warmup_rounds=1)
    cost = benchmark.stats.stats.min / len(pieces) * 1e6
    benchmark.extra_info["us_a_piece"] = round(cost, 2)
    assert cost <= MOST_US_A_PIECE[kind]
