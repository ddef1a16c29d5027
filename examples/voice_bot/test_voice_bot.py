"""The voice bot as a whole: conversations, interruptions, approvals, latencies, and its command."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from functools import partial
from io import StringIO
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner
from rich.console import Console

from flujo.streaming import StreamingStep
from voice_bot import mouth
from voice_bot.__main__ import main
from voice_bot.brain import FAILED, HOW, Butler, model_wording
from voice_bot.conversation import Brain, Conversation, Event, Said, Saying
from voice_bot.devices import Files
from voice_bot.ears import Ears, Heard, Onset
from voice_bot.measure import MEASURED, measure, quantile
from voice_bot.mouth import Mouth
from voice_bot.phrases import BY_PHRASE, GO_ON, GRAMMARS, NO, YES, House
from voice_bot.user import say
from voice_bot.view import Lines, Screen

HERE = Path(__file__).parent
WEATHER = BY_PHRASE["what is the weather today"].deed(House())
SORRY = "Sorry, I did not understand that."


class Recorded(Files):
    """Files that remember when the bot was heard."""

    def __init__(self, texts: Sequence[str], interrupt_after: float | None) -> None:
        super().__init__([say(text).pcm for text in texts], paced=False, interrupt_after=interrupt_after)
        self.played = list[bool]()

    def play(self, frame: bytes, *, speech: bool) -> None:
        self.played.append(speech)
        super().play(frame, speech=speech)


class Talk:
    """A conversation that is over."""

    def __init__(self, house: House, device: Recorded, events: list[Event]) -> None:
        self.house, self.device, self.events = house, device, events
        self.heard = [event.text for event in events if isinstance(event, Heard)]
        self.said = [event for event in events if isinstance(event, Said)]
        self.answers = [event.text for event in self.said]
        self.begun = [event.text for event in events if isinstance(event, Saying)]


async def talk(
    *texts: str, interrupt_after: float | None = None, half_duplex: bool = False, wording: StreamingStep | None = None
) -> Talk:
    """A human says the texts; each is answered before the next one, or interrupted."""
    house, device, events = House(), Recorded(texts, interrupt_after), list[Event]()
    brain: Brain = Butler(house, wording)
    with device:
        bot = Conversation(device, Ears(GRAMMARS), Mouth(), brain, events.append, half_duplex=half_duplex)
        await bot.run()
    return Talk(house, device, events)


# --- latency ----------------------------------------------------------------------------------------------------------


def test_check_21_of_24_commands_22_are_understood_and_95_percent_answered_within_half_a_second() -> None:
    """The issue's guard: time of the sound, which no machine changes, and the CPU time of the answer."""
    assert len(MEASURED) == 24
    report = anyio.run(partial(measure, paced=False))
    assert report.right >= 22, report
    assert report.quantile(0.95) < 0.5, report


@pytest.mark.soak
@pytest.mark.alone
@pytest.mark.timeout(400)
def test_check_21_holds_in_real_time_by_the_clock_of_this_machine() -> None:
    report = anyio.run(measure)
    assert report.right >= 22, report
    assert report.quantile(0.95) < 0.5, report


def test_most_of_the_latency_is_waiting_for_the_end_of_speech_and_not_work() -> None:
    report = anyio.run(partial(talk, "turn on the heating", "what is the weather today"))
    for said in report.said:
        assert said.latency is not None
        assert said.latency.words <= said.latency.sound < said.latency.endpoint
        assert said.latency.total == said.latency.endpoint + said.latency.sound


def test_a_quantile_is_one_of_the_values() -> None:
    assert [quantile([3.0, 1.0, 2.0, 4.0], share) for share in (0, 0.25, 0.5, 0.95, 1)] == [1, 1, 2, 4, 4]


# --- interruptions ----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_check_20_no_frame_is_played_after_an_interruption_and_nothing_of_the_old_answer_later() -> None:
    done = await talk("what is the weather today", "turn on the heating", interrupt_after=2)
    onset = [event.frame for event in done.events if isinstance(event, Onset)][1]
    second = next(event.decided for event in done.events if isinstance(event, Heard) and event.text == done.heard[1])
    assert done.device.played[onset - 1], "the bot was speaking when it was interrupted"
    assert not any(done.device.played[onset:second]), "from the frame on in which somebody speaks"
    assert done.answers[1:] == ["The heating is on."]
    assert done.house.log == ["what is the weather today", "turn on the heating"]


