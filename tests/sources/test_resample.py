"""Any rate and number of channels becomes 16 kHz of one: the tone stays, what cannot be there goes, no seams."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edge_agent.sources.resample import RATE, Funnel, Mixer, Resampler, samples
from edge_agent.types import Floats


def sine(hertz: float, rate: int, seconds: float = 1.0) -> Floats:
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 22050, 32000, 44100, 48000, 96000, 192_000, 12345, 37123])
def test_a_tone_stays_where_it_is_in_time_and_in_height(rate: int) -> None:
    out = Resampler(rate)(sine(440, rate), last=True)
    assert len(out) == pytest.approx(RATE, abs=1)
    off = np.abs(out - sine(440, RATE, len(out) / RATE)[: len(out)])[500:-500]
    assert off.max() < 1e-3


@pytest.mark.parametrize("rate", [22050, 32000, 44100, 48000, 96000, 192_000, 37123])
def test_what_16_khz_cannot_hold_does_not_come_back_as_something_else(rate: int) -> None:
    for hertz in (8300, 10_000):
        out = Resampler(rate)(sine(hertz, rate), last=True)
        assert np.abs(out[500:-500]).max() < 1e-4


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 12345])
def test_blocks_of_any_length_join_without_seams(rate: int) -> None:
    sound, rng = np.random.default_rng(1).normal(0, 0.1, rate).astype(np.float32), np.random.default_rng(2)
    whole = Resampler(rate)(sound, last=True)
    parts, one = [], Resampler(rate)
    while len(sound):
        block, sound = np.split(sound, [int(rng.integers(0, rate // 7))])
        parts.append(one(block))
    parts.append(one(sound, last=True))
    joined = np.concatenate(parts)
    # the instructions that a processor adds with hang on the length of what is added
    np.testing.assert_allclose(joined, whole, atol=1e-6)


def mixed(*channels: npt.NDArray[np.float32]) -> Floats:
    block, mixer = np.stack(channels, 1), Mixer(RATE, len(channels))
    return np.concatenate([mixer(part) for part in np.array_split(block, 7)])


def test_a_dead_channel_takes_nothing_from_the_other() -> None:
    tone = 0.5 * sine(440, RATE)
    hiss = np.random.default_rng(0).normal(0, 1e-4, RATE).astype(np.float32)
    for dead in (0 * tone, 0 * tone + 0.4, hiss):
        np.testing.assert_allclose(mixed(tone, dead), tone, atol=1e-6)
        np.testing.assert_allclose(mixed(dead, tone), tone, atol=1e-6)
    np.testing.assert_allclose(mixed(tone, tone), tone, atol=1e-6)
    # wired the wrong way round they would cancel each other out
    assert np.abs(mixed(tone, -tone)).max() == pytest.approx(0.5, abs=0.01)
    assert np.abs(mixed(*[0 * tone] * 8)).max() == 0


def test_a_channel_that_dies_on_the_way_fades_out() -> None:
    tone = 0.5 * sine(440, RATE, 20)
    other = tone.copy()
    other[10 * RATE :] = 0
    mixer = Mixer(RATE, 2)
    out = np.concatenate([mixer(part) for part in np.array_split(np.stack([tone, other], 1), 200)])
    assert np.abs(out[-RATE:]).max() == pytest.approx(0.5, abs=0.01)
    # no click: from sample to sample it moves no faster than the tone
    assert np.abs(np.diff(out)).max() < 1.1 * np.abs(np.diff(tone)).max()


@pytest.mark.parametrize(
    ("layout", "raw", "wanted"),
    [
        ("u8", bytes([128, 255, 0]), [0, 127 / 128, -1]),
        ("s16", np.array([0, 32767, -32768], "<i2").tobytes(), [0, 32767 / 32768, -1]),
        ("s24", bytes([0, 0, 0, 255, 255, 127, 0, 0, 128, 9]), [0, 1 - 2**-23, -1]),
        ("s32", np.array([0, 2**31 - 1, -(2**31)], "<i4").tobytes(), [0, 1, -1]),
        ("f32", np.array([0.5, np.nan, np.inf, -np.inf], "<f4").tobytes(), [0.5, 0, 1, -1]),
        ("f64", np.array([0.5, -0.25, 1e300], "<f8").tobytes(), [0.5, -0.25, 1]),
    ],
)
def test_each_layout_of_samples_is_read(layout: str, raw: bytes, wanted: list[float]) -> None:
    np.testing.assert_allclose(samples(raw, layout, 1)[:, 0], wanted, atol=1e-6)
    assert samples(raw * 2, layout, 2).shape == (len(raw) * 2 // (int(layout[1:]) // 8) // 2, 2)


def test_what_is_too_loud_is_clipped_and_what_is_absurd_refused() -> None:
    out = Funnel(RATE, 1)(np.array([[3.0], [-9.0], [0.5]], np.float32))
    assert out.tolist() == [1.0, -1.0, 0.5] and out.dtype == np.float32
    for rate, channels in ((0, 1), (10**9, 1), (RATE, 0), (RATE, 99)):
        with pytest.raises(ValueError, match="are taken"):
            Funnel(rate, channels)
