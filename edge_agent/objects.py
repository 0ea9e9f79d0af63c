"""Things that stay the same from frame to frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_agent.types import Detections, Frame, Ints

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def clock_of(frame: Frame) -> float:
    """Seconds on which what moves in it can be timed, however fast it is read: its film's, else when it was taken."""
    return frame.mono if frame.played is None else frame.played


class Tracked(Detections, frozen=True, kw_only=True):
    """The boxes of a Frame that are those of objects."""

    object: Ints
    """(n,) numbers of the objects, from 1"""
    still: npt.NDArray[np.bool_]
    """(n,) whether it stands where it is"""
    alive: Ints
    """(m,) all objects that are remembered, also those that are not seen now; others will not come back"""
    ids: tuple[str, ...] = ()
    """(n,) what each is called in events, once that is settled"""
