"""How good drawn pictures are, by the features of our detector: Fréchet distance, precision and recall, memorisation.

Fréchet distance: Heusel et al., arXiv 1706.08500, on other features, so its numbers compare with none but those here.
Precision (how many drawn pictures lie among real ones) and recall (the other way round): Kynkäänniemi et al., arXiv
1904.06991, with the third neighbour. Memorisation: how near drawn pictures are to pictures that were learnt from,
beside how near real pictures are that were not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.backends import open_net
from edge_agent.gate.admit import admit, seen
from edge_agent.graphs.cut import Cuttable
from edge_agent.registry import catalogue
from edge_agent.registry.files import parts_of
from edge_agent.tasks.state.features import reader

DETECTOR = "edge-yolo"
"""whose features are used: it is always here"""
NEIGHBOUR = 3
AXES = 64
"""main axes of the features that are kept: fewer than there are pictures, so that a covariance is one"""
Doubles = npt.NDArray[np.float64]
Squares = npt.NDArray[np.uint8]


class Figures(msgspec.Struct, frozen=True):
    """Of pictures beside real ones that were held back."""

    frechet: float
    precision: float
    recall: float
    nearness: float
    """median distance to the nearest picture that was learnt from, over that of real pictures held back: 1 for as far,
    0 for a copy"""
    copies: float
    """share that is nearer to one than 99 of 100 of the real pictures held back"""


def features(pictures: Squares) -> Doubles:
    """(n, d) of pictures (n, side, side, 3), red first."""
    located = catalogue.locate(DETECTOR, read=seen)
    row = min((row for row in located.manifest.networks() if row.format == "onnx"), key=lambda r: r.precision != "fp32")
    assert located.manifest.input is not None
    fitted = msgspec.structs.replace(located.manifest.input, letterbox="stretch", resize="area")
    with TemporaryDirectory() as folder:
        whole, out = Cuttable(admit(located, row, parts_of(located)).path), Path(folder) / "maps.onnx"
        whole.write(out, {name: f"map:{number:02}" for number, name in enumerate(whole.maps())})
        read = reader(open_net(out, "onnx", 0), fitted)
        return np.stack([read(np.ascontiguousarray(one[:, :, ::-1])) for one in pictures]).astype(np.float64)


def measured(learnt: Doubles, held: Doubles, others: Sequence[Doubles]) -> list[Figures]:
    """Of each of `others` (features of pictures) the figures, beside what was learnt from and what was held back."""
    mean, spread = learnt.mean(0), learnt.std(0) + 1e-6
    _, _, axes = np.linalg.svd((learnt - mean) / spread, full_matrices=False)

    def put(one: Doubles) -> Doubles:
        return np.asarray((one - mean) / spread @ axes[:AXES].T)

    known, real = put(learnt), put(held)
    usual = nearest(real, known, 1)
    rows = []
    for drawn in map(put, others):
        own = nearest(drawn, known, 1)
        rows.append(
            Figures(
                frechet(real, drawn),
                among(drawn, real),
                among(real, drawn),
                float(np.median(own) / max(float(np.median(usual)), 1e-9)),
                float((own < np.quantile(usual, 0.01)).mean()),
            )
        )
    return rows


def frechet(a: Doubles, b: Doubles) -> float:
    """|m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½) of the normal distributions that fit two sets of rows."""
    one, other = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    both = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other @ root), 0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(one) + np.trace(other) - 2 * both)


def distances(a: Doubles, b: Doubles) -> Doubles:
    """(len(a), len(b)) of rows, Euclidean."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squares, 0)))


def nearest(a: Doubles, b: Doubles, which: int) -> Doubles:
    """Distance of each row of `a` to its `which`th nearest of `b`."""
    return np.asarray(np.partition(distances(a, b), which - 1, axis=1)[:, which - 1])


def among(a: Doubles, b: Doubles) -> float:
    """Share of the rows of `a` that lie nearer to some row of `b` than that row's NEIGHBOURth neighbour in `b`."""
    reach = np.partition(distances(b, b), NEIGHBOUR, axis=1)[:, NEIGHBOUR]
    return float((distances(a, b) <= reach[None]).any(axis=1).mean())
