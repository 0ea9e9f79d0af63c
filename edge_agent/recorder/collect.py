"""Frames and texts for a person to look through: those of which a model was not sure, those of what is seldom seen, and
those of which a new model, or a larger one that was asked for its opinion, said something else than the one that
serves.

Not sure: boxes near the score that counts, objects that are believed in and not seen, or are called another name. The
frame with the most of it is kept, one in a while. Of a text: it fits no label, or two labels about as well. Seldom: one
in fifty of all objects so far, or fewer, had that label.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import secrets
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import count

import msgspec
import numpy as np

from edge_agent.events import UNREADABLE, rfc3339
from edge_agent.events.objects import Tracked, clock_of
from edge_agent.files import folder, read_regular, write_private
from edge_agent.pictures.draw import jpeg
from edge_agent.pictures.formats import claimed_size
from edge_agent.samples import collected
from edge_agent.samples.collected import About, Box
from edge_agent.types import Detections, Finding, Frame, Pixels, Sample, Scores, Text
from edge_agent.walk.event import SampleOrFinding
from edge_agent.walk.pipeline import Show

QUALITY = 92
NEAR = 0.25
"""of the score that counts: so near it a box is uncertain"""
LEAST, BETTER = 1.0, 1.2
"""uncertain boxes that a frame has at least, and how much more of them take another frame's place"""
CLOSE, UNKNOWN = 0.2, "unknown"
"""between the probabilities of two labels that fit about as well, and the label of what fits none"""
SELDOM, ENOUGH = 0.02, 50
"""share of all objects that a seldom label has at most, and objects that have to be known for that"""
AGAIN_S = 60.0
"""seconds out of view after which a thing that is not tracked counts once more"""
FORGET_S = 10.0
"""seconds of frames at least before anything is collected: a source may begin with anything"""

log = logging.getLogger("edge_agent")


@dataclass(slots=True)
class _Line:
    """Of one pipeline, on its thread."""

    show: Show
    words: bool = True
    """whether its texts may be kept"""
    due_at: float = 0.0
    """monotonic: when the next one may be collected"""
    worth: float = 0.0
    """how uncertain the candidate is"""
    candidate: tuple[bytes, About] | None = None
    seen: Counter[str] = field(default_factory=Counter)
    """label -> objects"""
    known: dict[int, int] = field(default_factory=dict)
    """number of an object -> its label's id"""
    in_view: dict[str, float] = field(default_factory=dict)
    """label -> when it was last seen, of what is not tracked"""


