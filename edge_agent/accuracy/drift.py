"""Whether what is seen and said still looks as it did in the first days: histograms by the hour, compared.

Each window (an hour) of each signal is a histogram. The windows of the first days are kept; a later one is compared
with the nearest of those of about the same time of day: by the population stability index (PSI), and by the largest
difference of the cumulated shares (Kolmogorov and Smirnov) where values have an order. How far a window of those days
is from the nearest window of another day says how far is usual; MARGIN times the largest such distance, for ROW
windows in a row, is drift. What was far and came back by itself is usual from then on. The rate of false alarms that
this has is measured in docs/accuracy.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import msgspec
import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

FEWEST = 40
"""values of a window from which on it counts"""
MARGIN, ROW = 2.0, 3
"""times the largest usual distance, and windows in a row, from which on it is drift"""
LEAST_PSI, LEAST_KS = 0.1, 0.1
"""below these no window is called another one: 0.1 is what is usually called no change of a PSI"""
NEAR_H = 2.0
"""hours by which the times of day of two windows differ that are compared"""
DAYS = 2
"""days at least that the first windows are of"""
PRIOR = 0.5
"""counts that each bin is given, so that an empty one is no infinity"""
MOST_WINDOWS = 24 * 14
"""that are kept of the first days"""
LABELS = 24
"""bins of labels; what comes after so many of them is "other" """
AGAIN = {
    "detect": "edge-agent train detector --from-samples --out NEW",
    "anomaly": "edge-agent train anomaly --data PICTURES --out NEW",
    "state": "edge-agent teach NAME --examples STATE=PICTURES",
    "tag": "edge-agent train tagger --data TEXTS --out NEW",
}
"""task of a pipeline -> what teaches its model what is there now"""


def _linear(low: float, high: float, bins: int) -> Callable[[float], int]:
    return lambda x: min(max(int((x - low) / (high - low) * bins), 0), bins - 1)


def _log2(low: float, bins: int, of_two: float = 1.0) -> Callable[[float], int]:
    return lambda x: min(max(int((math.log2(max(x, 1e-9)) - low) * of_two), 0), bins - 1)


BINS: dict[str, tuple[int, Callable[[float], int]]] = {
    "score": (20, _linear(0, 1, 20)),
    "size": (12, _log2(-6, 12, 2)),
    "count": (12, _linear(0, 12, 12)),
    "brightness": (16, _linear(0, 256, 16)),
    "sharpness": (20, _log2(-4, 20, 2)),
    "length": (20, _log2(0, 20, 2)),
    "unknown": (2, _linear(0, 2, 2)),
    "rank": (10, _linear(0, 1, 10)),
}
"""signal of values -> how many bins, and the bin of a value; of "label" the bins are labels"""


class Window(msgspec.Struct):
    """What was counted in one: signal -> counts of its bins."""

    begin: float
    counts: dict[str, list[int]] = msgspec.field(default_factory=dict)


class Drift(msgspec.Struct):
    """Of one pipeline; JSON on disk."""

    learn_s: float
    window_s: float = 3600.0
    model: str = ""
    """what the first days were answered by; another model begins anew"""
    labels: list[str] = msgspec.field(default_factory=list)
    first: list[Window] = msgspec.field(default_factory=list)
    now: Window | None = None
    over: dict[str, list[Window]] = msgspec.field(default_factory=dict)
    """signal -> windows in a row in which it was another one"""
    drifted: dict[str, str] = msgspec.field(default_factory=dict)
    """signal -> how far it is from the first days, in words"""
    usual: dict[str, float] = msgspec.field(default_factory=dict)
    """signal and measure -> the largest distance among the first windows"""
    began: float = 0.0
    version: int = 1

    def add(self, at: float, signal: str, value: float | str) -> bool:
        """Count one value at `at` (seconds since 1970); whether what has drifted is something else now."""
        news = self.tick(at)
        assert self.now is not None
        size = LABELS if isinstance(value, str) else BINS[signal][0]
        place = self._label(value) if isinstance(value, str) else BINS[signal][1](value)
        self.now.counts.setdefault(signal, [0] * size)[place] += 1
        return news

    def tick(self, at: float) -> bool:
        """Close the window where its time is over; whether what has drifted is something else now."""
        if self.now is None:
            self.now, self.began = Window(at), self.began or at
        if at - self.now.begin < self.window_s:
            return False
        window, self.now, before = self.now, Window(at), dict(self.drifted)
        if not self.known and window.begin - self.began < self.learn_s:
            self.first = [*self.first, window][-MOST_WINDOWS:]
        elif self.known:
            for signal, counts in window.counts.items():
                if sum(counts) >= FEWEST:
                    self._compare(signal, window)
        return self.drifted.keys() != before.keys()

    @property
    def known(self) -> bool:
        """Whether the first days are over."""
        return bool(self.first) and self.now is not None and self.now.begin - self.began >= self.learn_s

    def told(self, tasks: Iterable[str]) -> str:
        """What has drifted, and what to type where one of these `tasks` can be taught again; "" for nothing."""
        said = [f"{signal} has drifted, {how}" for signal, how in list(self.drifted.items())]
        again = [f"to teach it what is there now: {AGAIN[task]}" for task in tasks if task in AGAIN]
        return "; ".join(said + again[:1]) if said else ""

    def _label(self, label: str) -> int:
        if label not in self.labels and len(self.labels) < LABELS - 1:
            self.labels.append(label)
        return self.labels.index(label) if label in self.labels else LABELS - 1

    def _compare(self, signal: str, window: Window) -> None:
        """Hold a window against the first days."""
        rows = [(one.begin, one.counts[signal]) for one in self.first if sum(one.counts.get(signal, ())) >= FEWEST]
        if len({int((begin - self.began) // 86400) for begin, _ in rows}) < DAYS:
            return
        far, limit, word = self._farthest(rows, window.begin, window.counts[signal], signal)
        if far > limit:
            self.over.setdefault(signal, []).append(Window(window.begin, {signal: window.counts[signal]}))
            if len(self.over[signal]) >= ROW:
                told = f"{word} {far:.2f} from the nearest of the first days, at most {limit:.2f} is usual"
                self.drifted[signal] = told
            return
        # what came and went by itself is usual from now on, and so is what is near to it
        self.drifted.pop(signal, None)
        self.first = [*self.first, *self.over.pop(signal, [])][-MOST_WINDOWS:]

    def _farthest(self, rows: Rows, at: float, counts: list[int], signal: str) -> tuple[float, float, str]:
        """How far a window is from the nearest of these, how far is usual, and by what: as it is farthest."""
        every, rows = rows, _near(rows, at) or rows
        found = []
        others = np.array([row for _, row in rows], np.float64)
        for name, distance, least in (("PSI", psi, LEAST_PSI), ("KS", ks, LEAST_KS))[: 1 + (signal != "label")]:
            key = f"{signal} {name}"
            if key not in self.usual:
                self.usual[key] = _usual(every, self.began, distance)
            bound = max(least, MARGIN * self.usual[key])
            found.append((float(distance(counts, others).min()), bound, name))
        return max(found, key=lambda one: one[0] / one[1])


Rows = list[tuple[float, list[int]]]
"""when windows began, and what was counted in them"""


def _near(rows: Rows, at: float, not_of: int | None = None, began: float = 0.0) -> Rows:
    """Those whose time of day is within NEAR_H hours of that of `at`, and which are of another day than `not_of`."""
    return [
        row
        for row in rows
        if abs((row[0] - at + 43200) % 86400 - 43200) <= NEAR_H * 3600 and int((row[0] - began) // 86400) != not_of
    ]


def psi(a: list[int], others: Doubles) -> Doubles:
    """Population stability index of a histogram and each of (n, bins) others: the symmetric relative entropy of their
    shares.
    """
    one, rest = np.array(a, np.float64) + PRIOR, others + PRIOR
    one, rest = one / one.sum(), rest / rest.sum(axis=1, keepdims=True)
    return np.asarray(((one - rest) * np.log(one / rest)).sum(axis=1), np.float64)


def ks(a: list[int], others: Doubles) -> Doubles:
    """The largest difference of the cumulated shares of a histogram and each of (n, bins) others."""
    one = np.cumsum(a) / max(1, sum(a))
    rest = np.cumsum(others, axis=1) / np.maximum(1, others.sum(axis=1, keepdims=True))
    return np.asarray(np.abs(one - rest).max(axis=1), np.float64)


def _usual(rows: Rows, began: float, distance: Callable[[list[int], Doubles], Doubles]) -> float:
    """The largest distance of one of the first windows from the nearest window of another day."""
    most = 0.0
    for begin, counts in rows:
        others = _near(rows, begin, int((begin - began) // 86400), began)
        if others:
            most = max(most, float(distance(counts, np.array([row for _, row in others], np.float64)).min()))
    return most
