"""Numbers and pictures that an autoencoder does not know are told by how badly it rebuilds them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from edge_agent.backends import open_net
from edge_agent.errors import ConfigError, InputError, ManifestError
from edge_agent.events import AnomalyEvent
from edge_agent.manifest import File, Input, Manifest, Served
from edge_agent.tasks import make_task
from edge_agent.tasks.anomaly.anomaly import AnomalyTask, quantized
from edge_agent.types import Anomaly, Finding, Frame, ModelRef, TensorSpec, Text
from edge_agent.uri import parse_uri
from edge_agent.walk.event import to_event
from edge_agent.walk.report import reporter
from tests.nets import write_onnx


def mean_only(path: Path, shape: tuple[int | str, ...] = (1, 4), codes: int = 0) -> Path:
    """An autoencoder that keeps nothing but the mean of what goes in; with `codes`, a VAE's other outputs too."""
    axes = list(range(1, len(shape)))
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=axes, keepdims=1),
        helper.make_node("Mul", ["x", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "mean"], ["y"]),
    ]
    outputs = {"y": (TensorProto.FLOAT, list(shape))}
    for index in range(codes):
        nodes.append(helper.make_node("Flatten", ["mean"], [f"code{index}"], axis=1))
        outputs = {f"code{index}": (TensorProto.FLOAT, [shape[0], 1]), **outputs}
    return write_onnx(path, nodes, {"x": (TensorProto.FLOAT, list(shape))}, outputs, {"zero": np.float32(0)})


def served(path: Path, family: str = "autoencoder", **more: Any) -> Served:
    row = File(path.name, "onnx", "0" * 64, 0)
    made = Manifest("mean", "1", "anomaly", family, "CC0-1.0", "nobody", [row], **more)
    return Served(made, ModelRef("mean", "1", "0" * 64), open_net(path, "onnx", 1), {}, made.input, "")


def watch(model: Served, options: str = "") -> AnomalyTask:
    task = make_task(parse_uri(f"anomaly:mean{options}"), lambda _: model, Path())
    assert isinstance(task, AnomalyTask)
    return task


def line(text: str) -> Text:
    return Text(text, time.time(), time.monotonic())


def error(task: AnomalyTask, item: Text | Frame) -> float:
    (finding,) = task(item)
    assert isinstance(finding.what, Anomaly)
    return finding.what.error


@pytest.mark.parametrize("text", ["1 2 3 4", "1, 2, 3, 4", "[1, 2.0, 3e0, 4]", "1,2,3,4"])
def test_the_mean_squared_error_of_a_line(tmp_path: Path, text: str) -> None:
    assert error(watch(served(mean_only(tmp_path / "m.onnx"))), line(text)) == pytest.approx(1.25)


def test_several_windows_in_a_line_are_averaged(tmp_path: Path) -> None:
    task = watch(served(mean_only(tmp_path / "m.onnx", ("n", 4))))
    assert error(task, line("1 2 3 4 5 5 5 5")) == pytest.approx(1.25 / 2)


def test_a_vae_and_a_window_of_two_axes(tmp_path: Path) -> None:
    task = watch(served(mean_only(tmp_path / "m.onnx", (1, 2, 2), codes=2), "vae"))
    assert error(task, line("1 2 3 4")) == pytest.approx(1.25)


