"""``[[zone]]``: areas, lines and masks in a camera's picture."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Literal

import msgspec

from edge_agent.config.times import Duration, seconds
from edge_agent.errors import ConfigError, nearest
from edge_agent.toml import Name

Point = tuple[float, float]
USELESS = {"line": ("stays", "by", "metres"), "mask": ("labels", "stays", "by", "metres")}
"""keys that do nothing there"""


class Zone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[zone]]``: an area of what a pipeline sees; or a line, or a part that nobody is to see."""

    name: Name
    points: Annotated[
        list[Point], msgspec.Meta(max_length=100, examples=[[[0.1, 0.5], [0.9, 0.5], [0.9, 1.0], [0.1, 1.0]]])
    ]
    """corners in order, in fractions of the picture's width and height, or in pixels where `size` is given"""
    pipeline: Name | None = None
    """whose picture; may be left out where there is only one pipeline"""
    size: tuple[Annotated[int, msgspec.Meta(ge=1)], Annotated[int, msgspec.Meta(ge=1)]] | None = None
    """width and height of the picture in which `points` are pixels"""
    line: bool = False
    """true: two points; what goes over it from one side to the other is told"""
    mask: bool = False
    """true: this part is black before anything sees the picture"""
    labels: list[Annotated[str, msgspec.Meta(min_length=1)]] = []
    """of the things that count; none: all"""
    by: Literal["foot", "overlap"] = "foot"
    """foot: a thing is where the middle of its lower edge is; overlap: where half of its box is"""
    stays: Duration | None = None
    """time from which on a thing that is in it loiters"""
    metres: list[Point] = []
    """where these corners stand on the ground, metres, in the same order and from any origin, four and more: with them
    the objects of the whole picture have a speed"""

    @property
    def limit(self) -> float:
        """`stays` in seconds; endless where there is none."""
        return float("inf") if self.stays is None else seconds(self.stays)


def checked_zones(zones: list[Zone], names: Sequence[str], following: Collection[str]) -> list[Zone]:
    """The zones with their pipeline, of these `names`, and points in fractions; `following`: pipelines that track.

    ConfigError for one that makes no sense.
    """
    made: list[Zone] = []
    for at, zone in enumerate(zones):
        try:
            _check(zone)
            pipe = _pipeline(zone, names, following)
            _check_beside(zone, [other for other in made if other.pipeline == pipe])
            width, height = zone.size or (1, 1)
            points = [(x / width, y / height) for x, y in zone.points]
            made.append(msgspec.structs.replace(zone, pipeline=pipe, points=points))
        except ConfigError as error:
            raise ConfigError(f"zone[{at}] ({zone.name}): {error}") from None
    return made


def _check_beside(zone: Zone, others: Sequence[Zone]) -> None:
    """What it is beside those of its pipeline."""
    if any(other.name == zone.name for other in others):
        raise ConfigError("stands twice; give each its own name")
    if zone.metres and any(other.metres for other in others):
        raise ConfigError(f"metres: {others[0].pipeline} has a zone with metres already; one says where its ground is")


def _check(zone: Zone) -> None:
    """What it is alone."""
    if zone.line and zone.mask:
        raise ConfigError("line and mask: it is one of the two; delete the other")
    what = "line" if zone.line else "mask" if zone.mask else ""
    given = {"labels": zone.labels, "stays": zone.stays, "by": zone.by != "foot", "metres": zone.metres}
    useless = [key for key in USELESS.get(what, ()) if given[key]]
    if useless:
        raise ConfigError(f"{useless[0]} does nothing for a {what}; delete it")
    _check_points(zone)
    if zone.metres:
        _check_metres(zone)


def _check_metres(zone: Zone) -> None:
    """ConfigError where they are no ground."""
    if len(zone.metres) != len(zone.points) or len(zone.points) < 4:
        there = f"{len(zone.points)} points and {len(zone.metres)} metres"
        raise ConfigError(f"metres: {there}; give a place on the ground for each corner, and four corners or more")
    crossed = _crosses_itself(zone.metres)
    if crossed or abs(_area(zone.metres)) < 0.01:
        raise ConfigError(
            "metres: these places make no area; measure the corners on the ground, in the order of points"
        )


def _check_points(zone: Zone) -> None:
    points, (width, height) = zone.points, zone.size or (1, 1)
    for number, (x, y) in enumerate(points, 1):
        if not (0 <= x <= width and 0 <= y <= height):
            fractions = "points are fractions from 0 to 1; for pixels add size = [width, height] of the picture"
            mend = f"size is {width}x{height}" if zone.size else fractions
            raise ConfigError(f"points: the {number}. ({x:g}, {y:g}) lies outside of the picture; {mend}")
    if zone.line:
        if len(points) != 2 or points[0] == points[1]:
            raise ConfigError(f"points: a line has 2 points that differ, not {len(points)}")
    else:
        _check_corners(points, width * height)


def _check_corners(points: Sequence[Point], picture: int) -> None:
    """ConfigError where they make no area; `picture`: the area of the picture."""
    if len(set(points)) < 3:
        raise ConfigError(f"points: {len(set(points))} make no area; give 3 or more, or line = true for a line of 2")
    crossing = _crosses_itself(points)
    if crossing:
        first, second = crossing
        raise ConfigError(f"points: the edges behind the {first}. and the {second}. cross; give the corners in order")
    if abs(_area(points)) < 1e-6 * picture:
        raise ConfigError("points: they lie on one line and make no area")


def _area(points: Sequence[Point]) -> float:
    return sum(a[0] * b[1] - a[1] * b[0] for a, b in zip(points, [*points[1:], points[0]], strict=True)) / 2


def _crosses_itself(points: Sequence[Point]) -> tuple[int, int] | None:
    """The numbers, from 1, of two edges that cross, of those that have no corner in common."""
    edges = list(zip(points, [*points[1:], points[0]], strict=True))
    for i, (a, b) in enumerate(edges):
        for j in range(i + 2, len(edges) - (i == 0)):
            c, d = edges[j]
            if _turn(a, b, c) * _turn(a, b, d) < 0 and _turn(c, d, a) * _turn(c, d, b) < 0:
                return i + 1, j + 1
    return None


def _turn(a: Point, b: Point, c: Point) -> float:
    """Which way it goes from a by b to c: above 0 to one side, below to the other."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _pipeline(zone: Zone, names: Sequence[str], following: Collection[str]) -> str:
    """Whose it is."""
    if zone.pipeline is None and len(names) != 1:
        known = " or ".join(f'"{name}"' for name in names)
        raise ConfigError(f"whose picture? write pipeline = {known}")
    name = zone.pipeline or names[0]
    if name not in names:
        raise ConfigError(f'pipeline: "{name}" is none{nearest(name, names)}')
    if not zone.mask and name not in following:
        raise ConfigError(f'{name} follows no objects; write tasks = ["detect:detector", "track"] there')
    return name
