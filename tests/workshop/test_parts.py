"""Three parts of the samples: the same every time, no scene in two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest

from edge_agent.errors import InputError
from edge_agent.types import Frame, Pixels, Text
from edge_agent.workshop.data.calibration import Samples, parts
from edge_agent.workshop.data.look import groups, look, scenes


def samples(items: Sequence[Frame | Text]) -> Samples:
    told = [item.image.tobytes() if isinstance(item, Frame) else item.text.encode() for item in items]
    return Samples([*items], "here", [hashlib.sha256(one).hexdigest() for one in told])


def film(lengths: Sequence[int]) -> Samples:
    """Scenes of so many frames: a picture of big blocks, in which a small thing moves."""
    rng = np.random.default_rng(0)
    frames: list[Frame] = []
    for length in lengths:
        scene: Pixels = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((32, 32, 1))).astype(np.uint8)
        for number in range(length):
            image = scene.copy()
            image[: 8 + number, 5 * number % 100 :][:8, :8] = 255 - number
            frames.append(Frame(image, 0.0, 0.0, f"{len(frames)}"))
    return samples(frames)


def names(part: Samples) -> list[str]:
    return [item.name if isinstance(item, Frame) else item.text for item in part.items]


def test_texts_come_into_three_parts_the_same_ones_every_time() -> None:
    whole = samples([Text(f"text {i}", 0.0, 0.0) for i in range(80)])
    made = [names(part) for part in parts(whole)]
    assert [len(part) for part in made] == [20, 30, 30] and len({one for part in made for one in part}) == 80
    assert made == [names(part) for part in parts(whole)] != [names(part) for part in parts(whole, seed=1)]
    # where a text stands does not matter
    turned = parts(samples(whole.items[::-1]))
    assert [sorted(names(part)) for part in turned] == [sorted(part) for part in made]


def test_a_scene_is_in_one_part_as_a_whole() -> None:
    lengths = [3, 5, 2, 4, 1, 6, 3, 4, 5, 2, 6, 4, 3]
    whole = film(lengths)
    runs = scenes([look(item) for item in whole.items])
    assert [len(run) for run in runs] == lengths
    where = {name: number for number, part in enumerate(parts(whole)) for name in names(part)}
    assert len(where) == sum(lengths)
    assert all(len({where[str(place)] for place in run}) == 1 for run in runs)
    assert {*where.values()} == {0, 1, 2}


def test_of_one_long_scene_the_parts_follow_each_other() -> None:
    made = [names(part) for part in parts(film([80]))]
    assert [one for part in made for one in part] == [str(i) for i in range(80)] and [len(part) for part in made] == [
        20,
        30,
        30,
    ]
    assert [len(run) for run in groups([look(item) for item in film([80]).items])] == [9] * 8 + [8]


@pytest.mark.parametrize(("count", "sizes"), [(6, [2, 2, 2]), (7, [2, 3, 2]), (8, [2, 3, 3]), (9, [2, 3, 4])])
def test_few_samples_give_two_to_each_part(count: int, sizes: list[int]) -> None:
    whole = samples([Text(f"text {i}", 0.0, 0.0) for i in range(count)])
    assert [len(part.items) for part in parts(whole)] == sizes


def test_too_few_samples_are_one_line() -> None:
    with pytest.raises(InputError, match=r"^samples: here has 5 different samples; give 6 or more$"):
        parts(samples([Text(f"text {i}", 0.0, 0.0) for i in range(5)]))
