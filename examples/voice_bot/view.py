"""What the terminal shows of a conversation: a table that lives, or plain lines where there is no terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .conversation import Event, Said, Saying
from .ears import Heard, Onset
from .measure import quantile
from .turn import Latency

LISTENING, HEARING, SPEAKING = "listening", "you speak", "the bot speaks"


def milliseconds(seconds: float) -> str:
    """Give a time as people read it."""
    return f"{seconds * 1000:.0f} ms"


class Lines:
    """A line for each thing that is said."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._totals = list[float]()

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._totals:
            self._print(summary(self._totals))

    def _print(self, line: Text | str) -> None:
        self._console.print(line, soft_wrap=True, highlight=False)

    def __call__(self, event: Event) -> None:
        """Show what happened."""
        if isinstance(event, Heard):
            self._print(Text.assemble(("you  ", "bold"), heard_as(event)))
        elif isinstance(event, Said) and event.text:
            parts = (event.text, (cut(event), "yellow"), (timing(event.latency), "dim"))
            self._print(Text.assemble(("bot  ", "bold"), *parts))
        if isinstance(event, Said) and event.latency is not None:
            self._totals.append(event.latency.total)


class Screen:
    """A table of the last answers with the latency of each, and who speaks."""

    def __init__(self, console: Console, rows: int = 12) -> None:
        self._rows = rows
        self._shown = list[tuple[Heard, str, Said | None]]()
        self._totals = list[float]()
        self._state = LISTENING
        self._live = Live(self._picture(), console=console, auto_refresh=False)

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show what happened."""
        if isinstance(event, Onset):
            self._state = HEARING
        elif isinstance(event, Heard):
            self._state = LISTENING
            self._shown = [*self._shown[1 - self._rows :], (event, "", None)]
        elif isinstance(event, Saying):
            self._state = SPEAKING
            heard, so_far, _ = self._shown[-1]
            self._shown[-1] = (heard, f"{so_far} {event.text}".strip(), None)
        else:
            self._state = LISTENING if self._state == SPEAKING else self._state
            heard, _, _ = self._shown[-1]
            self._shown[-1] = (heard, event.text, event)
            if event.latency is not None:
                self._totals.append(event.latency.total)
        self._live.update(self._picture(), refresh=True)

    def _picture(self) -> Group:
        table = Table("you", "the bot", expand=True, title=f"[bold]{self._state}[/]", title_justify="left")
        for name in ("sure after", "words", "sound", "in all"):
            table.add_column(name, justify="right", no_wrap=True)
        for heard, text, said in self._shown:
            latency = None if said is None else said.latency
            times = [] if latency is None else [latency.endpoint, latency.words, latency.sound, latency.total]
            answer = Text.assemble(text, ("" if said is None else cut(said), "yellow"))
            table.add_row(heard_as(heard), answer, *map(milliseconds, times))
        return Group(table, Text(summary(self._totals) if self._totals else "Say a command; Ctrl+C ends.", style="dim"))


def heard_as(event: Heard) -> Text:
    """Give what was understood."""
    if event.text is not None:
        return Text(event.text)
    return Text(f"(not understood; nearest: {event.nearest or 'nothing'})", style="yellow")


def cut(event: Said) -> str:
    """Give a mark for an answer that was interrupted."""
    return " -- (interrupted)" if event.interrupted else ""


def timing(latency: Latency | None) -> str:
    """Give how long an answer took to begin."""
    if latency is None:
        return ""
    total, endpoint, sound = map(milliseconds, (latency.total, latency.endpoint, latency.sound))
    return f"  [{total}: {endpoint} to be sure, {sound} to sound]"


def summary(totals: list[float]) -> str:
    """Give the latencies of a conversation in a sentence."""
    half, most = milliseconds(quantile(totals, 0.5)), milliseconds(quantile(totals, 0.95))
    return f"From the end of speech to the first sound of {len(totals)} answers: half in {half}, 95 % within {most}."
