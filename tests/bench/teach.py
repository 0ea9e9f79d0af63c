"""How well a state is taught from ten pictures of each: held against mean brightness and pixels, on what came later.

    python -m tests.bench.teach DATA [--count 10] [--model edge-yolo]

DATA is the folder of shared test data. Of each scene the examples are spread evenly over the first two fifths of each
state, in the order of time, and all that came later is asked. `chosen` are the scenes on which features and limits were
chosen, `kept` those that they were not chosen on. Pictures of other scenes (COCO's) should be unknown.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.figures.scores import wilson
from edge_agent.registry import catalogue
from edge_agent.samples.carried import frames
from edge_agent.serving import teach
from edge_agent.tasks.state.features import WHOLE, reader
from edge_agent.tasks.state.head import UNKNOWN, fit
from edge_agent.types import Floats, Pixels

Scene = dict[str, list[Pixels]]
"""state -> its pictures, in the order of time"""
EARLY = 0.4
BOTTLE, TABLE, AISLE, STREET = (
    *("intel_bottle-detection.mp4", "intel_one-by-one-person-detection.mp4"),
    *("intel_store-aisle-detection.gif", "vtest.avi"),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--model", default=teach.BASE)
    args = parser.parse_args()
    scenes = Scenes(args.data / "video")
    read = _reader(args.model)
    anything = np.stack([read(p) for f in frames().values() if f.name != "noise" for p in teach._parts(f.image)])
    strange = [image for path in sorted((args.data / "coco_val94" / "images").iterdir()) for image in _picture(path)]
    other = [read(image) for image in strange]
    heads = ("scene", "", "asked", "right", "95 %", "unknown", "brightness", "pixels", "others unknown")
    print(" | ".join(heads))
    for name, (kind, make) in scenes.all().items():
        print(" | ".join([name, kind, *_row(make(), args.count, read, anything, other)]), flush=True)


def _row(
    scene: Scene, count: int, read: Callable[[Pixels], Floats], anything: Floats, other: Sequence[Floats]
) -> list[str]:
    shown: list[Pixels] = []
    asked: list[Pixels] = []
    y, truth = list[int](), list[int]()
    for label, pictures in enumerate(scene.values()):
        early = max(count, int(EARLY * len(pictures)))
        shown += [pictures[i] for i in np.linspace(0, early - 1, min(count, early)).round().astype(int)]
        asked += pictures[early:]
        y += [label] * min(count, early)
        truth += [label] * len(pictures[early:])
    labels = np.array(y, np.int64)
    features = np.stack([read(image) for image in shown])
    head = fit(features, labels, list(scene), anything, WHOLE, features[0])
    said = [max(scores := head(read(image)), key=scores.__getitem__) for image in asked]
    right = sum(one == head.labels[t] for one, t in zip(said, truth, strict=True))
    low, high = wilson(right, len(truth))
    small, later = (np.stack([teach._shrunk(image) for image in some]) for some in (shown, asked))
    brightness = _nearest(small.mean(1, keepdims=True), later.mean(1, keepdims=True), labels)
    simple = [brightness, _nearest(small, later, labels)]
    unknown = said.count(UNKNOWN) / len(said)
    strangers = np.mean([max(scores := head(one), key=scores.__getitem__) == UNKNOWN for one in other])
    simpler = [f"{np.mean(each == np.array(truth)):.3f}" for each in simple]
    return [str(len(truth)), f"{right / len(truth):.3f}", f"{low:.2f} to {high:.2f}", f"{unknown:.3f}", *simpler,
            f"{strangers:.2f}"]  # fmt: skip


def _nearest(shown: Floats, asked: Floats, y: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The state whose mean is nearest."""
    means = np.stack([shown[y == label].mean(0) for label in range(y.max() + 1)])
    return np.asarray(((asked[:, None] - means[None]) ** 2).sum(2).argmin(1), np.int64)


def _reader(model: str) -> Callable[[Pixels], Floats]:
    import tempfile

    from edge_agent.backends import open_net

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "maps.onnx"
        _, picture = teach._network(catalogue.locate(model), out)
        return reader(open_net(out, "onnx", 1), picture)


