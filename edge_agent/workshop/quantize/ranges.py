"""What the tensors of a network are like on calibration data, and from that the range that eight bits are to cover.

A range is (low, high) with 0 in it; q = round(x / step) + zero point, step = (high - low) / (2^n - 1), clipped to
0..2^n - 1. Each method is a function from what was seen of a tensor to its range; how a method is defined stands in its
docstring.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort

from edge_agent.workshop.graph import net, sessions

Interval = tuple[float, float]
Doubles = npt.NDArray[np.float64]
BINS = 2048
"""of a histogram, from -m to m, m the greatest magnitude"""
PERCENTILE = 99.99
KL_BINS, KL_LEVELS = 1024, 128
"""bins of a histogram in which entropy is measured, and the levels that it is brought down to"""


@dataclass(slots=True)
class TensorRange:
    """What was seen of one tensor."""

    low: float = math.inf
    high: float = -math.inf
    lows: float = 0.0
    """sum over the samples of the least value in each"""
    highs: float = 0.0
    total: float = 0.0
    """sum of |x|"""
    count: int = 0
    samples: int = 0
    finite: bool = True
    histogram: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """counts in BINS equal bins from -m to m"""
    silu: bool = False
    """only x·sigmoid(x) reads it"""
    channel_high: Doubles = field(default_factory=lambda: np.zeros(0))
    """greatest |x| of each channel (axis 1), where there are four axes"""

    def take(self, x: npt.NDArray[np.float32]) -> None:
        if not x.size:
            return
        low, high = float(x.min()), float(x.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            self.finite = False
            return
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.lows, self.highs = self.lows + low, self.highs + high
        magnitude = np.abs(x)
        self.total += float(magnitude.sum(dtype=np.float64))
        self.count, self.samples = self.count + x.size, self.samples + 1
        if x.ndim == 4:
            top = magnitude.max(axis=(0, 2, 3)).astype(np.float64)
            same = len(self.channel_high) == len(top)
            # an axis of another length each time is none of channels
            alike = np.maximum(self.channel_high, top) if same else np.zeros(0)
            self.channel_high = top if self.samples == 1 else alike

    @property
    def magnitude(self) -> float:
        """The greatest |x|."""
        return max(abs(self.low), abs(self.high))

    def spread(self, x: npt.NDArray[np.float32]) -> None:
        """Into the histogram, once the extremes are known."""
        m = self.magnitude
        if not len(self.histogram):
            self.histogram = np.zeros(BINS, np.int64)
        if not (x.size and math.isfinite(m) and m > 0):
            return
        places = ((x.ravel() + np.float32(m)) * np.float32(BINS / (2 * m))).astype(np.int32)
        self.histogram += np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS)


def watch(
    model: ir.Model,
    feeds: Callable[[], Iterable[Mapping[str, npt.NDArray[np.generic]]]],
    histograms: bool,
    say: Callable[[int], None],
) -> dict[str, TensorRange]:
    """Every float tensor of the network that is computed, on all feeds. `say` hears of each feed.

    `feeds` is called once, and once more for `histograms`, whose bins need the extremes first.
    """
    made = [value for node in model.graph for value in node.outputs if value.dtype == ir.DataType.FLOAT]
    names = [str(value.name) for value in made]
    session = seeing(model, names)

    def runs() -> Iterator[dict[str, npt.NDArray[Any]]]:
        for feed in feeds():
            yield dict(zip(names, session.run(names, dict(feed)), strict=True)) | dict(feed)

    seen = gathered(runs, histograms, say)
    for value in (*made, *model.graph.inputs):
        if value.name in seen:
            seen[str(value.name)].silu = is_gated(value)
    return seen


def gathered(
    runs: Callable[[], Iterable[Mapping[str, npt.NDArray[Any]]]], histograms: bool, say: Callable[[int], None]
) -> dict[str, TensorRange]:
    """What is seen of every float tensor in some runs of a network; `runs` and `say` as in `watch`."""
    seen: dict[str, TensorRange] = {}
    step = 0
    for spread in (False, True)[: 1 + histograms]:
        for tensors in runs():
            for name, value in tensors.items():
                if value.dtype == np.float32:
                    one = seen.setdefault(name, TensorRange())
                    (one.spread if spread else one.take)(value)
            step += 1
            say(step)
    return {name: one for name, one in seen.items() if one.samples or not one.finite}


def is_gated(value: ir.Value) -> bool:
    """Whether only a Sigmoid and its product with the same tensor read it."""
    nodes = list(value.consumers())
    gates = {node.outputs[0] for node in nodes if node.op_type == "Sigmoid"}
    products = [node for node in nodes if node.op_type == "Mul" and gates & set(node.inputs)]
    return len(gates) == 1 and len(products) == 1 and len(nodes) == 2


def seeing(model: ir.Model, names: list[str]) -> ort.InferenceSession:
    """A session that gives the named tensors, unoptimized, so that each of them is there."""
    seen = net.proto(model, merge=False)
    del seen.graph.output[:]
    seen.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return sessions.session(seen.SerializeToString(), "ORT_DISABLE_ALL")


# ── methods: from what was seen to (low, high) ───────────────────────────────────────────────────────────


def largest(seen: TensorRange, bits: int) -> Interval:
    """**max**: symmetric, step = max|x| / 2^(n-1), zero point in the middle; nothing but +max|x| itself is clipped.

    The plainest form of symmetric quantization (Krishnamoorthi, arXiv 1806.08342, section 2.2).
    """
    step = seen.magnitude / 2 ** (bits - 1)
    return -step * 2 ** (bits - 1), step * (2 ** (bits - 1) - 1)


def mean(seen: TensorRange, bits: int) -> Interval:
    """**mean**: symmetric, step = c·mean|x| / 2^(n-1), clipped beyond c·mean|x|, and never wider than **max**.

    c solves c·e^c = 3·4^n: where values are spread as a Laplace distribution with b = mean|x|, clipping at c·b makes
    the mean squared error 2b²e^-c + (c·b)²/(3·4^n) of clipping and rounding the least (Banner et al., "ACIQ", arXiv
    1810.05723, section 3; their table has c = 5.03 for 4 bits, for 8 it is 9.89).
    """
    c = laplace(bits)
    step = min(c * seen.total / max(seen.count, 1), seen.magnitude) / 2 ** (bits - 1)
    return -step * 2 ** (bits - 1), step * (2 ** (bits - 1) - 1)


def laplace(bits: int) -> float:
    """c of c·e^c = 3·4^n, by Newton's method on c + ln c."""
    want, c = math.log(3 * 4.0**bits), 5.0
    for _ in range(20):
        c -= (c + math.log(c) - want) / (1 + 1 / c)
    return c


