"""The picture of docs/anomaly.md: ``python -m tests.bench.tamper_picture OUT.jpg``.

A carried photograph with sensor noise and somebody who walks through stands for a camera; what is done to it is told
by the agent's own code. Drawn: how far each look is off the usual view, in shares of its limits.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from edge_agent.pictures.draw import save_jpeg
from edge_agent.pictures.read import read_picture
from edge_agent.pictures.tamper import Tamper
from edge_agent.pictures.view import Look, View
from edge_agent.types import Floats, Pixels
from tests.bench.tamper import Change, blurred, hand, lit, mixed, spots, turned

DEMO = Path(__file__).resolve().parents[2] / "deploy" / "demo"
LEARN_S, STAGE_S = 420, 50
STAGES: dict[str, Change] = {
    "usual": lambda image: image,
    "darker": lit(0.75),
    "moved by 8 %": turned(0, 1, 0.08, 0.03),
    "usual ": lambda image: image,
    "a hand": hand,
    "out of focus": blurred(3.5),
    "blue spots": lambda image: mixed(image, spots(4, 8, 0.05, 4)(image), (170, 110, 20)),
    "usual  ": lambda image: image,
}
WIDE, HIGH, TILE = 960, 230, 118
MOST = 6.0
"""shares of a limit that are drawn"""
COLOURS = {"": (90, 160, 60), "moved": (200, 120, 30), "covered": (50, 50, 210), "blurred": (170, 60, 150)}


class Recorded(Tamper):
    """It, with how far each look is off."""

    share = 0.0

    def _nearest(self, look: Look, among: list[View]) -> tuple[View | None, Floats, float]:
        found = super()._nearest(look, among)
        self.share = found[2]
        return found


def scene(at: int, chance: np.random.Generator, place: Pixels, somebody: Pixels) -> Pixels:
    image = place.astype(np.int16) + chance.integers(-5, 6, (*place.shape[:2], 1), dtype=np.int16)
    left = at * 53 % (place.shape[1] + 120) - 60
    low, high = max(left, 0), min(left + somebody.shape[1], place.shape[1])
    if low < high:
        image[-somebody.shape[0] :, low:high] = somebody[:, low - left : high - left]
    found: Pixels = np.clip(image, 0, 255).astype(np.uint8)
    return found


def words(image: Pixels, text: str, x: int, y: int, colour: tuple[int, int, int] = (60, 60, 60)) -> None:
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)


def main(out: Path) -> None:
    chance, tamper = np.random.default_rng(0), Recorded(LEARN_S)
    place = np.asarray(cv2.resize(read_picture(DEMO / "coffee.png").image, (480, 320)), np.uint8)
    somebody = np.asarray(cv2.resize(read_picture(DEMO / "astronaut.png").image, (60, 110)), np.uint8)
    for at in range(LEARN_S + 20):
        tamper(scene(at, chance, place, somebody), at)
    rows, tiles = list[tuple[float, str]](), list[Pixels]()
    for change in STAGES.values():
        for _ in range(STAGE_S):
            at += 1
            image = change(scene(at, chance, place, somebody))
            tamper(image, at)
            rows.append((tamper.share, tamper.doubt))
        tiles.append(np.asarray(cv2.resize(image, (TILE, TILE * 2 // 3), interpolation=cv2.INTER_AREA), np.uint8))
    sheet = np.full((TILE * 2 // 3 + HIGH + 40, WIDE, 3), 255, np.uint8)
    step, floor, top = WIDE / len(rows), sheet.shape[0] - 24, TILE * 2 // 3 + 30
    for number, (name, tile) in enumerate(zip(STAGES, tiles, strict=True)):
        left = int(number * STAGE_S * step)
        sheet[2 : 2 + tile.shape[0], left + 1 : left + 1 + TILE] = tile
        words(sheet, name.strip(), left + 2, TILE * 2 // 3 + 18)
        cv2.line(sheet, (left, top), (left, floor), (220, 220, 220), 1)

    def y(share: float) -> int:
        return int(floor - min(share, MOST) / MOST * (floor - top))

    cv2.line(sheet, (0, y(1)), (WIDE, y(1)), (120, 120, 120), 1)
    words(sheet, "limit", WIDE - 40, y(1) - 4)
    for number, ((share, doubt), (other, _)) in enumerate(zip(rows[1:], rows, strict=False)):
        x = int((number + 1) * step)
        cv2.line(sheet, (int(number * step), y(other)), (x, y(share)), COLOURS[doubt], 2, cv2.LINE_AA)
        if doubt:
            sheet[floor + 3 : floor + 7, int(number * step) : x] = COLOURS[doubt]
    for number, (_, doubt) in enumerate(rows):
        if doubt and rows[number - 1][1] != doubt:
            words(sheet, doubt, int(number * step), floor + 20, COLOURS[doubt])
    save_jpeg(sheet, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
