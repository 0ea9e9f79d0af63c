"""What nobody is to recognise: coarse blocks in each picture that is kept, shown or sent."""

from __future__ import annotations

import time

import numpy as np

from edge_agent.events.objects import Tracked
from edge_agent.pictures.blur import BLOCKS, GROW, LEVELS, pixelated
from edge_agent.recorder.shown import HOLD_S, Shown
from edge_agent.types import Detections, Finding, Frame, ModelRef, Pixels, Sample

MODEL = ModelRef("m", "1", "0" * 64)
NOISE = np.random.default_rng(5).integers(0, 255, (240, 320, 3), np.uint8)
BOX = np.array([[100, 60, 180, 220]], np.float32)


def frame(clock: float, image: Pixels = NOISE) -> Frame:
    return Frame(image, 1.8e9 + clock, time.monotonic(), played=clock)


def found(of: Sample, *boxes: tuple[str, tuple[float, ...]]) -> list[Finding]:
    names = {0: "person", 1: "Dog"}
    labels = [next(key for key, name in names.items() if name == label) for label, _ in boxes]
    xyxy = np.array([box for _, box in boxes], np.float32).reshape(-1, 4)
    what = Detections(xyxy, np.full(len(boxes), 0.5, np.float32), np.array(labels, np.int32), names)
    return [Finding(of, what, MODEL)]


def hidden(picture: Pixels | None, box: tuple[int, int, int, int]) -> bool:
    """Whether there are few colours where there were many."""
    assert picture is not None
    left, top, right, bottom = box
    return len(np.unique(picture[top:bottom, left:right].reshape(-1, 3), axis=0)) <= (BLOCKS + 1) ** 2


def test_a_box_becomes_few_blocks_of_few_colours_and_nothing_else_changes() -> None:
    NOISE.setflags(write=False)
    picture = pixelated(NOISE, BOX)
    grown = int(GROW * 80), int(GROW * 160)
    left, top, right, bottom = 100 - grown[0], 60 - grown[1], 180 + grown[0], 220 + grown[1]
    inside = picture[top:bottom, left:right].reshape(-1, 3)
    assert len(np.unique(inside, axis=0)) <= BLOCKS * BLOCKS and len(np.unique(inside)) <= LEVELS
    outside = np.ones(NOISE.shape[:2], bool)
    outside[top:bottom, left:right] = False
    assert np.array_equal(picture[outside], NOISE[outside])
    # two pictures that differ only inside of the blocks are the same afterwards: it cannot be computed back
    shuffled = NOISE.copy()
    side = -(-(bottom - top) // BLOCKS)
    block = shuffled[top : top + side, left : left + side]
    block[:] = np.random.default_rng(1).permutation(block.reshape(-1, 3)).reshape(block.shape)
    assert np.array_equal(
        pixelated(shuffled, BOX)[top : top + side, left : left + side], picture[top : top + side, left : left + side]
    )


def test_boxes_at_the_edge_and_beyond_it_do_no_harm() -> None:
    odd = np.array(
        [[-50, -50, 10, 10], [310, 230, 400, 300], [400, 400, 500, 500], [5, 5, 5, 5], [50, 50, 52, 51]], np.float32
    )
    picture = pixelated(NOISE, odd)
    assert picture.shape == NOISE.shape and not np.array_equal(picture[:8, :8], NOISE[:8, :8])
    assert np.array_equal(pixelated(NOISE, odd[:0]), NOISE)


def test_only_what_is_asked_for_is_hidden_and_without_a_look_nothing_is_shown() -> None:
    one = frame(0)
    person, dog = ("person", (10, 10, 90, 90)), ("Dog", (150, 100, 250, 200))
    assert Shown([])(one, found(one, person)) is one.image
    picture = Shown(["DOG"])(one, found(one, person, dog))
    assert hidden(picture, (150, 100, 250, 200)) and not hidden(picture, (10, 10, 90, 90))
    shown = Shown(["person"])
    assert shown(one, found(one, person)) is shown(one, found(one, person)), "it is made once"
    assert Shown(["person"])(one, []) is None, "no detector looked"
    part = frame(0, NOISE[10:90, 10:90])
    assert Shown(["person"])(one, found(part, person)) is None, "but at a part of it"
    assert np.array_equal(Shown(["person"])(one, found(one)), NOISE)  # type: ignore[arg-type]


def test_a_place_stays_hidden_for_a_moment_and_so_does_what_a_tracker_believes() -> None:
    shown, box = Shown(["person"]), (100, 60, 180, 220)
    for clock in (0.0, 0.1):
        one = frame(clock)
        shown.watch(one, found(one, ("person", box)))
    missed = frame(0.1 + 0.9 * HOLD_S)
    shown.watch(missed, found(missed))
    assert hidden(shown(missed, found(missed)), box)
    later = frame(0.2 + HOLD_S)
    shown.watch(later, found(later))
    assert not hidden(shown(later, found(later)), box)
    again = frame(0.0)  # a film that begins anew
    shown.watch(again, found(again))
    assert not hidden(shown(again, found(again)), box)
    near = found(again, ("person", box))[0].what
    assert isinstance(near, Detections)
    none = np.zeros(0, np.int32)
    lost = Tracked(
        xyxy=np.zeros((0, 4), np.float32), score=np.zeros(0, np.float32), label=none, names=near.names,
        object=none, still=np.zeros(0, bool), alive=none, near=near,
    )  # fmt: skip
    once_more = frame(0.0)
    assert hidden(shown(once_more, [Finding(once_more, lost, MODEL)]), box)
