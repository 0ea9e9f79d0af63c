"""What the table of docs/speech.md is counted with."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.speech import bootstrap, no_speech, noisy, report, resampled, sentences, words


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Dim it to 30%, Mr. Cold-Hearted!", "dim it to thirty percent mister cold hearted"),
        ("21 degrees, 105 or 1648", "twenty one degrees one hundred five or one six four eight"),
        ("four per cent", "four percent"),
    ],
)
def test_numbers_count_as_they_are_spoken(text: str, spoken: str) -> None:
    assert words(text) == spoken.split()


def test_noise_has_the_level_that_is_asked_for() -> None:
    sound = (0.05 * np.sin(np.arange(32_000) / 5)).astype(np.float32)
    noise = noisy(sound, 10, 1) - sound
    assert 10 * np.log10((sound**2).mean() / (noise**2).mean()) == pytest.approx(10, abs=0.1)
    assert noisy(sound, None, 1) is sound


def test_a_tone_keeps_its_pitch_when_it_is_resampled() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(22_050) / 22_050)
    assert np.allclose(resampled(tone, 22_050), np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000), atol=1e-3)


def test_what_was_tuned_on_is_not_reported() -> None:
    assert sum(len(words(text)) for _, text in sentences()) >= 500
    assert not [at for at, _ in sentences() if at % 4 == 0]


def test_ten_minutes_hold_no_speech() -> None:
    every = list(no_speech())
    assert sum(len(clip.samples) for clip in every) / 16_000 == pytest.approx(600, abs=60)
    assert {clip.of for clip in every} == {"silence", "hiss", "fan", "tones"}


def test_the_difference_is_paired() -> None:
    hard = [{"wrong": wrong, "words": 5} for wrong in (0, 5) * 50]
    better = [{"wrong": max(0, row["wrong"] - 1), "words": 5} for row in hard]
    less, low, high = bootstrap(better, hard)
    assert less == pytest.approx(-0.1) and -0.13 < low < less < high < -0.07
    row = {"of": "clean", "heard": 1, "seconds": 1.0, "cpu": 0.1, "peak": 1e8, "text": ""}
    told = "\n".join(report({"whisper-5": [{**one, **row} for one in better]}))
    assert "| whisper-5 | 0.400 (200/500) | 0.100 | 100 |" in told
