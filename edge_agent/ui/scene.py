"""A frame and what was found in it, as a picture for people and as words."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

import msgspec
import numpy as np

from edge_agent.config import Zone
from edge_agent.events.objects import Tracked
from edge_agent.pictures.draw import draw, framed, jpeg, outline, trail
from edge_agent.pictures.lines import shrunk
from edge_agent.types import Anomaly, Detections, Finding, Frame, Pixels, Read, Scores, Text
from edge_agent.walk.event import SampleOrFinding

WIDEST, QUALITY = 960, 75
"""pixels of a picture that is shown, and its JPEG's quality"""
STEPS = 40
"""places of a thing that its trail shows"""
LONGEST = 80
"""characters of a text that was read or heard"""

Found = Sequence[SampleOrFinding]
Trails = dict[int, "deque[tuple[float, float]]"]


def happens(found: Found) -> bool:
    """Whether there is something to look at: a thing that is not just standing there, a text, something unusual."""
    return any(map(_happens, found))


def _happens(item: SampleOrFinding) -> bool:
    what = item.what if isinstance(item, Finding) else item
    if isinstance(what, Tracked):
        return what.looked and bool((~what.still).any())
    if isinstance(what, Detections):
        return what.looked and bool((what.score >= what.sure).any())
    if isinstance(what, Scores):
        return what.label != "unknown"
    return bool(what.unusual) if isinstance(what, Anomaly) else isinstance(what, Text)


def words(found: Found) -> list[str]:
    """What is in view, a line each: "2 person", a label, a text."""
    counts, said = Counter[str](), list[str]()
    for item in found:
        what = item.what if isinstance(item, Finding) else item
        if isinstance(what, Detections):
            sure = what.label[what.score >= what.sure]
            counts.update(what.names.get(int(label), str(label)) for label in sure)
        elif isinstance(what, Scores):
            said.append(f"{what.label} {what.score:.2f}")
        elif isinstance(what, Text):
            said.append(what.text[:LONGEST])
        elif isinstance(what, Anomaly):
            said.append({True: "unusual", False: "usual", None: f"error {what.error:.3g}"}[what.unusual])
    return [f"{count} {name}" for name, count in counts.most_common(20)] + said[:20]


def picture(plain: Pixels, frame: Frame, found: Found, zones: Sequence[Zone], trails: Trails) -> bytes:
    """A JPEG of at most WIDEST pixels across: boxes, names, the ways of things, texts, zones.

    `plain`: what of the frame may be shown; `trails` is kept up.
    """
    times = max(1.0, max(frame.width, frame.height) / WIDEST)
    image = shrunk(plain, times)
    image = image.copy() if image is plain else image
    for zone in zones:
        if not zone.mask:
            outline(image, zone.points, zone.name, closed=not zone.line)
    for item in found:
        image = _drawn(image, item, frame, times, trails)
    return jpeg(image, QUALITY)


def _drawn(image: Pixels, item: SampleOrFinding, frame: Frame, times: float, trails: Trails) -> Pixels:
    """The picture with one finding in it."""
    if isinstance(item, Text):
        _line(image, item, times)
    if not isinstance(item, Finding) or not isinstance(item.of, Frame):
        return image
    x, y = item.of.cut if item.of is not frame else (0, 0)
    if isinstance(item.what, Detections):
        return _boxes(image, item.what, (x, y), times, trails)
    if isinstance(item.what, Scores) and item.of is not frame:
        box = (x / times, y / times, (x + item.of.width) / times, (y + item.of.height) / times)
        framed(image, box, f"{item.what.label} {item.what.score:.2f}")
    return image


def _line(image: Pixels, text: Text, times: float) -> None:
    """A line of text where it was read."""
    if isinstance(text.got, Read) and not text.got.gone:
        left, top, right, bottom = (side / times for side in text.got.box)
        framed(image, (left, top, right, bottom), text.text)


def _boxes(image: Pixels, what: Detections, cut: tuple[int, int], times: float, trails: Trails) -> Pixels:
    """The picture with these boxes in it; `cut`: where the part that they were found in stands."""
    moved = (what.xyxy + np.array([*cut, *cut], np.float32)) / np.float32(times)
    shown = msgspec.structs.replace(what, xyxy=moved.astype(np.float32))
    if isinstance(shown, Tracked):
        _trails(image, shown, trails)
    return draw(image, shown)


def _trails(image: Pixels, things: Tracked, trails: Trails) -> None:
    """Remember where each thing stands, and draw the ways."""
    for gone in trails.keys() - set(things.alive.tolist()):
        del trails[gone]
    for box, thing in zip(things.xyxy.tolist(), things.object.tolist(), strict=True):
        way = trails.setdefault(thing, deque(maxlen=STEPS))
        way.append(((box[0] + box[2]) / 2, box[3]))
        if len(way) > 1:
            trail(image, list(way), thing)
