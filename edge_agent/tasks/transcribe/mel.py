"""Sound as Whisper hears it: the logarithm of its energy in 80 bands of the mel scale, a hundred times a second.

The recipe is that of Radford et al. 2022 (arXiv:2212.04356) as its authors' code has it: windows of 25 ms (Hann) every
10 ms, a bank of triangles by Slaney's Auditory Toolbox (linear below 1 kHz, logarithmic above; each of area 1), the
power's log10 cut off 8 below its maximum, then (x + 4) / 4.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from edge_agent.types import Floats

RATE = 16_000
"""samples a second"""
WINDOW, HOP, BANDS = 400, 160, 80
FLAT, STEP = 200 / 3, np.log(6.4) / 27
"""hertz a mel below 1 kHz, and the log of the ratio of two neighbours above"""
KNEE = 1000 / FLAT
"""the mel of 1 kHz"""
LEAST, RANGE = 1e-10, 8.0


def log_mel(samples: Floats, frames: int) -> Floats:
    """(BANDS, frames) float32 of `samples` (n,) in -1..1 at RATE, with silence behind them up to frames * HOP samples;
    what is longer is cut off.
    """
    room = frames * HOP
    sound = np.zeros(room + WINDOW, np.float32)
    used = samples[:room]
    sound[WINDOW // 2 : WINDOW // 2 + len(used)] = used
    # mirrored at both ends, as the reference does
    sound[: WINDOW // 2] = sound[WINDOW : WINDOW // 2 : -1]
    sound[-WINDOW // 2 :] = sound[-WINDOW // 2 - 2 : -WINDOW - 2 : -1]
    windows = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[:room:HOP] * _hann()
    power = np.abs(np.fft.rfft(windows).astype(np.complex64)) ** 2
    log = np.log10(np.maximum(bank() @ power.T, np.float32(LEAST)))
    found: Floats = (np.maximum(log, log.max() - RANGE) + 4) / 4
    return found.astype(np.float32)


@cache
def _hann() -> Floats:
    """A period of it, without the end that is the next one's beginning."""
    return np.hanning(WINDOW + 1)[:-1].astype(np.float32)


@cache
def bank() -> Floats:
    """(BANDS, WINDOW // 2 + 1) float32: how much each frequency counts in each band."""
    edges = _hertz(np.linspace(0, _mel(RATE / 2), BANDS + 2))
    frequency = np.linspace(0, RATE / 2, WINDOW // 2 + 1)
    rising = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    area = 2 / (edges[2:] - edges[:-2])[:, None]
    found: Floats = (np.maximum(0, np.minimum(rising, falling)) * area).astype(np.float32)
    return found


def _mel(hertz: float) -> float:
    return hertz / FLAT if hertz < 1000 else float(KNEE + np.log(hertz / 1000) / STEP)


def _hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = np.where(mel < KNEE, mel * FLAT, 1000 * np.exp(STEP * (mel - KNEE)))
    return found
