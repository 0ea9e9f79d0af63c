"""``anomaly:MODEL`` on what `edge-agent train anomaly` made: frames, sound or a series -> how unlike the normal ones.

Beside its network such a model has `calibration.json`: what goes in, which part of the score counts, the scores of
normal samples that it was not trained on, and the limit above which so many of them lie as was stated. A variational
autoencoder gives both parts of the negative ELBO (Kingma and Welling 2013, arXiv:1312.6114): how badly the sample is
rebuilt, in units of the usual error, and the KL divergence of its code from the prior.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.errors import ConfigError, InputError, ManifestError
from edge_agent.manifest import Served
from edge_agent.tasks.anomaly.line import numbers
from edge_agent.tasks.anomaly.series import OPTIONS, point
from edge_agent.tasks.transcribe.mel import HOP, RATE, WINDOW, bank
from edge_agent.types import Anomaly, Audio, Finding, Floats, Frame, Pixels, Text
from edge_agent.uri import Uri, option

CALIBRATION = "calibration"
"""role of the part"""
MOST_BYTES = 1_000_000
BANDS, MOMENTS = 80, 96
"""of a sound: of the mel scale, and of 10 ms each"""
SECONDS = MOMENTS * HOP / RATE
LEAST = 1e-10
TOP = 0.02
"""share of the cells of a heat map, the hottest, whose mean is the score"""
Doubles = npt.NDArray[np.float64]


class Calibration(msgspec.Struct, frozen=True):
    """What is known of the scores of normal samples."""

    kind: Literal["frames", "sound", "series"]
    score: Literal["reconstruction", "kl", "elbo", "distance"]
    """what counts"""
    variance: float
    """of the error of rebuilding, of normal samples; the unit of `reconstruction`"""
    normals: list[float]
    """scores of normal samples that it was not trained on, in order"""
    limit: float
    rate: float
    """share of normal samples that lie above the limit"""
    window: int = 0
    """points of a series that go in at once"""


def log_mel(sound: Floats) -> Floats:
    """(BANDS, MOMENTS) float32 in about 0..1 of SECONDS of sound at RATE: unlike Whisper's it knows how loud it is."""
    need = (MOMENTS - 1) * HOP + WINDOW
    padded = np.pad(sound, (0, max(0, need - len(sound))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[: need - WINDOW + 1 : HOP]
    power = np.abs(np.fft.rfft(windows * np.hanning(WINDOW).astype(np.float32))) ** 2
    return np.asarray((np.log10(np.maximum(bank() @ power.T, LEAST)) + 10) / 12, np.float32)


def parts_of(real: Doubles, given: dict[str, Any], calibration: Calibration) -> tuple[dict[str, float], Floats]:
    """The parts of the score of one sample, (…) as it went in, and its heat map; InputError for no finite number."""
    for array in given.values():
        if not np.isfinite(array).all():
            raise InputError("the network gave numbers that are not finite (NaN or infinity); the result is refused")
    if "heat" in given:
        heat = np.asarray(given["heat"][0], np.float32)
        hottest = np.sort(heat.ravel())[-max(1, round(TOP * heat.size)) :]
        return {"distance": float(hottest.mean())}, heat
    off = np.square(given["y"].reshape(real.shape).astype(np.float64) - real) / (2 * calibration.variance)
    parts = {"reconstruction": float(off.mean())}
    if "mean" in given:
        mean, log = (given[name].astype(np.float64) for name in ("mean", "log"))
        parts["kl"] = float((np.square(mean) + np.exp(log) - 1 - log).sum() / 2 / off.size)
        parts["elbo"] = parts["reconstruction"] + parts["kl"]
    return parts, np.asarray(off.reshape(-1, *off.shape[-2:]).mean(0), np.float32)


@dataclass(slots=True)
class Learned:
    """The task. Of one thread; it remembers sound and points that are not enough yet."""

    model: Served
    calibration: Calibration
    limit: float
    prepare: Callable[[Pixels], tuple[npt.NDArray[Any], Any]] | None
    """of frames"""
    takes: tuple[type, ...]
    value: str = "value"
    when: str = "time"
    _sound: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    _points: list[float] = field(default_factory=list)

    def __call__(self, item: Frame | Audio | Text) -> Iterator[Finding]:
        """A Finding of each picture, second of sound or window of points. InputError for what cannot be read."""
        began = time.perf_counter()
        for tensor in self._tensors(item):
            prepared = time.perf_counter()
            given = self.model.net.run({self.model.net.inputs[0].name: tensor})
            parts, heat = parts_of(tensor.astype(np.float64), given, self.calibration)
            spent = {"prepare": (prepared - began) * 1e3, "infer": (time.perf_counter() - prepared) * 1e3}
            error = parts[self.calibration.score]
            normals = self.calibration.normals
            parts["rank"] = bisect_left(normals, error) / max(1, len(normals))
            shown = heat if self.calibration.kind != "series" else None
            yield Finding(item, Anomaly(error, self.limit, parts, heat=shown), self.model.ref, spent)
            began = time.perf_counter()

    def _tensors(self, item: Frame | Audio | Text) -> Iterator[npt.NDArray[Any]]:
        if isinstance(item, Frame):
            assert self.prepare is not None
            yield self.prepare(item.image)[0]
        elif isinstance(item, Audio):
            if item.rate != RATE:
                raise InputError(f"{self.model.ref.name}: sound of {item.rate} samples a second; it takes {RATE}")
            self._sound = np.concatenate([self._sound, item.samples])
            size = round(SECONDS * RATE)
            while len(self._sound) >= size:
                yield log_mel(self._sound[:size])[None, None]
                self._sound = self._sound[size:]
            self._sound = self._sound[:0] if item.last else self._sound
        elif len(item.text.split()) == self.calibration.window:
            yield numbers(item.text, self.calibration.window)[:1]  # type: ignore[misc]
        else:
            self._points = [*self._points, point(item, self.value, self.when)[1]][-self.calibration.window :]
            if len(self._points) == self.calibration.window:
                yield np.array([self._points], np.float32)


def calibration_of(model: Served) -> Calibration | None:
    """What stands beside the network; None for one that stands alone. ManifestError for something else."""
    if CALIBRATION not in model.parts:
        return None
    with model.part(CALIBRATION) as path:
        raw = path.read_bytes()[: MOST_BYTES + 1]
    try:
        found = msgspec.json.decode(raw, type=Calibration)
    except msgspec.MsgspecError as error:
        raise ManifestError(f"{model.manifest.name}: calibration.json: {error}") from None
    if why := _wrong(found, model):
        raise ManifestError(f"{model.manifest.name}: {why}; train it anew")
    return found


def _wrong(found: Calibration, model: Served) -> str:
    """What of a calibration makes no sense for its network; empty where it does."""
    numbers = [found.limit, found.variance, *found.normals]
    if (
        not found.normals
        or not np.isfinite(numbers).all()
        or found.variance <= 0
        or sorted(found.normals) != found.normals
    ):
        return "calibration.json holds no scores"
    if (found.kind == "series") != (found.window > 0):
        return "calibration.json says no window of points, or one where there are none"
    wants = {"distance": "heat", "kl": "mean", "elbo": "mean"}.get(found.score, "y")
    given = [spec.name for spec in model.net.outputs]
    return "" if wants in given and len(model.net.inputs) == 1 else f'its network has no output "{wants}"'


def learned(uri: Uri, model: Served, calibration: Calibration) -> Learned:
    """Make the task. ConfigError for its options, ManifestError where model and calibration do not fit."""
    known = {"limit": "", "value": OPTIONS["value"], "time": OPTIONS["time"]}
    text = option(uri, known, "limit")
    try:
        limit = float(text) if text else calibration.limit
    except ValueError:
        limit = -1.0
    if not 0 < limit < np.inf:
        raise ConfigError(f'"{uri}": limit={text} is no score above 0; leave it out for the one that was calibrated')
    prepare = None
    if calibration.kind == "frames":
        if model.input is None:
            raise ManifestError(f"{model.manifest.name}: a model of frames needs [input]")
        from edge_agent.pictures.boxes import preparer

        prepare = preparer(model.input, model.net.inputs[0])
    takes: dict[str, tuple[type, ...]] = {"frames": (Frame,), "sound": (Audio,), "series": (Text,)}
    kind = takes[calibration.kind]
    return Learned(model, calibration, limit, prepare, kind, option(uri, known, "value"), option(uri, known, "time"))