def test_a_picture(tmp_path: Path) -> None:
    how = Input(4, 4, scale=1 / 255, letterbox="stretch")
    task = watch(served(mean_only(tmp_path / "m.onnx", (1, 3, 4, 4)), input=how))
    image = np.zeros((8, 8, 3), np.uint8)
    assert error(task, Frame(image, 0, 0)) == 0
    image[:4] = 255
    assert error(task, Frame(image, 0, 0)) == pytest.approx(0.25)
    assert task.takes == (Frame,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 2 three 4", "is no list of numbers"),
        ("1 2 3", "the line has 3 numbers, the network takes 4, or a whole multiple"),
        ("[]", "the line has 0 numbers"),
        ("1 2 3 nan", "not finite"),
        ("1 2 3 1e99", "not finite"),
        ("[[1, 2], [3, 4]]", "is no list of numbers"),
    ],
)
def test_a_line_that_is_no_window(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        error(watch(served(mean_only(tmp_path / "m.onnx"))), line(text))


def test_a_network_that_gives_no_number(tmp_path: Path) -> None:
    ends = {"x": (TensorProto.FLOAT, [1, 2])}, {"y": (TensorProto.FLOAT, [1, 2])}
    path = write_onnx(tmp_path / "m.onnx", [helper.make_node("Log", ["x"], ["y"])], *ends)
    with pytest.raises(InputError, match="not finite"):
        error(watch(served(path)), line("0 -1"))


def test_what_cannot_be_made(tmp_path: Path) -> None:
    model = served(mean_only(tmp_path / "m.onnx"))
    for wrong in ("0", "-1", "x", "inf"):
        with pytest.raises(ConfigError, match=f"limit={wrong} is no error above 0"):
            watch(model, f"?limit={wrong}")
    with pytest.raises(ManifestError, match='unknown family "pca"'):
        watch(served(mean_only(tmp_path / "m.onnx"), "pca"))
    ends = {"x": (TensorProto.FLOAT, [1, 4])}, {"y": (TensorProto.FLOAT, [1])}
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)
    with pytest.raises(ManifestError, match=r"no output has the shape of its input \[1, 4\]"):
        watch(served(write_onnx(tmp_path / "n.onnx", [node], *ends)))


def test_real_numbers_go_in_by_the_scale_of_a_quantized_input() -> None:
    spec = TensorSpec("x", (1, 4), "int8", 0.5, 10)
    assert quantized(np.array([0, 1, -100, 100], np.float32), spec).tolist() == [10, 12, -128, 127]


def test_the_event_and_what_is_worth_one(tmp_path: Path) -> None:
    model = served(mean_only(tmp_path / "m.onnx"))
    (finding,) = watch(model)(line("1 2 3 4"))
    event = to_event(finding, "pump")
    assert isinstance(event, AnomalyEvent)
    assert (event.error, event.limit, event.unusual) == (1.25, None, None)
    task, report = watch(model, "?limit=1"), reporter("changes")

    def told(text: str) -> list[bool | None]:
        found = report(list[Finding](task(line(text))))
        return [item.what.unusual for item in found if isinstance(item, Finding) and isinstance(item.what, Anomaly)]

    shown = [told(text) for text in ("1 2 3 4", "2 4 6 8", "1 1 1 1", "1 1 1 2")]
    assert shown == [[True], [], [False], []]


def test_the_published_autoencoders(data: Path) -> None:
    from edge_agent.sources.text import LONGEST

    raw = np.fromfile(data / "models" / "normal_id_01_00000000_hist_librosa.bin", np.float32).reshape(-1, 640)
    tone = raw + 12 * (np.arange(640) % 128 == 40)
    for name, usual in (("ad01_fp32", 9.7), ("ad01_int8", 10.3)):
        path = data / "models" / f"{name}.tflite"
        row = File(path.name, "tflite", "0" * 64, 0)
        made = Manifest("ad", "1", "anomaly", "autoencoder", "Apache-2.0", "MLCommons", [row])
        model = Served(made, ModelRef("ad", "1", "0" * 64), open_net(path, "tflite", 1), {}, None, "")
        task = watch(model)
        lines = [" ".join(f"{x:.5g}" for x in window) for window in raw]
        assert max(map(len, lines)) < LONGEST
        assert np.mean([error(task, line(text)) for text in lines]) == pytest.approx(usual, abs=0.1)
        assert error(task, line(" ".join(f"{x:.5g}" for x in tone[0]))) > error(task, line(lines[0])) + 0.5
