"""18 kinds of tampering with a camera, on a film of the shared data: ``python -m tests.bench.tamper [FILM [EVERY]]``.

The view and its limits are learned from the first half (of vtest.avi 40 seconds, a look each half second); the kinds,
and eight harmless changes, are laid on the rest: every look the median of eight frames a second apart. The rivals are
fitted to the same looks; what they catch is said at the limit that lets 1 % of the harmless looks of the rest through.
EVERY: frames from one look that is measured to the next.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from edge_agent.backends import open_net
from edge_agent.figures.scores import Doubles, auroc
from edge_agent.graphs.cut import Cuttable
from edge_agent.pictures import view
from edge_agent.pictures.view import Look, Small, View, median, shrunk
from edge_agent.registry import catalogue
from edge_agent.registry.files import file_path
from edge_agent.tasks.anomaly.learned import Calibration, parts_of
from edge_agent.tasks.state.features import reader
from edge_agent.types import Floats, Pixels
from edge_agent.workshop.train.anomaly.candidates import loaded
from tests.conftest import ROOT

VIDEOS = Path(os.environ.get("EDGE_AGENT_DATA", ROOT.parent / "shared" / "data")) / "video"
THING = ROOT / "deploy" / "demo" / "coffee.png"
Change = Callable[[Pixels], Pixels]
VAE_MINUTES = 2.0


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
    return Look(median([frames[end - 10 * k] for k in range(8)]))


Score = Callable[[Floats], float]


def small(picture: Floats, wide: int = 40, high: int = 30) -> Floats:
    return np.asarray(cv2.resize(picture, (wide, high), interpolation=cv2.INTER_AREA) / 255, np.float32)


def rivals(calm: list[Floats]) -> dict[str, Score]:
    """Each fitted to what is usual, (120, 160, 3): how unusual a picture is."""
    rows = np.stack([small(one).ravel() for one in calm])
    mean = rows.mean(axis=0)
    axes = np.linalg.svd(rows - mean, full_matrices=False)[2][:16]

    def off(picture: Floats) -> Floats:
        x = small(picture).ravel() - mean
        return np.asarray(x - axes.T @ (axes @ x), np.float32)

    found: dict[str, Score] = {
        "frame difference": lambda picture: float(np.abs(small(picture).ravel() - mean).mean()),
        "principal components": lambda picture: float(np.square(off(picture)).mean()),
        "nearest by features of edge-yolo": nearest(calm),
    }
    return found | ({"convolutional VAE": vae(calm)} if find_spec("torch") else {})


def nearest(calm: list[Floats]) -> Score:
    located = catalogue.locate("edge-yolo")
    (path,) = [file_path(located, row) for row in located.manifest.networks() if row.name == "model.onnx"]
    assert located.manifest.input is not None
    with TemporaryDirectory() as folder:
        cut = Cuttable(path)
        cut.write(Path(folder) / "maps.onnx", {name: f"map:{number:02}" for number, name in enumerate(cut.maps())})
        read = reader(open_net(Path(folder) / "maps.onnx", "onnx", 1), located.manifest.input)
    known = np.stack([read(one.astype(np.uint8)) for one in calm])
    return lambda picture: float(np.linalg.norm(known - read(picture.astype(np.uint8)), axis=1).min())


def vae(calm: list[Floats]) -> Score:
    def given(picture: Floats) -> Floats:
        return np.ascontiguousarray(small(picture, 64, 64).transpose(2, 0, 1))

    rows = np.stack([given(one) for one in calm])
    from edge_agent.workshop.train.anomaly import vae as networks

    trained, _ = networks.train(rows, 16, VAE_MINUTES, 0, lambda line: None, 0.0, 1.0)
    net = loaded(networks.to_onnx(trained)[0])

    def parts(picture: Floats, variance: float) -> dict[str, float]:
        x = given(picture)[None]
        unit = Calibration("frames", "elbo", variance, [0.0], 1.0, 0.0)
        return parts_of(x.astype(np.float64), net.run({net.inputs[0].name: x}), unit)[0]

    usual = 2 * float(np.mean([parts(one, 1.0)["reconstruction"] for one in calm]))
    return lambda picture: parts(picture, usual)["elbo"]


def told(name: str, scores: dict[str, Doubles], limit: float | None = None) -> None:
    """Print how well one tells; `limit`: its own, else what lets 1 % of the harmless looks through."""
    usual = np.concatenate([scores[kind] for kind in HARMLESS])
    level = float(np.quantile(usual, 0.99)) if limit is None else limit
    areas, caught = zip(*((auroc(scores[k], usual), float((scores[k] > level).mean())) for k in KINDS), strict=True)
    print(f"{name:34} mean AUROC {np.mean(areas):.3f}, worst {min(areas):.3f} ({list(KINDS)[int(np.argmin(areas))]}), "
          f"caught {np.mean(caught):.1%}, false alarms {(usual > level).mean():.2%} of looks")  # fmt: skip
    if limit is not None:
        for kind, area, share in zip(KINDS, areas, caught, strict=True):
            print(f"  {kind:24}{area:7.3f}{share:8.0%}")


def main() -> None:
    frames, known = film(sys.argv[1] if len(sys.argv) > 1 else "vtest.avi"), None
    half = len(frames) // 10 * 5 + 5
    view.SOME = 5
    calm = {i: shrunk(frames[i]) for i in range(0, half, 5)}
    for end in range(70, half, 5):
        one = look(calm, end)
        known = known or View(one.whole)
        known.learn(one, one.off(known.look()))
    assert known is not None
    limits, every = known.limits(), int(sys.argv[2]) if len(sys.argv) > 2 else 20
    ends = range(half + 75, len(frames), every)
    others = rivals([look(calm, end).whole for end in range(70, half, 5)])
    places = sorted({end - 10 * k for end in ends for k in range(8)})
    ours, theirs = dict[str, Doubles](), {name: dict[str, Doubles]() for name in others}
    began = 0.0
    for name, change in {**HARMLESS, **KINDS}.items():
        shown = {i: shrunk(change(frames[i])) for i in places}
        began -= time.process_time()
        looks = [look(shown, end) for end in ends]
        ours[name] = np.array([(one.off(known.look()) / limits).max() for one in looks], np.float64)
        began += time.process_time()
        for rival, score in others.items():
            theirs[rival][name] = np.array([score(one.whole) for one in looks], np.float64)
    told("blocks (serves)", ours, 1.0)
    print(f"  {began / (len(ends) * len(ours)) * 1e3:.1f} ms a look")
    for rival, scores in theirs.items():
        told(rival, scores)


if __name__ == "__main__":
    main()
