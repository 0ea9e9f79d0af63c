"""Sound that models are tried on: two voices, and what is none; made here, so nobody's voice is carried.

A voice is made of harmonics of a pitch that moves, through the first three formants of vowels that glide into each
other four times a second (frequencies: Peterson and Barney, Control Methods Used in a Study of the Vowels, 1952).
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from edge_agent.types import Audio, Floats, Sample

Doubles = npt.NDArray[np.float64]

RATE = 16_000
VOWELS = np.array([[730, 1090, 2440], [270, 2290, 3010], [300, 870, 2240], [530, 1840, 2480], [570, 840, 2410]])
"""Hz of the formants of "had", "heed", "who'd", "head", "hawed" as men speak them"""
WIDTHS, GAINS = np.array([90, 110, 160]), np.array([1.0, 0.5, 0.25])
"""Hz, and share, of each formant"""
SECONDS, SYLLABLES = 3.0, 4.0
"""of a voice, and in a second of it"""


def voice(pitch: float, seed: int) -> Floats:
    """SECONDS of it."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(SECONDS * RATE)) / RATE
    hertz = pitch * (1 + 0.15 * np.sin(2 * np.pi * 0.7 * t))
    phase = np.cumsum(hertz) / RATE
    syllable = (t * SYLLABLES).astype(int)
    glide = (t * SYLLABLES - syllable)[:, None]
    which = rng.integers(0, len(VOWELS), int(syllable.max()) + 2)
    formants = VOWELS[which[syllable]] * (1 - glide) + VOWELS[which[syllable + 1]] * glide
    sound: Doubles = np.zeros(len(t))
    for harmonic in range(1, 40):
        gain = (GAINS / (1 + ((harmonic * hertz[:, None] - formants) / WIDTHS) ** 2)).sum(1)
        sound += np.where(harmonic * hertz < 7600, gain / harmonic**0.5, 0) * np.sin(2 * np.pi * harmonic * phase)
    sound *= np.clip(1.6 * np.sin(np.pi * glide[:, 0]), 0, 1)
    sound *= 0.5 / np.abs(sound).max()
    # each begins with the breath of a consonant
    sound += rng.normal(0, 1, len(t)) * np.where(glide[:, 0] < 0.15, 0.025, 0.001)
    return sound.astype(np.float32)


def sounds() -> dict[str, Floats]:
    """By what it is; "voice" stands in the names of voices."""
    rng, t = np.random.default_rng(0), np.arange(int(SECONDS * RATE)) / RATE
    rumble: Doubles = np.cumsum(rng.normal(0, 1, len(t) + 400))
    rumble = rumble[400:] - np.convolve(rumble, np.ones(400) / 400, "valid")[: len(t)]
    chord = sum(np.sin(2 * np.pi * hertz * t) for hertz in (262.0, 330.0, 392.0))
    made: dict[str, Doubles] = {
        "a voice": voice(110, 0).astype(float),
        "another voice": voice(120, 3).astype(float),
        "silence": np.zeros(len(t)),
        "noise": rng.normal(0, 0.1, len(t)),
        "rumble": 0.2 * rumble / np.abs(rumble).max(),
        "a chord": 0.1 * np.asarray(chord),
    }
    return {name: sound.astype(np.float32) for name, sound in made.items()}


def voices() -> list[Sample]:
    """The voices of `sounds` as samples."""
    now = time.time(), time.monotonic()
    return [Audio(sound, *now, last=True) for name, sound in sounds().items() if "voice" in name]
