"""`edge-agent train anomaly`: candidates are fitted to what is normal, and the one that tells best what is not serves.

The mean of all, principal components and a variational autoencoder on any data; on pictures also how far the features
of edge-yolo are from the nearest normal ones. Three parts of the normal samples: to fit, to set the limit (a conformal
quantile, Vovk et al. 2005) and to report; candidates are chosen by half of the reported samples and reported by the
other half.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from edge_agent.errors import UsageError
from edge_agent.types import Floats
from edge_agent.workshop.train.anomaly.candidates import Lesson, Say, fitted, measure
from edge_agent.workshop.train.anomaly.data import read
from edge_agent.workshop.train.anomaly.made import made_up
from edge_agent.workshop.train.anomaly.write import write
from edge_agent.workshop.train.options import METHODS

ODD = 6.0
"""times the range of the middle half above it: a sample to fit to that is left out"""


def run(args: argparse.Namespace, say: Say) -> int:
    """Fit, compare, write the model folder; 0. UsageError for options or data that cannot be."""
    if not 0 < args.rate < 0.5 or args.code < 1 or args.minutes <= 0:
        raise UsageError("--rate lies between 0 and 0.5, --code and --minutes above 0")
    lesson, notes = _lesson(args)
    for line in notes:
        say(line)
    found = []
    for name in METHODS if args.method == "auto" else (args.method,):
        one = fitted(name, lesson, args, say)
        if one is not None:
            measure(one, lesson)
            found.append(one)
    if not found:
        raise UsageError(f"--method {args.method}: not for {lesson.data.kind}, or PyTorch is missing")
    best = max(found, key=lambda one: one.chosen_by)
    if lesson.data.kind == "series":
        say("beside these: anomaly:series needs no model and tells more of most series (docs/anomaly.md)")
    write(args, lesson, best, found, notes, say)
    return 0


def _lesson(args: argparse.Namespace) -> tuple[Lesson, list[str]]:
    """The samples and which are for what, and what is to be said of them."""
    data = read(args.data)
    notes = [f"cannot be read: {line}" for line in data.bad[:5]]
    count = len(data.normal)
    order = np.arange(count) if data.film else np.random.default_rng(args.seed).permutation(count)
    fit, held, test = np.split(order, [round(0.6 * count), round(0.8 * count)])
    far = _far(data.normal, fit)
    left = [int(i) for i in [*fit, *held] if far[i]]
    fit, held = fit[~far[fit]], held[~far[held]]
    parts = f"{len(fit)} to fit, {len(held)} for the limit, {len(test)} to report"
    notes.append(f"{count} normal samples of {data.kind}: {parts}")
    if len(left):
        which = ", ".join(map(str, left[:8]))
        notes.append(f"{len(left)} of the normal ones look unusual themselves and are left out: numbers {which}")
    least = 1 / (len(held) + 1)
    if args.rate < least:
        notes.append(f"{len(held)} samples promise a false-alarm rate of {least:.3f} at best, not {args.rate:g}")
    odd, what = data.odd, ["labelled"] * len(data.odd)
    if not len(odd):
        odd, what = made_up(data.kind, data.normal[test], args.seed)
    notes.append(f"held against {len(odd)} unusual samples, {'labelled' if len(data.odd) else 'made up'}")
    return Lesson(data, fit, held, test, odd, what, max(args.rate, least)), notes


def _far(normal: Floats, fit: Any) -> Any:
    """Which samples are far from the median one, as most of those to fit to are not."""
    some = normal.reshape(len(normal), -1).astype(np.float64)
    off = np.abs(some - np.median(some[fit], axis=0)).mean(1)
    low, high = np.quantile(off[fit], (0.25, 0.75))
    return off > high + ODD * max(high - low, 0.02 * high)