@pytest.mark.anyio
async def test_check_20_what_was_heard_of_an_answer_is_remembered_and_it_can_go_on_there() -> None:
    done = await talk("what is the weather today", GO_ON, interrupt_after=2.5)
    first, rest = done.said
    assert (first.interrupted, rest.interrupted) == (True, False)
    assert WEATHER.startswith(first.text)
    assert re.match(r"\W", WEATHER[len(first.text)]), "a whole word"
    assert " ".join([first.text, rest.text]) == WEATHER
    assert first.text != WEATHER


@pytest.mark.anyio
async def test_check_20_an_interruption_closes_the_source_which_was_no_sentence_ahead() -> None:
    pulled, closed = list[str](), list[int]()

    async def endless(answer: str) -> AsyncIterator[str]:
        if answer == "Good night. Sleep well.":
            yield answer
            return
        try:
            while True:
                pulled.append(answer)
                yield f"This is sentence number {len(pulled)}. "
        finally:
            await anyio.lowlevel.checkpoint()
            closed.append(len(pulled))

    done = await talk("what time is it", "good night", interrupt_after=3, wording=StreamingStep(endless, name="word"))
    assert done.answers[0].startswith("This is sentence number 1. This is")
    assert done.answers[1:] == ["Good night. Sleep well."]
    begun = [text for text in done.begun if text.startswith("This is")]
    assert closed == [len(begun)], "it was asked for no sentence but those that were being spoken"


@pytest.mark.anyio
async def test_nothing_is_left_after_a_conversation_that_is_cancelled_while_the_bot_speaks() -> None:
    house, events = House(), list[Event]()
    with anyio.CancelScope() as scope, Recorded(["what is the weather today"], None) as device:

        def tell(event: Event) -> None:
            events.append(event)
            if isinstance(event, Saying) and event.text.startswith("In the afternoon"):
                scope.cancel()

        await Conversation(device, Ears(GRAMMARS), Mouth(), Butler(house), tell).run()
    assert scope.cancelled_caught
    assert any(device.played)
    assert not mouth._one_at_a_time.locked()


def test_check_24_no_task_is_left_after_interruptions_and_approvals() -> None:
    async def main() -> set[asyncio.Task[object]]:
        await talk("what is the weather today", "open the front door", YES, interrupt_after=2)
        await asyncio.sleep(0)
        return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]

    assert asyncio.run(main()) == set()
    assert not mouth._one_at_a_time.locked()


def test_who_speaks_over_a_half_duplex_bot_does_not_interrupt_it() -> None:
    done = anyio.run(
        partial(talk, "what is the weather today", "turn on the heating", interrupt_after=1, half_duplex=True)
    )
    assert done.answers == [WEATHER]


# --- approvals --------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(("answer", "told"), [(YES, "The front door is open."), (NO, "I leave it.")])
async def test_a_risky_command_waits_for_a_human(answer: str, told: str) -> None:
    done = await talk("open the front door", answer)
    assert done.answers == [f"Shall I open the front door? {HOW}", told]
    assert done.house.states.get("front door") == ("open" if answer == YES else None)


def test_a_question_that_was_not_heard_to_its_end_is_asked_again() -> None:
    done = anyio.run(partial(talk, "open the front door", YES, YES, interrupt_after=0.5))
    assert [said.interrupted for said in done.said] == [True, True, False]
    assert "Shall I open the front door?" not in done.answers[0]
    assert done.begun[2] == "Shall I open the front door?"
    assert done.house.log == []


def test_two_answers_that_are_none_count_as_no() -> None:
    done = anyio.run(partial(talk, "switch off the alarm", "the soup needs more pepper", "we went swimming"))
    assert done.heard == ["switch off the alarm", None, None]
    assert done.answers[1:] == [f"Shall I switch off the alarm? {HOW}", "I leave it."]
    assert done.house.log == []


def test_what_is_no_command_changes_nothing() -> None:
    done = anyio.run(partial(talk, "my neighbour bought a new car"))
    assert (done.answers, done.house.log) == ([SORRY], [])


