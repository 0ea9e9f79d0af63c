"""A camera that is moved, covered or blurred; and what is no tampering: light, noise, people, presets, a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.pictures import tamper, view
from edge_agent.pictures.read import read_picture
from edge_agent.pictures.tamper import Tamper
from edge_agent.types import Floats, Pixels

LEARN_S = 50.0


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that minutes of looking are seconds of testing."""
    monkeypatch.setattr(tamper, "ENOUGH", 30)
    monkeypatch.setattr(tamper, "STAYS", 3)
    monkeypatch.setattr(view, "SOME", 12)
    monkeypatch.setattr(tamper, "SOME", 12)


@pytest.fixture(scope="module")
def scenes(demo_pictures: Path) -> list[Pixels]:
    """Three places, 320x240."""
    paths = sorted(demo_pictures.glob("*.png"))[:3]
    return [cv2.resize(read_picture(path).image, (320, 240)).astype(np.uint8) for path in paths]


def live(scene: Pixels, seed: int = 0) -> Iterator[Pixels]:
    """It, with sensor noise, and somebody who walks through."""
    chance, x = np.random.default_rng(seed), 0
    while True:
        image = scene.astype(np.int16) + chance.integers(-6, 7, (240, 320, 1), dtype=np.int16)
        x = (x + 37) % 320
        image[120:200, x : x + 24] = (30, 40, 90)
        yield np.clip(image, 0, 255).astype(np.uint8)


class Camera:
    """A Tamper with its clock."""

    def __init__(self, one: Tamper) -> None:
        self.tamper, self.clock = one, 0.0
        self.said: list[str] = []

    def look(self, images: Iterator[Pixels], seconds: int, change: Callable[[Pixels], Pixels] = lambda x: x) -> str:
        for _ in range(seconds):
            self.clock += 1
            if self.tamper(change(next(images)), self.clock):
                self.said.append(self.tamper.doubt)
        return self.tamper.doubt


@pytest.fixture
def camera(learned: bytes) -> Camera:
    """One that has learned the first scene."""
    return Camera(Tamper(LEARN_S, learned))


@pytest.fixture(scope="module")
def learned(scenes: list[Pixels]) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        for module in (view, tamper):
            patch.setattr(module, "SOME", 12)
        patch.setattr(tamper, "ENOUGH", 30)
        one = Camera(Tamper(LEARN_S))
        one.look(live(scenes[0]), 65)
        assert one.tamper.armed and not one.said
        return one.tamper.packed()


def shifted(image: Pixels) -> Pixels:
    return np.roll(image, (20, 45), (0, 1))


def covered(image: Pixels) -> Pixels:
    return np.where(np.arange(320)[None, :, None] < 190, 70, image).astype(np.uint8)


def blurred(image: Pixels) -> Pixels:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 4), np.uint8)


def dimmed(image: Pixels) -> Pixels:
    return (image * 0.15).astype(np.uint8)


def sprayed(image: Pixels) -> Pixels:
    """A red spot as large as a hundredth of the picture."""
    return np.asarray(cv2.circle(image.copy(), (60, 60), 16, (20, 20, 180), -1), np.uint8)


@pytest.mark.parametrize(
    ("change", "doubt"),
    [(shifted, "moved"), (covered, "covered"), (blurred, "blurred"), (dimmed, "covered"), (sprayed, "covered")],
)
def test_what_is_done_to_a_camera_is_told_and_taken_back(
    change: Callable[[Pixels], Pixels], doubt: str, camera: Camera, scenes: list[Pixels]
) -> None:
    assert camera.look(live(scenes[0], 1), 20, change) == doubt and camera.tamper.why
    assert camera.look(live(scenes[0], 2), 20) == "" and not camera.tamper.why
    assert camera.said == [doubt, ""]


def test_the_median_is_that_of_numpy() -> None:
    looks = np.random.default_rng(0).integers(0, 256, (8, 12, 16, 3), np.uint8)
    assert (view.median(list(looks)) == np.median(looks, axis=0)).all()


