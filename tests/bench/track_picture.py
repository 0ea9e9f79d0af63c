"""The picture of docs/track.md: a frame of a film with its objects, their ways, an area and a line.

python -m tests.bench.track_picture FILM FRAME OUT.jpg [MODEL]
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import cv2
import numpy as np
from msgspec.structs import replace

from edge_agent.config.zones import Zone
from edge_agent.events.objects import Life
from edge_agent.paths import home
from edge_agent.pictures.draw import colour, draw, save_jpeg
from edge_agent.serving.models import Models
from edge_agent.sources import open_source
from edge_agent.tasks import make_task
from edge_agent.types import Detections, Finding, Frame
from edge_agent.uri import Uri
from edge_agent.walk.follow import Follow
from edge_agent.walk.pipeline import walk

AREA = Zone("aisle", [(0.5, 0.45), (0.85, 0.45), (1.0, 0.9), (1.0, 1.0), (0.45, 1.0)])
LINE = Zone("till", [(0.55, 0.97), (0.97, 0.72)], line=True)
WIDE = 800


def main(film: str, number: int, out: str, model: str = "detector") -> None:
    """Follow what is in the film until then, and draw it."""
    chain = [
        make_task(Uri("detect", model, {"classes": "person", "low": "0.1"}), Models(threads=2).serve, home()),
        make_task(Uri("track", ""), Models().serve, home()),
    ]
    follow = Follow("shop", [AREA, LINE], None)
    for at, frame in enumerate(open_source(Uri("files", film)).run(threading.Event())):
        if not isinstance(frame, Frame):
            continue
        (found,) = walk(frame, chain)
        list(follow([found]))
        if at >= number:
            break
    assert isinstance(frame, Frame) and isinstance(found, Finding) and isinstance(found.what, Detections)
    lives = [item.what for item in follow(None) if isinstance(item, Finding) and isinstance(item.what, Life)]
    scale = WIDE / frame.width
    size = WIDE, round(frame.height * scale)
    image = cv2.resize(frame.image, size, interpolation=cv2.INTER_CUBIC)
    shade = image.copy()
    cv2.fillPoly(shade, [np.rint(np.array(AREA.points) * size).astype(np.int32)], (80, 200, 80))
    image = cv2.addWeighted(shade, 0.3, image, 0.7, 0)
    start, end = (tuple(int(v) for v in np.rint(np.array(point) * size)) for point in LINE.points)
    cv2.line(image, start, end, (40, 40, 230), 3, cv2.LINE_AA)
    for life in lives:
        way = np.rint(np.array(life.path) * scale).astype(np.int32)
        cv2.polylines(image, [way], False, colour(int(life.object.rpartition("-")[2])), 3, cv2.LINE_AA)
    grown = found.what.xyxy * np.float32(scale)
    save_jpeg(draw(np.asarray(image, np.uint8), replace(found.what, xyxy=grown)), Path(out))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
