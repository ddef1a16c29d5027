"""The regression guard: the chain's ratio to bare await may not worsen by more than 20 % against the baseline.

Run it as ``python -m benchmarks.guard``; ``--update`` writes the measured ratio into ``baseline.json`` instead (commit
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

from benchmarks.chain import measure

BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCE = 0.20
ATTEMPTS = 3
N_STEPS = 100
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was measured against what; it is worse only if every one of ATTEMPTS measurements was too slow."""

    baseline: float
    measured: tuple[float, ...]

    @property
    def worse(self) -> bool:
        return min(self.measured) > self.baseline * (1 + TOLERANCE)

    def __str__(self) -> str:
        tries = ", ".join(f"{ratio:.1f}" for ratio in self.measured)
        word = "WORSE" if self.worse else "ok"
        return f"chain of {N_STEPS} / bare await: {tries}; baseline {self.baseline:.1f} + {TOLERANCE:.0%}: {word}"


def check(baseline: float, measure_once: Callable[[], float]) -> Verdict:
    """Measure until one result is good enough, at most ATTEMPTS times: noise only ever makes a result worse."""
    measured: list[float] = []
    while len(measured) < ATTEMPTS:
        measured.append(measure_once())
        if measured[-1] <= baseline * (1 + TOLERANCE):
            break
    return Verdict(baseline, tuple(measured))


def read_baselines() -> dict[str, float]:
    """Read the ratios by Python version: 3.12 made the bare await cheaper, so that they differ."""
    return dict(json.loads(BASELINE.read_text())["chain_100_ratio"])


def chain_ratio() -> float:
    return measure(N_STEPS).value


def update() -> float:
    """Write this Python's ratio into the baseline, the median of five measurements."""
    ratio = statistics.median(chain_ratio() for _ in range(5))
    known = read_baselines() if BASELINE.exists() else {}
    ratios = dict(sorted({**known, PYTHON: round(ratio, 1)}.items()))
    BASELINE.write_text(json.dumps({"chain_100_ratio": ratios}, indent=2) + "\n")
    return ratio


def main(argv: list[str], python: str = PYTHON) -> int:
    """Compare with the baseline; give 0 when as good, 1 when worse, 2 when this Python has no baseline."""
    parser = argparse.ArgumentParser(description="Compare the chain's ratio to bare await with the committed baseline.")
    parser.add_argument("--update", action="store_true", help="write the measured ratio as the new baseline")
    if parser.parse_args(argv).update:
        print(f"baseline for Python {PYTHON}: {update():.1f}")
        return 0
    baseline = read_baselines().get(python)
    if baseline is None:
        print(f"no baseline for Python {python}; do: python -m benchmarks.guard --update", file=sys.stderr)
        return 2
    verdict = check(baseline, chain_ratio)
    print(verdict)
    return int(verdict.worse)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
