"""A state is taught from a few pictures, and then told; what cannot be taught is refused with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_agent.errors import RefusedError, UsageError
from edge_agent.registry import catalogue
from edge_agent.registry.files import file_path
from edge_agent.serving.models import Models
from edge_agent.serving.teach import Example, teach
from edge_agent.tasks import make_task
from edge_agent.tasks.state.features import WHOLE
from edge_agent.types import Finding, Frame, Pixels, Scores
from edge_agent.uri import parse_uri
from tests.serving.scene import REGION, gate


def examples(count: int = 6, states: tuple[str, ...] = ("open", "shut")) -> Iterator[Example]:
    for state in states:
        for number in range(count):
            yield Example(state, f"{state}{number}.png", gate(state, number))


def told(models: Models, image: Pixels, name: str = "gate") -> str:
    task = make_task(parse_uri(f"state:{name}"), models.serve, Path())
    (found,) = task(Frame(image, 0.0, 0.0, "picture.png"))
    assert isinstance(found, Finding) and isinstance(found.what, Scores)
    assert sum(found.what.scores.values()) == pytest.approx(1, abs=1e-6)
    return found.what.label


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home in which `gate` was taught."""
    folder = tmp_path_factory.mktemp("taught")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_AGENT_HOME", str(folder))
        found = teach("gate", examples(), REGION)
        assert found.right >= 11 and found.of == 12 and found.low > 0.5
        yield folder


def test_what_was_taught_is_told_of_pictures_that_it_has_not_seen(home: Path) -> None:
    models = Models(threads=1)
    asked = [(state, gate(state, number)) for state in ("open", "shut") for number in range(50, 60)]
    assert sum(told(models, image) == state for state, image in asked) >= 19


def test_what_is_like_no_example_is_unknown(home: Path, demo_pictures: Path) -> None:
    from edge_agent.pictures.read import read_picture

    models = Models(threads=1)
    others = [read_picture(demo_pictures / f"{name}.png").image for name in ("astronaut", "chelsea")]
    others += [np.zeros((240, 320, 3), np.uint8)]
    assert [told(models, image) for image in others] == ["unknown"] * 3


def test_it_is_a_model_with_manifest_card_and_where_it_came_from(home: Path) -> None:
    located = catalogue.locate("gate")
    manifest = located.manifest
    assert (manifest.task, manifest.labels, manifest.licence) == ("state", ["open", "shut"], "Apache-2.0")
    assert manifest.made is not None and manifest.made.verb == "teach" and manifest.made.parent.startswith("edge-yolo")
    assert manifest.made.figures["held_out"] >= 11 / 12
    (card,) = [row for row in manifest.file if row.role == "card"]
    assert "open 6, shut 6 pictures" in file_path(located, card).read_text()
    assert catalogue.verify("gate") == []


def test_taught_again_it_is_another_version_of_the_same_model(home: Path) -> None:
    before = catalogue.locate("gate").manifest.version
    again = teach("gate", examples(7), REGION)
    assert again.version == catalogue.locate("gate").manifest.version != before
    assert catalogue.before("gate").startswith(before)


def test_a_region_in_pixels_is_that_in_fractions(home: Path) -> None:
    left, top, right, bottom = REGION
    pixels = (left * 320, top * 240, right * 320, bottom * 240)
    teach("pixels", examples(), pixels)
    rows = [catalogue.locate(name).manifest.made for name in ("pixels",)]
    assert rows[0] is not None and "region 0.1, 0.2, 0.5, 0.8" in rows[0].method


def same(number: int) -> Pixels:
    return gate("shut", number)


def small() -> Iterator[Example]:
    yield Example("open", "small.png", gate("open", 1)[:100, :100].copy())
    yield from examples()


@pytest.mark.parametrize(
    ("shown", "region", "why"),
    [
        (examples(4, ("open",)), WHOLE, 'pictures of "open" alone; give pictures of at least two states'),
        (iter(()), WHOLE, "pictures of no state"),
        (
            [*examples(4, ("open",)), Example("shut", "s", gate("shut", 1))],
            WHOLE,
            '"shut" has 1 picture; give at least 2',
        ),
        (
            [*examples(3), Example("open", "copy.png", gate("shut", 0))],
            WHOLE,
            r"the same picture for .*; leave one out",
        ),
        (examples(3), (0.2, 0.2, 0.21, 0.21), r"the region is 3x2 of a picture of 320x240 pixels: 8 a side"),
        (examples(3), (100, 100, 400, 200), r"the region reaches out of open0.png, which has 320x240 pixels"),
        (small(), (10, 10, 90, 90), r"the region is in pixels, and pictures differ \(open0.png has 320x240"),
    ],
)
def test_examples_of_which_nothing_can_be_learnt_are_refused(
    shown: list[Example], region: tuple[float, float, float, float], why: str, home: Path
) -> None:
    with pytest.raises(UsageError, match=why):
        teach("other", shown, region)
    assert not (home / "models" / "other").exists()


def test_states_that_look_the_same_cannot_be_told_apart(home: Path) -> None:
    shown = [Example("ab"[number % 2], str(number), same(number)) for number in range(24)]
    with pytest.raises(
        RefusedError, match=r"a and b cannot be told apart .* held out, \d+ of 24 right .* guessing 0.50"
    ):
        teach("other", shown, REGION)


@pytest.mark.parametrize("name", ["edge-yolo", "encoder", "no name"])
def test_a_name_that_is_taken_or_none_is_refused(name: str, home: Path) -> None:
    with pytest.raises(UsageError, match=r"is taken|is no model name"):
        teach(name, examples(), REGION)


def test_a_base_that_is_no_detector_is_refused(home: Path) -> None:
    with pytest.raises(UsageError, match="edge-bert: states are taught on a detector in ONNX"):
        teach("other", examples(), REGION, "edge-bert")


def test_few_pictures_and_simpler_means_that_do_as_well_are_said(home: Path) -> None:
    dark = [Example("off", str(n), (gate("shut", n) * 0.3).astype(np.uint8)) for n in range(4)]
    found = teach("lamp", [*dark, *(Example("on", f"on{n}", gate("shut", n)) for n in range(4))], WHOLE)
    assert found.baselines["mean brightness"] == 8
    assert any("mean brightness alone names 8 of 8 right" in note for note in found.notes)
    assert any("few pictures" in note for note in found.notes)
