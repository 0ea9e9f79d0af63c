"""Samples that come with the program: pictures, scenes put together from them, sentences; each model is tried on them.

`pictures` and `sentences` are what a variant is held against its parent on, so they hold what the device recorded, too.
"""

from __future__ import annotations

import time
import wave
from collections.abc import Iterator

import msgspec
import numpy as np

from edge_agent.errors import InputError
from edge_agent.manifest import Input
from edge_agent.paths import carried
from edge_agent.pictures.boxes import letterbox
from edge_agent.pictures.read import read_picture
from edge_agent.samples import everyday
from edge_agent.samples.recorded import MOST_LINES, lines, samples
from edge_agent.types import Audio, Floats, Frame, Pixels, Text

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
SPOKEN = {"light.wav": "turn the light on in the kitchen", "rain.wav": "is it going to rain this afternoon"}
"""of deploy/demo/speech: what is said in them (by espeak-ng, in 16 bits at 16 kHz, one channel)"""
NOTICE = (
    *("PLATFORM 4", "Night train to Lisbon", "departs 22:45"),
    *("Please mind the gap", "between the train and", "the platform."),
    *("Bicycles travel in", "the last coach, for", "five euros each.", "Tel. 555 0142", "WET FLOOR"),
)
"""the lines of deploy/demo/read/notice.jpg, in the order in which they are read"""


def notice() -> Frame:
    """The carried picture of text."""
    return read_picture(carried("deploy", "demo", "read", "notice.jpg"))


def pages() -> list[Frame]:
    """The picture of text, also upside down, light on dark, darkened, larger and a part of it."""
    image = notice().image
    large = image.repeat(2, 0).repeat(2, 1)
    return [
        _of(one) for one in (image, image[::-1, ::-1], 255 - image, (image * 0.6).astype(np.uint8), large, image[130:])
    ]


def frames() -> dict[str, Frame]:
    """The carried pictures by name, and one of noise."""
    shown = {name: read_picture(carried("deploy", "demo", name)) for name in PICTURES}
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    return {**shown, "noise": Frame(noise, time.time(), time.monotonic(), "noise")}


def sound(name: str) -> Audio:
    """One of SPOKEN."""
    with wave.open(str(carried("deploy", "demo", "speech", name))) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32)
        return Audio(samples / np.float32(32768), time.time(), time.monotonic(), file.getframerate(), last=True)


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


def _of(image: Pixels) -> Frame:
    return Frame(np.ascontiguousarray(image), time.time(), time.monotonic())


def sentences() -> list[str]:
    """Everyday ones, and the recorded lines that hold a word."""
    made = [*everyday.SENTENCES, *(sentence for pair in SENTENCES for sentence in pair)]
    return made + [line for line in lines() if any(c.isalpha() for c in line)][:MOST_LINES]


def paragraphs() -> list[str]:
    """Texts of some 100, 200 and 480 word pieces: sentences stop long before most models do."""
    made = everyday.SENTENCES
    return [" ".join(some) for some in (made[:8], made[8:24], made)]


def text(line: str) -> Text:
    """A line as a sample of now."""
    return Text(line, time.time(), time.monotonic())