def full(seen: TensorRange, bits: int) -> Interval:
    """**full**: affine over the whole range, step = (max - min) / (2^n - 1), zero point = round(-min / step).

    With 0 taken into the range, so that it has a level of its own (Jacob et al., arXiv 1712.05877, section 3).
    """
    return min(seen.low, 0.0), max(seen.high, 0.0)


def average(seen: TensorRange, bits: int) -> Interval:
    """**average**: affine, from the mean of the samples' least values to the mean of their greatest.

    So that one rare peak does not cost all other values their resolution (the moving average of Jacob et al., arXiv
    1712.05877, section 3.1, with equal weights).
    """
    return min(seen.lows / max(seen.samples, 1), 0.0), max(seen.highs / max(seen.samples, 1), 0.0)


def percentile(seen: TensorRange, bits: int) -> Interval:
    """**percentile**: affine over the middle 99.99 % of the values: half of the rest is clipped at either end.

    By ONNX Runtime's collector (Wu et al., "Integer quantization for deep learning inference", arXiv 2004.09602).
    """
    if not seen.histogram.sum():
        return full(seen, bits)
    collector = _collector("percentile", seen, seen.histogram)
    with contextlib.redirect_stdout(io.StringIO()):
        low, high = collector.compute_percentile()["x"][:2]
    return min(float(low), 0.0), max(float(high), 0.0)


