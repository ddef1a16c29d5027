"""What `flujo solve` and `flujo chat` have in common: their options, how a run is watched, and how it is told."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict, get_args

import anyio
import click
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.status import Status

from flujo.core import (
    CommandHost,
    ConfigurationError,
    Event,
    Flujo,
    OnGovernorBreach,
    OnGuardDenied,
    OnRetry,
    OnStepFailure,
    OnUsageWarning,
    Pause,
    Pipeline,
    PipelineResult,
    PostStepExecution,
    PreStepExecution,
    Price,
    Usage,
    UsageLimits,
)

from .spec import AgentOptions, OutputMode

__all__ = [
    "INTERRUPTED",
    "PAUSED",
    "ModelFlags",
    "Watch",
    "agent_options",
    "facts",
    "model_options",
    "of_status",
    "prepared",
    "run",
    "spent",
]

PAUSED, INTERRUPTED = 5, 130
_CODES = {"completed": 0, "failed": 3, "stopped": 4, "paused": PAUSED, "aborted": 6}
_MILLION = Decimal(1_000_000)

EXIT_CODES = """\b
Exit codes:
  0 completed   2 nothing ran   3 failed   4 stopped by a limit
  5 paused      6 denied or aborted        130 interrupted
"""


def of_status(status: str) -> int:
    """The exit code of a run that ended so."""
    return _CODES[status]


class ModelFlags(TypedDict):
    """The options of `model_options`, as click gives them."""

    model: str
    base_url: str | None
    api_key_env: str | None
    price: Price | None
    output_mode: OutputMode
    instructions: str
    output_tokens: int | None
    temperature: float | None
    max_usd: str | None
    max_tokens: int | None
    max_requests: int | None
    plugin: tuple[str, ...]
    require: tuple[str, ...]
    policy_file: Path | None
    store: str | None
    resume: str | None
    quiet: bool
    as_json: bool


class _PriceOfModel(click.ParamType[Price]):
    name = "price"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Price:
        """IN/OUT as a Price; `free` is a model that costs nothing."""
        if isinstance(value, Price) or value == "free":
            return Price() if value == "free" else value
        received, _, given = str(value).partition("/")
        try:
            return Price(Decimal(received) / _MILLION, Decimal(given) / _MILLION)
        except (InvalidOperation, ConfigurationError):
            self.fail(f"{value!r} is no price; give USD per million tokens, in and out: 0.15/0.60, or free", param, ctx)


_OPTIONS = (
    click.option("--model", "-m", required=True, envvar="FLUJO_MODEL", metavar="MODEL",
                 help="PROVIDER:NAME or local:FILE.gguf; else FLUJO_MODEL."),
    click.option("--base-url", envvar="FLUJO_BASE_URL", metavar="URL",
                 help="A server that speaks OpenAI's protocol, with openai:NAME; else FLUJO_BASE_URL."),
    click.option("--api-key-env", metavar="VARIABLE", help="Variable that holds the key for --base-url."),
    click.option("--price", type=_PriceOfModel(), metavar="IN/OUT",
                 help="USD per million tokens, where no price list knows: 0.15/0.60, or free."),
    click.option("--output-mode", type=click.Choice(get_args(OutputMode)), default="auto", show_default=True,
                 help="How it is made to give typed answers; native suits most local servers."),
    click.option("--instructions", default="", metavar="TEXT", help="What the model is told beside its role."),
    click.option("--output-tokens", type=click.IntRange(1), metavar="N", help="Most tokens of one answer of a model."),
    click.option("--temperature", type=click.FloatRange(0, 10), metavar="T", help="Sampling temperature."),
    click.option("--max-usd", metavar="USD", help="Most money, e.g. 0.50."),
    click.option("--max-tokens", type=int, metavar="N", help="Most tokens."),
    click.option("--max-requests", type=int, metavar="N", help="Most calls to models."),
    click.option("--plugin", multiple=True, metavar="NAME", help="A plugin that acts. May be repeated."),
    click.option("--require", multiple=True, metavar="NAME", help="A plugin without which nothing may run."),
    click.option("--policy", "policy_file", type=click.Path(path_type=Path), metavar="FILE.toml",
                 help="Rules the run is held to."),
    click.option("--store", metavar="URL", help="Keep the run here, e.g. sqlite:///runs.db."),
    click.option("--resume", metavar="RUN", help="Go on with a run that the store keeps; all else as before."),
    click.option("--quiet", "-q", is_flag=True, help="No progress and no summary."),
    click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines."),
)  # fmt: skip


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options about the model, the limits, the policy and the store."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def agent_options(flags: ModelFlags) -> AgentOptions:
    """What the flags say of the model.

    Raises:
        click.UsageError: The variable with the key is not set, or a limit needs a price.
    """
    if flags["base_url"] is not None and flags["max_usd"] is not None and flags["price"] is None:
        raise click.UsageError("--max-usd with --base-url needs a price: --price IN/OUT, or --price free.")
    options: AgentOptions = {"base_url": flags["base_url"], "price": flags["price"]}
    options["output_mode"] = flags["output_mode"]
    options["max_tokens"], options["temperature"] = flags["output_tokens"], flags["temperature"]
    variable = flags["api_key_env"]
    if variable is not None:
        options["api_key"] = os.environ.get(variable) or None
        if options["api_key"] is None:
            raise click.UsageError(f"--api-key-env: the variable {variable} is not set.")
    return options


def prepared(ctx: click.Context, pipeline: Pipeline, flags: ModelFlags, watch: Watch) -> Flujo:
    """The pipeline under the settings and the policy that hold here."""
    host = ctx.find_object(CommandHost)  # type: ignore[type-abstract]  # click only asks isinstance
    if host is None:
        raise click.UsageError(f"This command runs inside `flujo`: flujo {ctx.info_name} ...")
    flujo = host.prepare(
        pipeline,
        plugins=flags["plugin"],
        require=flags["require"],
        policy_file=flags["policy_file"],
        hooks=[watch.observe],
        store=flags["store"],
    )
    if flags["resume"] is not None and flujo.store is None:
        host.store()  # says how to name one
    return flujo


def begun(flujo: Flujo, given: str | None, flags: ModelFlags) -> PipelineResult:
    """Start a run, or go on with the one that `--resume` names."""
    limits, stored = limits_of(flags), flags["resume"]
    if stored is None:
        return run(lambda: flujo.run_async(given, limits=limits))
    again = None if limits.unlimited else limits
    return run(lambda: flujo.resume_async(stored, limits=again, retry=True))


def interrupted(watch: Watch, *, kept: bool) -> int:
    """Say how to go on after a signal; gives the exit code."""
    click.echo("flujo: interrupted", err=True)
    if kept and watch.run_id:
        click.echo(f"Go on: --resume {watch.run_id}", err=True)
    return INTERRUPTED


def limits_of(flags: ModelFlags) -> UsageLimits:
    """The limits of the flags."""
    return UsageLimits(flags["max_usd"], flags["max_tokens"], flags["max_requests"])


def run(work: Callable[[], Awaitable[PipelineResult]]) -> PipelineResult:
    """Do a part of a run; what its steps print must not mix with what the command prints."""
    os.environ.setdefault("PYDANTIC_AI_NO_BANNER", "1")  # on a terminal it would draw one into the answers

    async def call() -> PipelineResult:
        return await work()

    with redirect_stdout(sys.stderr):
        return anyio.run(call)


class Watch:
    """Tells on the error stream what a run is at: a line for each step that asked a model, and where it is now.

    Attributes:
        run_id: The run that it saw last.
    """

    def __init__(self, *, quiet: bool, steps: bool = True) -> None:
        self.run_id: str = ""
        self._quiet = quiet
        self._steps = steps
        self._status: Status | None = None
        console = Console(stderr=True)
        if not quiet and sys.stderr.isatty() and console.is_terminal and not console.is_dumb_terminal:
            self._status = Status("", console=console)

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The terminal is a human's meanwhile."""
        if self._status is not None:
            self._status.stop()
        yield
        if self._status is not None:
            self._status.start()

    def observe(self, event: Event) -> None:
        """A moment of the run; given to the engine as an observer."""
        self.run_id = event.run.run_id
        if self._status is not None and isinstance(event, PreStepExecution):
            self._status.update(f"{event.name} ...")
        text = _line(event, steps=self._steps)
        if text is not None and not self._quiet:
            click.echo(text, err=True)


