"""Pictures for people: boxes drawn into them, and written as JPEG and PNG files."""

from __future__ import annotations

import colorsys
import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_agent import files
from edge_agent.errors import InputError, UsageError
from edge_agent.events.objects import Tracked
from edge_agent.pictures.read import cv2
from edge_agent.types import Detections, Pixels

JPEG_SIDE = 65_500
"""the most pixels a side that cv2 writes into a JPEG"""

OURS = b"\xff\xfe\x00\x0cedge-agent"
"""a comment in the pictures that we draw, by which they are known when they are drawn anew"""


def colour(label: int) -> tuple[int, int, int]:
    """A BGR colour of its own for each class id: hues stepped by the golden angle, which never repeat."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1.0, 0.85 if label % 2 else 0.65, 0.95)
    return round(blue * 255), round(green * 255), round(red * 255)


def draw(image: Pixels, found: Detections) -> Pixels:
    """A copy of `image` (h, w, 3 BGR) with the boxes of `found`, each with its name and score on a filled tag.

    Line and letters grow with the picture. The best-scored box is drawn last, on top.
    """
    picture: Pixels = image.copy()
    height, width = picture.shape[:2]
    line = max(1, round((width + height) / 600))
    size = max(0.4, (width + height) / 2400)
    things = found.object.tolist() if isinstance(found, Tracked) else [None] * len(found)
    for box, score, label, thing in reversed(list(zip(found.xyxy, found.score, found.label, things, strict=True))):
        left, top, right, bottom = (round(float(v)) for v in box)
        paint = colour(int(label) if thing is None else thing)
        cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), paint, line)
        name = found.names.get(int(label), str(label)).encode("ascii", "replace").decode()
        text = f"{name} {score:.2f}" if thing is None else f"{name} {thing}"
        (text_width, text_height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, line)
        x = max(0, min(left, width - text_width))
        y = top - below if top >= text_height + 2 * below else top + text_height + below
        cv2.rectangle(picture, (x, y - text_height - below), (x + text_width, y + below), paint, cv2.FILLED)
        dark = 0.114 * paint[0] + 0.587 * paint[1] + 0.299 * paint[2] < 128
        ink = (255, 255, 255) if dark else (0, 0, 0)
        cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, ink, max(1, line // 2), cv2.LINE_AA)
    return picture


Point = tuple[float, float]


def outline(image: Pixels, points: Sequence[Point], name: str, closed: bool = True) -> None:
    """Draw an area, or a line, of a picture into it, with its name at its first corner; `points` in fractions."""
    height, width = image.shape[:2]
    corners = np.rint(np.asarray(points, float) * (width - 1, height - 1)).astype(np.int32)
    line = max(1, round((width + height) / 600))
    cv2.polylines(image, [corners], closed, (0, 215, 255), line, cv2.LINE_AA)
    label(image, int(corners[0][0]) + 3, int(corners[0][1]) - 4, name)


def trail(image: Pixels, points: Sequence[Point], thing: int) -> None:
    """Draw the way that a thing went, in its colour; `points` in pixels."""
    cv2.polylines(image, [np.rint(points).astype(np.int32)], False, colour(thing), 2, cv2.LINE_AA)


def framed(image: Pixels, box: tuple[float, float, float, float], text: str) -> None:
    """Draw a box that has a text above it, in pixels."""
    left, top, right, bottom = (round(side) for side in box)
    cv2.rectangle(image, (left, top), (right - 1, bottom - 1), (0, 215, 255), 1)
    label(image, left, top - 4, text)


def label(image: Pixels, x: int, y: int, text: str) -> None:
    """Write a short text into a picture, dark on bright with an edge, within its sides."""
    height, width = image.shape[:2]
    size = max(0.4, (width + height) / 2400)
    written = text[:60].encode("ascii", "replace").decode()
    (wide, high), below = cv2.getTextSize(written, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    at = max(0, min(x, width - wide)), max(high, min(y, height - below))
    for ink, line in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(image, written, at, cv2.FONT_HERSHEY_SIMPLEX, size, ink, line, cv2.LINE_AA)


def jpeg(image: Pixels, quality: int = 90) -> bytes:
    """`image` (h, w, 3 BGR) as the bytes of a JPEG file. InputError above 65,500 pixels a side."""
    if max(image.shape) > JPEG_SIDE:
        raise InputError(f"a picture of {image.shape[1]}x{image.shape[0]} pixels does not fit into a JPEG")
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(data)


def png(image: Pixels) -> bytes:
    """`image` (h, w, 3 BGR) as the bytes of a PNG file, of which nothing is lost; compressed lightly, to be fast."""
    return bytes(cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])


def is_drawn(path: Path) -> bool:
    """Whether `save_jpeg` wrote that file."""
    with path.open("rb") as file:
        return file.read(2 + len(OURS))[2:] == OURS


def save_jpeg(image: Pixels, path: Path) -> None:
    """Write `image` to `path`. UsageError when that cannot be written."""
    data = jpeg(image)
    _write(path, data[:2] + OURS + data[2:])


def save_png(image: Pixels, path: Path) -> None:
    """Write `image` (h, w, 3 BGR) to `path`. UsageError when that cannot be written."""
    _write(path, png(image))


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name[:200]}.part")
    try:
        part.write_bytes(data)
        files.put(part, path)
    except OSError as error:
        # half a picture is none
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise UsageError(
            f"{path}: cannot be written ({error.strerror}); give a file in a folder you may write"
        ) from None
