"""The command: `python -m voice_bot`."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TypedDict, Unpack

import anyio
import click
from rich.console import Console
from rich.table import Table

from flujo.core import FlujoError

from .audio import read_wav
from .brain import Butler, model_wording
from .conversation import Conversation
from .devices import Files, SoundCard
from .ears import Ears
from .measure import measure
from .mouth import Mouth
from .phrases import AGAIN, BY_PHRASE, GO_ON, GRAMMARS, NO, YES, House
from .user import say
from .view import Lines, Screen, milliseconds

RISKY = [phrase for phrase, rule in BY_PHRASE.items() if rule.risky]
EPILOG = f"""
\b
Try, without a sound card:
  python -m voice_bot --say "turn on the heating"
  python -m voice_bot --say "{RISKY[0]}" --say "{YES}"
  python -m voice_bot --interrupt 2 --say "what is the weather today" --say "{GO_ON}"
  python -m voice_bot --measure

\b
It understands these commands and no other words (pocketsphinx, with a grammar):
{chr(10).join(f"  {phrase}{' *' if phrase in RISKY else ''}" for phrase in BY_PHRASE)}

A command with a star is asked about first: answer "{YES}" or "{NO}". Whoever begins to speak interrupts the bot;
"{GO_ON}" then lets it go on where it was, and "{AGAIN}" begins from the start.

Two Debian packages: espeak-ng, which speaks, and libportaudio2 for the sound card.
"""


class Options(TypedDict):
    """What the command line may say."""

    wav: tuple[Path, ...]
    said: tuple[str, ...]
    user_voice: str
    interrupt: float | None
    fast: bool
    record: Path | None
    half_duplex: bool
    voice: str
    speed: int
    plain: bool
    measured: bool
    model: str | None
    base_url: str | None
    budget: str


A_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.command(epilog=EPILOG, context_settings={"max_content_width": 120})
@click.option(
    "--wav",
    multiple=True,
    type=A_FILE,
    metavar="FILE",
    help="Hear this file (WAV, 16 bit) instead of the microphone; given again, the next one when the bot has answered.",
)
@click.option(
    "--say", "said", multiple=True, metavar="TEXT", help="Hear a made voice say this instead of the microphone."
)
@click.option(
    "--user-voice", default="en-us", show_default=True, help="The made voice; see `espeak-ng --voices=en`, and +f3."
)
@click.option(
    "--interrupt",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="The next file or text begins when the bot has been speaking that long, not when it has finished.",
)
@click.option(
    "--fast",
    is_flag=True,
    help="Not at the pace of a conversation but as fast as it goes; latencies are time of the sound and CPU time.",
)
@click.option("--record", type=NEW_FILE, metavar="FILE", help="Write what the bot says into this WAV file.")
@click.option(
    "--half-duplex",
    is_flag=True,
    help="Hear nothing while the bot speaks: for loudspeakers, which would interrupt it. Headphones do not need it.",
)
@click.option("--voice", default="en-us", show_default=True, help="The bot's voice.")
@click.option("--speed", default=160, show_default=True, type=click.IntRange(80, 450), help="Its words per minute.")
@click.option("--plain", is_flag=True, help="Lines instead of a table that lives; so it is where there is no terminal.")
@click.option(
    "--model",
    metavar="NAME",
    help="A model that words the answers: openai:gpt-5-mini, local:FILE.gguf, ... Without it they are fixed.",
)
@click.option("--base-url", metavar="URL", help="Where --model is, if it is a server of your own that costs nothing.")
@click.option("--budget", default="0.50", show_default=True, metavar="USD", help="What the model may cost in all.")
@click.option(
    "--measure",
    "measured",
    is_flag=True,
    help="Let the made voice say 24 commands; print what was understood and how soon the answer began.",
)
def main(**options: Unpack[Options]) -> None:
    """Talk to a bot that answers in a third of a second and stops when you interrupt it. All of it runs offline.

    Without --wav or --say it hears the microphone and speaks through the sound card; Ctrl+C ends it.
    """
    if options["wav"] and options["said"]:
        raise click.UsageError("--wav and --say cannot be mixed: make files with `espeak-ng -w FILE TEXT`")
    console = Console()
    try:
        if options["measured"]:
            anyio.run(partial(_measure, console, options))
        else:
            _talk(console, options)
    except KeyboardInterrupt:
        console.print("Good bye.")
    except (FlujoError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def _talk(console: Console, options: Options) -> None:
    with ExitStack() as stack:
        show = stack.enter_context(Screen(console) if console.is_terminal and not options["plain"] else Lines(console))
        mouth, ears = Mouth(options["voice"], options["speed"]), Ears(GRAMMARS)
        device = stack.enter_context(_device(options))
        half_duplex = options["half_duplex"]
        anyio.run(Conversation(device, ears, mouth, _brain(options), show, half_duplex=half_duplex).run)


def _brain(options: Options) -> Butler:
    """Make what answers."""
    wording = None if options["model"] is None else model_wording(options["model"], options["base_url"])
    return Butler(House(), wording, options["budget"])


def _device(options: Options) -> Files | SoundCard:
    """Open what is heard and played."""
    recordings = [read_wav(path) for path in options["wav"]]
    recordings += [say(text, options["user_voice"], seed=seed).pcm for seed, text in enumerate(options["said"])]
    if not recordings:
        if options["fast"] or options["interrupt"] is not None or options["record"]:
            raise ValueError("--fast, --interrupt and --record go with --wav or --say")
        return SoundCard()
    return Files(recordings, paced=not options["fast"], interrupt_after=options["interrupt"], record=options["record"])


async def _measure(console: Console, options: Options) -> None:
    report = await measure(voice=options["user_voice"], paced=not options["fast"], brain=_brain(options))
    table = Table("said", "understood", "answered after")
    for row in report.rows:
        right = "yes" if row.heard == row.said else f"no: {row.heard or 'nothing'}"
        table.add_row(row.said, right, milliseconds(row.seconds))
    console.print(table)
    half, most, longest = (milliseconds(report.quantile(share)) for share in (0.5, 0.95, 1))
    console.print(f"{report.right} of {len(report.rows)} understood.")
    console.print(f"From the end of speech to the first sound: half within {half}, 95 % within {most}, all {longest}.")


if __name__ == "__main__":
    main(prog_name="python -m voice_bot")
