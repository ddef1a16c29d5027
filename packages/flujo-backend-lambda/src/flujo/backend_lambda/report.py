"""The REPORT line of an invocation, and what it cost."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal

from flujo.core import ConfigurationError

__all__ = ["Rates", "Report", "report_in"]

_LINE = re.compile(
    r"REPORT RequestId: (?P<rid>\S+)\s+Duration: (?P<dur>[\d.]+) ms\s+Billed Duration: (?P<bill>\d+) ms\s+"
    r"Memory Size: (?P<mem>\d+) MB\s+Max Memory Used: (?P<max>\d+) MB(?:\s+Init Duration: (?P<init>[\d.]+) ms)?"
    r"(?:\s+Restore Duration: (?P<restore>[\d.]+) ms)?(?:\s+Billed Restore Duration: (?P<br>\d+) ms)?(?:\s+XRAY.*?)?"
    r"(?:\s+Status: (?P<status>\w+))?(?:\s+Error Type: (?P<et>\S+))?"
)


@dataclass(frozen=True, slots=True)
class Report:
    """What AWS says of an invocation.

    Attributes:
        request_id: Its id.
        duration_ms: Time in the handler.
        billed_ms: Time that is billed; the cold start is in it.
        memory_mb: Memory of the function, by which it is billed.
        max_memory_mb: The most that was used.
        init_ms: Time of the cold start; None on a warm one.
    """

    request_id: str
    duration_ms: float
    billed_ms: int
    memory_mb: int
    max_memory_mb: int
    init_ms: float | None = None

    @property
    def gb_s(self) -> Decimal:
        """Gigabyte-seconds that are billed."""
        return Decimal(self.billed_ms) * self.memory_mb / (1000 * 1024)


@dataclass(frozen=True, slots=True)
class Rates:
    """What AWS takes, which depends on region, architecture and contract: look it up, and say so here.

    Attributes:
        usd_per_gb_s: USD for a gigabyte-second.
        usd_per_request: USD for an invocation.
    """

    usd_per_gb_s: Decimal | int | str
    usd_per_request: Decimal | int | str = 0

    def __post_init__(self) -> None:
        try:
            usable = all(Decimal(part).is_finite() and Decimal(part) >= 0 for part in self._parts)
        except ArithmeticError:
            usable = False
        if not usable:
            raise ConfigurationError(f"{self!r} cannot be used", "a rate is a number of 0 or more USD")

    @property
    def _parts(self) -> tuple[Decimal | int | str, Decimal | int | str]:
        return self.usd_per_gb_s, self.usd_per_request

    def cost(self, report: Report) -> Decimal:
        """USD for an invocation."""
        return report.gb_s * Decimal(self.usd_per_gb_s) + Decimal(self.usd_per_request)

    def worst(self, timeout_s: float, memory_mb: int, init_s: float = 10.0) -> Decimal:
        """USD for one that takes all its time, after the longest cold start."""
        billed_ms = int((timeout_s + init_s) * 1000) + 1
        return self.cost(Report("", 0.0, billed_ms, memory_mb, memory_mb))


def report_in(log: str, request_id: str = "") -> Report | None:
    """The last report in the tail of a log, as text or in the JSON log format; None where there is none.

    AWS writes it after all that the function said, which may look like one, and stays alone where AWS writes none.

    Args:
        log: The tail.
        request_id: The invocation whose report it is to be; empty where that is not known.
    """
    found = (_read(line) for line in reversed(log.splitlines()))
    own = (report for report in found if report is not None and request_id in ("", report.request_id))
    return next(own, None)


def _read(line: str) -> Report | None:
    """A REPORT line, or a `platform.report` as AWS documents its JSON log format, which we have not seen on AWS."""
    said = _LINE.search(line)
    try:
        if said is not None:
            init = None if said["init"] is None else float(said["init"])
            numbers = (float(said["dur"]), int(said["bill"]), int(said["mem"]), int(said["max"]))
            return Report(said["rid"], *numbers, init)
        if '"platform.report"' not in line:
            return None
        record = json.loads(line)["record"]
        metrics = record["metrics"]
        init = metrics.get("initDurationMs")
        return Report(
            str(record["requestId"]),
            float(metrics["durationMs"]),
            int(metrics["billedDurationMs"]),
            int(metrics["memorySizeMB"]),
            int(metrics["maxMemoryUsedMB"]),
            None if init is None else float(init),
        )
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
        return None
