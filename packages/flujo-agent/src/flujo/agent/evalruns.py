"""What an evaluation gave: kept as JSON, and compared with what an earlier one gave."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from statistics import fmean
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from flujo.core import ConfigurationError

__all__ = ["CaseRun", "Comparison", "EvalRun", "Tolerances", "compare", "load", "save"]


class CaseRun(BaseModel):
    """How one case went. Neither its input nor its output is kept: they may be private.

    Attributes:
        name: Name of the case.
        status: How the run of the pipeline ended.
        scores: Of each scorer, what it gave; True is 1, False 0.
        reasons: Of a scorer that says so, why.
        unscored: Scorers that failed, and why.
        error: Why the run did not complete.
        cost_usd: USD the pipeline spent, without grading.
        tokens: Tokens it used.
        duration_s: Seconds it took.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    status: str
    scores: dict[str, float] = {}
    reasons: dict[str, str] = {}
    unscored: dict[str, str] = {}
    error: str = ""
    cost_usd: Decimal = Decimal(0)
    tokens: int = 0
    duration_s: float = 0.0

    @property
    def score(self) -> float | None:
        """The mean of its scores; 0 where it did not complete, None where nothing scored it."""
        if self.status != "completed":
            return 0.0
        return fmean(self.scores.values()) if self.scores else None


class EvalRun(BaseModel):
    """One evaluation of a pipeline.

    Attributes:
        pipeline: FILE[:NAME] as it was given.
        dataset: Name of the dataset.
        cases: The cases in the dataset's order.
        grading_usd: USD that judges spent.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal["flujo-eval/1"] = "flujo-eval/1"
    pipeline: str
    dataset: str
    cases: list[CaseRun]
    grading_usd: Decimal = Decimal(0)

    @property
    def score(self) -> float | None:
        """The mean over the cases that have a score; None where there is no scorer."""
        if not any(case.scores for case in self.cases):
            return None
        return _mean([case.score for case in self.cases])

    @property
    def scorers(self) -> dict[str, float]:
        """The mean of each scorer over the cases it scored."""
        names = dict.fromkeys(name for case in self.cases for name in case.scores)
        return {name: fmean(case.scores[name] for case in self.cases if name in case.scores) for name in names}

    @property
    def cost_usd(self) -> Decimal:
        """USD the pipeline spent, without grading."""
        return sum((case.cost_usd for case in self.cases), Decimal(0))

    @property
    def duration_s(self) -> float:
        """Seconds that a case took in the mean."""
        return fmean(case.duration_s for case in self.cases) if self.cases else 0.0

    @property
    def bad(self) -> list[CaseRun]:
        """Cases that did not complete, or that a scorer failed on."""
        return [case for case in self.cases if case.status != "completed" or case.unscored]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def load(path: Path) -> EvalRun:
    """Read a saved evaluation.

    Raises:
        ConfigurationError: It cannot be read, or is none.
    """
    try:
        return EvalRun.model_validate_json(path.read_bytes())
    except OSError as error:
        do = f"Save one first: flujo eval ... --save {path}"
        raise ConfigurationError(f"{str(path)!r} cannot be read", error.strerror or "", do) from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        why = f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
        raise ConfigurationError(f"{str(path)!r} is no saved evaluation", why, "Save one with --save") from error


def save(run: EvalRun, path: Path) -> None:
    """Write it whole or not at all; without reasons and errors, which may quote what is private.

    Raises:
        ConfigurationError: It cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    words = {"cases": {"__all__": {"reasons", "unscored", "error"}}}
    kept = {"format": run.format, **run.model_dump(mode="json", exclude_defaults=True, exclude=words)}
    try:
        unfinished.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise ConfigurationError(f"{str(path)!r} cannot be written", error.strerror or "") from error


# --- comparison -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tolerances:
    """What is no regression yet.

    Attributes:
        score: How much lower a score may be, of a case, of a scorer's mean and of the whole.
        cost: How much more the cases may cost, as a share; None does not look at it.
        latency: How much longer a case may take in the mean, as a share; None does not look at it.
    """

    score: float = 0.05
    cost: float | None = None
    latency: float | None = None


@dataclass(slots=True)
class Comparison:
    """What became worse, and what cannot be compared."""

    before: EvalRun
    regressions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compare(before: EvalRun, now: EvalRun, tolerances: Tolerances) -> Comparison:
    """Say what became worse since `before`.

    Raises:
        ConfigurationError: The two have no case in common.
    """
    was, found = {case.name: case for case in before.cases}, Comparison(before)
    common = [case for case in now.cases if case.name in was]
    if not common:
        why = "it has no case in common with this dataset"
        raise ConfigurationError("the saved evaluation cannot be compared", why, "Save one of this dataset")
    names = {case.name for case in now.cases}
    found.regressions += [f"case {name!r} is gone" for name in was if name not in names]
    found.notes += [f"case {case.name!r} is new" for case in now.cases if case.name not in was]
    for case in common:
        found.regressions += _of_case(was[case.name], case, tolerances.score)
    # the same cases on both sides: new ones must neither hide a loss nor look like one
    olds = before.model_copy(update={"cases": [was[case.name] for case in common]})
    news = now.model_copy(update={"cases": common})
    for name, mean in olds.scorers.items():
        if _lower(mean, news.scorers.get(name), tolerances.score):
            found.regressions.append(f"scorer {name!r}: {_move(mean, news.scorers.get(name))}")
    if _lower(olds.score, news.score, tolerances.score):
        found.regressions.append(f"score: {_move(olds.score, news.score)}")
    _risen(found, "cost", float(olds.cost_usd), float(news.cost_usd), tolerances.cost, lambda v: f"${v:.6f}")
    _risen(found, "time of a case", olds.duration_s, news.duration_s, tolerances.latency, lambda v: f"{v:.2f} s")
    return found


def _of_case(was: CaseRun, case: CaseRun, tolerance: float) -> list[str]:
    if was.status == "completed" and case.status != "completed":
        return [f"case {case.name!r}: {case.status}, was completed"]
    lost = [name for name in was.scores if name not in case.scores]
    if case.status == "completed" and lost:
        return [f"case {case.name!r}: not scored by {', '.join(lost)}"]
    both = {name for name in was.scores if name in case.scores}  # a new scorer says nothing of what became worse
    old, new = (one.model_copy(update={"scores": {n: one.scores[n] for n in both}}) for one in (was, case))
    return [f"case {case.name!r}: {_move(old.score, new.score)}"] if _lower(old.score, new.score, tolerance) else []


def _lower(before: float | None, now: float | None, tolerance: float) -> bool:
    """Whether it fell by more than the tolerance; what is gone fell."""
    if before is None:
        return False
    return now is None or before - now > tolerance + 1e-9  # 0.9 - 0.8 is more than 0.1


def _move(before: float | None, now: float | None) -> str:
    return " -> ".join("none" if value is None else f"{value:.2f}" for value in (before, now))


def _risen(
    found: Comparison, what: str, before: float, now: float, tolerance: float | None, show: Callable[[float], str]
) -> None:
    if tolerance is not None and now > before * (1 + tolerance) + 1e-9:
        found.regressions.append(f"{what}: {show(before)} -> {show(now)}")
