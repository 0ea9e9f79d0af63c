"""Things that stay the same from frame to frame: their boxes, what is to be said of them, and the events for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from edge_agent.events.envelope import Box, Pictured
from edge_agent.types import Detections, Frame, Ints, Noticed

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
    near: Detections | None = None
    """all boxes of the frame, faint ones and those of no object among them, and where objects that are not seen are
    believed to be"""
    ids: tuple[str, ...] = ()
    """(n,) what each is called in events, once that is settled"""


Phase = Literal["new", "update", "end"]
STOPPED = "the source has stopped"
"""why an object ended that may still be there"""


class Life(Noticed, frozen=True, kw_only=True):
    """What is to be said of an object: that it is there, what has changed, or that it is gone."""

    phase: Phase
    object: str
    label: str
    class_id: int
    score: float
    box: tuple[float, float, float, float]
    """left, top, right, bottom in pixels of the frame: its last one"""
    size: tuple[int, int]
    """width and height of the frame, pixels"""
    since: float
    """when it was first believed, seconds since 1970 UTC"""
    seconds: float
    """from then to its last box"""
    path: tuple[tuple[float, float], ...] = ()
    """its foot points from the first to the last, pixels, without those that lie on the way between others"""
    zones: tuple[str, ...] = ()
    """those that it is in"""
    entered: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    """since it was spoken of last"""
    loiters: tuple[str, ...] = ()
    """zones of those in which it stays longer than these allow"""
    dwell: Mapping[str, float] = {}
    """zone -> seconds in it so far"""
    speed: float | None = None
    """metres a second over the ground; None where that cannot be told"""
    stationary: bool = False
    why: str = ""
    """of an end that is no going away"""
    snapshot: str = ""
    """the name of its best picture so far"""


class Crossing(Noticed, frozen=True, kw_only=True):
    """An object goes over a line."""

    line: str
    direction: Literal["in", "out"]
    """in: to the right-hand side of the line, looking from its first point to its second"""
    object: str
    label: str
    score: float
    box: tuple[float, float, float, float]
    size: tuple[int, int]
    snapshot: str = ""


_LIST: Any = msgspec.field(default_factory=list)


class ObjectEvent(Pictured, frozen=True, kw_only=True, tag="object"):
    """A thing in view: that it is there, what has changed, or that it is gone."""

    phase: Literal["new", "update", "end"]
    object: Annotated[str, msgspec.Meta(description="the same while it is the same; never used again")]
    label: str
    class_id: int
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]
    box: Box
    width: Annotated[int, msgspec.Meta(description="of the frame, pixels")]
    height: int
    since: Annotated[str, msgspec.Meta(description="when it was first seen, RFC 3339 UTC")]
    seconds: Annotated[float, msgspec.Meta(ge=0, description="from then until it was last seen")]
    path: Annotated[list[tuple[float, float]], msgspec.Meta(description="its foot points, pixels, simplified")] = _LIST
    zones: Annotated[list[str], msgspec.Meta(description="those that it is in")] = _LIST
    entered: Annotated[list[str], msgspec.Meta(description="since the last event of it")] = _LIST
    left: Annotated[list[str], msgspec.Meta(description="since the last event of it")] = _LIST
    loiters: Annotated[list[str], msgspec.Meta(description="zones in which it stays longer than they allow")] = _LIST
    dwell: Annotated[dict[str, float], msgspec.Meta(description="zone -> seconds in it so far")] = msgspec.field(
        default_factory=dict
    )
    speed: (
        Annotated[float, msgspec.Meta(ge=0, description="metres a second over the ground, where a zone gives metres")]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    stationary: bool = False
    why: Annotated[str, msgspec.Meta(description="of an end that is no going away")] = ""

    @staticmethod
    def words(body: Mapping[str, Any]) -> str:
        """Which thing, and what became of it."""
        dwell = ", ".join(f"{zone} {seconds:.0f} s" for zone, seconds in body["dwell"].items())
        notes = [f"enters {zone}" for zone in body["entered"]] + [f"leaves {zone}" for zone in body["left"]]
        notes += [f"loiters in {zone}" for zone in body["loiters"]] + ["stands"] * body["stationary"]
        if body["phase"] == "end":
            notes = [f"is gone after {body['seconds']:.0f} s"]
        notes = ["is new"] * (body["phase"] == "new") + notes or ["goes on"]
        return f"{body['label']} {body['object']} {', '.join(notes)}{f'   ({dwell})' if dwell else ''}"


class CrossingEvent(Pictured, frozen=True, kw_only=True, tag="crossing"):
    """A thing in view went over a line."""

    line: str
    direction: Annotated[
        Literal["in", "out"],
        msgspec.Meta(description="in: to the right of the line, looking from its first point to its second"),
    ]
    object: str
    label: str
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]
    box: Box
    width: Annotated[int, msgspec.Meta(description="of the frame, pixels")]
    height: int

    @staticmethod
    def words(body: Mapping[str, Any]) -> str:
        """Which thing, over what."""
        return f"{body['label']} {body['object']} goes {body['direction']} over {body['line']}"
