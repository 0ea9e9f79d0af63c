"""The speed of things over the ground of a calibrated scene."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from edge_agent.config.zones import Point, Zone, checked_zones
from edge_agent.errors import ConfigError
from edge_agent.walk.follow import Follow
from edge_agent.walk.ground import Ground
from tests.walk.test_follow import HIGH, WIDE, lives, seen

SIZE = (WIDE, HIGH)


def pixel(x: float, y: float) -> Point:
    """Where a place on the ground, metres, is in the picture of a camera 3 m high that looks 20 degrees down."""
    down, focal = math.radians(20), 350.0
    right, below, ahead = x, 3 * math.cos(down) - y * math.sin(down), y * math.cos(down) + 3 * math.sin(down)
    return WIDE / 2 + focal * right / ahead, HIGH / 2 + focal * below / ahead


CORNERS: list[Point] = [(-2, 8), (2, 8), (2, 14), (-2, 14)]
LAWN = Zone("lawn", [(u / WIDE, v / HIGH) for u, v in (pixel(*corner) for corner in CORNERS)], metres=CORNERS)


def test_places_on_the_ground_are_those_that_were_measured() -> None:
    ground = Ground(LAWN)
    for place in [*CORNERS, (0.3, 11.0), (3.0, 25.0)]:
        assert ground(pixel(*place), SIZE) == pytest.approx(place, abs=1e-6)
    assert ground((WIDE / 2, 1.0), SIZE) is None, "above the horizon nothing stands on the ground"


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_an_object_tells_its_speed_wherever_it_walks(noise: float) -> None:
    """1.4 m/s away from the camera and across, with boxes that tremble by a pixel."""
    dice = np.random.default_rng(3)

    def frames() -> list[float]:
        feet = [(-2 + 0.8 * t / 10, 9 + 1.15 * t / 10) for t in range(50)]
        found = [
            seen(t / 10, {1: tuple(np.array(pixel(*foot)) + dice.normal(0, noise, 2))}) for t, foot in enumerate(feet)
        ]
        told = lives(Follow("yard", [LAWN], None), *found, None)
        assert told[0].speed is msgspec.UNSET, "it is seen too short for that"
        return [event.speed for event in told if event.speed is not msgspec.UNSET]

    speeds = frames()
    assert len(speeds) >= 2
    assert all(abs(speed - 1.4) < 0.05 + 0.45 * noise for speed in speeds), speeds


def test_what_stands_has_no_speed_and_without_metres_nobody_says_one() -> None:
    dice = np.random.default_rng(5)

    def told(zone: Zone) -> list[object]:
        found = [
            seen(t / 10, {1: tuple(np.array(pixel(0, 10)) + dice.normal(0, 1, 2))}, still=t > 20) for t in range(60)
        ]
        return [event.speed for event in lives(Follow("yard", [zone], None), *found)]

    assert told(LAWN)[-1] == 0.0
    assert set(told(msgspec.structs.replace(LAWN, metres=[]))) == {msgspec.UNSET}


@pytest.mark.parametrize(
    ("zones", "why"),
    [
        ([msgspec.structs.replace(LAWN, metres=CORNERS[:3])], "4 points and 3 metres; give a place on the ground for"),
        ([Zone("z", LAWN.points[:3], metres=CORNERS[:3])], "3 points and 3 metres; .*four corners or more"),
        ([msgspec.structs.replace(LAWN, metres=[(0, 0), (1, 1), (1, 0), (0, 1)])], "these places make no area"),
        ([msgspec.structs.replace(LAWN, metres=[(0, 0), (1, 0), (2, 0), (3, 0)])], "these places make no area"),
        ([LAWN, msgspec.structs.replace(LAWN, name="z")], "yard has a zone with metres already"),
        ([Zone("l", [(0, 0), (1, 1)], line=True, metres=CORNERS[:2])], "metres does nothing for a line"),
    ],
)
def test_metres_that_are_no_ground_are_refused(zones: list[Zone], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        checked_zones(zones, ["yard"], ["yard"])
