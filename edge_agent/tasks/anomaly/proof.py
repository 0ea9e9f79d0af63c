"""How a detector of unusual readings proves itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_agent.errors import InputError, RefusedError
from edge_agent.manifest import Served
from edge_agent.paths import home
from edge_agent.samples.carried import frames, text
from edge_agent.samples.recorded import MOST_LINES, lines
from edge_agent.samples.sounds import sounds
from edge_agent.tasks import make_task
from edge_agent.tasks.anomaly.anomaly import Rebuilder, rebuilder
from edge_agent.tasks.anomaly.learned import SECONDS, calibration_of
from edge_agent.tasks.anomaly.line import numbers
from edge_agent.tasks.proofs import Recorder
from edge_agent.tasks.transcribe.mel import RATE
from edge_agent.types import Anomaly, Audio, Finding, Floats
from edge_agent.uri import Uri

ALIKE = 1e-9
"""mean squared error below which an autoencoder only copies"""


def prove(model: Served, seen: Recorder) -> list[str]:
    """Run it on what it is for. Notes on what it says; RefusedError where that makes no sense."""
    task = make_task(Uri("anomaly", model.ref.name), lambda _: model, home())
    learned = calibration_of(model)
    shown: list[Any] = list(frames().values()) if model.input is not None else windows(model)
    seen.outputs.clear()
    errors = []
    for item in shown:
        (finding,) = task(item)
        assert isinstance(finding, Finding) and isinstance(finding.what, Anomaly)
        errors.append(finding.what.error)
    # one that knows but the mean gives that back always
    sink = model.net.outputs[0].name if learned is not None else rebuilder(model).sink.name
    same = all(np.array_equal(seen.outputs[0][sink], outputs[sink]) for outputs in seen.outputs)
    if same if learned is None else len(set(errors)) == 1:
        raise RefusedError(f"it gives the same output whatever goes in, on {len(shown)} samples")
    if max(errors) < ALIKE:
        raise RefusedError("it gives back exactly what goes in: an error of 0 tells nothing")
    return [f"error {min(errors):.4g} to {max(errors):.4g} on {len(shown)} samples"]


ENOUGH = 16
"""recorded windows from which on none is made up"""
NOISE = (0.0, 0.25, 0.5, 0.75, 1.0)
"""on a window, in standard deviations of it"""


def windows(model: Served) -> list[Any]:
    """Lines of numbers for an autoencoder: the recorded ones that it can take, each also with noise; or pieces of sound
    for one of sounds.

    Where there are not enough of them: what the model itself makes of noise lies where its data lies, and stands in
    for it, with more and more noise on it. That finds a variant that is broken, recorded data finds a worse one too.
    """
    learned = calibration_of(model)
    if learned is not None and learned.kind == "sound":
        return _pieces()
    rebuild, rng = rebuilder(model), np.random.default_rng(0)
    found = _recorded(rebuild.size)
    if len(found) < ENOUGH:
        found = _made_up(rebuild, rng)
    spreads = [float(window.std()) or 1.0 for window in found]
    made = [
        window + rng.normal(0, part * spread, rebuild.size)
        for window, spread in zip(found, spreads, strict=True)
        for part in NOISE
    ]
    return [text(" ".join(f"{x:.6g}" for x in window)) for window in made]


def _recorded(size: int) -> list[Floats]:
    """Windows of so many numbers that were recorded here."""
    found: list[Floats] = []
    for line in lines():
        try:
            found.extend(numbers(line, size))
        except InputError:
            continue
    return found[:MOST_LINES]


def _made_up(rebuild: Rebuilder, rng: np.random.Generator) -> list[Floats]:
    """What the model makes of noise of several strengths."""
    noise = [rng.normal(0, spread, rebuild.size).astype(np.float32) for spread in (1, 10, 30) for _ in range(8)]
    return [rebuild.rebuilt(some).astype(np.float32) for some in noise]


def _pieces() -> list[Any]:
    """Pieces of the sounds that are made here, each as long as a model of sound takes."""
    size = round(SECONDS * RATE)
    pieces = [sound[at : at + size] for sound in sounds().values() for at in range(0, len(sound) - size, size)]
    return [Audio(piece, 0.0, 0.0, last=True) for piece in pieces]
