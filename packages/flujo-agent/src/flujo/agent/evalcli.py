"""`flujo eval`: score a pipeline on a dataset. Imported only when called; needs the extra `[eval]`."""

from __future__ import annotations

import math
import sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypedDict, Unpack

import anyio
import click

from flujo.core import Budget, CommandHost, ConfigurationError, Flujo, UsageLimits

from .evalruns import CaseRun, Comparison, EvalRun, Tolerances, compare, load, save
from .evalshow import Watch, as_json, show

__all__ = ["eval_"]

CLEAN, FINDINGS, UNUSABLE, INTERRUPTED = 0, 1, 2, 130

_EPILOG = """\b
Examples:
  flujo eval flows.py cases.yaml
  flujo eval flows.py:summary cases.yaml --max-usd 0.50 --concurrency 4
  flujo eval flows.py cases.yaml --save base.json
  flujo eval flows.py cases.yaml --compare base.json --score-tolerance 0.1

\b
A dataset (of pydantic-evals; JSON has the same shape):
  cases:
    - name: outage
      inputs: The server was down for an hour.
      expected_output: outage
      evaluators:
        - EqualsExpected
  evaluators:
    - Ratio: {checks: [{contains: server}, {max_chars: 80}]}
    - Weighted: {checks: [{lacks: sorry, weight: 3}, {matches: "^[A-Z]"}]}
    - LLMJudge: {rubric: Says what happened., model: "openai:gpt-4o"}

\b
Scorers give 0 to 1. A case's score is their mean; one that does not
complete has 0. Cost and latency are the pipeline's, without grading.
With --compare these are regressions: a case that is gone, does not
complete any more or is not scored any more; a score of a case, of a
scorer or of the whole that is lower by more than --score-tolerance;
more cost or latency, where a tolerance for it is given.

\b
Exit codes:
  0 clean   1 regression; without --compare: a case did not complete,
  or a scorer failed on it
  2 unusable: nothing ran, or nothing can be said   130 interrupted
"""


class EvalFlags(TypedDict):
    """The options of `flujo eval`, as click gives them."""

    save: Path | None
    compare: Path | None
    score_tolerance: float
    cost_tolerance: float | None
    latency_tolerance: float | None
    scorer: tuple[str, ...]
    max_usd: str | None
    max_tokens: int | None
    max_requests: int | None
    concurrency: int
    plugin: tuple[str, ...]
    require: tuple[str, ...]
    policy_file: Path | None
    quiet: bool
    as_json: bool


