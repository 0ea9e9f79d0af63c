"""What a model is calibrated and compared on: pictures, frames of a video, what the agent recorded, lines of text.

The samples reach the network through the task that serves it, so they are letterboxed, or cut into word pieces, as the
agent does it.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.errors import EdgeAgentError, InputError
from edge_agent.figures.coco_map import Truth
from edge_agent.manifest import Input, Served
from edge_agent.paths import home
from edge_agent.pictures.read import read_picture
from edge_agent.sources import open_source
from edge_agent.sources.files import PICTURES
from edge_agent.tasks import PLAIN, make_task
from edge_agent.types import Frame, Task, Tensors, Text
from edge_agent.uri import Uri
from edge_agent.workshop.data.pictures import LABEL_FILES, read_pictures, spread
from edge_agent.workshop.data.texts import numbers_of, read_texts, text_of

Say = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)"""
Item: TypeAlias = "Frame | Text"

RECORDED = "recorded"
"""as --data: what the agent recorded, HOME/samples"""
LEAST = 4
"""samples: two to search with and two to report on"""
ROOM = 1 << 30
"""bytes of pictures that are kept in memory"""
BAR = 0.04
"""share of a side that a border of one grey takes at least, to be called one"""
GREYS = (24, 235)
"""greys between which a border is no black bar and no white background"""


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples in memory, in the order in which they were found."""

    items: list[Item]
    source: str
    """what they were read from"""
    digests: list[str]
    """SHA-256 of each one's pixels or words"""
    follow: bool = False
    """neighbours look alike, as in a video"""
    truth: Truth | None = None
    """the boxes that people drew in these pictures, with class ids as in `names`; None when there are none"""
    names: Mapping[int, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def sha256(self) -> str:
        """Of all samples, in their order."""
        return hashlib.sha256("\n".join(self.digests).encode()).hexdigest()

    def pick(self, places: Sequence[int]) -> Samples:
        """Those at these places, in this order."""
        items, digests = [self.items[i] for i in places], [self.digests[i] for i in places]
        return replace(self, items=items, digests=digests, truth=_only(self.truth, places))

    def halves(self) -> tuple[Samples, Samples]:
        """One to search with and one to report on: every second sample, or the first and the last part of a video."""
        count = len(self.items)
        if self.follow:
            return self.pick(range(count // 2)), self.pick(range(count // 2, count))
        return self.pick(range(0, count, 2)), self.pick(range(1, count, 2))


def read(data: Path, parent: Served, most: int, say: Say) -> Samples:
    """At most `most` samples of what `parent` takes, spread evenly over `data`, no two the same.

    Pictures: a folder, a COCO JSON file (its boxes come along), one video or a glob. Texts: as ``evaluate`` reads
    them, and a folder of .txt files. Numbers: a line an input. `recorded`: HOME/samples. Raises InputError, one line,
    for what is empty, unreadable, too little, or was letterboxed before.
    """
    if str(data) == RECORDED and not data.exists():
        data = home() / "samples"
    pictures = parent.input is not None
    if data.suffix.lower() in (".npy", ".npz", ".raw") or (data.suffix.lower() == ".bin" and pictures):
        raise InputError(
            f"{data}: these tensors were prepared elsewhere, perhaps letterboxed otherwise than the agent does it; "
            "give the pictures or texts themselves"
        )
    try:
        found = _frames(data, most, say) if pictures else _texts(data, parent, most)
    except EdgeAgentError as error:
        raise InputError(f"samples: {error}") from None
    first = {digest: place for place, digest in reversed(list(enumerate(found.digests)))}
    twice = len(found.items) - len(first)
    found = found.pick(sorted(first.values()))
    if twice:
        found = replace(found, notes=(*found.notes, f"{twice} samples are there twice and count once"))
    if len(found.items) < LEAST:
        raise InputError(f"samples: {data} has {len(found.items)} different samples; give {LEAST} or more")
    if parent.input is not None:
        _refuse_letterboxed([item for item in found.items if isinstance(item, Frame)], parent.input, data)
    return found


def feeds(parent: Served, samples: Samples) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """The tensors that the network is given for each sample, by the names of its inputs, each with a batch of one."""
    feed = _feeder(parent)
    return (feed(item) for item in samples.items)


def _feeder(parent: Served) -> Callable[[Item], dict[str, npt.NDArray[Any]]]:
    """A function from a sample to what the task gives to the network. It raises InputError as the task does."""
    seen: dict[str, npt.NDArray[Any]] = {}
    made = False

    def run(tensors: Tensors) -> dict[str, Any]:
        # a task may try the network when it is made
        if not made:
            return parent.net.run(tensors)
        seen.update({name: np.array(tensor) for name, tensor in tensors.items()})
        raise _Seen

    task = served_by(msgspec.structs.replace(parent, net=msgspec.structs.replace(parent.net, run=run)))
    made = True

    def feed(item: Item) -> dict[str, npt.NDArray[Any]]:
        seen.clear()
        with contextlib.suppress(_Seen):
            for _ in task(item):
                pass
        return dict(seen)

    return feed


class _Seen(Exception):
    """The network's input is known; nothing more is wanted."""


def served_by(model: Served, options: Mapping[str, str] | None = None) -> Task:
    """The task that serves a model of this kind."""
    return make_task(Uri(PLAIN[model.manifest.task], model.ref.name, options or {}), lambda _: model, home())


def shared_with(samples: Samples, other: Samples) -> list[str]:
    """Names of the samples that `other` has too, the very same ones or pictures that look the same."""
    theirs, looks = set(other.digests), np.array([_look(item) for item in other.items])
    found = []
    for item, digest in zip(samples.items, samples.digests, strict=True):
        alike = isinstance(item, Frame) and bool((np.abs(looks - _look(item)).mean(axis=1) < ALIKE).any())
        if digest in theirs or alike:
            found.append(item.name if isinstance(item, Frame) else item.text[:40])
    return found


ALIKE = 2.0
"""mean difference of grey values, 0..255, of two pictures at 16x16 below which they show the same"""


def _look(item: Item) -> npt.NDArray[np.float32]:
    """A picture as 16x16 grey values, each the mean of its cell: (256,) float32."""
    if not isinstance(item, Frame):
        return np.full(256, np.inf, np.float32)
    grey = item.image.mean(axis=2, dtype=np.float32)
    edges = [np.linspace(0, side, 17).astype(int) for side in grey.shape]
    rows = np.add.reduceat(grey, np.minimum(edges[0][:-1], grey.shape[0] - 1), axis=0)
    cells = np.add.reduceat(rows, np.minimum(edges[1][:-1], grey.shape[1] - 1), axis=1)
    count = np.outer(np.maximum(np.diff(edges[0]), 1), np.maximum(np.diff(edges[1]), 1))
    look: npt.NDArray[np.float32] = (cells / count).astype(np.float32).ravel()
    return look


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────


def _texts(data: Path, parent: Served, most: int) -> Samples:
    """Lines that the model's task can read."""
    paths = sorted(data.glob("*.txt")) if data.is_dir() else [data]
    if not paths:
        raise InputError(f"{data}: no .txt file in this folder; give a file of one text a line")
    feed = _feeder(parent)
    lines, bad = [], []
    for line in (line for path in paths for line in _lines(path, parent)):
        try:
            feed(Text(line, 0.0, 0.0))
        except InputError as error:
            bad.append(str(error))
            continue
        lines.append(line)
    if not lines:
        raise InputError(f"{data}: none of {len(bad)} lines can be read; the first: {bad[0]}")
    lines = [lines[i] for i in spread(len(lines), most)]
    digests = [hashlib.sha256(line.encode()).hexdigest() for line in lines]
    notes = [f"{len(bad)} lines cannot be read and are left out; the first: {bad[0]}"] if bad else []
    return Samples([Text(line, 0.0, 0.0) for line in lines], str(data), digests, notes=notes)


def _lines(path: Path, parent: Served) -> list[str]:
    """Texts, or, for a network of numbers, lines of them; a .bin is float32, low byte first, a line an input."""
    if parent.manifest.text is not None:
        return read_texts(path).texts
    if path.suffix.lower() != ".bin":
        return [line for line in text_of(path, "give lines of numbers").splitlines() if line.strip()]
    try:
        found = numbers_of(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    size = math.prod(axis or 1 for axis in parent.net.inputs[0].shape)
    if not len(found) or len(found) % size:
        raise InputError(f"{path}: {len(found)} numbers are no whole multiple of the {size} that the network takes")
    return [" ".join(f"{x:.7g}" for x in row) for row in found.reshape(-1, size)]


def _frames(data: Path, most: int, say: Say) -> Samples:
    """Pictures of a folder or of a COCO JSON file, else whatever the source `files` reads."""
    inside = data.is_dir() and any(path.suffix.lower() in PICTURES for path in data.iterdir())
    labelled = data.suffix.lower() == ".json" or (data.is_dir() and any((data / f).is_file() for f in LABEL_FILES))
    if not inside and not labelled:
        return _source(data, most, say)
    pictures = read_pictures(data, most)
    kept, bad = _Kept(most), []
    for number, path in enumerate(pictures.paths):
        say("reading", number, len(pictures.paths))
        try:
            kept.take(read_picture(path), number)
        except InputError as error:
            bad.append(f"{path.name} {error}")
    say("reading", len(pictures.paths), len(pictures.paths))
    notes = [*pictures.notes, *kept.notes()]
    if bad:
        notes.append(f"{len(bad)} pictures cannot be read and are left out; the first: {bad[0]}")
    if not kept.frames:
        raise InputError(f"{data}: none of {len(bad)} pictures can be read; the first: {bad[0]}")
    whole = Samples([], str(data), [], truth=pictures.truth, names=pictures.names, notes=notes)
    return replace(whole, **kept.columns(pictures.truth))


def _source(data: Path, most: int, say: Say) -> Samples:
    """A video, a picture or a glob, every so-manieth frame."""
    kept = _Kept(most)
    count = 0
    for item in open_source(Uri("files", str(data))).run(threading.Event()):
        if isinstance(item, Frame):
            kept.take(item, count)
            count += 1
            say(f"reading {data.name}", count, count + 1)
    say(f"reading {data.name}", count, count)
    whole = Samples([], str(data), [], follow=True, notes=kept.notes())
    return replace(whole, **kept.columns(None))


class _Kept:
    """At most `most` frames and ROOM bytes, spread evenly over all that were taken."""

    def __init__(self, most: int) -> None:
        self.most, self.step, self.bytes, self.full = most, 1, 0, False
        self.frames: list[tuple[int, Frame]] = []

    def take(self, frame: Frame, number: int) -> None:
        """Frames come with growing numbers; each time the room is out, every second one goes."""
        if number % self.step:
            return
        self.frames.append((number, frame))
        self.bytes += frame.image.nbytes
        while len(self.frames) > self.most or self.bytes > ROOM:
            self.full = self.full or self.bytes > ROOM
            self.step *= 2
            self.frames = [(place, one) for place, one in self.frames if not place % self.step]
            self.bytes = sum(one.image.nbytes for _, one in self.frames)
            if len(self.frames) == 1:
                return

    def notes(self) -> list[str]:
        return [f"{len(self.frames)} pictures are used: more do not fit into {ROOM >> 20} MB"] if self.full else []

    def columns(self, truth: Truth | None) -> dict[str, Any]:
        """`items`, `digests` and `truth` of Samples."""
        digests = [_digest(frame) for _, frame in self.frames]
        truth = _only(truth, [number for number, _ in self.frames])
        return {"items": [frame for _, frame in self.frames], "digests": digests, "truth": truth}


def _only(truth: Truth | None, places: Sequence[int]) -> Truth | None:
    """The boxes of the pictures with these numbers, which become 0, 1, 2, ..."""
    if truth is None:
        return None
    number = np.full(max([-1, *places, *truth.image.tolist()]) + 1, -1, np.int64)
    number[list(places)] = np.arange(len(places))
    keep = number[truth.image] >= 0
    columns = truth.label[keep], truth.xywh[keep], truth.area[keep], truth.crowd[keep]
    return Truth(number[truth.image[keep]], *columns)


def _digest(frame: Frame) -> str:
    return hashlib.sha256(repr(frame.image.shape).encode() + frame.image.tobytes()).hexdigest()


# ── pictures that were letterboxed before ────────────────────────────────────────────────────────────────


def _refuse_letterboxed(frames: list[Frame], spec: Input, data: Path) -> None:
    """InputError where most pictures are squares (or of the network's size) with a border of one and the same grey.

    The agent would put a border around the border, and the network would be calibrated on what it never sees.
    """
    greys = []
    for frame in frames:
        fits = frame.width == frame.height or (frame.width, frame.height) == (spec.width, spec.height)
        grey = border(frame.image) if fits else None
        if grey is not None and GREYS[0] < grey < GREYS[1]:
            greys.append(grey)
    if greys and len(greys) > len(frames) / 2 and np.ptp(greys) <= 6:
        raise InputError(
            f"{data}: {len(greys)} of {len(frames)} pictures have a border of grey {np.median(greys):.0f}: they were "
            "letterboxed before, not as the agent does it; give them as they come from the camera"
        )


def border(image: npt.NDArray[np.uint8]) -> float | None:
    """The grey of a border of one colour that takes more than BAR of one side; None where there is none."""
    for turned in (image, image[::-1], image.transpose(1, 0, 2), image.transpose(1, 0, 2)[::-1]):
        lines = turned[: max(2, int(np.ceil(len(turned) * BAR)))].reshape(-1, 3).astype(np.int16)
        # JPEG makes a grey waver
        if np.ptp(lines) <= 8:
            return float(lines.mean())
    return None