def _picture(path: Path) -> Iterator[Pixels]:
    image = cv2.imread(str(path))
    if image is not None:
        yield np.asarray(image, np.uint8)


class Scenes:
    """Real scenes of fixed cameras, labelled by hand in frames, and scenes that are drawn into them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rng = np.random.default_rng(1)

    def all(self) -> dict[str, tuple[str, Callable[[], Scene]]]:
        """name -> what it was used for, and what makes it."""
        return {
            "left bottle there or gone": (
                "chosen",
                lambda: self.film(
                    *(BOTTLE, (0.03, 0.2, 0.25, 1)),
                    there=[(0, 165), (410, 465), (870, 1185)],
                    gone=[(220, 325), (540, 815)],
                ),
            ),
            "path free or taken": ("chosen", lambda: self.street((0.1, 0.3, 0.3, 0.6))),
            "light on or off, aisle": ("chosen", lambda: self.light(AISLE, (0.3, 0.1))),
            "gate open or shut": ("chosen", self.gate),
            "middle bottle there or gone": (
                "kept",
                lambda: self.film(*(BOTTLE, (0.4, 0.2, 0.62, 1)), there=[(0, 470), (740, 1185)], gone=[(540, 650)]),
            ),
            "right bottle there or gone": (
                "kept",
                lambda: self.film(*(BOTTLE, (0.75, 0.2, 0.97, 1)), there=[(0, 920), (1110, 1185)], gone=[(960, 1030)]),
            ),
            "somebody at the table": (
                "kept",
                lambda: self.film(
                    *(TABLE, (0.35, 0, 0.75, 1)),
                    nobody=[(0, 58), (204, 225), (456, 500), (708, 740), (888, 920), (1212, 1230), (1368, 1392)],
                    somebody=[(94, 180), (245, 438), (520, 678), (765, 848), (940, 1182), (1250, 1340)],
                ),
            ),
            "road free or taken": ("kept", lambda: self.street((0.7, 0.5, 0.9, 0.8))),
            "corner free or taken": ("kept", lambda: self.street((0.8, 0.1, 0.95, 0.35))),
            "light on or off, table": ("kept", lambda: self.light(TABLE, (0.58, 0.2))),
            "van parked or not": ("kept", self.van),
            "lever up or down": ("kept", self.lever),
        }

    def frames(self, name: str, wanted: Sequence[int]) -> dict[int, Pixels]:
        """Frames of a film, by number."""
        film, found = cv2.VideoCapture(str(self.folder / name)), {}
        for number in range(max(wanted) + 1):
            taken, frame = film.read()
            if not taken:
                break
            if number in wanted:
                found[number] = np.asarray(frame, np.uint8)
        return found

    def film(self, name: str, region: tuple[float, ...], **states: list[tuple[int, int]]) -> Scene:
        """Every fifth frame of spans of a film."""
        numbers = {state: [n for a, b in spans for n in range(a, b + 1, 5)] for state, spans in states.items()}
        found = self.frames(name, [n for some in numbers.values() for n in some])
        return {state: [_cut(found[n], region) for n in some if n in found] for state, some in numbers.items()}

    def street(self, region: tuple[float, ...]) -> Scene:
        """A part of the street: free where no person touches it, taken where most of one is in it."""
        rows = np.loadtxt(self.folder / "vtest.gt.txt", delimiter=",")[:, [0, 2, 3, 4, 5]]
        left, top, right, bottom = np.array(region) * np.array([768, 576, 768, 576])
        numbers: dict[str, list[int]] = {"free": [], "taken": []}
        for number in range(0, 795, 3):
            x, y, w, h = rows[rows[:, 0] == number + 1][:, 1:].T
            wide = np.clip(np.minimum(x + w, right) - np.maximum(x, left), 0, None)
            high = np.clip(np.minimum(y + h, bottom) - np.maximum(y, top), 0, None)
            share = float((wide * high / (w * h)).max(initial=0))
            if share == 0 or share > 0.6:
                numbers["taken" if share else "free"].append(number)
        found = self.frames(STREET, [n for some in numbers.values() for n in some])
        return {state: [_cut(found[n], region) for n in some] for state, some in numbers.items()}

    def light(self, film: str, lamp: tuple[float, float]) -> Scene:
        """A lamp that is drawn on, in daylight that goes from a third to all of it."""
        scene = self.frames(film, [0])[0]
        high, wide = scene.shape[:2]
        y, x = np.mgrid[:high, :wide]
        glow = np.exp(-(((x - lamp[0] * wide) / (0.18 * wide)) ** 2 + ((y - lamp[1] * high) / (0.18 * wide)) ** 2))
        lit = glow[..., None] * np.array([70, 120, 150])
        return {
            state: [self.day(scene, 0.35, 1.0, lit * self.rng.uniform(0.6, 1.1) * on) for _ in range(120)]
            for state, on in (("on", 1.0), ("off", 0.0))
        }

    def gate(self) -> Scene:
        """A gate of bars that is drawn shut, or swung open, into the street."""
        street = self.frames(STREET, [0])[0]
        found: Scene = {"open": [], "shut": []}
        for number in range(200):
            state, picture = ("open", "shut")[number % 2], street.copy()
            x0, y0, high, wide = 610, 80, 60, 120
            deep = 0 if state == "shut" else int(self.rng.uniform(8, 16))
            reach = wide if state == "shut" else -int(wide * self.rng.uniform(0.1, 0.2))
            for bar in range(9):
                x, y = x0 + int(reach * bar / 8), y0 + int(deep * bar / 8)
                cv2.line(picture, (x, y), (x, y + high), (40, 45, 50), 2)
            for y in (y0, y0 + high // 2, y0 + high):
                cv2.line(picture, (x0, y), (x0 + reach, y + deep), (40, 45, 50), 3)
            found[state].append(self.day(_cut(picture, (0.74, 0.08, 0.98, 0.3)), 0.5, 1.3))
        return found

    def van(self) -> Scene:
        """The van of the street, and the street with it painted over."""
        found: Scene = {"parked": [], "free": []}
        for frame in self.frames(STREET, range(0, 795, 7)).values():
            mask = np.zeros(frame.shape[:2], np.uint8)
            mask[38:104, 648:730] = 255
            gone = np.asarray(cv2.inpaint(frame, mask, 7, cv2.INPAINT_TELEA), np.uint8)
            for state, picture in (("parked", frame), ("free", gone)):
                found[state].append(self.day(_cut(picture, (0.8, 0, 0.97, 0.22)), 0.5, 1.4))
        return found

    def lever(self) -> Scene:
        """A lever that is drawn on the wall, up or down."""
        wall, found = self.frames(TABLE, [0])[0][:160, 200:360], Scene(up=[], down=[])
        for number in range(200):
            state, picture = ("up", "down")[number % 2], wall.copy()
            angle = np.deg2rad((-60 if state == "up" else 60) + self.rng.uniform(-12, 12))
            end = (np.array([80, 80]) + 45 * np.array([np.cos(angle), np.sin(angle)])).astype(int)
            cv2.rectangle(picture, (60, 50), (100, 110), (90, 90, 95), -1)
            cv2.line(picture, (80, 80), (int(end[0]), int(end[1])), (30, 30, 200), 6)
            found[state].append(self.day(picture, 0.5, 1.3))
        return found

    def day(self, scene: Pixels, least: float, most: float, lit: Any = 0.0) -> Pixels:
        """The scene in some daylight, with what is lit, and the noise of a sensor."""
        shown = scene * self.rng.uniform(least, most) * self.rng.uniform(0.94, 1.06, 3) + lit
        return np.asarray(np.clip(shown + self.rng.normal(0, 4, scene.shape), 0, 255), np.uint8)


def _cut(image: Pixels, region: tuple[float, ...]) -> Pixels:
    height, width = image.shape[:2]
    left, top, right, bottom = region
    part = image[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
    return np.ascontiguousarray(part)


if __name__ == "__main__":
    main()
