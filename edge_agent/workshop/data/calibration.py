"""What a model is calibrated and compared on: pictures, frames of a video, what the agent recorded, lines of text.

The samples reach the network through the task that serves it, so they are letterboxed, or cut into word pieces, as the
agent does it.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.errors import EdgeAgentError, InputError
from edge_agent.figures.coco_map import Truth
from edge_agent.manifest import Served
from edge_agent.paths import home
from edge_agent.pictures.read import read_picture
from edge_agent.sources import open_source
from edge_agent.sources.listing import PICTURES
from edge_agent.tasks import row_of
from edge_agent.types import Audio, Frame, Text
from edge_agent.uri import Uri
from edge_agent.workshop.data import formats
from edge_agent.workshop.data.feed import Item, feeder
from edge_agent.workshop.data.letterbox import refuse_letterboxed
from edge_agent.workshop.data.look import look
from edge_agent.workshop.data.pictures import read_pictures, spread
from edge_agent.workshop.data.texts import numbers_of, read_texts, text_of

Say = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)"""

RECORDED = "recorded"
"""as --data: what the agent recorded, HOME/samples"""
LEAST = 4
"""samples: two to search with and two to report on"""
ROOM = 1 << 30
"""bytes of pictures that are kept in memory"""
PREPARED = (".npy", ".npz", ".raw")
"""files of tensors: a network's input, not a picture or a text"""


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples in memory, in the order in which they were found."""

    items: list[Item]
    source: str
    """what they were read from"""
    digests: list[str]
    """SHA-256 of each one's pixels or words"""
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
        truth = None if self.truth is None else self.truth.of_pictures(places)
        return replace(self, items=items, digests=digests, truth=truth)


def read(data: Path, parent: Served, most: int, say: Say) -> Samples:
    """At most `most` samples of what `parent` takes, spread evenly over `data`, no two the same.

    Pictures: a folder, a COCO JSON file (its boxes come along), one video or a glob. Texts: as ``evaluate`` reads
    them, and a folder of .txt files. Numbers: a line an input. `recorded`: HOME/samples. Raises InputError, one line,
    for what is empty, unreadable, too little, or was letterboxed before.
    """
    if row_of(parent).takes is Audio:
        raise InputError(f"samples: {parent.manifest.name} takes sound, of which none is read here; give another model")
    if str(data) == RECORDED and not data.exists():
        data = home() / "samples"
    pictures = parent.input is not None
    if data.suffix.lower() in ((*PREPARED, ".bin") if pictures else PREPARED):
        raise InputError(
            f"{data}: these tensors were prepared elsewhere, perhaps letterboxed otherwise than the agent does it; "
            "give the pictures or texts themselves"
        )
    try:
        found = _frames(data, parent, most, say) if pictures else _texts(data, parent, most)
    except EdgeAgentError as error:
        raise InputError(f"samples: {error}") from None
    found = _without_doubles(found)
    if len(found.items) < LEAST:
        raise InputError(f"samples: {data} has {len(found.items)} different samples; give {LEAST} or more")
    if parent.input is not None:
        refuse_letterboxed(found.items, parent.input, data)
    return found


def _without_doubles(found: Samples) -> Samples:
    """Of the same samples the first; a note says how many others there were."""
    first = {digest: place for place, digest in reversed(list(enumerate(found.digests)))}
    twice = len(found.items) - len(first)
    found = found.pick(sorted(first.values()))
    if twice:
        found = replace(found, notes=(*found.notes, f"{twice} samples are there twice and count once"))
    return found


def feeds(parent: Served, samples: Samples) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """The tensors that the network is given for each sample, by the names of its inputs, each with a batch of one."""
    feed = feeder(parent)
    return (feed(item) for item in samples.items)


def shared_with(samples: Samples, other: Samples) -> list[str]:
    """Names of the samples that `other` has too, the very same ones or pictures that look the same."""
    theirs, looks = set(other.digests), [own for own in map(look, other.items) if own is not None]
    found = []
    for item, digest in zip(samples.items, samples.digests, strict=True):
        own = look(item)
        if digest in theirs or (own is not None and any(np.abs(one - own).mean() < ALIKE for one in looks)):
            found.append(item.name if isinstance(item, Frame) else item.text[:40])
    return found


ALIKE = 2.0
"""mean difference of grey values, 0..255, of two pictures at 16x16 below which they show the same"""


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────


def _texts(data: Path, parent: Served, most: int) -> Samples:
    """Lines that the model's task can read."""
    paths = sorted(data.glob("*.txt")) if data.is_dir() else [data]
    if not paths:
        raise InputError(f"{data}: no .txt file in this folder; give a file of one text a line")
    texts, bad = _readable([Text(line, 0.0, 0.0) for path in paths for line in _lines(path, parent)], parent)
    if not texts:
        raise InputError(f"{data}: none of {len(bad)} lines can be read; the first: {bad[0]}")
    texts = [texts[i] for i in spread(len(texts), most)]
    digests = [hashlib.sha256(text.text.encode()).hexdigest() for text in texts]
    notes = [f"{len(bad)} lines cannot be read and are left out; the first: {bad[0]}"] if bad else []
    return Samples([*texts], str(data), digests, notes=notes)


def _readable(texts: list[Text], parent: Served) -> tuple[list[Text], list[str]]:
    """Those that the model's task can read, and why it cannot read the others."""
    feed = feeder(parent)
    good, bad = [], []
    for text in texts:
        try:
            feed(text)
        except InputError as error:
            bad.append(str(error))
        else:
            good.append(text)
    return good, bad


def _lines(path: Path, parent: Served) -> list[str]:
    """Texts, or, for a network of numbers, lines of them; a .bin is float32, low byte first, a line an input."""
    if parent.manifest.text is not None:
        return read_texts(path).texts
    if path.suffix.lower() != ".bin":
        return [line for line in text_of(path, "give lines of numbers").splitlines() if line.strip()]
    return _recorded(path, math.prod(axis or 1 for axis in parent.net.inputs[0].shape))


def _recorded(path: Path, size: int) -> list[str]:
    """A line for each `size` numbers of a .bin file."""
    try:
        found = numbers_of(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if not len(found) or len(found) % size:
        raise InputError(f"{path}: {len(found)} numbers are no whole multiple of the {size} that the network takes")
    return [" ".join(f"{x:.7g}" for x in row) for row in found.reshape(-1, size)]


def _frames(data: Path, parent: Served, most: int, say: Say) -> Samples:
    """Pictures of a folder or of labels, whose boxes say nothing of a model that is no detector; else whatever the
    source `files` reads.
    """
    if not _is_pictures(data):
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
    truth = pictures.truth if parent.manifest.task == "detect" else None
    whole = Samples([], str(data), [], names=pictures.names, notes=notes)
    return replace(whole, **kept.columns(truth))


def _is_pictures(data: Path) -> bool:
    """Whether it is a folder with pictures or with labels in it, or a file of labels."""
    inside = data.is_dir() and any(path.suffix.lower() in PICTURES for path in data.iterdir())
    return inside or formats.find(data) is not None


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
    whole = Samples([], str(data), [], notes=kept.notes())
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
        own = None if truth is None else truth.of_pictures([number for number, _ in self.frames])
        return {"items": [frame for _, frame in self.frames], "digests": digests, "truth": own}


def _digest(frame: Frame) -> str:
    return hashlib.sha256(repr(frame.image.shape).encode() + frame.image.tobytes()).hexdigest()
