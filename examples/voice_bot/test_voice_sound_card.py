"""The bot on a sound card, as ALSA plays one: a microphone that plays a file, and a loudspeaker that is not there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest
from locks import locked

from voice_bot import audio
from voice_bot.user import say

HERE = Path(__file__).parent
CARD = """
pcm.!default {{
  type asym
  playback.pcm {{ type plug slave {{ pcm "null" rate 22050 format S16_LE channels 1 }} }}
  capture.pcm {{ type file slave.pcm "null" file "/dev/null" infile "{microphone}" format raw }}
}}
"""


@pytest.fixture
def portaudio(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> None:
    """PortAudio, a Debian package: installed here where that is possible."""
    own = tmp_path_factory.getbasetemp()
    with locked((own if worker_id == "master" else own.parent) / "portaudio.lock"):
        if find_library("portaudio") is None and os.geteuid() == 0 and shutil.which("apt-get"):
            quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "libportaudio2"]):
                subprocess.run(["apt-get", *words], env=quiet, capture_output=True, timeout=110, check=False)
    if find_library("portaudio") is None:
        pytest.fail("this test needs PortAudio: apt-get install libportaudio2")


@pytest.mark.usefixtures("portaudio")
def test_the_microphone_is_heard_and_ctrl_c_ends_the_conversation(tmp_path: Path) -> None:
    room = [audio.to_pcm(audio.noise(seconds * audio.HEARD_HZ, seed=seconds)) for seconds in (2, 20)]
    (tmp_path / "microphone.raw").write_bytes(room[0] + say("turn on the heating").pcm + room[1])
    (tmp_path / ".asoundrc").write_text(CARD.format(microphone=tmp_path / "microphone.raw"))
    command = [sys.executable, "-m", "voice_bot", "--plain"]
    where = {**os.environ, "HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=HERE.parent, env=where, text=True, **pipes) as bot:  # type: ignore[call-overload]
        assert bot.stdout is not None
        heard, said = bot.stdout.readline(), bot.stdout.readline()
        bot.send_signal(signal.SIGINT)
        rest = bot.stdout.read()
        assert bot.wait(30) == 0
    assert heard == "you  turn on the heating\n"
    assert said.startswith("bot  The heating is on.  [")
    assert rest.endswith("Good bye.\n")