class Collect:
    """Of one agent. `watch` is for the pipelines' threads; a thread of its own writes."""

    def __init__(self, why: Collection[str], every: float, most: int, days: float, consent: str = "") -> None:
        """`why`: uncertain, rare, disagreed; one each `every` seconds of a pipeline, `most` in all."""
        self._consent = consent
        self._why, self._every, self._most, self._days = frozenset(why), every, most, days
        self._lines: dict[str, _Line] = {}
        self._run, self._numbers = secrets.token_hex(4), count(1)
        self._writing: queue.Queue[tuple[bytes, About] | None] = queue.Queue(8)
        self._counts = _read_counts()
        self._failed = False
        self._thread = threading.Thread(target=self._write, name="samples", daemon=True)

    def add(self, pipeline: str, show: Show, words: bool = True) -> None:
        """Collect of a pipeline from now on. `show`: a frame as it may be kept; `words`: whether texts may be."""
        self._lines[pipeline] = _Line(show, words, time.monotonic() + min(FORGET_S, self._every))
        self._lines[pipeline].seen.update(self._counts.get(pipeline, {}))

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """No more frames come: what was to be kept next is kept now. Returns at once."""
        with contextlib.suppress(queue.Full):
            for line in self._lines.values():
                if line.candidate is not None:
                    self._writing.put_nowait(line.candidate)
            self._writing.put_nowait(None)

    def close(self) -> None:
        """Wait for the end, but not for long."""
        if self._thread.ident is not None:
            self._thread.join(2.0)

    # ── on the pipelines' threads ────────────────────────────────────────────────────────────────────────

    def watch(self, pipeline: str, sample: Sample, found: Sequence[SampleOrFinding]) -> None:
        """A frame or a text of it."""
        line = self._lines[pipeline]
        for item in found:
            if isinstance(item, Finding) and isinstance(item.what, Scores) and isinstance(item.of, Text):
                self._look_at_text(pipeline, line, item)
            elif isinstance(item, Finding) and isinstance(item.what, Detections) and item.of is sample:
                self._look(pipeline, line, item, found)

    def disagreed(self, pipeline: str, found: Sequence[SampleOrFinding], picture: Pixels | None, note: str) -> None:
        """Of this sample a new model says something else; for any thread. `picture`: as it may be kept; None: not at
        all, or of a text.
        """
        line = self._lines.get(pipeline)
        for item in (each for each in found if isinstance(each, Finding)):
            if isinstance(item.what, Detections) and picture is not None:
                self._put(self._made_of(pipeline, item, picture, "disagreed", note))
            elif isinstance(item.what, Scores) and isinstance(item.of, Text) and line is not None and line.words:
                self._put(self._made_of_text(pipeline, item, "disagreed", note))

    def doubted(self, pipeline: str, at: str, picture: bytes, note: str) -> None:
        """What was found in this picture (a JPEG, as it was kept for people) a larger model does not see; for any
        thread. `at`: RFC 3339.
        """
        size = claimed_size(picture)
        if size is not None:
            self._put((picture, About(at, pipeline, "disagreed", note, "", *size, [], consent=self._consent)))

    def _put(self, made: tuple[bytes, About]) -> None:
        with contextlib.suppress(queue.Full):
            self._writing.put_nowait(made)

    def _look_at_text(self, pipeline: str, line: _Line, item: Finding) -> None:
        what = item.what
        assert isinstance(what, Scores)
        best = sorted(what.scores.values(), reverse=True)[:2]
        close = len(best) == 2 and best[0] - best[1] < CLOSE
        if (
            line.words
            and "uncertain" in self._why
            and time.monotonic() >= line.due_at
            and (close or what.label == UNKNOWN)
        ):
            note = "fits no label" if what.label == UNKNOWN else "two labels fit about as well"
            self._give(line, self._made_of_text(pipeline, item, "uncertain", note))

    def _made_of_text(self, pipeline: str, item: Finding, why: collected.Why, note: str) -> tuple[bytes, About]:
        """The text as it went on, with what `[privacy]` takes out of it taken out."""
        text, what = item.of, item.what
        assert isinstance(text, Text) and isinstance(what, Scores)
        model = f"{item.model.name} {item.model.version}"
        scores = {label: round(score, 4) for label, score in what.scores.items()}
        about = About(rfc3339(text.at), pipeline, why, note, model, 0, 0, [], what.label, scores, self._consent)
        return text.text.encode(), about

    def _look(self, pipeline: str, line: _Line, item: Finding, found: Sequence[SampleOrFinding]) -> None:
        frame, what, due = item.of, item.what, time.monotonic() >= line.due_at
        assert isinstance(frame, Frame) and isinstance(what, Detections)
        changed, fresh = _counted(line, what, clock_of(frame))
        rare = [label for label in fresh if due and "rare" in self._why and _is_seldom(line.seen, label)]
        if rare:
            self._give(line, self._made(pipeline, line, item, found, "rare", f"{rare[0]} is seldom seen here"))
            return
        self._consider(pipeline, line, item, found, changed)
        if due and line.candidate is not None:
            self._give(line, line.candidate)

    def _consider(
        self, pipeline: str, line: _Line, item: Finding, found: Sequence[SampleOrFinding], changed: int
    ) -> None:
        """Take this frame for the next one, if the detector was less sure than of the one before."""
        what = item.what
        assert isinstance(what, Detections)
        if "uncertain" not in self._why or not what.looked:
            return
        near, lost = what, 0
        if isinstance(what, Tracked):
            near, lost = what.near or what, len(what.alive) - len(what.object)
        off = np.abs(near.score - near.sure) / max(1e-6, NEAR * near.sure)
        worth = float(np.maximum(0, 1 - off).sum()) + lost + changed
        if worth < max(LEAST, BETTER * line.worth):
            return
        close = int((off < 1).sum())
        counts = {
            f"boxes near the score {near.sure:.2f}": close,
            "objects not seen": lost,
            "called another name": changed,
        }
        note = ", ".join(f"{count} {words}" for words, count in counts.items() if count)
        made = self._made(pipeline, line, item, found, "uncertain", note)
        if made is not None:
            line.candidate, line.worth = made, worth

    def _made(
        self,
        pipeline: str,
        line: _Line,
        item: Finding,
        found: Sequence[SampleOrFinding],
        why: collected.Why,
        note: str,
    ) -> tuple[bytes, About] | None:
        assert isinstance(item.of, Frame)
        image = line.show(item.of, found)
        return None if image is None else self._made_of(pipeline, item, image, why, note)

    def _made_of(
        self, pipeline: str, item: SampleOrFinding, image: Pixels, why: collected.Why, note: str
    ) -> tuple[bytes, About]:
        assert isinstance(item, Finding) and isinstance(item.of, Frame) and isinstance(item.what, Detections)
        frame, what = item.of, item.what
        rows = zip(what.xyxy.tolist(), what.score.tolist(), what.label.tolist(), strict=True)
        boxes = [Box(what.names.get(key, str(key)), key, round(score, 4), tuple(box)) for box, score, key in rows]
        model = f"{item.model.name} {item.model.version}"
        size = frame.width, frame.height
        about = About(rfc3339(frame.at), pipeline, why, note, model, *size, boxes, consent=self._consent)
        return jpeg(image, QUALITY), about

    def _give(self, line: _Line, made: tuple[bytes, About] | None) -> None:
        """To the thread that writes; the next one is due a while later."""
        line.candidate, line.worth, line.due_at = None, 0.0, time.monotonic() + self._every
        if made is not None:
            self._put(made)

    # ── its thread ───────────────────────────────────────────────────────────────────────────────────────

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            collected.delete_old(self._most, self._days)
        while (made := self._writing.get()) is not None:
            try:
                end = "jpg" if made[1].width else "txt"
                collected.keep(f"{self._run}-{next(self._numbers)}.{end}", *made, self._most, self._days)
                self._write_counts()
                self._failed = False
            except OSError as error:
                if not self._failed:
                    log.warning("samples: %s: %s; nothing is collected meanwhile", collected.folder(), error.strerror)
                self._failed = True
        with contextlib.suppress(OSError):
            self._write_counts()

    def _write_counts(self) -> None:
        if "rare" in self._why:
            counts = {name: dict(line.seen) for name, line in list(self._lines.items())}
            write_private(folder(collected.folder(), 0o700) / "seen.json", msgspec.json.encode(counts))


