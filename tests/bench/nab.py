"""Numenta's anomaly benchmark on our series: ``python -m tests.bench.nab [--vae] [--cross]``.

Its standard profile, scored as Lavin and Ahmad 2015 (arXiv:1510.03336) and its code say: the first alarm in a labelled
window counts from 1 at its beginning down to 0 at its end, a window without one -1, an alarm outside -0.11 (less,
right behind a window); the first 15 % of a series, 750 points at most, do not count; no alarm at all is 0, each window
at its beginning and none outside 100. ``--vae``: also dense variational autoencoders (PyTorch), one for each series,
trained on the part that does not count. ``--cross``: settings and limit are picked on one half of the series, scored on
the other, twenty times.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_agent.tasks.anomaly import series
from tests.conftest import ROOT

NAB = Path(os.environ.get("EDGE_AGENT_DATA", ROOT.parent / "shared" / "data")) / "nab"
Doubles = npt.NDArray[np.float64]
FALSE = 0.11


class One(NamedTuple):
    name: str
    at: list[float]
    x: list[float]
    windows: list[tuple[int, int]]
    """first and last row"""


def seconds(text: str) -> float:
    return datetime.fromisoformat(text[:19]).replace(tzinfo=timezone.utc).timestamp()


def load(where: Path = NAB) -> list[One]:
    found = []
    for name, windows in sorted(json.loads((where / "labels" / "combined_windows.json").read_text()).items()):
        with (where / "data" / name).open() as file:
            rows = list(csv.reader(file))[1:]
        at = [seconds(row[0]) for row in rows]
        inside = [[i for i, t in enumerate(at) if seconds(a) <= t <= seconds(b)] for a, b in windows]
        found.append(One(name, at, [float(row[1]) for row in rows], [(w[0], w[-1]) for w in inside]))
    return found


def falling(x: float) -> float:
    """From 1 over 0 at x = 0 to -1."""
    return -1.0 if x > 3 else 2 / (1 + math.exp(5 * x)) - 1


class Scorer:
    """What alarms are worth."""

    def __init__(self, ones: Sequence[One]) -> None:
        self.rows = [self._rows(one) for one in ones]
        self.windows = [len(one.windows) for one in ones]

    @staticmethod
    def _rows(one: One) -> tuple[npt.NDArray[np.int64], Doubles]:
        """(n,) the window of each row, -1 for none and -2 for rows that do not count, and what an alarm is worth."""
        count = len(one.x)
        window, worth = np.full(count, -1), np.full(count, -FALSE)
        for k, (left, right) in enumerate(one.windows):
            for i in range(left, right + 1):
                window[i], worth[i] = k, falling(-(right - i + 1) / (right - left + 1)) / falling(-1)
            for i in range(right + 1, count):
                worth[i] = FALSE * falling((i - right) / (right - left))
        window[: int(min(0.15 * count, 0.15 * 5000))] = -2
        return window, worth

    def curve(self, scores: Sequence[Doubles], which: Iterable[int]) -> tuple[Doubles, Doubles, int]:
        """Limits, falling; the sum of what alarms are worth at each; and how many windows there are."""
        gains = []
        for i in which:
            window, worth = self.rows[i]
            outside = window == -1
            gains.append(np.stack([scores[i][outside], worth[outside]]))
            for k in range(self.windows[i]):
                inside = window == k
                order = np.argsort(-scores[i][inside], kind="stable")
                best = np.maximum.accumulate(np.r_[-1.0, worth[inside][order]])
                gains.append(np.stack([scores[i][inside][order], np.diff(best)]))
        score, gain = np.concatenate(gains, 1)
        order = np.argsort(-score, kind="stable")
        last = np.r_[np.diff(score[order]) != 0, True]
        windows = sum(self.windows[i] for i in which)
        return score[order][last], np.cumsum(gain[order])[last] - windows, windows

    def best(self, scores: Sequence[Doubles], which: Sequence[int] | None = None) -> tuple[float, float]:
        """The best score of these series, and its limit; a score of 0 is no alarm."""
        limits, raw, windows = self.curve(scores, range(len(self.rows)) if which is None else which)
        raw = np.where(limits > 0, raw, -windows)
        at = int(raw.argmax())
        return 100 * (raw[at] + windows) / (2 * windows), float(limits[at])

    def at(self, scores: Sequence[Doubles], limit: float, which: Sequence[int] | None = None) -> tuple[float, int]:
        """The sum at one limit, and the windows."""
        limits, raw, windows = self.curve(scores, range(len(self.rows)) if which is None else which)
        under = int(np.searchsorted(-limits, -limit, side="right")) - 1
        return (float(raw[under]) if under >= 0 else -windows), windows

    def cross(self, settings: Sequence[Sequence[Doubles]], times: int = 20) -> tuple[float, float]:
        """Mean and standard deviation of scores whose setting and limit were picked on the other half."""
        rng, found = np.random.default_rng(0), []
        for _ in range(times):
            order = rng.permutation(len(self.rows))
            half, total, windows = len(order) // 2, 0.0, 0
            for picked, scored in ((order[:half], order[half:]), (order[half:], order[:half])):
                best = max(settings, key=lambda scores: self.best(scores, picked.tolist())[0])
                raw, count = self.at(best, self.best(best, picked.tolist())[1], scored.tolist())
                total, windows = total + raw, windows + count
            found.append(100 * (total + windows) / (2 * windows))
        return float(np.mean(found)), float(np.std(found))


def alarms(rare: Doubles, limit: float, calm: int) -> Doubles:
    """Of each row how rare it is, where an alarm begins: above `limit`, and so many rows before it were not."""
    found, last = np.zeros(len(rare)), -(10**9)
    for i in np.flatnonzero(rare > limit):
        found[i] = rare[i] if i - last > calm else 0
        last = int(i)
    return found


# ── the rivals: a series -> how unusual each row is ──────────────────────────────────────────────────────


def ours(one: One, short: float = series.SHORT) -> Doubles:
    before, series.SHORT = series.SHORT, short
    state = series.Series()
    try:
        return np.array([max(state(at, x, math.inf)[0].values()) for at, x in zip(one.at, one.x, strict=True)])
    finally:
        series.SHORT = before


def gaussian(one: One, window: int = 6400) -> Doubles:
    """The tail of a normal distribution of the rows before, as -log10; NAB's own baseline."""
    found, x = np.zeros(len(one.x)), np.array(one.x)
    total, squares = np.cumsum(np.r_[0, x - x[0]]), np.cumsum(np.r_[0, (x - x[0]) ** 2])
    for i in range(50, len(x)):
        low = max(0, i - window)
        mean = (total[i] - total[low]) / (i - low)
        spread = math.sqrt(max((squares[i] - squares[low]) / (i - low) - mean * mean, 1e-12))
        tail = math.erfc(abs(x[i] - x[0] - mean) / spread / math.sqrt(2))
        found[i] = -math.log10(max(tail, 1e-300))
    return found


