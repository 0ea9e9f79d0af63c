"""A few pictures of each state become a model that tells them apart: features of a detector, and a head on them.

What is made is a model like any other: a folder with manifest, network, head and card, added to the registry once the
gate has admitted it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.backends import open_net
from edge_agent.errors import InputError, RefusedError, UsageError
from edge_agent.events import rfc3339
from edge_agent.figures.scores import wilson
from edge_agent.gate.admit import admit, seen
from edge_agent.graphs.cut import Cuttable
from edge_agent.manifest import File, Input, Made, Manifest
from edge_agent.paths import home
from edge_agent.pictures.boxes import letterbox
from edge_agent.registry import catalogue, store
from edge_agent.registry.add import add, check_name
from edge_agent.registry.files import Located, parts_of
from edge_agent.samples.carried import frames
from edge_agent.tasks.state.features import Region, cut, reader
from edge_agent.tasks.state.head import UNKNOWN, WIDE, StateHead, fit, held_out, nearest_mean, packed
from edge_agent.tasks.state.proof import PROBE
from edge_agent.tasks.state.state import FAMILY, HEAD
from edge_agent.toml import toml
from edge_agent.types import Floats, Pixels

BASE = "edge-yolo"
"""the detector whose features are used: it is always here"""
LEAST, MOST = 2, 2000
"""pictures of a state, and of all of them"""
SCORE = 0.6
"""probability from which on a state is told"""


class Example(NamedTuple):
    """A picture, and the state that it shows."""

    label: str
    name: str
    """as it may be shown"""
    image: Pixels


class Taught(msgspec.Struct, frozen=True):
    """What came of it."""

    name: str
    version: str
    pictures: dict[str, int]
    """state -> how many were shown"""
    right: int
    """of them, named right by a head that had not seen them"""
    of: int
    low: float
    high: float
    """where the share of them lies (95 %, Wilson)"""
    guess: float
    """share that is right of saying the commonest state always"""
    baselines: dict[str, int]
    """how many of them simpler means name right"""
    unknown: int
    """examples that the head itself calls unknown"""
    read_s: float
    """seconds for the features of all pictures"""
    fit_s: float
    notes: list[str]


class _Read(NamedTuple):
    """What is kept of the examples."""

    features: Floats
    pixels: Floats
    """(n, WIDE * WIDE * 3) of each, shrunk"""
    y: npt.NDArray[np.int64]
    labels: list[str]
    region: Region
    """in fractions"""
    digest: str


def teach(name: str, examples: Iterable[Example], region: Region, base: str = BASE) -> Taught:
    """Teach and add the model `name`. `region`: in fractions of the pictures, or in their pixels where a number is
    above 1.

    Raises UsageError for examples of which nothing can be learnt, RefusedError for states that cannot be told apart or
    a base that has no maps, ManifestError and FetchError as of the base.
    """
    check_name(name, "state")
    located = catalogue.locate(base, read=seen)
    with TemporaryDirectory(dir=store.scratch(home())) as folder:
        place = Path(folder)
        row, picture = _network(located, place / "maps.onnx")
        read = reader(open_net(place / "maps.onnx", "onnx", 0), picture)
        began = time.perf_counter()
        found = _read(examples, region, read)
        read_s = time.perf_counter() - began
        carried = {key: frame.image for key, frame in frames().items() if key != "noise"}
        anything = np.stack([read(part) for image in carried.values() for part in _parts(image)])
        began = time.perf_counter()
        said = held_out(found.features, found.y, len(found.labels), anything).argmax(1)
        head = fit(found.features, found.y, found.labels, anything, found.region, read(carried[PROBE]))
        told = _told(name, found, said, head, read_s, time.perf_counter() - began)
        _check(told)
        manifest = _write(place, told, found, head, located, row, picture)
        network, *_ = manifest.networks()
        made = add(place, name, seen, lambda located: admit(located, network, parts_of(located)))
    return msgspec.structs.replace(told, version=made.manifest.version)


def _network(base: Located, out: Path) -> tuple[File, Input]:
    """Write the detector without its tail to `out`: the row of the file that it was, and how pictures go in."""
    manifest = base.manifest
    rows = [row for row in manifest.networks() if row.format == "onnx"]
    if manifest.task != "detect" or not rows or manifest.input is None:
        raise UsageError(f"{manifest.name}: states are taught on a detector in ONNX; leave --model out for {BASE}")
    row = min(rows, key=lambda row: row.precision != "fp32")
    whole = Cuttable(admit(base, row, parts_of(base)).path)
    whole.write(out, {name: f"map:{number:02}" for number, name in enumerate(whole.maps())})
    own = {key: value for key in ("width", "height", "layout") if (value := getattr(row, key)) is not None}
    return row, msgspec.structs.replace(manifest.input, letterbox="stretch", resize="area", **own)


def _read(examples: Iterable[Example], region: Region, read: Callable[[Pixels], Floats]) -> _Read:
    """The features of all examples. UsageError where there are too few, too many, or one shows two states."""
    features, pixels, marks, digests = list[Floats](), list[Floats](), list[str](), dict[bytes, Example]()
    for one, part, found in _cut(examples, region):
        region = found
        digest = hashlib.sha256(one.image.tobytes()).digest()
        other = digests.setdefault(digest, one._replace(image=one.image[:0]))
        if other.label != one.label:
            told = f'the same picture for "{other.label}" ({other.name}) and for "{one.label}" ({one.name})'
            raise UsageError(f"{told}; leave one out")
        if len(digests) == len(marks):
            continue
        if len(marks) == MOST:
            raise UsageError(f"more than {MOST} pictures; a few dozen of each state are enough")
        features.append(read(part))
        pixels.append(_shrunk(part))
        marks.append(one.label)
    labels = _labels(marks)
    y = np.array([labels.index(mark) for mark in marks], np.int64)
    whole = hashlib.sha256(b"".join(digests) + repr((marks, region)).encode()).hexdigest()
    return _Read(np.stack(features), np.stack(pixels), y, labels, region, whole)


def _cut(examples: Iterable[Example], region: Region) -> Iterator[tuple[Example, Pixels, Region]]:
    """Each example, the part of it that counts, and the region in fractions. UsageError for one outside of it."""
    pixels, size = max(region) > 1, (0, 0)
    for one in examples:
        height, width = one.image.shape[:2]
        if pixels and size not in ((0, 0), (width, height)):
            told = f"{one.name} has {width}x{height} pixels, others have {size[0]}x{size[1]}"
            raise UsageError(f"the region is in pixels, and pictures differ ({told}); give fractions from 0 to 1")
        size = width, height
        left, top, right, bottom = region
        found = (left / width, top / height, right / width, bottom / height) if pixels else region
        if max(found) > 1:
            raise UsageError(f"the region reaches out of {one.name}, which has {width}x{height} pixels")
        try:
            yield one, cut(one.image, found), found
        except InputError as error:
            raise UsageError(f"{one.name}: {error}") from None


def _labels(marks: list[str]) -> list[str]:
    """The states. UsageError for fewer than two, or one with fewer than LEAST pictures."""
    labels = list(dict.fromkeys(marks))
    states = [label for label in labels if label != UNKNOWN]
    if len(states) < 2:
        told = f'of "{states[0]}" alone' if states else "of no state"
        raise UsageError(f"there are pictures {told}; give pictures of at least two states")
    for label in labels:
        if marks.count(label) < LEAST:
            raise UsageError(f'"{label}" has {marks.count(label)} picture; give at least {LEAST}, better 10')
    return labels


def _shrunk(image: Pixels) -> Floats:
    small = np.empty((WIDE, WIDE, 3), np.uint8)
    letterbox(image, Input(WIDE, WIDE, letterbox="stretch", resize="area"), small)
    return small.astype(np.float32).ravel()


def _parts(image: Pixels) -> list[Pixels]:
    """A picture and its quarters."""
    high, wide = image.shape[0] // 2, image.shape[1] // 2
    quarters = [image[top : top + high, left : left + wide] for top in (0, high) for left in (0, wide)]
    return [image, *map(np.ascontiguousarray, quarters)]


def _told(name: str, found: _Read, said: npt.NDArray[np.int64], head: StateHead, read_s: float, fit_s: float) -> Taught:
    """What is to be said of it, before it has a version."""
    y, count = found.y, len(found.labels)
    right, of = int((said == y).sum()), len(y)
    low, high = wilson(right, of)
    rows = {"mean brightness": found.pixels.mean(1, keepdims=True), f"{WIDE}x{WIDE} pixels": found.pixels}
    baselines = {key: int((nearest_mean(each, y, count) == y).sum()) for key, each in rows.items()}
    unknown = sum(max(scores := head(one), key=scores.__getitem__) == UNKNOWN for one in found.features)
    counts = np.bincount(y)
    pictures = {label: int(each) for label, each in zip(found.labels, counts, strict=True)}
    notes = [f"{key} alone names {many} of {of} right" for key, many in baselines.items() if many >= right]
    if notes:
        notes.append("so a network is not needed to tell these apart, if they are always seen like this")
    if min(counts) < 8:
        notes.append("few pictures: give 10 and more of each state, of day and night, sun and rain")
    share = float(counts.max() / of)
    return Taught(name, "", pictures, right, of, low, high, share, baselines, unknown, read_s, fit_s, notes)


def _check(told: Taught) -> None:
    """RefusedError where the states look alike to the head."""
    if told.low > told.guess:
        return
    figures = f"{told.right} of {told.of} right ({told.low:.2f} to {told.high:.2f}), guessing {told.guess:.2f}"
    names = " and ".join(told.pictures)
    raise RefusedError(
        f"{names} cannot be told apart by these pictures: held out, {figures}; give more pictures, or a --region that "
        "shows the difference"
    )


def _write(
    folder: Path, told: Taught, found: _Read, head: StateHead, base: Located, row: File, picture: Input
) -> Manifest:
    """The model's folder: head, card and manifest beside the network."""
    raw = packed(head)
    shown = ", ".join(f"{label} {count}" for label, count in told.pictures.items())
    region = ", ".join(f"{side:.4g}" for side in head.region)
    method = f"{shown} pictures of the region {region}; largest number of each map, whole and quarters; logistic head"
    (folder / "head.json").write_bytes(raw)
    (folder / "README.md").write_text(_card(told, shown, region, base), encoding="utf-8")
    files = [("maps.onnx", "onnx", "model"), ("head.json", "text", HEAD), ("README.md", "text", "card")]
    parent = f"{base.manifest.name} {base.manifest.version}"
    figures = {"held_out": told.right / told.of, "low": told.low, "high": told.high, "guess": told.guess}
    manifest = Manifest(
        name=told.name,
        version=hashlib.sha256(raw).hexdigest()[:12],
        task="state",
        family=FAMILY,
        licence=base.manifest.licence,
        trained_by=f"taught here, on {parent} by {base.manifest.trained_by}",
        file=[_row(folder / name, kind, role) for name, kind, role in files],
        description=f"states {', '.join(found.labels)}, taught {rfc3339(time.time())[:10]}",
        card="README.md",
        labels=found.labels,
        score=SCORE,
        input=picture,
        made=Made("teach", method, parent, row.sha256, found.digest, figures),
    )
    (folder / "manifest.toml").write_text(toml(msgspec.to_builtins(manifest)), encoding="utf-8")
    return manifest


def _row(path: Path, kind: str, role: str) -> File:
    return File(path.name, kind, store.digest(path), path.stat().st_size, role=role)  # type: ignore[arg-type]


def _card(told: Taught, shown: str, region: str, base: Located) -> str:
    simpler = "; ".join(f"{key}: {many} of {told.of}" for key, many in told.baselines.items())
    return f"""# {told.name}

Tells states of one scene apart: {shown} pictures, of the region {region} (left, top, right, bottom, fractions).
It knows this scene and nothing else; what is far from all examples is "unknown".

Held out, by heads that had not seen them: {told.right} of {told.of} right ({told.low:.3f} to {told.high:.3f}).
Saying the commonest state always: {told.guess:.3f}. Simpler means: {simpler}.

The network is {base.manifest.name} {base.manifest.version} by {base.manifest.trained_by}
({base.manifest.licence}), stopped before its tail. The head was fitted on this device; the pictures are not kept.
"""
