"""``detect:MODEL?score=0.3&iou=0.5&classes=person,car&max=300``: a Frame -> the boxes found in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.errors import ConfigError, InputError, ManifestError, ModelError, nearest
from edge_agent.events.objects import clock_of
from edge_agent.families.candidates import Candidates, HeadLayout
from edge_agent.families.family import Family
from edge_agent.families.same import SAME
from edge_agent.families.table import FAMILIES
from edge_agent.manifest import Served
from edge_agent.pictures.boxes import Fit, nms, preparer, to_frame
from edge_agent.pictures.motion import Gate
from edge_agent.redact import redact
from edge_agent.types import Detections, Finding, Frame, Ints, Net, Pixels, Task
from edge_agent.uri import Uri, number, option, switch

EDGE = 2
"""pixels from the edge of a part at which a box counts as cut off"""
ENDINGS = (("ies", "y"), ("ves", "f"), ("es", ""), ("s", ""))
"""of a plural, and of its singular"""
OPTIONS = {"score": "", "iou": "", "classes": "", "max": "300", "low": "1", "motion": "off", "closer": "false"}
OPTIONS |= {"also": "", "also_ms": "300", "also_token": ""}
"""score and iou default to the manifest's, classes to all; low: fainter boxes from this score on, for `track`; motion:
seconds at most between two looks while nothing moves; closer: a second look at a small part in which something does;
also: address of a neighbour that looks, too, its milliseconds, and a file with the token that it wants (also.py)"""


class Detector(msgspec.Struct):
    """The task. Its input buffers are its own: one thread at a time; two workers make two of it on one model."""

    model: Served
    family: Family
    head: HeadLayout
    prepare: Callable[[Pixels], tuple[npt.NDArray[Any], Fit]]
    score: float
    low: float
    """score from which on there are boxes for a tracker, where that is below `score`"""
    iou: float
    limit: int
    ids: Ints
    """reported id of each class index of the head"""
    wanted: Ints | None
    """class indices that are reported; None: all"""
    names: dict[int, str]
    takes: tuple[type, ...] = (Frame,)

    @property
    def gives_names(self) -> list[str]:
        """The labels that its boxes may have."""
        ids = self.ids if self.wanted is None else self.ids[self.wanted]
        return [self.names[int(key)] for key in ids]

    def __call__(self, item: Frame) -> Iterator[Finding]:
        """One Finding a Frame, of boxes in the frame's pixels, best score first. InputError for a bad result."""
        started = time.perf_counter()
        tensor, place = self.prepare(item.image)
        prepared = time.perf_counter()
        outputs = self.model.net.run({self.model.net.inputs[0].name: tensor})
        inferred = time.perf_counter()
        try:
            found = self._finish(self.family.decode(outputs, self.head, min(self.low, self.score)), place)
        except (InputError, ModelError) as error:
            raise type(error)(f"{self.model.ref.name}: {item.name + ': ' if item.name else ''}{error}") from None
        spent = {
            "decode": item.decode_ms,
            "prepare": (prepared - started) * 1e3,
            "infer": (inferred - prepared) * 1e3,
            "finish": (time.perf_counter() - inferred) * 1e3,
        }
        yield Finding(item, found, self.model.ref, spent)

    def _finish(self, some: Candidates, place: Fit) -> Detections:
        """Candidates on the canvas -> Detections in the frame: wanted classes, NMS, clipped, at most `limit`."""
        xyxy, score, label = some.xyxy, some.score, some.label
        if self.wanted is not None:
            keep = np.flatnonzero(np.isin(label, self.wanted))
            xyxy, score, label = xyxy[keep], score[keep], label[keep]
        order = nms(xyxy, score, label, self.iou) if self.family.nms else np.argsort(-score, kind="stable")
        xyxy = to_frame(xyxy[order], place)
        # a box that lies on the grey border alone has no area once it is clipped
        inside = (xyxy[:, 2:] > xyxy[:, :2]).all(axis=1)
        order, xyxy = order[inside][: self.limit], xyxy[inside][: self.limit]
        return Detections(xyxy, score[order], self.ids[label[order]], self.names, self.score)