def test_a_command_that_fails_is_told_and_the_conversation_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(house: House) -> str:
        raise OSError("the lights do not answer")

    rule = BY_PHRASE["turn on the kitchen lights"]
    monkeypatch.setitem(BY_PHRASE, rule.phrase, type(rule)(rule.phrase, broken))
    done = anyio.run(partial(talk, rule.phrase, "turn on the heating"))
    assert done.answers == [FAILED, "The heating is on."]


# --- a model ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """A model of llama.cpp with random weights, as the tests of flujo-agent make it: it babbles."""
    file = HERE.parents[1] / "packages" / "flujo-agent" / "tests" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tiny_models", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return Path(module.write(tmp_path / "tiny.gguf"))


@pytest.mark.soak  # llama.cpp takes every core for a while
@pytest.mark.timeout(400)
def test_a_model_words_the_answers_of_the_rules(tiny_model: Path) -> None:
    texts = ("turn on the heating", "good night", "what time is it")
    done = anyio.run(partial(talk, *texts, interrupt_after=1, wording=model_wording(f"local:{tiny_model}")))
    assert done.house.log == list(texts)
    assert FAILED not in done.begun
    assert any(done.begun), "some of its babble ends at once"
    assert not set(done.begun) & {BY_PHRASE[text].deed(House()) for text in texts}


# --- the command ------------------------------------------------------------------------------------------------------


def voice_bot(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, words, prog_name="voice_bot")
    assert done.exit_code == code, done.output
    return done.output


def test_the_readme_s_conversation_from_files_runs(tmp_path: Path) -> None:
    """Files as espeak-ng itself writes them: another rate, and exact silence."""
    for name, text in (("ask", "open the front door"), ("yes", YES)):
        subprocess.run(["espeak-ng", "-v", "en-us", "-w", str(tmp_path / f"{name}.wav"), text], check=True, timeout=20)
    files = [part for name in ("ask", "yes") for part in ("--wav", str(tmp_path / f"{name}.wav"))]
    words = ("--fast", *files, "--record", str(tmp_path / "bot.wav"))
    command = [sys.executable, "-W", "error", "-m", "voice_bot", *words]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [re.sub(r"  \[.*", "", line) for line in done.stdout.splitlines()]
    assert lines[:-1] == [
        "you  open the front door",
        f"bot  Shall I open the front door? {HOW}",
        "you  yes do it",
        "bot  The front door is open.",
    ]
    assert re.fullmatch(r"From the end of speech to the first sound of 2 answers: half in \d+ ms, .*", lines[-1])
    assert voice_bot("--fast", "--wav", str(tmp_path / "bot.wav")), "what it recorded is a file that it reads"


def test_the_help_teaches_every_command_and_what_to_install() -> None:
    told = voice_bot("--help")
    assert [phrase for phrase in BY_PHRASE if f"  {phrase}" not in told] == []
    assert "espeak-ng" in told
    assert "libportaudio2" in told


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--wav", str(HERE / "README.md")], "README.md is no WAV file"),
        (["--wav", str(HERE / "README.md"), "--say", "hello"], "cannot be mixed"),
        (["--record", "out.wav"], "go with --wav or --say"),
        (["--say", "hello", "--voice", "nobody"], "espeak-ng has no such voice"),
        (["--say", "hello", "--model", "openai:tiny", "--budget", "much"], "much"),
    ],
)
def test_what_cannot_be_done_is_said(words: list[str], why: str) -> None:
    told = voice_bot(*words, code=2 if "--wav" in words and "--say" in words else 1)
    assert why in " ".join(told.split())


def test_the_table_shows_the_latency_of_each_answer_and_of_all() -> None:
    console = Console(force_terminal=True, width=120, record=True, file=StringIO())
    events = anyio.run(partial(talk, "what is the weather today", "turn on the heating", interrupt_after=2)).events
    with Screen(console) as screen:
        for event in events:
            screen(event)
    shown = console.export_text()
    assert "listening" in shown
    assert "(interrupted)" in shown
    assert "The heating is on." in shown
    assert re.search(r"2 answers: half in \d+ ms", shown)


def test_lines_say_what_was_understood_and_how_soon() -> None:
    console = Console(record=True, width=200, file=StringIO())
    with Lines(console) as lines:
        for event in anyio.run(partial(talk, "my neighbour bought a new car")).events:
            lines(event)
    told = console.export_text()
    assert "you  (not understood; nearest: " in told
    assert f"bot  {SORRY}  [" in told