class _Share(click.FloatRange):
    """A share; not a number would let every regression pass, since it compares with nothing."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """As click does, and refuse what is no number."""
        share = float(super().convert(value, param, ctx))
        if math.isnan(share):
            self.fail("it is not a number; give for instance 0.1", param, ctx)
        return share


_SHARE = _Share(min=0)
_FILE = click.Path(path_type=Path)


@click.command("eval", epilog=_EPILOG)
@click.argument("target", metavar="FILE[:NAME]")
@click.argument("dataset", metavar="DATASET", type=_FILE)
@click.option("--save", type=_FILE, metavar="RUN.json", help="Keep what it gave, without inputs and outputs.")
@click.option("--compare", type=_FILE, metavar="RUN.json", help="Say what became worse since a kept run.")
@click.option(
    "--score-tolerance",
    type=_SHARE,
    default=0.05,
    show_default=True,
    metavar="N",
    help="How much lower a score may be, 0 to 1.",
)
@click.option("--cost-tolerance", type=_SHARE, metavar="SHARE", help="How much more it may cost: 0.2 is 20 %.")
@click.option("--latency-tolerance", type=_SHARE, metavar="SHARE", help="How much longer a case may take.")
@click.option("--scorer", multiple=True, metavar="MODULE:CLASS", help="A scorer of your own that the dataset names.")
@click.option("--max-usd", metavar="USD", help="Most money for all cases and judges together, e.g. 0.50.")
@click.option("--max-tokens", type=int, metavar="N", help="Most tokens for all of it.")
@click.option("--max-requests", type=int, metavar="N", help="Most calls to models for all of it.")
@click.option("--concurrency", type=click.IntRange(1, 1000), default=1, show_default=True, help="Cases at a time.")
@click.option("--plugin", multiple=True, metavar="NAME", help="A plugin that acts. May be repeated.")
@click.option("--require", multiple=True, metavar="NAME", help="A plugin without which nothing may run.")
@click.option("--policy", "policy_file", type=_FILE, metavar="FILE.toml", help="Rules the runs are held to.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@click.pass_context
def eval_(ctx: click.Context, target: str, dataset: Path, **flags: Unpack[EvalFlags]) -> None:
    """Run the pipeline NAME of FILE on each case of DATASET, score what it gives, and compare with a saved run.

    All cases and judges share the limits. A case that fails does not stop the rest. The dataset and the saved run are
    read and checked before anything runs. The table goes to stdout, progress to stderr.
    """
    host = ctx.find_object(CommandHost)  # type: ignore[type-abstract]  # click only asks isinstance
    if host is None:
        raise click.UsageError("This command runs inside `flujo`: flujo eval ...")
    if find_spec("pydantic_evals") is None:
        do = "pip install 'flujo-agent[eval]'"
        raise ConfigurationError("flujo eval cannot run", "pydantic-evals is not installed", do)
    ctx.exit(_eval(host, target, dataset, flags))


def _eval(host: CommandHost, target: str, path: Path, flags: EvalFlags) -> int:
    from .evaluation import checked, evaluate, read_dataset, scorer_of  # here: takes seconds to import

    before = None if flags["compare"] is None else load(flags["compare"])
    if flags["save"] is not None and not flags["save"].absolute().parent.is_dir():
        raise ConfigurationError(f"{str(flags['save'])!r} cannot be written", "there is no such folder")
    limits = UsageLimits(flags["max_usd"], flags["max_tokens"], flags["max_requests"])
    flujo = host.prepare(target, plugins=flags["plugin"], require=flags["require"], policy_file=flags["policy_file"])
    dataset = read_dataset(path, [scorer_of(named) for named in flags["scorer"]])
    checked(dataset, flujo)
    budget, cases, interrupted = _shared(flujo, limits), list[CaseRun](), False
    with Watch(len(dataset.cases), budget, quiet=flags["quiet"] or flags["as_json"]) as watch:

        def done(case: CaseRun) -> None:
            cases.append(case)
            watch.case(case)

        async def work() -> None:
            await evaluate(flujo, dataset, budget, concurrency=flags["concurrency"], on_case=done)

        try:
            with redirect_stdout(sys.stderr):  # what steps print must not mix with the table
                anyio.run(work)
        except KeyboardInterrupt:  # what is done was paid for
            interrupted = True
    order = {case.name or f"Case {number}": number for number, case in enumerate(dataset.cases, 1)}
    cases.sort(key=lambda case: order[case.name])
    run = EvalRun(pipeline=target, dataset=dataset.name or path.stem, cases=cases)
    run.grading_usd = max(budget.spent.cost_usd - run.cost_usd, run.grading_usd)
    return _conclude(run, before, flags, interrupted=interrupted)


def _shared(flujo: Flujo, limits: UsageLimits) -> Budget:
    """One ledger for all of it; what a Flujo of the file limits itself goes on to hold."""
    return Budget(limits, flujo.limits) if isinstance(flujo.limits, Budget) else Budget(limits)


def _conclude(run: EvalRun, before: EvalRun | None, flags: EvalFlags, *, interrupted: bool) -> int:
    """Print and keep what there is; returns the exit code."""
    found: Comparison | None = None
    if before is not None and not interrupted:
        tolerances = Tolerances(flags["score_tolerance"], flags["cost_tolerance"], flags["latency_tolerance"])
        found = compare(before, run, tolerances)
    if flags["as_json"]:
        click.echo(as_json(run, found, interrupted=interrupted))
    else:
        show(run, found)
    if interrupted:
        click.echo("flujo: interrupted; nothing was saved and nothing compared", err=True)
        return INTERRUPTED
    if flags["save"] is not None:
        save(run, flags["save"])
    worse = bool(run.bad) if found is None else bool(found.regressions)
    return FINDINGS if worse else CLEAN
