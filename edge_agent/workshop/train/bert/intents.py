"""What the vectors of an encoder are worth to tell intents apart: ATIS with a linear head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def atis(file: Path) -> tuple[list[str], list[str]]:
    """(sentences, intents) of an ATIS file in IOB form: `BOS words EOS<tab>tags intent`."""
    texts, intents = [], []
    for line in file.read_text(encoding="utf-8").splitlines():
        sentence, tags = line.split("\t")
        texts.append(" ".join(w for w in sentence.split() if w not in ("BOS", "EOS")))
        intents.append(tags.split()[-1])
    return texts, intents


def head_accuracy(
    x: NDArray[np.float32], y: NDArray[np.int64], test: NDArray[np.float32], truth: NDArray[np.int64]
) -> float:
    """Test accuracy of multinomial logistic regression (L2 penalty 1e-5, full-batch Adam, 1,500 steps)."""
    mean, spread = x.mean(0), x.std() + 1e-9
    x, test = (x - mean) / spread, (test - mean) / spread
    classes = int(y.max()) + 1
    w = np.zeros((x.shape[1] + 1, classes), np.float32)
    target = np.eye(classes, dtype=np.float32)[y]
    x, test = (np.hstack([a, np.ones((len(a), 1), np.float32)]) for a in (x, test))
    m, v = np.zeros_like(w), np.zeros_like(w)
    for step in range(1, 1501):
        z = x @ w
        p = np.exp(z - z.max(1, keepdims=True))
        g = x.T @ (p / p.sum(1, keepdims=True) - target) / len(x) + np.float32(1e-5) * w
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        w -= 0.02 * (1 - step / 1501) * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.99**step)) + 1e-9)
    return float(((test @ w).argmax(1) == truth).mean())


def intents(folder: Path, embedders: dict[str, Callable[[list[str]], NDArray[np.float32]]]) -> dict[str, Any]:
    """ATIS: a head on all training sentences, and on 5 and 20 a label (mean of ten draws), for each embedder."""
    train, labels = atis(folder / "atis-2.train.w-intent.iob")
    more, more_labels = atis(folder / "atis-2.dev.w-intent.iob")
    test, truth = atis(folder / "atis.test.w-intent.iob")
    names = sorted({*labels, *more_labels})
    y = np.array([names.index(n) for n in [*labels, *more_labels]])
    wanted = np.array([names.index(n) if n in names else len(names) for n in truth])
    found: dict[str, Any] = {"train": len(y), "test": len(wanted)}
    for name, vectors in embedders.items():
        x, t = vectors([*train, *more]), vectors(test)
        row = {"full": head_accuracy(x, y, t, wanted)}
        for shots in (5, 20):
            dice, got = np.random.default_rng(0), []
            for _ in range(10):
                keep = np.concatenate([dice.permutation(np.flatnonzero(y == c))[:shots] for c in range(len(names))])
                got.append(head_accuracy(x[keep], y[keep], t, wanted))
            row[f"shots_{shots}"] = float(np.mean(got))
        found[name] = row
    return found
