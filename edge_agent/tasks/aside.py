"""How networks that no stream runs on prove themselves, and how two of them are compared.

Two purposes: `draw` makes pictures of codes (input z (n, d) float32, output (n, 3, h, w) in 0..1), `clear` makes a line
of print more readable (a picture as [input] says, the same shape comes back).
"""

from __future__ import annotations

import numpy as np

from edge_agent.errors import RefusedError
from edge_agent.manifest import Served
from edge_agent.pictures.boxes import preparer
from edge_agent.samples.carried import notice
from edge_agent.tasks.proofs import Recorder
from edge_agent.types import Floats

CODES, STRIPS = 16, 12
"""codes that are drawn from, and strips of the carried notice that are cleared"""


def prove(model: Served, seen: Recorder) -> list[str]:
    """Run it on what it is for. Notes on what it gives; RefusedError where that makes no sense."""
    told = _answers(model)
    if (told == told[0]).all():
        raise RefusedError(f"it gives the same picture whatever goes in, on {len(told)} samples")
    return [f"{len(told)} pictures of {told.shape[3]}x{told.shape[2]}, from {told.min():.3f} to {told.max():.3f}"]


def compare(one: Served, other: Served) -> tuple[float, int, str]:
    """How alike the pictures are: 1 less the difference (root of the mean square) over the spread of the parent's; on
    how many, and what that is.
    """
    mine, theirs = _answers(one), _answers(other)
    if mine.shape != theirs.shape:
        raise RefusedError(f"its pictures are {list(mine.shape)}, its parent's {list(theirs.shape)}")
    off = float(np.sqrt(np.square(mine - theirs).mean()) / max(float(theirs.std()), 1e-9))
    return max(0.0, 1 - off), len(theirs), "likeness of the pictures"


def _answers(model: Served) -> Floats:
    """What it gives for samples, (n, channels, h, w). RefusedError for what are no pictures."""
    source, sink = model.net.inputs[0], model.net.outputs[0]
    given = _given(model)
    told = [np.asarray(model.net.run({source.name: one})[sink.name], np.float32) for one in given]
    alike = told[0].ndim == 4 and told[0].shape[1] in (1, 3)
    if not alike or (model.manifest.task == "clear" and told[0].shape != given[0].shape):
        raise RefusedError(f"its output {sink.name} is {list(told[0].shape)}, which is no picture of what went in")
    pictures: Floats = np.concatenate(told)
    if not np.isfinite(pictures).all():
        raise RefusedError(f"its output {sink.name} holds numbers that are not finite")
    return pictures


def _given(model: Served) -> list[Floats]:
    """Codes to draw from, or strips of the carried notice. RefusedError for a network that takes neither."""
    source, *more = model.net.inputs
    if not more and model.manifest.task == "clear" and model.input is not None:
        prepare = preparer(model.input, source)
        return [prepare(np.ascontiguousarray(part))[0].copy() for part in np.array_split(notice().image, STRIPS)]
    width = source.shape[1] if len(source.shape) == 2 and not more else None
    if model.manifest.task != "draw" or width is None:
        raise RefusedError(f"no network of the task {model.manifest.task}: its first input is {list(source.shape)}")
    return list(np.random.default_rng(0).standard_normal((CODES, 1, width)).astype(np.float32))
