"""Pictures are labelled as a whole."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from edge_agent.backends import open_net
from edge_agent.errors import ConfigError, InputError, ManifestError, RefusedError
from edge_agent.events import ScoresEvent
from edge_agent.manifest import File, Input, Manifest, Served
from edge_agent.tasks import make_task
from edge_agent.tasks.recognise.recognise import Recogniser, probabilities, unlike
from edge_agent.types import Finding, Frame, ModelRef, Scores
from edge_agent.uri import parse_uri
from edge_agent.walk.event import to_event
from edge_agent.walk.report import reporter
from tests.nets import write_onnx

LABELS = ["blue", "green", "red"]


def colours(path: Path, *, softmax: bool = True, gain: float = 10.0, side: int = 8, batch: int | str = 1) -> Path:
    """A classifier [N, 3, side, side] in 0..1 -> [N, 3]: which channel is brightest (BGR)."""
    nodes = [
        helper.make_node("Mul", ["pixels", "gain"], ["strong"]),
        helper.make_node("ReduceMean", ["strong"], ["y" if not softmax else "means"], axes=[2, 3], keepdims=0),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["means"], ["y"], axis=1))
    ends = {"pixels": (TensorProto.FLOAT, [batch, 3, side, side])}, {"y": (TensorProto.FLOAT, [batch, 3])}
    return write_onnx(path, nodes, *ends, {"gain": np.float32(gain)})


def served(path: Path, *, family: str = "image-classifier", **more: object) -> Served:
    row = File(path.name, "onnx", "0" * 64, 0)
    given = {"labels": LABELS, "input": Input(8, 8, channels="BGR", scale=1 / 255, letterbox="stretch"), **more}
    made = Manifest("colours", "1", "recognise", family, "CC0-1.0", "nobody", [row], **given)  # type: ignore[arg-type]
    return Served(made, ModelRef("colours", "1", "0" * 64), open_net(path, "onnx", 1), {}, made.input, "")


def recognise(model: Served, options: str = "") -> Recogniser:
    task = make_task(parse_uri(f"recognise:colours{options}"), lambda _: model, Path())
    assert isinstance(task, Recogniser)
    return task


def frame(colour: tuple[int, int, int], name: str = "") -> Frame:
    return Frame(np.full((20, 30, 3), colour, np.uint8), time.time(), time.monotonic(), name)


def scores(task: Recogniser, colour: tuple[int, int, int]) -> Scores:
    (finding,) = task(frame(colour))
    assert isinstance(finding.what, Scores)
    return finding.what


@pytest.mark.parametrize(("softmax", "family"), [(True, "image-classifier"), (False, "image-classifier-logits")])
def test_the_likeliest_label_and_its_probability(tmp_path: Path, softmax: bool, family: str) -> None:
    task = recognise(served(colours(tmp_path / "m.onnx", softmax=softmax), family=family))
    for index, label in enumerate(LABELS):
        colour = [0, 0, 0]
        colour[index] = 255
        what = scores(task, tuple(colour))  # type: ignore[arg-type]
        assert what.label == label and what.score == pytest.approx(np.exp(10) / (np.exp(10) + 2))
        assert sum(what.scores.values()) == pytest.approx(1)
    unsure = scores(task, (100, 100, 100))
    assert unsure.score == pytest.approx(1 / 3) and unsure.label == "blue"


def test_options(tmp_path: Path) -> None:
    model = served(colours(tmp_path / "m.onnx"))
    what = scores(recognise(model, "?score=0.5&top=2"), (100, 100, 100))
    assert what.label == "unknown" and len(what.scores) == 2
    for wrong, says in (
        ("?score=2", "score=2 is no number from 0 to 1"),
        ("?top=0", "top=0 is no number from 1"),
        ("?iou=1", 'unknown option "iou"'),
    ):
        with pytest.raises(ConfigError, match=says):
            recognise(model, wrong)


def test_a_model_that_is_none_is_refused(tmp_path: Path) -> None:
    path = colours(tmp_path / "m.onnx")
    with pytest.raises(ManifestError, match='unknown family "resnet"'):
        recognise(served(path, family="resnet"))
    with pytest.raises(ManifestError, match="needs labels"):
        recognise(served(path, labels=[]))
    with pytest.raises(RefusedError, match=r'input "pixels" is \[1, 3, 8, 8\]'):
        recognise(served(path, input=Input(16, 16)))
    with pytest.raises(RefusedError, match=r"gives \[1, 3\], but there are 2 labels"):
        scores(recognise(served(path, labels=["a", "b"])), (0, 0, 0))
    with pytest.raises(RefusedError, match="exported without its softmax"):
        scores(recognise(served(colours(tmp_path / "l.onnx", softmax=False))), (255, 255, 255))
    nan = {"y": np.array([[np.nan, 0, 1]], np.float32)}
    with pytest.raises(InputError, match="not finite"):
        probabilities(nan, "image-classifier", 3)


def test_names_that_occur_twice_stay_apart() -> None:
    assert unlike(["crane", "owl", "crane"]) == ["crane 0", "owl", "crane 2"]


def test_the_event_and_what_is_worth_one(tmp_path: Path) -> None:
    task = recognise(served(colours(tmp_path / "m.onnx")))
    (finding,) = task(frame((255, 0, 0), "a.jpg"))
    event = to_event(finding, "door")
    assert isinstance(event, ScoresEvent)
    assert (event.text, event.name, event.label, event.score) == ("", "a.jpg", "blue", 0.9999)
    report = reporter("changes")

    def told(colour: tuple[int, int, int]) -> int:
        return len(list(report(list[Finding](task(frame(colour))))))

    assert [told(c) for c in ((255, 0, 0), (250, 0, 0), (0, 0, 255), (255, 0, 0))] == [1, 0, 1, 1]
