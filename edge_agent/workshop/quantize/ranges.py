"""What the tensors of a network are like on calibration data, and from that the range that eight bits are to cover.

A range is (low, high) with 0 in it; q = round(x / step) + zero point, step = (high - low) / (2^n - 1), clipped to
0..2^n - 1. Each method is a function from what was seen of a tensor to its range; how a method is defined stands in its
docstring.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from edge_agent.workshop.graph import net, sessions, tflite

Interval = tuple[float, float]
Feed = Mapping[str, npt.NDArray[Any]]
BINS = 2048
"""of a histogram, from -m to m, m the greatest magnitude"""
CLIPPED = 0.0001
"""share of the values that `percentile` leaves out, half of it at either end"""


@dataclass(slots=True)
class TensorRange:
    """What was seen of one tensor."""

    low: float = math.inf
    high: float = -math.inf
    finite: bool = True
    histogram: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    """counts in BINS equal bins from -m to m"""

    def take(self, x: npt.NDArray[np.float32]) -> None:
        if not x.size:
            return
        low, high = float(x.min()), float(x.max())
        if math.isfinite(low) and math.isfinite(high):
            self.low, self.high = min(self.low, low), max(self.high, high)
        else:
            self.finite = False

    @property
    def magnitude(self) -> float:
        """The greatest |x|."""
        return max(abs(self.low), abs(self.high))

    def spread(self, x: npt.NDArray[np.float32]) -> None:
        """Into the histogram, once the extremes are known."""
        m = self.magnitude
        if not (x.size and math.isfinite(m) and m > 0):
            return
        places = ((x.ravel() + np.float32(m)) * np.float32(BINS / (2 * m))).astype(np.int32)
        self.histogram += np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS)


def watch(
    model: ir.Model | tflite.Model, feeds: Callable[[], Iterable[Feed]], say: Callable[[int], None]
) -> dict[str, TensorRange]:
    """Every float tensor of the network that is given or computed, on all feeds. `say` hears of each feed.

    `feeds` is called twice: the bins of a histogram need the extremes first.
    """
    seen: dict[str, TensorRange] = {}
    step = 0
    for spread in (False, True):
        for tensors in _runs(model, feeds()) if isinstance(model, ir.Model) else tflite.watch(model, feeds()):
            for name, value in tensors.items():
                if value.dtype == np.float32:
                    one = seen.setdefault(name, TensorRange())
                    (one.spread if spread else one.take)(value)
            step += 1
            say(step)
    return {name: one for name, one in seen.items() if one.low <= one.high or not one.finite}


def _runs(model: ir.Model, feeds: Iterable[Feed]) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """What an ONNX network computes, unoptimized, so that each tensor is there."""
    names = [str(one.name) for node in model.graph for one in node.outputs if one.dtype == ir.DataType.FLOAT]
    seen = net.proto(model, merge=False)
    del seen.graph.output[:]
    seen.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = sessions.session(seen.SerializeToString(), "ORT_DISABLE_ALL")
    for feed in feeds:
        yield dict(zip(names, session.run(names, dict(feed)), strict=True)) | dict(feed)


# ── methods: from what was seen to (low, high) ───────────────────────────────────────────────────────────


def full(seen: TensorRange) -> Interval:
    """**full**: affine over the whole range, step = (max - min) / (2^n - 1), zero point = round(-min / step).

    With 0 taken into the range, so that it has a level of its own (Jacob et al., arXiv 1712.05877, section 3).
    """
    return min(seen.low, 0.0), max(seen.high, 0.0)


def percentile(seen: TensorRange) -> Interval:
    """**percentile**: affine over the middle 99.99 % of the values: half of the rest is clipped at either end.

    By the edges of the histogram's bins (Wu et al., "Integer quantization for deep learning inference", arXiv
    2004.09602).
    """
    if not seen.histogram.sum():
        return full(seen)
    shares = np.cumsum(seen.histogram) / seen.histogram.sum()
    edges = np.linspace(-seen.magnitude, seen.magnitude, BINS + 1)
    low, high = np.searchsorted(shares, (CLIPPED / 2, 1 - CLIPPED / 2))
    ends = np.clip((edges[low], edges[high + 1]), seen.low, seen.high)
    return min(float(ends[0]), 0.0), max(float(ends[1]), 0.0)


METHODS: dict[str, Callable[[TensorRange], Interval]] = {"percentile": percentile, "full": full}


def ranges(seen: Mapping[str, TensorRange], method: str) -> dict[str, Interval]:
    """Range of every tensor whose values were all finite."""
    return {name: METHODS[method](one) for name, one in seen.items() if one.finite}
