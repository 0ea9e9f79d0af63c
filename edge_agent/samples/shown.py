"""What models are shown when they are tried, raced and held against their parents.

The carried pictures and noise, everyday sentences, windows of numbers; and what the device itself recorded under
HOME/samples.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.errors import InputError, RefusedError
from edge_agent.figures.coco_map import Truth
from edge_agent.files import read_regular
from edge_agent.manifest import Input
from edge_agent.paths import carried
from edge_agent.pictures.boxes import letterbox
from edge_agent.pictures.read import read_picture
from edge_agent.samples import everyday
from edge_agent.samples.coco import Id, read, truth
from edge_agent.samples.recorded import labels, samples
from edge_agent.types import Floats, Frame, Pixels, Text

PLACES: dict[str, tuple[str, tuple[float, float, float, float]]] = {
    "astronaut.png": ("person", (0.02, 0.0, 0.95, 1.0)),
    "chelsea.png": ("cat", (0.0, 0.0, 1.0, 1.0)),
    "coffee.png": ("cup", (0.29, 0.04, 0.68, 0.77)),
}
"""of deploy/demo: what they show in the words of COCO, and where as left, top, right, bottom in 0..1"""
SAME = {
    **dict.fromkeys(("person", "persons", "people", "human"), "person"),
    **dict.fromkeys(("cat", "cats"), "cat"),
    **dict.fromkeys(("cup", "cups", "mug", "coffee cup"), "cup"),
}
"""label of a detector -> what it means of PLACES"""
PICTURES = {name: thing for name, (thing, _) in PLACES.items()}
SCENES: tuple[tuple[tuple[int, int], tuple[tuple[int, int, int, int], ...]], ...] = (
    ((640, 640), ((0, 0, 320, 320), (320, 0, 320, 320), (0, 320, 320, 320))),
    ((900, 600), ((580, 260, 320, 320), (60, 290, 450, 300), (20, 10, 400, 266))),
    ((480, 800), ((10, 524, 270, 270), (0, 0, 480, 320), (190, 330, 290, 190))),
)
"""size of a picture that is put together, and the left, top, width, height that each of PLACES gets in it: other
corners, sizes and aspect ratios each time, so that a head that is read wrongly is not right by chance
"""
SENTENCES = (
    ("Switch on the light in the kitchen.", "Turn the kitchen lamp on."),
    ("It is going to rain tomorrow.", "The forecast for tomorrow says rain."),
    ("The dog sleeps on the sofa.", "A dog lies asleep on the couch."),
)
"""pairs that mean the same"""
MOST_LABELS = 100_000_000
"""bytes of a file of boxes or texts that this device recorded"""
MOST_LINES = 1000
"""of what the device recorded"""


def frames() -> dict[str, Frame]:
    """The carried pictures by name, and one of noise."""
    shown = {name: read_picture(carried("deploy", "demo", name)) for name in PICTURES}
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    return {**shown, "noise": Frame(noise, time.time(), time.monotonic(), "noise")}


def thing_of(label: str) -> str:
    """The thing of PLACES that a detector's label means; "" for none of them."""
    return SAME.get(label.strip().casefold(), "")


class Scene(msgspec.Struct, frozen=True):
    """A picture, and what is known to be where in it: name and box in its pixels."""

    frame: Frame
    things: tuple[tuple[str, Floats], ...] = ()


def scenes() -> list[Scene]:
    """The carried pictures put together, as SCENES says.

    In a picture of one thing alone a box as large as the canvas could pass for it.
    """
    shown = frames()
    return [_scene(shown, size, tiles) for size, tiles in SCENES]


def whole_scene(name: str) -> Scene:
    """A carried picture, and what is where in it."""
    frame, (thing, where) = frames()[name], PLACES[name]
    return Scene(frame, ((thing, np.array(where, np.float32) * np.array([frame.width, frame.height] * 2)),))


def _scene(shown: dict[str, Frame], size: tuple[int, int], tiles: tuple[tuple[int, int, int, int], ...]) -> Scene:
    image = np.full((size[1], size[0], 3), 114, np.uint8)
    things: list[tuple[str, Floats]] = []
    for (name, (thing, where)), (left, top, width, height) in zip(PLACES.items(), tiles, strict=True):
        canvas = np.empty((height, width, 3), np.uint8)
        place = letterbox(shown[name].image, Input(width=width, height=height, letterbox="center"), canvas)
        image[top : top + height, left : left + width] = canvas
        corner = np.array([left + place.left, top + place.top] * 2, np.float32)
        things.append((thing, corner + np.array(where, np.float32) * np.array([place.width, place.height] * 2)))
    return Scene(Frame(image, 0.0, 0.0, "scene"), tuple(things))


def pictures() -> Iterator[Frame]:
    """The carried pictures, each also mirrored, darkened and cut, and the recorded ones; none that cannot be read."""
    for name, frame in frames().items():
        if name != "noise":
            image = frame.image
            yield frame
            yield _of(image[:, ::-1])
            yield _of((image * 0.6).astype(np.uint8))
            yield _of(image[image.shape[0] // 8 :, image.shape[1] // 8 :])
    for path in samples():
        if path.suffix != ".txt":
            try:
                yield read_picture(path)
            except InputError:
                continue


def labelled() -> tuple[list[Frame], Truth, dict[int, str]] | None:
    """The recorded pictures that people drew boxes in, the boxes, and the names of their classes; None for none.

    Raises RefusedError, one line, for labels that cannot be read.
    """
    path = labels()
    if path is None:
        return None
    try:
        coco = read(path, MOST_LABELS)
    except InputError as error:
        why = str(error).removeprefix("no COCO JSON of boxes: ")
        raise RefusedError(f"{path}: no COCO JSON of boxes ({why}); mend it or take it away") from None
    number: dict[Id, int] = {}
    kept: list[Frame] = []
    here = {sample.name: sample for sample in samples()}
    for row in coco.images:
        sample = here.get(Path(row.file_name).name)
        with suppress(InputError):
            if sample is not None:
                kept.append(read_picture(sample))
                number[row.id] = len(kept) - 1
    boxes = coco.boxes(number)
    return (kept, truth(boxes, number), coco.names()) if boxes else None


def _of(image: Pixels) -> Frame:
    return Frame(np.ascontiguousarray(image), time.time(), time.monotonic())


def sentences() -> list[str]:
    """Everyday ones, and the recorded lines that hold a word."""
    made = [*everyday.SENTENCES, *(sentence for pair in SENTENCES for sentence in pair)]
    return made + [line for line in _recorded() if any(c.isalpha() for c in line)][:MOST_LINES]


def paragraphs() -> list[str]:
    """Texts of some 100, 200 and 480 word pieces: sentences stop long before most models do."""
    made = everyday.SENTENCES
    return [" ".join(some) for some in (made[:8], made[8:24], made)]


def _recorded() -> list[str]:
    texts = [read_regular(path, MOST_LABELS).decode("utf-8", "replace") for path in samples() if path.suffix == ".txt"]
    return [line for text in texts for line in text.splitlines() if line.strip()]


def _text(line: str) -> Text:
    return Text(line, time.time(), time.monotonic())
