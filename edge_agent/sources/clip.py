"""A clip as a camera would give it, made of still pictures: for the demo and for tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edge_agent.errors import SourceError
from edge_agent.pictures.read import cv2, decode
from edge_agent.types import Pixels

WIDTH, HEIGHT, FPS = 640, 480, 10

SCENES = (
    ("astronaut.png", 40, "pan"),
    ("", 15, "black"),
    ("chelsea.png", 40, "zoom"),
    ("chelsea.png", 30, "freeze"),
    ("coffee.png", 35, "pan"),
)
"""picture, frames, what the camera does"""
WALK = (("astronaut.png", 50, "walk"), *SCENES[1:])
"""the same, but that the picture comes in on the right-hand side and goes to the left"""
WALL, SMALL = 150, 0.8
"""how bright it is around a picture that walks, and how high this is in the frame"""
Scenes = Sequence[tuple[str, int, str]]


def make_clip(pictures: Path, out: Path, scenes: Scenes = SCENES) -> None:
    """Write the clip of these scenes as Motion JPEG (AVI), WIDTH × HEIGHT at FPS. SourceError when it cannot be
    written.
    """
    writer = cv2.VideoWriter(str(out), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (WIDTH, HEIGHT))
    if not writer.isOpened():
        raise SourceError(f"{out}: a clip cannot be written there; free the disk or set TMPDIR")
    try:
        for name, count, move in scenes:
            picture = decode((pictures / name).read_bytes()) if name else np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            for frame in _scene(picture, count, move):
                writer.write(frame)
    finally:
        writer.release()


def _scene(picture: Pixels, count: int, move: str) -> Iterator[Pixels]:
    """`count` frames of one picture."""
    noise = np.random.default_rng(0)
    for i in range(count):
        part = 0.0 if move == "freeze" else i / max(1, count - 1)
        if move == "black":
            yield picture
            continue
        frame = _walking(picture, part) if move == "walk" else _seen(picture, part, move)
        grain = noise.integers(-4, 5, frame.shape, np.int16) if move != "freeze" else 0
        yield np.clip(frame + np.int16(1) * grain, 0, 255).astype(np.uint8)


def _walking(picture: Pixels, part: float) -> Pixels:
    """The picture on its way from the right-hand side of the frame to the left."""
    size = round(SMALL * HEIGHT)
    frame = np.full((HEIGHT, WIDTH, 3), WALL, np.uint8)
    x = round((WIDTH - size) * (1 - part))
    frame[HEIGHT - size :, x : x + size] = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    return frame


def _seen(picture: Pixels, part: float, move: str) -> Pixels:
    """What a camera sees that moves over the picture."""
    height, width = picture.shape[:2]
    # the window that the camera sees: 4:3, from 100 % down to 75 % of the height for a zoom, else 90 % and panning
    high = height * (1 - 0.25 * part if move != "pan" else 0.9)
    wide = min(width, high * WIDTH / HEIGHT)
    high = wide * HEIGHT / WIDTH
    x = (width - wide) * (part if move == "pan" else 0.5)
    y = (height - high) * 0.3
    matrix = np.array([[WIDTH / wide, 0, -x * WIDTH / wide], [0, HEIGHT / high, -y * HEIGHT / high]])
    seen = cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(seen, np.uint8)
