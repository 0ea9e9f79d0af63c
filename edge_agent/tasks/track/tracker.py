"""Boxes of one frame after another -> objects, by where they are and how they move.

A box finds its object in steps, as in ByteTrack (Zhang et al., ECCV 2022): sure boxes go first, then faint ones take
what is left, so that a thing that is half hidden stays the same. Boxes are compared grown by a share of their sides, so
that small and quick things still meet (C-BIoU, Yang et al., WACV 2023). Each coordinate has a Kalman filter of its own:
constant velocity, pushed by white noise. Time is that of the frames, so a frame that was dropped is a longer step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.tasks.track.match import NEVER, Array, Numbers, kinds_of, match, overlap
from edge_agent.types import Floats, Ints

X, V, PP, PV, VV, ANCHOR = (slice(at, at + 4) for at in range(0, 24, 4))
"""columns of an object: centre, width and height; their speeds a second; the filter's covariances of both; where it
came to rest"""
ID, LABEL, WEIGHT, HITS, SCORE, BELIEVED, SEEN, MOVED = range(24, 32)
"""its number; its label, and by how much that has outvoted others; how many boxes it had, and the mean score of the
last of them; 1 from when it is believed on; the clock at its last box, and when it last left its place"""
COLUMNS = 32

MOST_BOXES, MOST_OBJECTS = 1000, 500
"""of a frame, best first, and at once: what a flood may cost"""
MEET = 0.1
"""overlap of grown boxes from which on a box may be its object's"""
MEET_FAINT, MEET_YOUNG = 0.4, 0.3
"""the same of a faint box, and of an object that is young"""
MEET_LIKE = 0.6
"""overlap from which on a box of a like label may be its object's"""
TWIN = 0.8
"""overlap of two boxes of like labels in one frame from which on both are of one thing"""
NOISE = 0.08
"""error of a detector's coordinates (one sigma), in heights of the box"""
PUSH, SWELL = 0.3, 0.03
"""how much a place's and a size's speed may change, in heights of the box and second^-1.5"""
SPEED, SWELLS = 1.0, 0.1
"""speeds that an object may have when it is first seen (one sigma), heights a second"""
SETTLE_S = 0.5
"""seconds in which the size of what is not seen stops changing"""
YOUNG_S = 0.15
"""seconds that an object which is not yet believed is remembered"""
STILL, STILL_S = 0.25, 10.0
"""share of its width or height that a thing moves at most in so many seconds, when it is still"""
RESTS_S = 60.0
"""seconds that a thing which was still is remembered: as long as it stood, and no longer than this"""
MEAN = 5
"""boxes that the mean score looks back on"""


class Rules(msgspec.Struct, frozen=True):
    """When boxes are an object, and for how long they are one. How these were chosen: docs/track.md."""

    new: float = 0.6
    """mean score of its last boxes from which on it is believed"""
    hits: int = 3
    """boxes that it needs for that"""
    remember: float = 2.0
    """seconds that it is remembered where nothing is seen of it"""


class Seen(NamedTuple):
    """The objects of one frame."""

    box: Numbers
    """(n,) which of the boxes given is an object's"""
    id: Numbers
    """(n,) whose"""
    label: Numbers
    """(n,) what it is by the votes of all its boxes"""
    still: npt.NDArray[np.bool_]
    """(n,) whether it stands"""
    alive: Numbers
    """(m,) all objects that are believed, among them those that are not seen now"""
    lost: Array
    """(k, 4) where those are that are not seen: left, top, right, bottom"""
    lost_label: Numbers


class Moved(NamedTuple):
    """The objects of a frame that nobody looked at; columns of n rows, but for `alive`."""

    xyxy: Array
    """(n, 4) where they are believed to be"""
    score: Array
    """mean of their last boxes"""
    id: Numbers
    label: Numbers
    still: npt.NDArray[np.bool_]
    alive: Numbers
    """(m,) as of `Seen`"""


