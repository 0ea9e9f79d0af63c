"""No look where nothing moves: noise, light and rain are no motion; what moves is, and what stands is not forgotten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.errors import ConfigError
from edge_agent.manifest import Input
from edge_agent.pictures.motion import LINGER_S, Gate
from edge_agent.tasks import make_task
from edge_agent.tasks.detect.detect import Detector, Watched
from edge_agent.tasks.track.tracker import Rules, Tracker
from edge_agent.types import Detections, Finding, Frame, Net, Pixels, TensorSpec
from edge_agent.uri import parse_uri
from tests.coco import serve_net

FPS = 10
Light = Callable[[int], float]


def scene(
    frames: int, *, thing: float = 0.0, noise: float = 2.0, light: Light = lambda n: 1.0, rain: int = 0
) -> list[Pixels]:
    """A yard of 480x360 with texture, in which a dark thing of 20x40 goes `thing` pixels a frame."""
    rng = np.random.default_rng(1)
    yard = np.kron(rng.uniform(60, 160, (36, 48, 3)), np.ones((10, 10, 1)))
    shown = []
    for n in range(frames):
        image = yard.copy()
        if thing:
            left = int(20 + thing * n) % 440
            image[200:240, left : left + 20] = 30
        for _ in range(rain):
            x, y = rng.integers(480), rng.integers(340)
            image[y : y + 15, x] = 200
        image = image * light(n) + rng.normal(0, noise, image.shape)
        shown.append(np.clip(image, 0, 255).astype(np.uint8))
    return shown


def looks(shown: list[Pixels], seconds: float = 5.0) -> list[bool]:
    gate = Gate(seconds)
    return [gate(image, n / FPS) for n, image in enumerate(shown)]


@pytest.mark.parametrize(
    "shown",
    [
        lambda: scene(200, noise=0),
        lambda: scene(200, noise=3),
        lambda: scene(200, noise=8),
        lambda: scene(200, light=lambda n: 1.0 if n < 100 else 0.7),
        lambda: scene(200, light=lambda n: 1 + 0.2 * np.sin(n / 30)),
        lambda: scene(200, rain=20),
    ],
    ids=["dead still", "noise", "much noise", "a lamp goes off", "clouds", "rain"],
)
def test_what_is_no_motion_costs_no_look(shown: Callable[[], list[Pixels]]) -> None:
    looked = looks(shown())
    assert all(looked[: int(LINGER_S * FPS)])
    # one of 50 frames is looked at anyway
    assert sum(looked[20:]) <= 12


@pytest.mark.parametrize("more", [{}, {"noise": 6.0}, {"rain": 20}, {"light": lambda n: 1 + 0.2 * np.sin(n / 30)}])
@pytest.mark.parametrize("speed", [1.0, 6.0])
def test_what_moves_is_looked_at(speed: float, more: dict[str, Any]) -> None:
    looked = looks([*scene(50, **more), *scene(60, thing=speed, **more)])
    assert sum(looked[50:]) >= 40, "within a few frames, and as long as it moves"


def test_a_look_now_and_then() -> None:
    looked = looks(scene(400, noise=1), seconds=2.0)
    at = np.flatnonzero(looked)
    assert np.diff(at).max() == 2 * FPS


def test_another_size_or_film_is_looked_at() -> None:
    gate, (image, *_) = Gate(5.0), scene(1)
    for n in range(30):
        gate(image, n / FPS)
    assert not gate(image, 3.0)
    assert gate(np.ascontiguousarray(image[::2, ::2]), 3.1)
    for n in range(30):
        gate(image, 3.2 + n / FPS)
    assert gate(image, 0.0)
    for size in ((1, 1), (3, 2000), (2000, 3)):
        assert gate(np.zeros((*size, 3), np.uint8), 1.0)


def test_the_detector_says_again_what_it_found_while_nothing_moves(tmp_path: Path) -> None:
    ran = []

    def run(tensors: object) -> dict[str, np.ndarray]:
        ran.append(1)
        return {"output": np.array([[[16, 16, 48, 48, 0.9, 0]]], np.float32)}

    net = Net(
        run, (TensorSpec("images", (1, 3, 64, 64), "float32"),), (TensorSpec("output", (1, 1, 6), "float32"),), "a"
    )
    model = serve_net(net, Input(64, 64), "end2end", ["person"])
    task = make_task(parse_uri("detect:m?motion=5"), lambda name: model, tmp_path)
    assert isinstance(task, Watched) and task.gives_names == ["person"]
    found: list[Any] = []
    for n, image in enumerate(scene(100)):
        found += task(Frame(image, 0.0, 0.0, played=n / FPS))
    looked = [item.what.looked for item in found if isinstance(item, Finding) and isinstance(item.what, Detections)]
    assert len(found) == 100 and len(ran) == sum(looked) < 20
    assert {len(item.what) for item in found} == {1} and "infer" not in found[-1].spent_ms
    assert isinstance(make_task(parse_uri("detect:m"), lambda name: model, tmp_path), Detector)
    with pytest.raises(ConfigError, match="motion=often"):
        make_task(parse_uri("detect:m?motion=often"), lambda name: model, tmp_path)


def test_what_moves_in_a_small_part_is_looked_at_closer(tmp_path: Path) -> None:
    gate = Gate(5.0)
    for n, image in enumerate([*scene(30), *scene(30, thing=6.0)]):
        gate(image, n / FPS)
    left, top, right, bottom = gate.region() or (0, 0, 0, 0)
    assert (right - left, bottom - top) == (240, 180) and left < 150 < 200 < right and top < 200 < 240 < bottom
    still = Gate(5.0)
    for n, image in enumerate(scene(30)):
        still(image, n / FPS)
    assert still.region() is None, "nothing moves"
    for n, image in enumerate(scene(5, light=lambda n: 0.2 if n % 2 else 1.0, noise=40), 30):
        still(image, n / FPS)
    assert still.region() is None, "all of it moves"


def test_a_closer_look_adds_what_it_finds(tmp_path: Path) -> None:
    """A network that sees a person in the middle of whatever it is shown, once larger, once smaller."""
    ran: list[int] = []

    def run(tensors: object) -> dict[str, Any]:
        ran.append(1)
        return {"output": np.array([[[24, 24, 40, 40, 0.9, 0]]], np.float32)}

    net = Net(
        run, (TensorSpec("images", (1, 3, 64, 64), "float32"),), (TensorSpec("output", (1, 1, 6), "float32"),), "a"
    )
    model = serve_net(net, Input(64, 64, letterbox="stretch"), "end2end", ["person"])
    task = make_task(parse_uri("detect:m?motion=5&closer=true"), lambda name: model, tmp_path)
    found: list[Any] = []
    for n, image in enumerate([*scene(30), *scene(10, thing=6.0)]):
        found += task(Frame(image, 0.0, 0.0, played=n / FPS))
    assert len(found[0].what) == 1 and len(found[-1].what) == 2 and "closer" in found[-1].spent_ms
    one, other = found[-1].what.xyxy.tolist()
    assert one[2] - one[0] in (60, 120) and other[2] - other[0] in (60, 120) and one != other
    with pytest.raises(ConfigError, match="closer needs motion"):
        make_task(parse_uri("detect:m?closer=true"), lambda name: model, tmp_path)


def test_an_object_is_not_forgotten_because_nobody_looked() -> None:
    tracker = Tracker(Rules(remember=2.0), {0: "person"})
    box, none = np.array([[50, 50, 90, 130]], np.float32), np.zeros((0, 4), np.float32)
    for n in range(10):
        first = tracker(n / FPS, box, np.array([0.9], np.float32), np.zeros(1, np.int32), 0.3)
    # the last look missed it, and then nothing moved
    for n in range(10, 100):
        held = tracker(n / FPS, none, np.zeros(0, np.float32), np.zeros(0, np.int32), 0.3, n in (10, 60))
        assert held.alive.tolist() == first.id.tolist()
    back = tracker(10.0, box, np.array([0.9], np.float32), np.zeros(1, np.int32), 0.3)
    assert back.id.tolist() == first.id.tolist()
    # it is not there for several looks in a row
    for n in range(101, 301):
        gone = tracker(n / FPS, none, np.zeros(0, np.float32), np.zeros(0, np.int32), 0.3, n % 50 == 0)
    assert not len(gone.alive)
