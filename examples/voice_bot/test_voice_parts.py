"""The parts of the voice bot by themselves: sound, ears and mouth."""

from __future__ import annotations

import itertools
import wave
from pathlib import Path

import anyio
import numpy as np
import pytest

from flujo.core import FlujoError
from voice_bot import audio, mouth
from voice_bot.ears import COMPLETE_FRAMES, SILENCE_FRAMES, Ears, Heard, Onset
from voice_bot.mouth import Mouth, Spoken
from voice_bot.phrases import APPROVALS, BY_PHRASE, GRAMMARS, YES
from voice_bot.turn import Lead
from voice_bot.user import say

STRANGE = (
    "the meeting was moved to thursday afternoon",
    "I would like a large pizza with mushrooms",
    "could you tell me a story about dragons",
    "my neighbour bought a new car",
    "where did I leave my glasses",
    "we should go swimming next weekend",
    "did you feed the cat this morning",
    "the train leaves at half past nine",
)


def listen(ears: Ears, pcm: bytes) -> list[Onset | Heard]:
    """What the ears make of a recording and the second of silence after it."""
    silence = audio.to_pcm(audio.noise(audio.HEARD_HZ, seed=1))
    return [event for frame in audio.frames(pcm + silence) if (event := ears.hear(frame)) is not None]


# --- sound ------------------------------------------------------------------------------------------------------------


def test_a_tone_keeps_its_pitch_and_loudness_at_another_rate() -> None:
    tone = 8000 * np.sin(2 * np.pi * 440 * np.arange(22050) / 22050)
    again = audio.resampled(tone, 22050, 16000)
    assert len(again) == 16000
    wanted = 8000 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert np.abs(again - wanted)[50:-50].max() < 80  # 1 %


def test_what_the_other_rate_cannot_carry_is_left_out() -> None:
    tone = 8000 * np.sin(2 * np.pi * 10_000 * np.arange(22050) / 22050)
    assert np.abs(audio.resampled(tone, 22050, 16000))[50:-50].max() < 400


def test_a_stereo_file_at_another_rate_is_read_and_exact_silence_gets_the_noise_of_a_room(tmp_path: Path) -> None:
    tone = np.concatenate([8000 * np.sin(2 * np.pi * 440 * np.arange(44100) / 44100), np.zeros(44100)])
    with wave.open(str(tmp_path / "one.wav"), "wb") as file:
        file.setparams((2, 2, 44100, 0, "NONE", ""))
        file.writeframes(audio.to_pcm(np.repeat(tone, 2)))
    heard = audio.to_samples(audio.read_wav(tmp_path / "one.wav"))
    assert len(heard) == 2 * audio.HEARD_HZ
    assert 7000 < np.abs(heard[: audio.HEARD_HZ]).max() < 9500
    assert 0.9 < heard[-8000:].std() / audio.NOISE < 1.1


@pytest.mark.parametrize("content", [b"", b"no sound", b"RIFF\x04\0\0\0WAVE"])
def test_a_file_that_is_no_sound_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "strange.wav"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"strange\.wav is no WAV file"):
        audio.read_wav(file)


def test_samples_of_8_bits_are_refused(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "one.wav"), "wb") as file:
        file.setparams((1, 1, 8000, 0, "NONE", ""))
        file.writeframes(bytes(100))
    with pytest.raises(ValueError, match="8 bits: 16 are read"):
        audio.read_wav(tmp_path / "one.wav")


# --- ears -------------------------------------------------------------------------------------------------------------


def test_the_first_words_of_a_session_are_understood_and_their_end_is_known_to_a_frame() -> None:
    for phrase in ("turn on the heating", "open the front door", "good night"):
        said = say(phrase)
        onset, heard = listen(Ears(GRAMMARS), said.pcm)
        assert isinstance(onset, Onset)
        assert isinstance(heard, Heard)
        assert heard.text == phrase
        assert abs(heard.end * audio.FRAME_S - said.end_s) <= 2 * audio.FRAME_S


def test_a_whole_phrase_ends_after_less_silence_than_the_beginning_of_a_longer_one() -> None:
    said = say("turn on the heating").pcm
    (_, whole), (_, begun) = (
        listen(Ears({"g": phrases}), said)
        for phrases in (["turn on the heating", "good night"], ["turn on the heating", "turn on the heating now"])
    )
    assert isinstance(whole, Heard)
    assert isinstance(begun, Heard)
    assert whole.text == begun.text == "turn on the heating"
    assert begun.decided - whole.decided == SILENCE_FRAMES - COMPLETE_FRAMES


