"""``recognise:MODEL?top=5&score=0.3``: a Frame -> the label of the whole picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.errors import ConfigError, InputError, ManifestError, ModelError, RefusedError
from edge_agent.manifest import Served
from edge_agent.pictures.boxes import Fit, preparer
from edge_agent.types import Finding, Floats, Frame, Pixels, Scores, Task
from edge_agent.uri import Uri, option

OPTIONS = {"score": "", "top": "5"}
"""score defaults to the manifest's"""
UNKNOWN = "unknown"
SUM = 0.1
"""how far the sum of probabilities may be from 1: a quantized softmax is rounded in every class"""


@dataclass(slots=True)
class Recogniser:
    """The task. Its input buffers are its own: one thread at a time."""

    model: Served
    prepare: Callable[[Pixels], tuple[npt.NDArray[Any], Fit]]
    labels: list[str]
    score: float
    top: int
    takes: tuple[type, ...] = (Frame,)

    @property
    def gives_names(self) -> list[str]:
        """The labels that it may give."""
        return [*self.labels, UNKNOWN]

    def __call__(self, item: Frame) -> Iterator[Finding]:
        """One Finding a Frame: its Scores. InputError for a bad result."""
        started = time.perf_counter()
        tensor, _ = self.prepare(item.image)
        prepared = time.perf_counter()
        outputs = self.model.net.run({self.model.net.inputs[0].name: tensor})
        inferred = time.perf_counter()
        try:
            shares = probabilities(outputs, self.model.manifest.family, len(self.labels))
        except (InputError, ModelError) as error:
            raise type(error)(f"{self.model.ref.name}: {item.name + ': ' if item.name else ''}{error}") from None
        best = np.argsort(-shares, kind="stable")[: self.top]
        scores = {self.labels[i]: float(shares[i]) for i in best}
        first = float(shares[best[0]])
        label = self.labels[best[0]] if first >= self.score else UNKNOWN
        spent = {
            "decode": item.decode_ms,
            "prepare": (prepared - started) * 1e3,
            "infer": (inferred - prepared) * 1e3,
            "finish": (time.perf_counter() - inferred) * 1e3,
        }
        yield Finding(item, Scores(label, first, scores), self.model.ref, spent)


def probabilities(outputs: dict[str, npt.NDArray[Any]], family: str, classes: int) -> Floats:
    """(classes,) float32 that sum to 1: of image-classifier as they come out, of image-classifier-logits by a softmax.

    RefusedError for another number of classes or what is no probability, InputError for a number that is not finite.
    """
    (array,) = outputs.values()
    found = array.reshape(-1).astype(np.float32)
    if len(found) != classes:
        raise RefusedError(f"the network gives {list(array.shape)}, but there are {classes} labels; correct labels")
    if not np.isfinite(found).all():
        raise InputError("the network gave numbers that are not finite (NaN or infinity); the result is refused")
    if family == "image-classifier-logits":
        power = np.exp(found - found.max())
        shares: Floats = power / power.sum()
        return shares
    total = float(found.sum())
    if found.min() < -SUM / 10 or abs(total - 1) > SUM:
        raise RefusedError(
            f"the network gives {found.min():.3g}..{found.max():.3g} with the sum {total:.3g} where probabilities are "
            'meant; family = "image-classifier-logits" in the manifest if it was exported without its softmax'
        )
    clipped: Floats = np.clip(found, 0, 1)
    return clipped


CLASSIFIERS = ("image-classifier", "image-classifier-logits")


def recognise(uri: Uri, model: Served, home: Path) -> Task:
    """Make the task. ConfigError for its options, ManifestError or RefusedError for a model that is no classifier."""
    manifest, net = model.manifest, model.net
    if manifest.task != "recognise" or model.input is None:
        raise ConfigError(f'"{uri}": {manifest.name} is no classifier of pictures (its task is {manifest.task})')
    if manifest.family not in CLASSIFIERS:
        raise ManifestError(f'{manifest.name}: unknown family "{manifest.family}"; known are {", ".join(CLASSIFIERS)}')
    if not manifest.labels or isinstance(manifest.labels, str):
        raise ManifestError(f"{manifest.name}: a classifier needs labels; give a file of one name a line")
    if len(net.inputs) != 1 or len(net.outputs) != 1:
        raise ManifestError(
            f"{manifest.name}: a classifier has one input and one output, this network {len(net.inputs)} and "
            f"{len(net.outputs)}"
        )
    try:
        prepare = preparer(model.input, net.inputs[0])
    except ModelError as error:
        raise type(error)(f"{manifest.name}: {error}") from None
    score = option(uri, OPTIONS, "score")
    return Recogniser(
        model=model,
        prepare=prepare,
        labels=unlike(manifest.labels),
        score=_number(uri, "score", 0, 1) if score else manifest.score,
        top=int(_number(uri, "top", 1, 1000)),
    )


def unlike(labels: list[str]) -> list[str]:
    """The labels, those that occur more than once with their index behind them (ImageNet has two cranes)."""
    return [f"{name} {i}" if labels.count(name) > 1 else name for i, name in enumerate(labels)]


def _number(uri: Uri, key: str, least: float, most: float) -> float:
    text = option(uri, OPTIONS, key)
    try:
        value = float(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise ConfigError(f'"{uri}": {key}={text} is no number from {least:g} to {most:g}')
    return value
