"""What ``import flujo.core`` costs beside importing its four dependencies: CPU time in fresh processes, interleaved.

Run it as ``python -m benchmarks.import_time``; it exits with 1 when the ratio is above LIMIT.
"""

import statistics
import subprocess
import sys

LIMIT = 1.25
ROUNDS = 11
# pydantic loads its parts when they are asked for; BaseModel is what anybody who uses it at all has loaded.
DEPENDENCIES = "import pydantic, pluggy, anyio, opentelemetry.trace; pydantic.BaseModel"
TIMED = "import time; started = time.process_time(); {}; print(time.process_time() - started)"


def import_cost_s(statement: str) -> float:
    """CPU seconds that the import takes in a fresh interpreter, the interpreter's own start left out."""
    done = subprocess.run([sys.executable, "-c", TIMED.format(statement)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def measure(rounds: int = ROUNDS) -> tuple[float, float, float]:
    """Give the median CPU seconds of ``flujo.core``, of its dependencies, and the median ratio of the rounds."""
    pairs = [(import_cost_s("import flujo.core"), import_cost_s(DEPENDENCIES)) for _ in range(rounds)]
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    return ours, theirs, statistics.median(a / b for a, b in pairs)


def main() -> int:
    """Print the comparison; give 1 when it is over the limit in three independent measurements."""
    for _ in range(3):
        ours, theirs, ratio = measure()
        print(f"import flujo.core {ours * 1e3:.0f} ms, dependencies {theirs * 1e3:.0f} ms: x {ratio:.2f} (<= {LIMIT})")
        if ratio <= LIMIT:
            return 0
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
