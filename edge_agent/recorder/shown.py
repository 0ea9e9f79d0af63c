"""A frame as it may be kept, shown and sent: what nobody is to recognise in it is coarse blocks."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from edge_agent.events.objects import Tracked, clock_of
from edge_agent.pictures.blur import pixelated
from edge_agent.types import Detections, Finding, Floats, Frame, Pixels, Sample
from edge_agent.walk.event import SampleOrFinding

HOLD_S = 1.0
"""seconds for which a place stays hidden after something was found there: detectors miss a frame now and then"""
FAINT = 0.5
"""of the score from which on a box counts by itself: fainter ones hide nothing"""
STEPS = 4
"""frames of that time that are remembered: in between nothing moves far"""


class Shown:
    """Of one pipeline. It is to `watch` each frame, in order, before any of them is asked for."""

    def __init__(self, labels: Sequence[str]) -> None:
        """`labels`: of the things that are hidden; none: pictures are shown as they are."""
        self.labels = frozenset(label.casefold() for label in labels)
        self._made: tuple[Frame, Pixels] | None = None
        """the last one: several ask for it"""
        self._recent: deque[tuple[float, Floats]] = deque(maxlen=STEPS + 1)

    def watch(self, sample: Sample, found: Sequence[SampleOrFinding]) -> None:
        """Remember where something was found."""
        if not self.labels or not isinstance(sample, Frame):
            return
        boxes, clock = self._hidden(sample, found, near=False), clock_of(sample)
        while self._recent and not 0 <= clock - self._recent[0][0] <= HOLD_S:
            self._recent.popleft()
        if boxes is not None and len(boxes) and not (self._recent and clock - self._recent[-1][0] < HOLD_S / STEPS):
            self._recent.append((clock, boxes))

    def __call__(self, frame: Frame, found: Sequence[SampleOrFinding]) -> Pixels | None:
        """The picture of a frame that is being watched or was watched last; None where nobody looked for what is to be
        hidden, so that it may not be shown. The frame's own picture where nothing is hidden: it is not to be changed.

        What is hidden: boxes of this frame, faint ones too, those of the last HOLD_S seconds, of objects where they are
        tracked, and where these are believed to be. What the detector never found is not hidden.
        """
        if not self.labels:
            return frame.image
        if self._made is not None and self._made[0] is frame:
            return self._made[1]
        boxes = self._hidden(frame, found)
        if boxes is None:
            return None
        clock = clock_of(frame)
        recent = [those for then, those in self._recent.copy() if 0 <= clock - then <= HOLD_S]
        self._made = frame, pixelated(frame.image, np.concatenate([boxes, *recent]))
        return self._made[1]

    def _hidden(self, frame: Frame, found: Sequence[SampleOrFinding], near: bool = True) -> Floats | None:
        """The boxes (n, 4) of what is to be hidden in it; None where nobody looked. `near`: also those of no object."""
        seen = _seen(frame, found)
        seen += [what.near for what in seen if near and isinstance(what, Tracked) and what.near is not None]
        if not seen:
            return None
        return np.concatenate([self._boxes(what) for what in seen])

    def _boxes(self, what: Detections) -> Floats:
        hidden = [key for key in set(what.label.tolist()) if what.names.get(key, "").casefold() in self.labels]
        return what.xyxy[np.isin(what.label, hidden) & (what.score >= FAINT * what.sure)]


def _seen(frame: Frame, found: Sequence[SampleOrFinding]) -> list[Detections]:
    """The boxes that were found in that very frame, not in a part that was cut out of it."""
    items = [item for item in found if isinstance(item, Finding)]
    mine = [item.what for item in items if isinstance(item.of, Frame) and item.of.image is frame.image]
    return [what for what in mine if isinstance(what, Detections) and not what.skipped]
