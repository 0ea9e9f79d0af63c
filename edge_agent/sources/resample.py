"""Sound of any rate and number of channels becomes 16 kHz of one channel, block by block without seams."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edge_agent.types import Floats

RATE = 16_000
"""samples a second that come out"""
RATES, MOST_CHANNELS = (4000, 192_000), 8
"""samples a second, least and most, and channels that go in"""
LOBES, BETA, CUT = 32, 8.0, 0.92
"""the low-pass is a sinc of so many zero crossings on each side in Kaiser's window of this shape (80 dB), its corner at
this share of half the lower rate: flat to 6.8 kHz, silent from 8 kHz on, where it goes from a higher rate to 16 kHz"""
PHASES = 1024
"""shifts of the low-pass that are kept; odd rates, which would need more, take the nearest: 1/2048 sample off"""
AT_ONCE = 2048
"""samples that are computed in one go, as each of them takes a row of memory"""
DEAD = 1e-3
"""share of the loudest channel's power below which a channel is left out: 30 dB"""
FADE_S = 0.5
"""seconds in which a channel's power is forgotten by two thirds"""


class Resampler:
    """From `rate` to RATE, for one channel: windowed-sinc interpolation in its polyphase form (Crochiere and Rabiner,
    Multirate Digital Signal Processing, 1983). What comes out lines up in time with what goes in.
    """

    def __init__(self, rate: int) -> None:
        common = math.gcd(RATE, rate)
        self._up, self._down = RATE // common, rate // common
        self._phases = min(self._up, PHASES)
        reach = LOBES * max(1.0, rate / RATE)
        self._half = math.ceil(reach)
        width = CUT * min(1.0, RATE / rate)
        taps = np.arange(1 - self._half, self._half + 1)
        x = taps[None] - np.arange(self._phases)[:, None] / self._phases
        window = np.i0(BETA * np.sqrt(np.maximum(0.0, 1 - (x / (reach + 1)) ** 2))) / np.i0(BETA)
        kernel = width * np.sinc(width * x) * window
        self._kernel = (kernel / kernel.sum(1, keepdims=True)).astype(np.float32)
        self._plain = rate == RATE
        self._left: Floats = np.zeros(self._half - 1, np.float32)
        """input that is still needed, from `_at` on"""
        self._at = 1 - self._half
        self._taken = self._given = 0

    def __call__(self, samples: Floats, last: bool = False) -> Floats:
        """What can be said by now; `last`: the rest of it, as if silence followed."""
        if self._plain:
            return samples
        self._taken += len(samples)
        held = [self._left, samples] + ([np.zeros(self._half + 1, np.float32)] if last else [])
        self._left = np.concatenate(held)
        # output n lies at input n * down / up and takes `half` inputs from there on
        reached = self._at + len(self._left) - 1 - self._half
        end = reached * self._up // self._down + 1
        if last:
            end = min(end, -(-self._taken * self._up // self._down))
        parts = [self._some(n, min(n + AT_ONCE, end)) for n in range(self._given, end, AT_ONCE)]
        self._given = max(end, self._given)
        first = self._given * self._down // self._up + 1 - self._half
        self._left, self._at = self._left[first - self._at :], max(first, self._at)
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _some(self, first: int, end: int) -> Floats:
        """Outputs `first` up to `end`."""
        n = np.arange(first, end, dtype=np.int64) * self._down
        where, phase = n // self._up + 1 - self._half - self._at, n % self._up * self._phases // self._up
        windows = np.lib.stride_tricks.sliding_window_view(self._left, 2 * self._half)
        found: Floats = np.einsum("ij,ij->i", windows[where], self._kernel[phase]).astype(np.float32)
        return found


class Mixer:
    """Several channels become one: the mean of those that live; the loudest, where they cancel each other out."""

    def __init__(self, rate: int, channels: int) -> None:
        self._rate, self._power = rate, np.zeros(channels)
        self._weights: npt.NDArray[np.float64] | None = None

    def __call__(self, block: Floats) -> Floats:
        """(n, channels) -> (n,)."""
        if block.shape[1] == 1 or not len(block):
            return block[:, 0]
        # a channel that only has an offset is as dead as one of zeros
        now = block.var(0, dtype=np.float64)
        keep = math.exp(-len(block) / self._rate / FADE_S) if self._weights is not None else 0.0
        self._power = self._power * keep + now * (1 - keep)
        lives = self._power >= DEAD * self._power.max()
        weights = lives / lives.sum()
        if (block @ weights).var() < now[lives].mean() / 10:
            weights = np.eye(len(now))[int(self._power.argmax())]
        before = self._weights if self._weights is not None else weights
        self._weights = weights
        if np.array_equal(before, weights):
            flat: Floats = (block @ weights).astype(np.float32)
            return flat
        fade = np.linspace(0, 1, len(block))[:, None]
        mixed: Floats = (block * (before * (1 - fade) + weights * fade)).sum(1).astype(np.float32)
        return mixed


class Funnel:
    """Both, in the order in which they cost least."""

    def __init__(self, rate: int, channels: int) -> None:
        """ValueError, in words, for a rate or number of channels beyond RATES and MOST_CHANNELS."""
        if not RATES[0] <= rate <= RATES[1]:
            raise ValueError(f"{rate} samples a second; {RATES[0]} to {RATES[1]} are taken")
        if not 1 <= channels <= MOST_CHANNELS:
            raise ValueError(f"{channels} channels; 1 to {MOST_CHANNELS} are taken")
        self._mix, self._resample = Mixer(rate, channels), Resampler(rate)

    def __call__(self, block: Floats, last: bool = False) -> Floats:
        """(n, channels) at the rate that goes in -> (m,) at RATE, in -1..1."""
        mono = self._resample(self._mix(block), last)
        return np.clip(mono, -1.0, 1.0)


FORMATS: dict[str, tuple[str, float]] = {
    "u8": ("u1", 128.0),
    "s16": ("<i2", 32768.0),
    "s24": ("", 8388608.0),
    "s32": ("<i4", 2147483648.0),
    "f32": ("<f4", 1.0),
    "f64": ("<f8", 1.0),
}
"""raw PCM, little-endian -> numpy's name (24 bits have none), what stands for 1.0"""


def width(layout: str) -> int:
    """Bytes of one sample."""
    return int(layout[1:]) // 8


def samples(raw: bytes | bytearray | memoryview, layout: str, channels: int) -> Floats:
    """Raw PCM as (n, channels) float32, 1.0 the loudest; what is no number is 0. A part of a frame at its end goes."""
    size = width(layout) * channels
    raw = memoryview(raw)[: len(raw) // size * size]
    kind, full = FORMATS[layout]
    if layout == "s24":
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        values = wide.view("<i4")[:, 0].astype(np.float32) / np.float32(full * 256)
    elif layout == "u8":
        values = (np.frombuffer(raw, np.uint8).astype(np.float32) - 128) / np.float32(full)
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.frombuffer(raw, kind).astype(np.float32) / np.float32(full)
    if layout[0] == "f":
        values = np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=-1.0)
        values = np.clip(values, -1e3, 1e3)
    found: Floats = values.reshape(-1, channels)
    return found
