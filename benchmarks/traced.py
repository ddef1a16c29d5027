"""What spans and metrics add to a run, beside the same spans made by hand with the SDK, and what they cost while off.

The providers of a process can be set once, so what is off is measured first. `python -m benchmarks.traced`
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import rshift
from timeit import timeit
from typing import Any

from benchmarks.chain import no_op, no_op_step
from benchmarks.compare import best_us
from opentelemetry import trace

from flujo.core import Flujo, Step, telemetry

STEPS = 100


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU microseconds per step of a chain of no-ops.

    Attributes:
        off: With no provider.
        spans: With spans.
        both: With spans and metrics.
        raw: Of the same spans, made by hand around bare awaits.
        asking_us: Of asking whether anything is configured, as each run does once.
        run_us: Of a whole run of one step, with no provider.
    """

    off: float
    spans: float
    both: float
    raw: float
    asking_us: float
    run_us: float

    @property
    def ratio(self) -> float:
        """What spans add, by what they cost in the SDK."""
        return (self.spans - self.off) / self.raw

    @property
    def ratio_of_both(self) -> float:
        """What spans and metrics add, by what the spans cost in the SDK."""
        return (self.both - self.off) / self.raw

    @property
    def share(self) -> float:
        """What asking takes of the shortest run there is."""
        return self.asking_us / self.run_us


class Exporter:
    """Keeps the spans while somebody wants them; a `SpanExporter` of the SDK, which is not loaded yet."""

    def __init__(self) -> None:
        self.spans: list[Any] | None = None

    def export(self, spans: Sequence[Any]) -> None:
        if self.spans is not None:
            self.spans += spans

    def shutdown(self) -> None:
        """Nothing is open."""


def measure() -> Costs:
    """Measure in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.traced", "json"], capture_output=True, text=True, check=True
    )
    return Costs(**json.loads(done.stdout))


def measured(rounds: int = 15) -> Costs:
    """Measure in this process; its providers are set by that."""
    chain = Flujo(reduce(rshift, [no_op_step(index) for index in range(STEPS)]))
    one, exporter = Flujo(Step(no_op)), Exporter()
    off, run_us = asyncio.run(best_us(lambda: chain.run_async(1), lambda: one.run_async(1), rounds=rounds))
    asking_us = min(timeit(telemetry.current_watch, number=2000) / 2000 for _ in range(rounds)) * 1e6
    # Loaded only now: what is off is measured as it is in a process that has no SDK.
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    by_hand = spans_of(chain, exporter)
    spans, raw = asyncio.run(best_us(lambda: chain.run_async(1), by_hand, rounds=rounds))
    metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))
    both, raw_again = asyncio.run(best_us(lambda: chain.run_async(1), by_hand, rounds=rounds))
    return Costs(off / STEPS, spans / STEPS, both / STEPS, min(raw, raw_again) / STEPS, asking_us, run_us)


def spans_of(chain: Flujo, exporter: Exporter) -> Callable[[], Awaitable[None]]:
    """What makes the spans of a run by hand: as many, nested alike, each with the attributes that Flujo's have."""
    exporter.spans = []
    asyncio.run(chain.run_async(1))
    *steps, run = exporter.spans
    exporter.spans = None
    assert len(steps) == STEPS
    tracer = trace.get_tracer("by hand")

    async def by_hand() -> None:
        with tracer.start_as_current_span(run.name, attributes=run.attributes):
            for step in steps:
                with tracer.start_as_current_span(step.name, attributes=step.attributes):
                    await no_op(1)

    return by_hand


if __name__ == "__main__":
    costs = measured()
    if sys.argv[1:]:
        json.dump(asdict(costs), sys.stdout)
    else:
        print(costs)
        print(f"spans add x {costs.ratio:.2f} of the SDK's, with metrics x {costs.ratio_of_both:.2f}")
        print(f"off: asking takes {costs.share:.1%} of a run of one step")
