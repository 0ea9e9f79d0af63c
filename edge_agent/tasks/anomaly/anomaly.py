"""``anomaly:MODEL?limit=12``: a line of numbers, or a Frame -> how badly an autoencoder rebuilds it.

A line is as many numbers as the network takes, separated by commas or blanks, or a JSON array; or a whole multiple of
that: windows, whose errors are averaged (as MLPerf Tiny's reference scores a recording by its windows).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_agent.errors import ConfigError, InputError, ManifestError, ModelError
from edge_agent.manifest import Served
from edge_agent.tasks.anomaly.line import numbers
from edge_agent.types import Anomaly, Finding, Floats, Frame, Net, Pixels, Task, TensorSpec, Text
from edge_agent.uri import Uri, option

if TYPE_CHECKING:
    from edge_agent.pictures.boxes import Fit


OPTIONS = {"limit": ""}
AUTOENCODERS = ("autoencoder", "vae", "patches")


@dataclass(slots=True)
class Rebuilder:
    """An autoencoder as a function from what goes in to the error of what comes back."""

    net: Net
    source: TensorSpec
    sink: TensorSpec
    """the output that has the shape of the input"""

    @property
    def size(self) -> int:
        """Numbers that go in at once."""
        return math.prod(axis or 1 for axis in self.source.shape)

    def error(self, window: Floats) -> float:
        """Mean squared error of one window (size,), as it comes, in its units."""
        back = self.rebuilt(window)
        return float(np.mean(np.square(back - window.astype(np.float64))))

    def rebuilt(self, window: Floats) -> npt.NDArray[np.float64]:
        """What comes back for (size,) numbers. InputError where that is not finite."""
        tensor = quantized(window, self.source).reshape([axis or 1 for axis in self.source.shape])
        return self._back(tensor)

    def picture(self, tensor: npt.NDArray[Any]) -> float:
        """Mean squared error of a picture's tensor, as `preparer` filled it."""
        return float(np.mean(np.square(self._back(tensor) - self.real(tensor))))

    def real(self, tensor: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """The numbers (size,) that a tensor stands for."""
        values: npt.NDArray[np.float64] = tensor.reshape(-1).astype(np.float64)
        return (values - self.source.zero_point) * self.source.scale if self.source.scale else values

    def _back(self, tensor: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        back = self.net.run({self.source.name: tensor})[self.sink.name].reshape(-1).astype(np.float64)
        if len(back) != tensor.size or not np.isfinite(back).all():
            raise InputError("the network gave numbers that are not finite (NaN or infinity); the result is refused")
        return back


@dataclass(slots=True)
class AnomalyTask:
    """The task."""

    model: Served
    rebuild: Rebuilder
    prepare: Callable[[Pixels], tuple[npt.NDArray[Any], Fit]] | None
    """None for numbers"""
    limit: float | None
    takes: tuple[type, ...]

    def __call__(self, item: Frame | Text) -> Iterator[Finding]:
        """One Finding with the Anomaly. InputError for a line that is no such list of numbers, or a bad result."""
        began = time.perf_counter()
        spent = {"decode": item.decode_ms} if isinstance(item, Frame) else {}
        if isinstance(item, Frame):
            assert self.prepare is not None
            tensor, _ = self.prepare(item.image)
            prepared = time.perf_counter()
            error = self.rebuild.picture(tensor)
        else:
            windows = numbers(item.text, self.rebuild.size)
            prepared = time.perf_counter()
            error = float(np.mean([self.rebuild.error(window) for window in windows]))
        spent |= {"prepare": (prepared - began) * 1e3, "infer": (time.perf_counter() - prepared) * 1e3}
        yield Finding(item, Anomaly(error, self.limit), self.model.ref, spent)


def anomaly(uri: Uri, model: Served | None, home: Path) -> Task:
    """Make the task. ConfigError for its options, ManifestError for a model that is no autoencoder."""
    if model is None:
        from edge_agent.tasks.anomaly.series import series

        return series(uri, home)
    manifest = model.manifest
    if manifest.task != "anomaly":
        raise ConfigError(f'"{uri}": {manifest.name} is no autoencoder (its task is {manifest.task})')
    if manifest.family not in AUTOENCODERS:
        raise ManifestError(f'{manifest.name}: unknown family "{manifest.family}"; known are {", ".join(AUTOENCODERS)}')
    from edge_agent.tasks.anomaly.learned import calibration_of, learned

    if (calibration := calibration_of(model)) is not None:
        return learned(uri, model, calibration)
    limit = _limit(uri)
    rebuild = rebuilder(model)
    prepare = None
    if model.input is not None:
        from edge_agent.pictures.boxes import preparer  # it loads cv2, which a device that reads numbers does not need

        try:
            prepare = preparer(model.input, rebuild.source)
        except ModelError as error:
            raise type(error)(f"{manifest.name}: {error}") from None
    return AnomalyTask(model, rebuild, prepare, limit, (Frame,) if prepare else (Text,))


def _limit(uri: Uri) -> float | None:
    """The limit of an error that a config gives. ConfigError."""
    text = option(uri, OPTIONS, "limit")
    if not text:
        return None
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise ConfigError(f'"{uri}": limit={text} is no error above 0; run without it to see what is usual')
    return limit


def rebuilder(model: Served) -> Rebuilder:
    """The network as a Rebuilder. ManifestError when no output has the shape of its one input."""
    net = model.net
    if len(net.inputs) != 1:
        raise ManifestError(f"{model.manifest.name}: an autoencoder has one input, this network {len(net.inputs)}")
    source = net.inputs[0]
    same = [spec for spec in net.outputs if spec.shape[1:] == source.shape[1:]]
    if not same:
        raise ManifestError(f"{model.manifest.name}: no output has the shape of its input {list(source.shape)}")
    return Rebuilder(net, source, same[0])


def quantized(values: Floats, spec: TensorSpec) -> npt.NDArray[Any]:
    """Real numbers as the tensor wants them: int8 or uint8 by its scale and zero point, floats as they are."""
    if not spec.scale:
        return values.astype(spec.dtype)
    kind = np.iinfo(spec.dtype)
    steps = np.clip(np.rint(values / spec.scale) + spec.zero_point, kind.min, kind.max)
    tensor: npt.NDArray[Any] = steps.astype(spec.dtype)
    return tensor