def seasonal(one: One) -> Doubles:
    """Standard deviations from the mean of the hour of the day."""
    hours, found, squares, count = np.zeros((24, 2)), np.zeros(len(one.x)), 0.0, 0
    for i, (at, x) in enumerate(zip(one.at, one.x, strict=True)):
        hour = hours[int(at // 3600) % 24]
        if hour[1]:
            off = x - hour[0]
            found[i] = abs(off) / math.sqrt(squares / count) if count > 20 and squares else 0
            squares, count = squares + off * off, count + 1
        hour[1] += 1
        hour[0] += (x - hour[0]) * max(0.1, 1 / hour[1])
    return found


def dense_vae(one: One, window: int = 32) -> Doubles:
    """Negative ELBO of the last rows by a dense VAE that was trained on the rows that do not count."""
    import torch

    torch.manual_seed(0)
    x = np.array(one.x, np.float32)
    taught = x[: int(min(0.15 * len(x), 0.15 * 5000))]
    x = (x - taught.mean()) / (taught.std() + 1e-6)
    views = torch.tensor(np.lib.stride_tricks.sliding_window_view(x, window).copy())
    data = views[: len(taught) - window + 1]
    code = 4
    encode = torch.nn.Sequential(torch.nn.Linear(window, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2 * code))
    decode = torch.nn.Sequential(torch.nn.Linear(code, 32), torch.nn.ReLU(), torch.nn.Linear(32, window))
    steps = torch.optim.Adam([*encode.parameters(), *decode.parameters()], 3e-3)

    def loss(some: Any, noise: float) -> Any:
        mean, log = encode(some).chunk(2, 1)
        back = decode(mean + noise * torch.randn_like(mean) * (log / 2).exp())
        return ((back - some) ** 2).sum(1) / 2 + (mean**2 + log.exp() - 1 - log).sum(1) / 2

    for _ in range(400):
        steps.zero_grad()
        loss(data[torch.randint(len(data), (64,))], 1.0).mean().backward()
        steps.step()
    with torch.no_grad():
        score = loss(views, 0.0).numpy().astype(np.float64)
    found: Doubles = np.r_[np.zeros(window - 1), score]
    return found


CALMS, LIMITS, SHORTS = (20, 40, 80, 120), (80.0, 100.0, 130.0, 160.0, 200.0, 300.0), (4.0, 8.0, 12.0, 16.0)
QUANTILES = (0.98, 0.99, 0.995, 0.998, 0.999)


def settings(scores: Sequence[Doubles], limits: Sequence[float]) -> list[list[Doubles]]:
    """The scores as they are, and with alarms that are held, by each number of rows and from each limit on."""
    held = [[alarms(one, limit, calm) for one in scores] for calm, limit in itertools.product(CALMS, limits)]
    return [list(scores), *held]


def row(name: str, scorer: Scorer, tried: list[list[Doubles]], ms: float, cross: bool) -> str:
    best = max(scorer.best(scores)[0] for scores in tried)
    crossed = "{:6.1f} ± {:.1f}".format(*scorer.cross(tried)) if cross else ""
    return f"{name:44}{scorer.best(tried[0])[0]:7.1f}{best:9.1f}   {crossed:14}{ms:8.3f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--vae", action="store_true")
    parser.add_argument("--cross", action="store_true")
    args = parser.parse_args()
    ones = load()
    scorer, points = Scorer(ones), sum(len(one.x) for one in ones)
    none = [np.zeros(len(one.x)) for one in ones]
    perfect = [np.isin(np.arange(len(one.x)), [left for left, _ in one.windows]).astype(float) for one in ones]
    print(f"{len(ones)} series, {points} points, {sum(scorer.windows)} windows")
    print(f"no alarm {scorer.best(none)[0]:.1f}, perfect {scorer.best(perfect)[0]:.1f}")
    print(f"{'':44}{'plain':>7}{'held':>9}   {'crossed':14}{'ms':>8}")
    rivals: list[tuple[str, Callable[[One], Doubles]]] = [
        ("windowed Gaussian", gaussian),
        ("seasonal z-score", seasonal),
    ]
    for name, rival in [*rivals, *([("dense VAE, one a series", dense_vae)] if args.vae else [])]:
        began = time.perf_counter()
        scores = [rival(one) for one in ones]
        ms = (time.perf_counter() - began) / points * 1e3
        every = np.concatenate(scores)
        print(row(name, scorer, settings(scores, np.quantile(every, QUANTILES).tolist()), ms, args.cross), flush=True)
    began = time.perf_counter()
    scores = [ours(one) for one in ones]
    ms = (time.perf_counter() - began) / points * 1e3
    tried = settings(scores, LIMITS)
    if args.cross:
        tried += [each for short in SHORTS for each in settings([ours(one, short) for one in ones], LIMITS)]
    print(row("anomaly:series", scorer, tried, ms, args.cross), flush=True)
    for limit in (130.0, 200.0, 400.0, 1000.0):
        held = [alarms(one, limit, series.CALM) for one in scores]
        raw, windows = scorer.at(held, 1e-9)
        calm = [one for one, each in zip(held, ones, strict=True) if not each.windows]
        false = sum(int((one > 0).sum()) for one in calm) / sum(len(one) for one in calm) * 1000
        told = f"limit={limit:g}: {100 * (raw + windows) / (2 * windows):.1f}"
        print(f"  {told}, {false:.2f} alarms in 1000 points of the series without anomalies")


if __name__ == "__main__":
    main()
