"""The pictures of docs/track.md and docs/rules.md: a frame of a film with its objects, their ways, areas and lines.

python -m tests.bench.track_picture FILM FRAME OUT.jpg [MODEL [CONFIG.toml]]: the zones of a config, else those below.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import cv2
import numpy as np
from msgspec.structs import replace

from edge_agent.config import Zone, load
from edge_agent.events.objects import Life, Tracked
from edge_agent.paths import home
from edge_agent.pictures.draw import colour, draw, save_jpeg
from edge_agent.serving.models import Models
from edge_agent.sources import open_source
from edge_agent.tasks import make_task
from edge_agent.types import Finding, Frame
from edge_agent.uri import Uri
from edge_agent.walk.follow import Follow
from edge_agent.walk.pipeline import walk

ZONES = [
    Zone("aisle", [(0.5, 0.45), (0.85, 0.45), (1.0, 0.9), (1.0, 1.0), (0.45, 1.0)]),
    Zone("till", [(0.55, 0.97), (0.97, 0.72)], line=True),
]
WIDE = 800


def main(film: str, number: int, out: str, model: str = "detector", config: str = "") -> None:
    """Follow what is in the film until then, and draw it."""
    zones = load(config).zone if config else ZONES
    chain = [
        make_task(Uri("detect", model, {"classes": "person", "low": "0.1"}), Models(threads=2).serve, home()),
        make_task(Uri("track", ""), Models().serve, home()),
    ]
    follow = Follow("shop", zones, None)
    for at, frame in enumerate(open_source(Uri("files", film)).run(threading.Event())):
        if not isinstance(frame, Frame):
            continue
        (found,) = walk(frame, chain)
        list(follow([found]))
        if at >= number:
            break
    assert isinstance(frame, Frame) and isinstance(found, Finding) and isinstance(found.what, Tracked)
    lives = [item.what for item in follow(None) if isinstance(item, Finding) and isinstance(item.what, Life)]
    scale = WIDE / frame.width
    size = WIDE, round(frame.height * scale)
    image = cv2.resize(frame.image, size, interpolation=cv2.INTER_CUBIC)
    shade = image.copy()
    for zone in zones:
        points = np.rint(np.array(zone.points) * size).astype(np.int32)
        if not zone.line:
            cv2.fillPoly(shade, [points], (80, 200, 80))
    image = cv2.addWeighted(shade, 0.3, image, 0.7, 0)
    for zone in zones:
        if zone.line:
            start, end = np.rint(np.array(zone.points) * size).astype(int).tolist()
            cv2.line(image, start, end, (40, 40, 230), 3, cv2.LINE_AA)
    for life in lives:
        way = np.rint(np.array(life.path) * scale).astype(np.int32)
        near = int(np.abs(found.what.xyxy - np.array(life.box)).sum(1).argmin())
        cv2.polylines(image, [way], False, colour(int(found.what.object[near])), 3, cv2.LINE_AA)
    grown = found.what.xyxy * np.float32(scale)
    save_jpeg(draw(np.asarray(image, np.uint8), replace(found.what, xyxy=grown)), Path(out))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