@pytest.mark.parametrize(
    "light", [lambda x: 0.6 * x + 12, lambda x: 255 * (x / 255) ** 1.5, lambda x: x * (0.9, 1, 1.1)]
)
def test_another_light_is_no_other_colour_but_a_thing_is(
    light: Callable[[Floats], Floats], scenes: list[Pixels]
) -> None:
    before = cv2.resize(scenes[0], (16, 12), interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float32)
    lit = np.asarray(light(before), np.float32)
    odd = lit.copy()
    odd[40] = (200, 20, 20)
    assert view.strange(lit, before).max() < view.strange(odd, before)[40] / 3


def test_light_noise_and_a_camera_that_shakes_are_no_tampering(camera: Camera, scenes: list[Pixels]) -> None:
    chance = np.random.default_rng(3)
    for change in (
        lambda x: np.clip(x * 1.2 + 5.0, 0, 255).astype(np.uint8),
        lambda x: np.clip(x * 0.75, 0, 255).astype(np.uint8),
        lambda x: np.clip(x + chance.normal(0, 8, x.shape), 0, 255).astype(np.uint8),
        lambda x: np.roll(x, chance.integers(-1, 2, 2), (0, 1)),
    ):
        camera.look(live(scenes[0], 4), 15, change)
    assert camera.said == []


def test_a_moment_is_no_tampering(camera: Camera, scenes: list[Pixels]) -> None:
    camera.look(live(scenes[0]), 3, covered)
    camera.look(live(scenes[0]), 20)
    assert camera.said == []


def test_the_presets_of_a_camera_that_is_turned_on_purpose_are_usual(scenes: list[Pixels]) -> None:
    one = Camera(Tamper(150))
    for _ in range(2):
        for scene in scenes[:2]:
            one.look(live(scene), 50)
    assert one.tamper.armed and len(one.tamper.views) == 2
    assert one.look(live(scenes[0]), 30) == "" == one.look(live(scenes[1]), 30) and not one.said
    assert one.look(live(scenes[2]), 20) != "", "a third one is not"


def test_a_camera_that_shows_ever_more_views_says_that_nothing_is_told(
    scenes: list[Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tamper, "MOST_VIEWS", 2)
    one = Camera(Tamper(112))
    for scene in scenes:
        one.look(live(scene), 40)
    assert not one.tamper.armed and "the camera moves by itself" in one.tamper.about
    assert one.look(live(scenes[0]), 20, covered) == ""


def test_a_day_with_no_quiet_hour(scenes: list[Pixels]) -> None:
    one = Camera(Tamper(40))
    chance = np.random.default_rng(0)

    def changing() -> Iterator[Pixels]:
        while True:
            yield np.asarray(cv2.resize(chance.integers(0, 255, (12, 16, 3), dtype=np.uint8), (320, 240)), np.uint8)

    one.look(changing(), 60)
    assert not one.tamper.armed and "no view stayed long enough" in one.tamper.about and not one.said


def test_tampering_while_it_learns_is_left_out_of_what_is_usual(scenes: list[Pixels]) -> None:
    one = Camera(Tamper(90))
    images = live(scenes[0])
    one.look(images, 50)
    one.look(images, 4, covered)
    one.look(images, 50)
    assert one.tamper.armed and len(one.tamper.views) == 1
    assert one.look(images, 20, covered) == "covered"


def test_a_view_that_stays_for_hours_is_taken_as_usual(
    camera: Camera, scenes: list[Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tamper, "ADOPT_S", 30.0)
    camera.look(live(scenes[1]), 55)
    assert camera.said[0] and camera.said[-1] == "" and len(camera.tamper.views) == 2


def test_what_was_learned_outlives_a_restart(camera: Camera, scenes: list[Pixels]) -> None:
    again = Camera(Tamper(LEARN_S, camera.tamper.packed()))
    assert again.tamper.armed
    assert again.look(live(scenes[0]), 15) == "" and again.look(live(scenes[0]), 20, shifted) == "moved"


def test_what_is_no_memory_of_ours() -> None:
    for kept in (b"", b"PK\x03\x04", b"x" * 100):
        with pytest.raises(ValueError):
            Tamper(LEARN_S, kept)


def test_a_pause_between_frames_begins_the_median_anew(camera: Camera, scenes: list[Pixels]) -> None:
    camera.clock += 600
    assert camera.look(live(scenes[0]), 5, covered) == ""