class Watched(msgspec.Struct):
    """A detector that looks only where something has moved, and now and then. One camera, one thread."""

    detector: Detector
    gate: Gate
    closer: bool = False
    last: Detections | None = None
    takes: tuple[type, ...] = (Frame,)

    @property
    def score(self) -> float:
        """The detector's."""
        return self.detector.score

    @score.setter
    def score(self, value: float) -> None:
        self.detector.score, self.last = value, None

    @property
    def gives_names(self) -> list[str]:
        """The labels that its boxes may have."""
        return self.detector.gives_names

    def __call__(self, item: Frame) -> Iterator[Finding]:
        """As of the detector. While nothing moves, what was found last is still there."""
        started = time.perf_counter()
        look = self.gate(item.image, clock_of(item))
        spent = {"motion": (time.perf_counter() - started) * 1e3}
        if not look and self.last is not None:
            yield Finding(item, self.last, self.detector.model.ref, {"decode": item.decode_ms, **spent})
            return
        self.last = None
        for found in self.detector(item):
            what = found.what
            assert isinstance(what, Detections)
            if self.closer and (region := self.gate.region()) is not None:
                began = time.perf_counter()
                what = self._closer(item, what, region)
                spent["closer"] = (time.perf_counter() - began) * 1e3
            self.last = msgspec.structs.replace(what, looked=False)
            yield msgspec.structs.replace(found, what=what, spent_ms={**spent, **found.spent_ms})

    def _closer(self, item: Frame, what: Detections, region: tuple[int, int, int, int]) -> Detections:
        """What was found, with what is found in a part of the frame, where everything is twice as large."""
        left, top, right, bottom = region
        image = np.ascontiguousarray(item.image[top:bottom, left:right])
        (found,) = self.detector(msgspec.structs.replace(item, image=image))
        more = found.what
        assert isinstance(more, Detections)
        # what the edge of the part cuts off is seen whole in the frame
        sides = np.array([right - left, bottom - top], np.float32)
        whole = ((more.xyxy[:, :2] > EDGE) & (more.xyxy[:, 2:] < sides - EDGE)).all(axis=1)
        xyxy = np.concatenate([what.xyxy, more.xyxy[whole] + np.array([left, top] * 2, np.float32)])
        score = np.concatenate([what.score, more.score[whole]])
        label = np.concatenate([what.label, more.label[whole]])
        best = nms(xyxy, score, label, self.detector.iou)[: self.detector.limit]
        return msgspec.structs.replace(what, xyxy=xyxy[best], score=score[best], label=label[best])


def detect(uri: Uri, model: Served, home: Path) -> Task:
    """Make the task. ConfigError for its options, ManifestError or RefusedError for a model that cannot detect."""
    manifest = model.manifest
    if manifest.task != "detect" or model.input is None:
        raise ConfigError(f'"{uri}": {manifest.name} is no detector (its task is {manifest.task}); name one that is')
    if manifest.family not in FAMILIES:
        raise ManifestError(f'{manifest.name}: unknown family "{manifest.family}"{nearest(manifest.family, FAMILIES)}')
    family = FAMILIES[manifest.family]
    labels = manifest.labels
    if not labels or isinstance(labels, str):
        raise ManifestError(f"{manifest.name}: a detector needs labels; give a file of one name a line")
    _one_input(manifest.name, model.net)
    if "iou" in uri.options and not family.nms:
        raise ConfigError(
            f'"{uri}": iou does nothing, as {manifest.family} suppresses overlaps in the network; drop it'
        )
    try:
        prepare = preparer(model.input, model.net.inputs[0])
    except ModelError as error:
        raise type(error)(f"{manifest.name}: {error}") from None
    ids = np.array(manifest.class_ids or range(len(labels)), np.int32)
    score = _number(uri, "score", manifest.score, 1)
    detector = Detector(
        model=model,
        family=family,
        head=HeadLayout(model.input.width, model.input.height, len(ids)),
        prepare=prepare,
        score=score,
        low=_number(uri, "low", 1, 1),
        iou=_number(uri, "iou", manifest.iou, 1),
        limit=_whole(uri, "max", 10_000),
        ids=ids,
        wanted=_wanted(uri, labels),
        names=manifest.names(),
    )
    return _asking(uri, _watched(uri, detector))


