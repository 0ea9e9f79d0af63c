"""18 kinds of tampering with a camera, on a film of the shared data: ``python -m tests.bench.tamper [FILM]``.

The view and its limits are learned from the first half (of vtest.avi 40 seconds, a look each half second); the kinds,
and eight harmless changes, are laid on the rest: every look the median of eight frames a second apart.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from edge_agent.figures.scores import auroc
from edge_agent.pictures import view
from edge_agent.pictures.view import Look, Small, View, shrunk
from edge_agent.types import Floats, Pixels
from tests.conftest import ROOT

VIDEOS = Path(os.environ.get("EDGE_AGENT_DATA", ROOT.parent / "shared" / "data")) / "video"
THING = ROOT / "deploy" / "demo" / "coffee.png"
Change = Callable[[Pixels], Pixels]


def turned(degrees: float, scale: float = 1.0, across: float = 0.0, down: float = 0.0) -> Change:
    def change(image: Pixels) -> Pixels:
        high, wide = image.shape[:2]
        move = cv2.getRotationMatrix2D((wide / 2, high / 2), degrees, scale)
        move[:, 2] += across * wide, down * high
        return np.asarray(cv2.warpAffine(image, move, (wide, high), borderMode=cv2.BORDER_REPLICATE), np.uint8)

    return change


def blurred(sigma: float) -> Change:
    return lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def mixed(image: Pixels, mask: Floats, other: object) -> Pixels:
    return np.asarray(image * (1 - mask[..., None]) + mask[..., None] * np.asarray(other), np.uint8)


def spots(count: int, seed: int, largest: float, soft: float) -> Callable[[Pixels], Floats]:
    def mask(image: Pixels) -> Floats:
        (high, wide), chance, found = (
            image.shape[:2],
            np.random.default_rng(seed),
            np.zeros(image.shape[:2], np.float32),
        )
        for _ in range(count):
            at = int(chance.integers(wide)), int(chance.integers(high))
            cv2.circle(found, at, int(wide * chance.uniform(0.02, largest)), 1.0, -1)
        return np.asarray(cv2.GaussianBlur(found, (0, 0), soft), np.float32)

    return mask


def hand(image: Pixels) -> Pixels:
    high, wide = image.shape[:2]
    mask = np.zeros((high, wide), np.float32)
    axes = int(wide * 0.42), int(high * 0.42)
    cv2.ellipse(mask, (int(wide * 0.4), int(high * 0.6)), axes, 20, 0, 360, 1.0, -1)
    return mixed(image, np.asarray(cv2.GaussianBlur(mask, (0, 0), 15), np.float32), (60, 70, 110))


def added(image: Pixels) -> Pixels:
    found: Pixels = image.copy()
    side = int(image.shape[1] * 0.18)
    thing = cv2.imread(str(THING))
    assert thing is not None
    found[144 : 144 + side, 115 : 115 + side] = cv2.resize(thing, (side, side))
    return found


def removed(image: Pixels) -> Pixels:
    high, wide = image.shape[:2]
    mask = np.zeros((high // 2, wide // 2), np.uint8)
    mask[int(0.01 * high) : int(0.135 * high), int(0.21 * wide) : int(0.335 * wide)] = 255
    filled = cv2.inpaint(cv2.resize(image, (wide // 2, high // 2)), mask, 3, cv2.INPAINT_TELEA)
    found: Pixels = image.copy()
    whole = cv2.resize(mask, (wide, high)) > 0
    found[whole] = cv2.resize(filled, (wide, high))[whole]
    return found


def lit(gain: float, offset: float = 0.0, gamma: float = 1.0) -> Change:
    return lambda image: np.clip(255 * (image / 255.0) ** gamma * gain + offset, 0, 255).astype(np.uint8)


def noisy(image: Pixels) -> Pixels:
    chance = np.random.default_rng(int(image[::97, ::89].sum()))
    return np.clip(image + chance.normal(0, 10, image.shape), 0, 255).astype(np.uint8)


def packed(image: Pixels) -> Pixels:
    found = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], 1)
    assert found is not None
    return np.asarray(found, np.uint8)


def shaken(image: Pixels) -> Pixels:
    chance = np.random.default_rng(int(image[::97, ::89].sum()))
    return turned(0, 1, *chance.uniform(-0.004, 0.004, 2))(image)


def from_one_side(image: Pixels) -> Pixels:
    across = np.linspace(0.8, 1.2, image.shape[1])[None, :, None]
    return np.clip(image * across, 0, 255).astype(np.uint8)


KINDS: dict[str, Change] = {
    "moved by 3 %": turned(0, 1, 0.03, 0.01),
    "moved by 12 %": turned(0, 1, 0.12, -0.05),
    "moved by half": turned(0, 1, 0.5, 0.2),
    "zoomed in": turned(0, 1.15),
    "zoomed out": turned(0, 0.85),
    "rotated by 4°": turned(4),
    "rotated by 25°": turned(25),
    "covered wholly": lambda image: np.random.default_rng(1).normal(90, 6, image.shape).clip(0, 255).astype(np.uint8),
    "covered by half": lambda image: mixed(image, (np.indices(image.shape[:2])[1] < 384) * np.float32(1), (40, 45, 50)),
    "a hand before it": hand,
    "a bag over it": lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), 14) * 0.35 + 0.65 * 190, np.uint8),
    "a little out of focus": blurred(2.5),
    "far out of focus": blurred(8),
    "sprayed": lambda image: mixed(image, spots(14, 3, 0.09, 6)(image) * np.float32(0.95), (20, 20, 180)),
    "drops on it": lambda image: mixed(image, spots(60, 5, 0.05, 3)(image), cv2.GaussianBlur(image, (0, 0), 9)),
    "dimmed": lit(0.25),
    "an object added": added,
    "an object removed": removed,
}
HARMLESS: dict[str, Change] = {
    "nothing": lambda image: image,
    "compression": packed,
    "noise": noisy,
    "shaking": shaken,
    "brighter": lit(1.3, 15),
    "darker": lit(0.7, -15),
    "sun from one side": from_one_side,
    "gamma 0.75": lit(1, 0, 0.75),
    "gamma 1.35": lit(1, 0, 1.35),
}


def film(name: str) -> list[Pixels]:
    capture, found = cv2.VideoCapture(str(VIDEOS / name)), list[Pixels]()
    while (row := capture.read())[0]:
        found.append(np.asarray(row[1], np.uint8))
    return found


def look(frames: dict[int, Small], end: int) -> Look:
    """At the median of eight frames a second (ten frames) apart."""
    rows = np.sort(np.stack([frames[end - 10 * k] for k in range(8)]), axis=0)[3:5]
    return Look(np.asarray(rows.mean(axis=0), np.float32))


def main() -> None:
    frames, known = film(sys.argv[1] if len(sys.argv) > 1 else "vtest.avi"), None
    half = len(frames) // 10 * 5 + 5
    view.SOME = 5
    calm = {i: shrunk(frames[i]) for i in range(0, half, 5)}
    for end in range(70, half, 5):
        one = look(calm, end)
        known = known or View(one.picture)
        known.learn(one, one.off(known.look()))
    assert known is not None
    limits, ends = known.limits(), range(half + 75, len(frames), 10)
    places = sorted({end - 10 * k for end in ends for k in range(8)})
    scores = {}
    began = 0.0
    for name, change in {**HARMLESS, **KINDS}.items():
        small = {i: shrunk(change(frames[i])) for i in places}
        began -= time.process_time()
        scores[name] = np.array([(look(small, end).off(known.look()) / limits).max() for end in ends], np.float64)
        began += time.process_time()
    usual = np.concatenate([scores[name] for name in HARMLESS])
    rows = {name: (auroc(scores[name], usual), float((scores[name] > 1).mean())) for name in KINDS}
    for name, (area, caught) in rows.items():
        print(f"{name:24}{area:7.3f}{caught:8.0%}")
    print(
        f"mean AUROC {np.mean([a for a, _ in rows.values()]):.3f}, worst {min(a for a, _ in rows.values()):.3f}, ",
        end="",
    )
    print(
        f"caught {np.mean([c for _, c in rows.values()]):.1%}, false alarms {(usual > 1).mean():.2%} of looks, ", end=""
    )
    print(f"{began / (len(ends) * len(scores)) * 1e3:.1f} ms a look")


if __name__ == "__main__":
    main()
