"""What a tagger reached on sentences that it never saw, beside the commonest label of each word: the table of its card.

``python -m edge_agent.workshop.train.tagger.measure --model models/edge-tagger --data … --test …``
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.backends import open_net
from edge_agent.manifest import Served, load
from edge_agent.tasks.text import vocabulary
from edge_agent.tasks.text.texthead import joined, text_head
from edge_agent.types import ModelRef
from edge_agent.workshop.train.tagger import data

Spans = set[tuple[int, int, str]]
DRAWS = 1000
"""of the sentences, for the interval of F1 (bootstrap, percentiles 2.5 and 97.5)"""


def measure(folder: Path, tests: Sequence[tuple[Path, list[data.Marked]]], taught: list[data.Marked]) -> dict[str, Any]:
    """F1 of whole spans of each network in `folder`, and of the baseline that `taught` gives, on each of `tests`, and
    by label on all of them; milliseconds a sentence; lines for people.
    """
    every = [one for _, rows in tests for one in rows]
    truth: list[Spans] = [{span[:3] for span in one.spans} for one in every]
    said, spent = _said(folder, every)
    said["commonest label of a word"] = _commonest(folder, every, taught)
    seen, begin = {one.text.lower() for one in taught}, 0
    found: dict[str, Any] = {"ms": spent, "sets": {}, "labels": _by_label(truth, said)}
    for path, rows in tests:
        part = slice(begin, begin + len(rows))
        begin += len(rows)
        scores = {who: scored(truth[part], spans[part]) for who, spans in said.items()}
        again = sum(one.text.lower() in seen for one in rows)
        name = f"{path.parent.name}/{path.name}"
        found["sets"][name] = {"sentences": len(rows), "also trained on": again, **scores}
    return {**found, "lines": _lines(found, said)}


def _said(folder: Path, every: Sequence[data.Marked]) -> tuple[dict[str, list[Spans]], dict[str, float]]:
    """What each network marks in the sentences, and milliseconds a sentence."""
    manifest = load(folder / "manifest.toml")
    said: dict[str, list[Spans]] = {}
    spent: dict[str, float] = {}
    for row in manifest.networks():
        net = open_net(folder / row.name, row.format, 1)
        ref = ModelRef(manifest.name, manifest.version, row.sha256)
        head = text_head(Served(manifest, ref, net, {"vocab": folder / "vocab.txt"}, None, ""))
        said[row.name], times = [], []
        for one in every:
            began = time.perf_counter()
            said[row.name].append({span[:3] for span in joined(head.tags(one.text))})
            times.append((time.perf_counter() - began) * 1e3)
        spent[row.name] = statistics.median(times)
    return said, spent


def _commonest(folder: Path, every: Sequence[data.Marked], taught: list[data.Marked]) -> list[Spans]:
    """What the baseline marks in the sentences."""
    words, tags = vocabulary.from_vocab(folder / "vocab.txt", True), load(folder / "manifest.toml").labels
    table = data.commonest(taught, words, tags)
    return [set(data.guessed(one, words, tags, table)) for one in every]


def _by_label(truth: Sequence[Spans], said: Mapping[str, Sequence[Spans]]) -> dict[str, dict[str, Any]]:
    """Label -> who -> the scores of its spans alone."""
    labels = sorted({span[2] for spans in truth for span in spans})
    return {
        label: {who: scored(_only(label, truth), _only(label, spans)) for who, spans in said.items()}
        for label in labels
    }


def _only(label: str, every: Sequence[Spans]) -> list[Spans]:
    return [{span for span in spans if span[2] == label} for spans in every]


def _lines(found: Mapping[str, Any], said: Iterable[str]) -> list[str]:
    """For people: each set and each label, by who said it."""
    named = [*found["sets"].items(), *found["labels"].items()]
    scores = [(f"{name} {who}", row[who]) for name, row in named for who in said]
    return [
        f"{'':50}{'spans':>7}{'F1':>8}  95 %",
        *(
            f"{name:50}{one['spans']:>7}{one['f1']:>8.3f}  {one['low']:.3f} to {one['high']:.3f}"
            for name, one in scores
        ),
    ]


def scored(truth: Sequence[Spans], said: Sequence[Spans]) -> dict[str, Any]:
    """Precision, recall and F1 over the sentences, and the interval of F1 when the sentences are drawn anew."""
    counts = np.array([(len(a & b), len(a), len(b)) for a, b in zip(truth, said, strict=True)], np.float64)
    right, there, told = counts.sum(0)
    dice = np.random.default_rng(0)
    drawn = [counts[dice.integers(len(counts), size=len(counts))].sum(0) for _ in range(DRAWS)]
    f1 = np.array([2 * r / max(1, t + s) for r, t, s in drawn])
    return {
        "spans": int(there),
        "precision": right / max(1, told),
        "recall": right / max(1, there),
        "f1": 2 * right / max(1, there + told),
        "low": float(np.quantile(f1, 0.025)),
        "high": float(np.quantile(f1, 0.975)),
    }


def main() -> int:
    """Print the table of the card."""
    parser = argparse.ArgumentParser(prog="python -m edge_agent.workshop.train.tagger.measure", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the tagger")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="what it was trained on")
    parser.add_argument("--test", type=Path, nargs="+", required=True, help="what it is measured on")
    args = parser.parse_args()
    taught = [one for path in args.data for one in data.read(path)]
    found = measure(args.model, [(path, data.read(path)) for path in args.test], taught)
    print("\n".join(found["lines"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