def _counted(line: _Line, what: Detections, now: float) -> tuple[int, list[str]]:
    """Note what is in view `now`, on the frames' clock; how many objects are called another name than before, and the
    labels of those that are new.
    """
    labels = [what.names.get(key, str(key)) for key in what.label.tolist()]
    if isinstance(what, Tracked):
        changed, fresh = _objects(line, what, labels)
    else:
        changed, fresh = 0, [one for one in set(labels) if not 0 <= now - line.in_view.get(one, -AGAIN_S) < AGAIN_S]
        line.in_view |= dict.fromkeys(labels, now)
    line.seen.update(fresh)
    return changed, fresh


def _objects(line: _Line, what: Tracked, labels: Sequence[str]) -> tuple[int, list[str]]:
    before, keys = line.known, dict(zip(what.object.tolist(), what.label.tolist(), strict=True))
    fresh = [label for label, number in zip(labels, keys, strict=True) if number not in before]
    changed = sum(before.get(number, key) != key for number, key in keys.items())
    alive = set(what.alive.tolist())
    line.known = {number: key for number, key in {**before, **keys}.items() if number in alive}
    return changed, fresh


def _is_seldom(seen: Counter[str], label: str) -> bool:
    total = seen.total()
    return total >= ENOUGH and seen[label] <= max(1.0, SELDOM * total)


def _read_counts() -> dict[str, dict[str, int]]:
    """What earlier runs saw; nothing where that cannot be read."""
    with contextlib.suppress(OSError, *UNREADABLE):
        raw = read_regular(collected.folder() / "seen.json", 10_000_000)
        return msgspec.json.decode(raw, type=dict[str, dict[str, int]])
    return {}