def _asking(uri: Uri, task: Task) -> Task:
    """The task, which may ask a neighbour if the options say so. ConfigError for those."""
    address = option(uri, OPTIONS, "also")
    if not address:
        return task
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f'"{uri}": also={redact(address)} is no address; write e.g. also=http://neighbour.local:8484')
    from edge_agent.tasks.detect.also import Also

    wait = number(uri, OPTIONS, "also_ms", 10, 60_000)
    return Also(task, f"{parts.scheme}://{parts.hostname}:{parts.port or ''}".rstrip(":"), wait / 1000)


def _watched(uri: Uri, detector: Detector) -> Task:
    """The detector, which looks only where something has moved if the options say so. ConfigError for those."""
    seconds = number(uri, OPTIONS, "motion", 0.1, 3600)
    closer = switch(uri, OPTIONS, "closer")
    if closer and not seconds:
        raise ConfigError(f'"{uri}": closer needs motion; add motion=5')
    return Watched(detector, Gate(seconds), closer) if seconds else detector


def _one_input(name: str, net: Net) -> None:
    """ManifestError for a network that takes more than a picture."""
    if len(net.inputs) != 1:
        given = ", ".join(spec.name for spec in net.inputs)
        raise ManifestError(f"{name}: a detector takes one picture, but this network has inputs {given}")


def _number(uri: Uri, key: str, default: float, most: float) -> float:
    """An option between 0 and `most`."""
    text = option(uri, OPTIONS, key)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise ConfigError(f'"{uri}": {key}={text} is no number from 0 to {most:g}; write one')
    return value


def _whole(uri: Uri, key: str, most: int) -> int:
    """An option that counts, from 0 to `most`."""
    value = _number(uri, key, 0, most)
    if value != int(value):
        raise ConfigError(f'"{uri}": {key}={uri.options[key]} is no whole number from 0 to {most}; write one')
    return int(value)


def _wanted(uri: Uri, labels: list[str]) -> Ints | None:
    """``classes=person,car`` -> class indices of the head, in whatever case they are written."""
    text = option(uri, OPTIONS, "classes")
    if not text and "classes" not in uri.options:
        return None
    indices: dict[str, list[int]] = {}
    for index, name in enumerate(labels):
        indices.setdefault(name.casefold(), []).append(index)
    wanted: list[int] = []
    for given in (part.strip().casefold() for part in text.split(",")):
        if not given:
            raise ConfigError(f'"{uri}": classes names nothing, or ends in a comma; write e.g. classes={labels[0]}')
        if given not in indices:
            raise ConfigError(f'"{uri}": no class "{given}"{nearest_class(given, labels)}')
        wanted += indices[given]
    return np.array(wanted, np.int32)


def nearest_class(given: str, labels: Iterable[str]) -> str:
    """The end of a message on a class that a model does not know: another word for it, its singular, its spelling."""
    kinds = {word.replace("_", " "): group for group in SAME for word in group.split()}
    meant: dict[str, str] = {}
    for one in (given, *(given.removesuffix(end) + new for end, new in ENDINGS if given.endswith(end))):
        meant[given] = f"{meant.get(given, '')} {one.replace(' ', '_')} {kinds.get(one, '')}"
    return nearest(given, labels, meant, cutoff=0.75)
