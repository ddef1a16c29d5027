"""Sound as it is carried here: 16-bit mono, cut into frames of 20 ms, and WAV files of it."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float64]
"""Samples of 16-bit sound, as floats: what is computed with."""

FRAME_S = 0.02
HEARD_HZ = 16_000  # what pocketsphinx has learnt from
SPOKEN_HZ = 22_050  # what espeak-ng makes
HEARD_BYTES = round(HEARD_HZ * FRAME_S) * 2
SPOKEN_BYTES = round(SPOKEN_HZ * FRAME_S) * 2
SILENCE = bytes(SPOKEN_BYTES)
NOISE = 200.0
"""How loud the noise of a room is (the standard deviation of its samples), where speech has none of its own.

Exact silence between words, as made speech has it, is what the recogniser knows least: 20 of 24 commands instead of 24.
"""


def frames(pcm: bytes, size: int = HEARD_BYTES) -> Iterator[bytes]:
    """Cut sound into frames; the last one is filled up with silence."""
    for start in range(0, len(pcm), size):
        yield pcm[start : start + size].ljust(size, b"\0")


def to_samples(pcm: bytes) -> Samples:
    """Give 16-bit sound as numbers."""
    return np.frombuffer(pcm, dtype="<i2").astype(np.float64)


def to_pcm(samples: Samples) -> bytes:
    """Give numbers as 16-bit sound; what is too loud is clipped."""
    return np.clip(samples, -32768, 32767).astype("<i2").tobytes()


def resampled(samples: Samples, rate: int, wanted: int) -> Samples:
    """Give the same sound at another rate (Hz): a sum of windowed sinc functions, 16 to each side."""
    if rate == wanted:
        return samples
    places = np.arange(int(len(samples) * wanted / rate)) * rate / wanted
    nearest = places.astype(int)
    cut_off = min(1.0, wanted / rate) * 0.95
    out = np.zeros(len(places))
    for step in range(-15, 17):
        at = nearest + step
        inside = (at >= 0) & (at < len(samples))
        away = (places - at)[inside]
        window = 0.5 + 0.5 * np.cos(np.pi * np.clip(away / 16, -1, 1))
        out[inside] += samples[at[inside]] * cut_off * np.sinc(cut_off * away) * window
    return out


def noise(count: int, seed: int = 0) -> Samples:
    """Give so many samples of a quiet room, the same ones for the same seed."""
    return np.random.default_rng(seed).normal(0, NOISE, count)


def read_wav(path: Path) -> bytes:
    """Give a WAV file as the ears want it, 16 kHz mono; a file that has exact silence in it gets a room's noise.

    Raises:
        ValueError: it is not a WAV file of 16-bit samples.
    """
    try:
        with wave.open(str(path), "rb") as file:
            if file.getsampwidth() != 2:
                raise ValueError(f"{path} has samples of {8 * file.getsampwidth()} bits: 16 are read")
            rate, channels = file.getframerate(), file.getnchannels()
            pcm = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as fault:
        raise ValueError(f"{path} is no WAV file that can be read: {fault}") from fault
    together = to_samples(pcm).reshape(-1, channels).mean(axis=1)
    heard = resampled(together, rate, HEARD_HZ)
    loudness = [np.abs(to_samples(frame)).max() for frame in frames(to_pcm(heard))]
    if loudness and min(loudness) < 2:
        heard = heard + noise(len(heard))
    return to_pcm(heard)


def write_wav(path: Path, pcm: bytes, rate: int) -> None:
    """Write 16-bit mono sound into a WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm)
