"""A detector's boxes become pictures for the task behind it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent.agent.line import make_line
from edge_agent.config import Pipeline
from edge_agent.errors import ConfigError, ModelError
from edge_agent.events import ScoresEvent
from edge_agent.serving.models import Models
from edge_agent.tasks import make_task
from edge_agent.tasks.crop.crop import crop
from edge_agent.types import Detections, Finding, Frame, ModelRef, Scores, Text
from edge_agent.uri import parse_uri
from edge_agent.walk.event import to_event
from edge_agent.walk.pipeline import walk
from edge_agent.walk.report import reporter
from tests.tasks.test_recognise import colours, served
from tests.tiny import tiny_detector

MODEL = ModelRef("m", "1", "0" * 64)
IMAGE = np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)


def found(*boxes: tuple[float, float, float, float], name: str = "a.jpg") -> Finding:
    n = len(boxes)
    what = Detections(
        np.array(boxes, np.float32).reshape(n, 4), np.full(n, 0.5, np.float32), np.zeros(n, np.int32), {0: "cat"}
    )
    return Finding(Frame(IMAGE, 1.0, 2.0, name), what, MODEL)


def cut(options: str, finding: Finding) -> list[Frame]:
    return list(crop(parse_uri(f"crop:{options}"), None, Path())(finding))  # type: ignore[arg-type]


def test_each_box_is_a_picture_of_its_own() -> None:
    one, two = cut("", found((10, 10, 30.4, 29.6), (-5, -5, 20, 20), (0, 0, 59, 8)))
    np.testing.assert_array_equal(one.image, IMAGE[10:30, 10:30])
    assert (one.name, one.at, one.mono) == ("a.jpg#cat 10,10,30,30", 1.0, 2.0)
    assert (two.image.shape, two.name) == ((20, 20, 3), "a.jpg#cat 0,0,20,20"), "clipped; the flat one is left out"
    assert cut("", found()) == []
    assert [frame.name for frame in cut("?grow=0.25&least=0", found((20, 20, 40, 28), name=""))] == ["cat 15,18,45,30"]
    one.image[:] = 0
    assert IMAGE[10:30, 10:30].any(), "the whole picture is never written to"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("crop:x", 'crop runs no model; name "x" in the task behind it'),
        ("crop:?grow=2", "grow=2 is no number from 0 to 1"),
        ("crop:?least=many", "least=many is no number from 0 to 8192"),
        ("crop:?size=3", 'unknown option "size"'),
    ],
)
def test_wrong_options(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_task(parse_uri(text), lambda name: pytest.fail(name), Path())


def test_what_is_no_boxes_is_an_error() -> None:
    for of, what in ((Text("a", 0, 0), Scores("x", 1.0, {})), (found().of, Scores("x", 1.0, {}))):
        with pytest.raises(ModelError, match="crop takes boxes in pictures, not Scores of"):
            cut("", Finding(of, what, MODEL))


@pytest.mark.parametrize(
    ("tasks", "says"),
    [
        (["crop"], 'task "crop" takes boxes, but pictures come to it'),
        (["detect:MODEL", "crop"], 'task "crop" gives pictures, which no event says; put a task behind it'),
        (["detect:MODEL", "crop", "crop"], 'task "crop" takes boxes, but pictures come to it'),
        (["recognise:MODEL", "crop"], 'task "crop" takes boxes, but what a task before it found comes to it'),
        (["detect:MODEL", "crop", "embed"], 'task "embed" takes text, but pictures come to it'),
    ],
)
def test_a_chain_that_cannot_be_is_refused(
    tasks: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_pictures: Path
) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    with pytest.raises(ConfigError, match=says):
        make_line(Pipeline("yard", f"files:{demo_pictures}", tasks), Models(threads=1), None)


def test_a_classifier_behind_a_detector_names_each_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    models = {
        "tiny": Models(threads=1).serve(str(tiny_detector(tmp_path / "m"))),
        "c": served(colours(tmp_path / "c.onnx")),
    }
    tasks = [
        make_task(parse_uri(text), models.__getitem__, tmp_path) for text in ("detect:tiny", "crop:", "recognise:c")
    ]
    image = np.full((64, 64, 3), (255, 200, 200), np.uint8)
    image[16:48, 16:48] = (0, 0, 255)
    frame = Frame(image, 1.0, 2.0, "a.jpg")
    (named,) = walk(frame, tasks)
    event = to_event(named, "yard")
    assert isinstance(event, ScoresEvent) and event.label == "red" and event.name == "a.jpg#person 16,16,48,48"
    report = reporter("changes")
    both = [named, msgspec.structs.replace(named, what=Scores("blue", 1.0, {}))]
    assert [len(list(report(each))) for each in (both, both[::-1], both[:1], [], both[:1])] == [2, 0, 1, 0, 1]
