"""The regression guard: no ratio to bare code may worsen by more than 20 % against the baseline.

Run it as ``python -m benchmarks.guard``; ``--update`` writes the measured ratios into ``baseline.json`` instead (commit
it with the reason). A ratio of CPU times in one process cancels the speed and the load of the machine, though not the
difference between two kinds of processor: there the baseline has to be measured anew.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import chain, fan_out, loop, one_run

BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCE = 0.20
ATTEMPTS = 3
N_STEPS = 100
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
MEASURES: dict[str, Callable[[], float]] = {
    "chain_100_ratio": lambda: chain.measure(N_STEPS).value,
    "one_run_ratio": lambda: one_run.measure().value,
    "loop_1000_ratio": lambda: loop.measure(1000).value,
    "map_1000_ratio": lambda: fan_out.measure("map", 1000).value,
    "parallel_1000_ratio": lambda: fan_out.measure("parallel", 1000).value,
}
"""What is held; concurrent runs are not, since their ratio is mostly the garbage collector's and the caches'."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was measured against what; it is worse only if every one of ATTEMPTS measurements was too slow."""

    baseline: float
    measured: tuple[float, ...]
    what: str = "chain_100_ratio"

    @property
    def worse(self) -> bool:
        return min(self.measured) > self.baseline * (1 + TOLERANCE)

    def __str__(self) -> str:
        tries = ", ".join(f"{ratio:.1f}" for ratio in self.measured)
        word = "WORSE" if self.worse else "ok"
        return f"{self.what} to bare code: {tries}; baseline {self.baseline:.1f} + {TOLERANCE:.0%}: {word}"


def check(baseline: float, measure_once: Callable[[], float], what: str = "chain_100_ratio") -> Verdict:
    """Measure until one result is good enough, at most ATTEMPTS times: noise only ever makes a result worse."""
    measured: list[float] = []
    while len(measured) < ATTEMPTS:
        measured.append(measure_once())
        if measured[-1] <= baseline * (1 + TOLERANCE):
            break
    return Verdict(baseline, tuple(measured), what)


def read_baselines(python: str = PYTHON) -> dict[str, float]:
    """Read the ratios for a Python version: 3.12 made the bare await cheaper, so that they differ."""
    known = json.loads(BASELINE.read_text())
    return {what: ratios[python] for what, ratios in known.items() if python in ratios}


def update() -> dict[str, float]:
    """Write this Python's ratios into the baseline, each the median of five measurements."""
    known = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    for what, measure_once in MEASURES.items():
        ratio = statistics.median(measure_once() for _ in range(5))
        known[what] = dict(sorted({**known.get(what, {}), PYTHON: round(ratio, 2)}.items()))
    BASELINE.write_text(json.dumps({what: known[what] for what in MEASURES}, indent=2) + "\n")
    return read_baselines()


def main(argv: list[str], python: str = PYTHON) -> int:
    """Compare with the baseline; give 0 when as good, 1 when worse, 2 when this Python has no baseline."""
    parser = argparse.ArgumentParser(description="Compare ratios to bare code with the committed baseline.")
    parser.add_argument("--update", action="store_true", help="write the measured ratios as the new baseline")
    if parser.parse_args(argv).update:
        print(f"baseline for Python {PYTHON}: {update()}")
        return 0
    baselines = read_baselines(python)
    if baselines.keys() != MEASURES.keys():
        print(f"no baseline for Python {python}; do: python -m benchmarks.guard --update", file=sys.stderr)
        return 2
    verdicts = [check(baselines[what], measure_once, what) for what, measure_once in MEASURES.items()]
    print(*verdicts, sep="\n")
    return int(any(verdict.worse for verdict in verdicts))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