def entropy(seen: TensorRange, bits: int) -> Interval:
    """**entropy**: the range whose clipped values, at 128 levels, have the least Kullback-Leibler divergence from all.

    KL(P‖Q) = Σ p·ln(p/q), by ONNX Runtime's search (Migacz, "8-bit inference with TensorRT", GTC 2017).
    """
    if not seen.histogram.sum():
        return full(seen, bits)
    collector = _collector("entropy", seen, seen.histogram.reshape(KL_BINS, -1).sum(axis=1))
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        low, high = collector.get_entropy_threshold(collector.histogram_dict["x"], KL_LEVELS)[:2]
    return min(max(float(low), seen.low), 0.0), max(min(float(high), seen.high), 0.0)


def squares(seen: TensorRange, bits: int) -> Interval:
    """**mse**: affine over those shares of min and max, each 0, 0.02, ... 1, whose Σ (f(x) - f(Q(x)))² is the least.

    Summed over the histogram's bins at their middles; one end after the other, twice (Nagel et al., "A white paper on
    neural network quantization", arXiv 2106.08295, section 3.1; OMSE of Choukroun et al., arXiv 1902.06822). f is what
    alone reads the tensor, x·sigmoid(x) where that is so, since what it makes 0 needs no levels, else the identity.
    """
    low, high = full(seen, bits)
    used = np.flatnonzero(seen.histogram)
    if not len(used) or high <= low:
        return low, high
    m = seen.magnitude
    x = (used + 0.5) * (2 * m / BINS) - m
    weight = seen.histogram[used].astype(np.float64)
    ends = np.array([1.0, 1.0])
    for end in (1, 0, 1, 0):
        tried = np.repeat(ends[None], len(SHARES), axis=0)
        tried[:, end] = SHARES
        lows, highs = tried[:, 0] * low, tried[:, 1] * high
        step = np.maximum(highs - lows, 1e-12)[:, None] / (2**bits - 1)
        zero = np.rint(-lows[:, None] / step)
        q = (np.clip(np.rint(x / step) + zero, 0, 2**bits - 1) - zero) * step
        error = (_through(q, seen.silu) - _through(x, seen.silu)) ** 2 @ weight
        ends = tried[int(np.argmin(error))]
    return float(ends[0] * low), float(ends[1] * high)


SHARES = np.arange(50, -1, -1) / 50


def _through(x: npt.NDArray[np.floating[Any]], silu: bool) -> npt.NDArray[np.floating[Any]]:
    """f of `squares`."""
    return x / (1 + np.exp(-np.clip(x, -80, 80))) if silu else x


def _collector(method: str, seen: TensorRange, histogram: npt.NDArray[np.int64]) -> Any:
    """ONNX Runtime's collector with one tensor, "x", in it."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    made = HistogramCollector(method, False, len(histogram), KL_LEVELS, PERCENTILE, "same")
    m = np.float32(seen.magnitude)
    edges = np.linspace(-m, m, len(histogram) + 1, dtype=np.float32)
    made.histogram_dict["x"] = (histogram, edges, np.float32(seen.low), np.float32(seen.high), m)
    return made


METHODS: dict[str, Callable[[TensorRange, int], Interval]] = {
    "max": largest,
    "mean": mean,
    "full": full,
    "average": average,
    "percentile": percentile,
    "entropy": entropy,
    "mse": squares,
}
HISTOGRAMS = ("percentile", "entropy", "mse")
"""methods that need a histogram"""


def ranges(seen: Mapping[str, TensorRange], method: str, bits: int) -> dict[str, Interval]:
    """Range of every tensor whose values were all finite."""
    return {name: METHODS[method](one, bits) for name, one in seen.items() if one.finite}
