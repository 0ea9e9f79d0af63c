"""``track:?new=0.6&hits=3&remember=2``: what a detector found in each Frame -> the objects that these boxes are of.

It runs no model. The detector before it also gives its faint boxes, which go no further than this. What is shown of it,
and how, is what is shown of the detector's boxes, each with its object's number.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.errors import ConfigError, ModelError
from edge_agent.events.objects import Tracked, clock_of
from edge_agent.tasks.track.tracker import Moved, Rules, Seen, Tracker
from edge_agent.types import Detections, Finding, Frame, Task
from edge_agent.uri import Uri, number, whole

OPTIONS = {"new": "0.6", "hits": "3", "remember": "2"}
"""score and boxes that an object needs before it is believed; seconds that it is remembered where it is not seen"""


class Track(msgspec.Struct):
    """The task. It remembers: one source, one thread."""

    rules: Rules
    tracker: Tracker | None = None
    takes: tuple[type, ...] = (Finding,)

    def __call__(self, item: Finding) -> Iterator[Finding]:
        """The boxes that are an object's by now, best score first. ModelError for what is no boxes in a picture."""
        frame, what = item.of, item.what
        if not isinstance(frame, Frame) or not isinstance(what, Detections):
            raise ModelError(f"track takes boxes in pictures, not {type(what).__name__} of {frame.words}")
        if self.tracker is None:
            self.tracker = Tracker(self.rules, what.names)
        if what.skipped:
            yield msgspec.structs.replace(item, what=_moved(self.tracker.between(clock_of(frame)), what))
            return
        seen = self.tracker(clock_of(frame), what.xyxy, what.score, what.label, what.sure, what.looked)
        order = np.argsort(seen.box)
        box = seen.box[order]
        found = Tracked(
            xyxy=what.xyxy[box],
            score=what.score[box],
            label=seen.label[order].astype(np.int32),
            names=what.names,
            object=seen.id[order].astype(np.int32),
            still=seen.still[order],
            alive=seen.alive.astype(np.int32),
            near=_near(what, seen),
        )
        yield msgspec.structs.replace(item, what=found)


def _moved(them: Moved, what: Detections) -> Tracked:
    """Objects where they are believed to be, best score first."""
    order = np.argsort(-them.score, kind="stable")
    return Tracked(
        xyxy=them.xyxy[order].astype(np.float32),
        score=them.score[order].astype(np.float32),
        label=them.label[order].astype(np.int32),
        names=what.names,
        sure=what.sure,
        looked=False,
        skipped=True,
        object=them.id[order].astype(np.int32),
        still=them.still[order],
        alive=them.alive.astype(np.int32),
    )


def _near(what: Detections, seen: Seen) -> Detections:
    """All boxes that there are, those of objects that are not seen behind the others."""
    if not len(seen.lost):
        return what
    xyxy = np.concatenate([what.xyxy, seen.lost.astype(np.float32)])
    score = np.concatenate([what.score, np.full(len(seen.lost), what.sure, np.float32)])
    label = np.concatenate([what.label, seen.lost_label.astype(np.int32)])
    return Detections(xyxy, score, label, what.names, what.sure)


def track(uri: Uri, model: None, home: Path) -> Task:
    """Make the task. ConfigError for its options."""
    if uri.rest:
        raise ConfigError(f'"{uri}": track runs no model; name "{uri.rest}" in the task before it')
    new, hits = number(uri, OPTIONS, "new", 0.01, 1), whole(uri, OPTIONS, "hits", 1, 100)
    return Track(Rules(new=new, hits=hits, remember=number(uri, OPTIONS, "remember", 0.1, 600)))