def test_sentences_that_are_no_command_are_not_believed_to_be_one() -> None:
    ears = Ears(GRAMMARS)
    heard = [event for text in STRANGE for event in listen(ears, say(text).pcm) if isinstance(event, Heard)]
    assert len(heard) >= len(STRANGE)
    assert [event.text for event in heard if event.text is not None] == []
    assert any(event.nearest in BY_PHRASE for event in heard), "else the grammar would refuse them by itself"


def test_a_quiet_room_is_not_heard() -> None:
    assert listen(Ears(GRAMMARS), audio.to_pcm(audio.noise(10 * audio.HEARD_HZ, seed=4))) == []


def test_another_grammar_holds_from_the_next_utterance_on() -> None:
    ears = Ears(GRAMMARS)
    frames = list(audio.frames(say("good night").pcm + audio.to_pcm(audio.noise(audio.HEARD_HZ))))
    events = []
    for frame in frames:
        events.append(ears.hear(frame))
        if isinstance(events[-1], Onset):
            ears.listen_for(APPROVALS)
    assert [event.text for event in events if isinstance(event, Heard)] == ["good night"]
    assert [event.text for event in listen(ears, say(YES).pcm) if isinstance(event, Heard)] == [YES]
    with pytest.raises(ValueError, match="known are commands, approvals"):
        ears.listen_for("poems")


# --- mouth ------------------------------------------------------------------------------------------------------------

TEXT = "The kitchen lights are on. Für zwei."


def spoken(text: str) -> list[Spoken]:
    made = list[Spoken]()
    Mouth().make(text, lambda frame: made.append(frame) is None)
    return made


def test_speech_comes_in_frames_that_know_which_words_have_been_said() -> None:
    made = spoken(TEXT)
    assert {len(frame.pcm) for frame in made} == {audio.SPOKEN_BYTES}
    heard = [TEXT[: frame.upto] for frame in made]
    assert heard[0] == ""
    assert heard[-1] == TEXT
    steps = [text for text, after in itertools.pairwise(heard) if text != after]
    assert steps == [
        "",
        "The ",
        "The kitchen ",
        "The kitchen lights ",
        "The kitchen lights are ",
        "The kitchen lights are on. ",
        "The kitchen lights are on. Für ",
    ]


def test_espeak_stops_when_it_is_told_to() -> None:
    made = list[Spoken]()

    def take(frame: Spoken) -> bool:
        made.append(frame)
        return len(made) < 3

    Mouth().make(TEXT, take)
    assert len(made) == 3 < len(spoken(TEXT))


@pytest.mark.anyio
async def test_espeak_makes_no_frame_before_the_last_one_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[Spoken]()
    cut = mouth._Cutter.cut

    def counted(self: mouth._Cutter, *piece: object) -> object:
        for frame in cut(self, *piece):  # type: ignore[arg-type]
            made.append(frame)
            yield frame

    monkeypatch.setattr(mouth._Cutter, "cut", counted)
    async with Mouth().speak(TEXT) as frames:
        taken = 0
        async for _ in frames:
            taken += 1
            await anyio.sleep(0.001)
            assert len(made) <= taken + 1
            if taken == 20:
                break
    assert len(made) <= 21
    assert not mouth._one_at_a_time.locked(), "the thread has left espeak before the next statement"


@pytest.mark.anyio
async def test_a_cancelled_speaker_has_left_espeak_and_the_next_one_speaks() -> None:
    with anyio.CancelScope() as scope:
        async with Mouth().speak(TEXT) as frames:
            async for _ in frames:
                scope.cancel()
    assert scope.cancelled_caught
    assert not mouth._one_at_a_time.locked()
    async with Mouth("en").speak("Good night.") as frames:
        assert [frame.upto async for frame in frames][-1] == len("Good night.")


def test_a_voice_that_is_not_there_is_named() -> None:
    with pytest.raises(FlujoError, match="voice 'nobody'"):
        Mouth("nobody")


# --- the lead ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_no_more_frames_wait_than_there_is_room_for() -> None:
    lead, made = Lead(), 0
    frame = Spoken(audio.SILENCE, "a", 0)

    async def fill() -> None:
        nonlocal made
        for _ in range(6):
            await lead.put(frame)
            made += 1
        lead.end()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fill)
        await lead.settled()
        await anyio.wait_all_tasks_blocked()
        assert (made, len(lead)) == (4, 4)
        lead.take()
        await anyio.wait_all_tasks_blocked()
        assert (made, len(lead)) == (5, 4)
        lead.clear()
        assert lead.take() is None
        tasks.cancel_scope.cancel()