def _line(event: Event, *, steps: bool) -> str | None:
    if isinstance(event, PostStepExecution) and steps and event.record.usage.requests:
        return f"{event.step_path}: {event.record.duration_s:.1f} s, {spent(event.record.usage)}"
    if isinstance(event, OnStepFailure) and event.record.usage.requests:
        return f"{event.step_path}: {event.record.status}, {spent(event.record.usage)}"
    if isinstance(event, OnRetry):
        return f"{event.step_path}: attempt {event.attempt} failed ({event.error_type}), again in {event.delay_s:.1f} s"
    if isinstance(event, OnUsageWarning):
        return f"{event.limit} is used to {event.share:.0%}"
    if isinstance(event, OnGovernorBreach):
        return f"{event.error.what}; the run stops"
    if isinstance(event, OnGuardDenied):
        return f"denied by {event.denial.plugin}: {event.denial.reason}"
    return None


def spent(usage: Usage) -> str:
    """What was used, for people."""
    requests = f"{usage.requests} request{'' if usage.requests == 1 else 's'}"
    money = f", ${usage.cost_usd:.6f}".rstrip("0").rstrip(".") if usage.cost_usd else ""
    return f"{requests}, {usage.total_tokens:,} tokens{money}"


def facts(result: PipelineResult) -> str:
    """A result as one line of JSON."""
    usage = result.usage
    told = {
        "run_id": result.run_id,
        "status": result.status,
        "output": to_jsonable_python(result.value, fallback=repr),
        "error": None if result.error is None else str(result.error),
        "cost_usd": str(usage.cost_usd),
        "usage": {
            "requests": usage.requests,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "unpriced": usage.unpriced,
        },
        "duration_s": round(result.duration_s, 3),
        "steps": [{"path": one.path, "status": one.status} for one in result.step_history],
        "pauses": [_pause(pause) for pause in result.pauses],
    }
    return json.dumps(told, ensure_ascii=False)


def _pause(pause: Pause) -> dict[str, object]:
    return {"id": pause.id, "question": pause.question, "schema": pause.schema, "payload": pause.payload}
