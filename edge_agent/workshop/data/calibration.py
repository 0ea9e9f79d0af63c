"""What a model is calibrated and compared on: pictures, frames of a video, what the agent recorded, lines of text.

The samples reach the network through the task that serves it, so they are letterboxed, or cut into word pieces, as the
agent does it.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from edge_agent.workshop.data.look import look, refuse_letterboxed, scenes
from edge_agent.workshop.data.pictures import Pictures, read_pictures
from edge_agent.workshop.data.texts import numbers_of, read_texts, spread, text_of

Say = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)"""

RECORDED = "recorded"
"""as --data: what the agent recorded, HOME/samples"""
LEAST = 4
"""samples: two to search with and two to report on"""
SHARES = (2, 3, 3)
"""eighths of each part: ranges settle early, a choice and a figure need many"""
FEWEST = 6
"""samples: two in each part"""
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


def parts(samples: Samples, seed: int = 0) -> tuple[Samples, Samples, Samples]:
    """Three parts, each in the order of `samples`: statistics are taken of the first (ranges, what channels do),
    candidates are compared on the second, and figures are told of the third alone, by which nothing is chosen.
    InputError for fewer than FEWEST samples.

    Scenes go to a part as a whole, at random, by `seed` and what is in them, so the same samples come into the same
    parts wherever they lie. Where one scene has more than an eighth of the samples, as in a film of a standing camera,
    the parts follow each other in time.
    """
    count = len(samples.items)
    if count < FEWEST:
        raise InputError(f"samples: {samples.source} has {count} different samples; give {FEWEST} or more")
    runs = scenes([look(item) for item in samples.items])
    if max(map(len, runs)) > max(1, count // 8):
        runs = [[place] for place in range(count)]
    else:
        runs.sort(key=lambda run: hashlib.sha256(f"{seed} {samples.digests[run[0]]}".encode()).digest())
    most = [max(2, round(count * eighths / 8)) for eighths in SHARES[:2]]
    filled: tuple[list[int], ...] = ([], [], [])
    for run in runs:
        filled[next((part for part in (0, 1) if len(filled[part]) < most[part]), 2)].extend(run)
    calibrate, search, report = (samples.pick(sorted(part)) for part in filled)
    return calibrate, search, report


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
    feed, texts, bad = feeder(parent), list[Text](), list[str]()
    for line in itertools.chain.from_iterable(_lines(path, parent) for path in paths):
        try:
            feed(text := Text(line, 0.0, 0.0))
            texts.append(text)
        except InputError as error:
            bad.append(str(error))
    if not texts:
        raise InputError(f"{data}: none of {len(bad)} lines can be read; the first: {bad[0]}")
    texts = [texts[i] for i in spread(len(texts), most)]
    digests = [hashlib.sha256(text.text.encode()).hexdigest() for text in texts]
    notes = [f"{len(bad)} lines cannot be read and are left out; the first: {one}" for one in bad[:1]]
    return Samples([*texts], str(data), digests, notes=notes)


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
    known = read_pictures(data, most) if _is_pictures(data) else Pictures([], None)
    bad: list[str] = []
    kept, full = _thinned(_of_files(known.paths, bad, say) if known.paths else _of_source(data, say), most)
    if bad and not kept:
        raise InputError(f"{data}: none of {len(bad)} pictures can be read; the first: {bad[0]}")
    notes = [*known.notes, *[f"{len(kept)} pictures are used: more do not fit into {ROOM >> 20} MB"] * full]
    notes += [f"{len(bad)} pictures cannot be read and are left out; the first: {one}" for one in bad[:1]]
    truth = known.truth if parent.manifest.task == "detect" else None
    truth = None if truth is None else truth.of_pictures([number for number, _ in kept])
    frames = [frame for _, frame in kept]
    return Samples([*frames], str(data), [*map(_digest, frames)], truth, known.names, notes)


def _is_pictures(data: Path) -> bool:
    """Whether it is a folder with pictures or with labels in it, or a file of labels."""
    inside = data.is_dir() and any(path.suffix.lower() in PICTURES for path in data.iterdir())
    return inside or formats.find(data) is not None


def _digest(frame: Frame) -> str:
    return hashlib.sha256(repr(frame.image.shape).encode() + frame.image.tobytes()).hexdigest()


def _of_files(paths: Sequence[Path], bad: list[str], say: Say) -> Iterator[tuple[int, Frame]]:
    """Those that can be read, with their numbers; what is said of the others goes into `bad`."""
    for number, path in enumerate(paths):
        say("reading", number, len(paths))
        try:
            yield number, read_picture(path)
        except InputError as error:
            bad.append(f"{path.name} {error}")
    say("reading", len(paths), len(paths))


def _of_source(data: Path, say: Say) -> Iterator[tuple[int, Frame]]:
    """The frames of a video, a picture or a glob, numbered."""
    items = open_source(Uri("files", str(data))).run(threading.Event())
    for number, frame in enumerate(item for item in items if isinstance(item, Frame)):
        yield number, frame
        say(f"reading {data.name}", number + 1, number + 2)


def _thinned(shown: Iterable[tuple[int, Frame]], most: int) -> tuple[list[tuple[int, Frame]], bool]:
    """At most `most` frames and ROOM bytes, spread evenly over all: each time the room is out, every second one goes.
    And whether the bytes were it.
    """
    step, size, full = 1, 0, False
    kept: list[tuple[int, Frame]] = []
    for number, frame in shown:
        if number % step:
            continue
        kept.append((number, frame))
        size += frame.image.nbytes
        while len(kept) > 1 and (len(kept) > most or size > ROOM):
            full, step = full or size > ROOM, step * 2
            kept = [(place, one) for place, one in kept if not place % step]
            size = sum(one.image.nbytes for _, one in kept)
    return kept, full