class Tracker:
    """Of one source, on one thread."""

    def __init__(self, rules: Rules, names: Mapping[int, str]) -> None:
        self.rules, self._names = rules, names
        self._rows = np.zeros((0, COLUMNS))
        self._clock = self._looked = -np.inf
        """of the last frame, and of the last one that was looked at"""
        self._made = 0
        self._kinds = kinds_of(names)

    def __call__(
        self, clock: float, xyxy: Floats, score: Floats, label: Ints, sure: float, looked: bool = True
    ) -> Seen:
        """The boxes of the next frame, (n, 4), (n,), (n,), best score first, at `clock` (seconds); `sure`: the score
        from which on a box can begin an object; `looked`: false where the boxes are the last ones again, as nothing
        has moved since. A clock that goes back is another film: all is forgotten.
        """
        xyxy, score, label = xyxy[:MOST_BOXES], score[:MOST_BOXES], label[:MOST_BOXES]
        z = np.concatenate([(xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]], 1).astype(np.float64)
        self._forget(clock, looked)
        self._predict(clock, looked)
        owner, new = self._owners(z, score, label, sure)
        rows = self._rows
        if len(owner[0]):
            self._correct(*owner, z, score, label)
        self._begin(new[: MOST_OBJECTS - len(rows)], z, score, label)
        rows = self._rows
        rows[(rows[:, HITS] >= self.rules.hits) & (rows[:, SCORE] >= max(self.rules.new, sure)), BELIEVED] = 1
        believed = rows[:, BELIEVED] > 0
        mine = believed[owner[0]]
        unseen = rows[believed & (rows[:, SEEN] < clock)]
        boxes, whose = owner[1][mine], rows[owner[0][mine]]
        return Seen(
            boxes,
            whose[:, ID].astype(np.int64),
            whose[:, LABEL].astype(np.int64),
            clock - whose[:, MOVED] >= STILL_S,
            rows[believed, ID].astype(np.int64),
            np.concatenate([unseen[:, :2] - unseen[:, 2:4] / 2, unseen[:, :2] + unseen[:, 2:4] / 2], 1),
            unseen[:, LABEL].astype(np.int64),
        )

    def between(self, clock: float) -> Moved:
        """The objects of the last frame that was looked at, moved on to `clock`, as nobody looks at the frame of that
        time. Nothing is learned of it.
        """
        rows = self._rows
        believed = rows[rows[:, BELIEVED] > 0]
        seen = believed[believed[:, SEEN] >= self._clock]
        still = clock - seen[:, MOVED] >= STILL_S
        at, size = seen[:, :2] + seen[:, V][:, :2] * (~still * (clock - self._clock))[:, None], seen[:, 2:4]
        ids, labels, alive = (column.astype(np.int64) for column in (seen[:, ID], seen[:, LABEL], believed[:, ID]))
        return Moved(np.concatenate([at - size / 2, at + size / 2], 1), seen[:, SCORE], ids, labels, still, alive)

    def _forget(self, clock: float, looked: bool) -> None:
        """Those that have not been seen for too long. The time between two looks while nothing moved counts for a part
        of it: what moved before is gone once three looks in a row have missed it.
        """
        rows = self._rows
        if clock < self._clock:
            rows = rows[:0]
            self._looked = -np.inf
        unwatched = self._clock - self._looked if np.isfinite(self._looked) else 0.0
        self._looked = clock if looked else self._looked
        stood = rows[:, SEEN] - rows[:, MOVED]
        rest = np.where(stood >= STILL_S, np.clip(stood, self.rules.remember, RESTS_S), self.rules.remember)
        # a young one is given the next frame, however late it comes
        limit = np.where(rows[:, BELIEVED] > 0, rest, max(YOUNG_S, clock - self._clock + 1e-6))
        if looked:
            rows[stood < STILL_S, SEEN] += max(0.0, unwatched - self.rules.remember / 3)
            rows = rows[clock - rows[:, SEEN] <= limit]
        self._rows = rows

    def _predict(self, clock: float, looked: bool) -> None:
        """Where they are now; where nobody looked, they are where they were."""
        rows, dt = self._rows, clock - self._clock
        self._clock = clock
        if not looked:
            rows[:, V] = 0
        if not len(rows) or dt <= 0 or not looked:
            return
        rows[rows[:, SEEN] < clock - dt, V.start + 2 : V.stop] *= np.exp(-dt / SETTLE_S)
        # what stands is where it was; its speed is the detector's noise
        rows[rows[:, SEEN] - rows[:, MOVED] >= STILL_S, V] = 0
        q = (rows[:, 3:4] * _PUSH) ** 2 * dt
        pv, vv = rows[:, PV], rows[:, VV]
        rows[:, X] += rows[:, V] * dt
        rows[:, PP] += dt * (2 * pv + dt * vv) + q * (dt * dt / 3)
        pv += dt * vv + q * (dt / 2)
        vv += q

    def _owners(self, z: Array, score: Floats, label: Ints, sure: float) -> tuple[tuple[Numbers, Numbers], Numbers]:
        """Object and box of each that belong together, and the boxes that begin an object, best first."""
        rows, high = self._rows, score >= sure
        if not len(rows) or not len(z):
            return (_NONE, _NONE), np.flatnonzero(high & ~self._twins(z, label))
        old = rows[:, HITS] >= self.rules.hits
        meet = overlap(rows[:, X], z)
        kinds, mine = self._kinds, rows[:, LABEL].astype(np.int64)
        same = mine[:, None] == label
        least = np.where(high, np.where(old, MEET, MEET_YOUNG)[:, None], np.where(old, MEET_FAINT, 2.0)[:, None])
        # by step: sure boxes, faint ones, young objects; a like label comes last
        step = np.where(high, np.where(old, 2.0, 0.0)[:, None], 1.0)
        if not same.all():
            like = (kinds[mine] & kinds[label][:, None]).T.astype(bool)
            least = np.where(same, least, np.where(like, np.maximum(least, MEET_LIKE), 2.0))
            step = np.where(same, step, step - 3.0)
        owners = match(np.where(meet >= least, meet + step, NEVER))
        left = high & ~self._twins(z, label)
        left[owners[1]] = False
        return owners, np.flatnonzero(left)

    def _twins(self, z: Array, label: Ints) -> npt.NDArray[np.bool_]:
        """Boxes that lie on a better one of a like label: one thing that is called two things at once."""
        kinds = self._kinds[label]
        if not kinds.any() or (label == label[0]).all():
            return np.zeros(len(z), bool)
        like = (kinds[:, None] & kinds).astype(bool) & (label[:, None] != label)
        return np.asarray((np.tril(overlap(z, z), -1) * like >= TWIN).any(1), bool)

    def _correct(self, which: Numbers, box: Numbers, z: Array, score: Floats, label: Ints) -> None:
        """Objects `which` are where the boxes `box` are."""
        rows, z = self._rows[which], z[box]
        pp, pv = rows[:, PP], rows[:, PV]
        k = pp / (pp + (NOISE * rows[:, 3:4]) ** 2)
        kv = pv / (pp + (NOISE * rows[:, 3:4]) ** 2)
        off = z - rows[:, X]
        rows[:, X] += k * off
        rows[:, V] += kv * off
        rows[:, VV] -= kv * pv
        pv *= 1 - k
        pp *= 1 - k
        rows[:, HITS] += 1
        rows[:, SEEN] = self._clock
        rows[:, SCORE] += (score[box] - rows[:, SCORE]) / np.minimum(rows[:, HITS], MEAN)
        # a majority vote that remembers one label: what is outvoted gives way
        rows[:, WEIGHT] += np.where(rows[:, LABEL] == label[box], score[box], -score[box])
        lost = rows[:, WEIGHT] < 0
        rows[lost, LABEL], rows[lost, WEIGHT] = label[box][lost], -rows[lost, WEIGHT]
        moved = (np.abs(rows[:, X] - rows[:, ANCHOR]) > STILL * np.tile(rows[:, 2:4], 2)).any(1)
        rows[moved, ANCHOR] = rows[moved, X]
        rows[moved, MOVED] = self._clock
        self._rows[which] = rows

    def _begin(self, box: Numbers, z: Array, score: Floats, label: Ints) -> None:
        """A young object of each of these boxes."""
        if not len(box):
            return
        rows = np.zeros((len(box), COLUMNS))
        rows[:, X] = rows[:, ANCHOR] = z[box]
        rows[:, PP] = (NOISE * z[box, 3:4]) ** 2
        rows[:, VV] = (z[box, 3:4] * _SPEED) ** 2
        rows[:, ID] = self._made + 1 + np.arange(len(box))
        rows[:, LABEL], rows[:, WEIGHT], rows[:, SCORE], rows[:, HITS] = label[box], score[box], score[box], 1
        rows[:, SEEN] = rows[:, MOVED] = self._clock
        self._made += len(box)
        self._rows = np.concatenate([self._rows, rows])


_NONE = np.zeros(0, np.int64)
_PUSH, _SPEED = np.array([PUSH, PUSH, SWELL, SWELL]), np.array([SPEED, SPEED, SWELLS, SWELLS])
