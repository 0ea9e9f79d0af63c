"""TFLite quantization, on edge-yolo, on networks made here, and on the published files of MLPerf Tiny."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert.interpreter import Interpreter

from edge_agent.errors import ModelError, RefusedError
from edge_agent.figures.scores import pearson
from edge_agent.workshop.graph.layers import groups, tail
from edge_agent.workshop.graph.tflite import Model, read
from edge_agent.workshop.quantize.build import QuantizePlan
from edge_agent.workshop.quantize.contents import of_tflite
from edge_agent.workshop.quantize.ranges import METHODS, ranges, watch
from edge_agent.workshop.quantize.tflite import exact, layers, quantized
from tests.conftest import ROOT
from tests.nets import absolute_tflite

pytest.importorskip("litert_quantizer", reason="pip install edge-agent-runtime[workshop]")

Array = npt.NDArray[Any]
Feeds = list[Mapping[str, Array]]


def answers(data: bytes, feeds: Feeds) -> list[list[Array]]:
    interpreter = Interpreter(model_content=data, num_threads=1)
    return [run(interpreter, feed) for feed in feeds]


def run(interpreter: Any, feed: Mapping[str, Array]) -> list[Array]:
    for detail in interpreter.get_input_details():
        interpreter.resize_tensor_input(detail["index"], feed[detail["name"]].shape)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], feed[detail["name"]].astype(detail["dtype"]))
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def alike(data: bytes, model: Model, feeds: Feeds) -> float:
    """Least correlation of an output with the float model's."""
    mine, theirs = answers(data, feeds), answers(model.data, feeds)
    columns = [[np.concatenate([one[i].ravel() for one in of]) for of in (mine, theirs)] for i in range(len(mine[0]))]
    return min(pearson(*(column.astype(np.float64) for column in pair)) for pair in columns)


@pytest.fixture(scope="module")
def yolo() -> Model:
    """edge-yolo with float16 weights."""
    return read(ROOT / "models" / "edge-yolo" / "model.fp16.tflite")


@pytest.fixture(scope="module")
def pictures() -> Feeds:
    coarse = np.random.default_rng(0).uniform(0, 255, (4, 1, 14, 18, 3)).astype(np.float32)
    return [{"images": one.repeat(16, 1).repeat(16, 2)} for one in coarse]


@pytest.fixture(scope="module")
def measured(yolo: Model, pictures: Feeds) -> dict[str, tuple[float, float]]:
    return ranges(watch(yolo, lambda: pictures, lambda _: None), "full")


def test_half_weights_are_widened(yolo: Model, pictures: Feeds) -> None:
    assert "DEQUANTIZE" not in {layer.op for layer in yolo.layers}
    assert sum(layer.op in ("CONV_2D", "DEPTHWISE_CONV_2D") for layer in layers(yolo)) == len(layers(yolo)) > 50
    half = len(quantized(yolo, QuantizePlan("float16"), {}))
    assert 0.45 < half / len(yolo.data) < 0.6, "what was float16 takes its room once"


@pytest.mark.parametrize(
    ("plan", "size", "least"),
    [
        (QuantizePlan("float16"), 0.6, 0.999),
        (QuantizePlan("static"), 0.45, 0.95),
        (QuantizePlan("static", ops="all"), 0.4, 0.95),
        (QuantizePlan("dynamic"), 0.4, 0.95),
        (QuantizePlan("weights"), 0.35, 0.95),
    ],
    ids=lambda value: value.text() if isinstance(value, QuantizePlan) else "",
)
def test_each_form_is_smaller_and_answers_like_the_float_one(
    yolo: Model,
    pictures: Feeds,
    measured: dict[str, tuple[float, float]],
    plan: QuantizePlan,
    size: float,
    least: float,
) -> None:
    data = quantized(yolo, plan, measured)
    assert len(data) < size * len(yolo.data)
    assert alike(data, yolo, pictures) > least
    interpreter = Interpreter(model_content=data)
    for detail in interpreter.get_input_details() + interpreter.get_output_details():
        assert detail["dtype"] == np.float32, "the agent's side of the model stays as it was"


def types(data: bytes) -> dict[str, list[str]]:
    """Type of tensor -> the names of those that have it."""
    found: dict[str, list[str]] = {}
    for detail in Interpreter(model_content=data).get_tensor_details():
        found.setdefault(np.dtype(detail["dtype"]).name, []).append(detail["name"])
    return found


def test_boxes_and_scores_never_share_a_scale(
    yolo: Model, measured: dict[str, tuple[float, float]], pictures: Feeds
) -> None:
    last = tail(yolo.layers)
    assert {"boxes", "logits"} <= last and not last & {layer.name for layer in layers(yolo)}
    data = quantized(yolo, QuantizePlan("static", ops="all"), measured)
    assert not last & {*types(data).get("int8", [])}


def test_what_is_kept_is_not_touched(yolo: Model, measured: dict[str, tuple[float, float]], pictures: Feeds) -> None:
    first = layers(yolo)[0].name
    rest = tuple(name for head, inside in groups(yolo.layers).items() if head != first for name in inside)
    one = quantized(yolo, QuantizePlan("static", ops="all", keep=rest), measured)
    all_ = quantized(yolo, QuantizePlan("static", ops="all"), measured)
    assert 0 < len(types(one)["int8"]) < len(types(all_)["int8"]) / 10
    assert alike(one, yolo, pictures) > alike(all_, yolo, pictures)
    with pytest.raises(RefusedError, match="--keep nothing: no layer of that name"):
        quantized(yolo, QuantizePlan(keep=("nothing",)), measured)
    with pytest.raises(RefusedError, match="nothing is left to quantize"):
        quantized(yolo, QuantizePlan(keep=tuple(layer.name for layer in yolo.layers)), measured)


def test_dynamic_leaves_the_small_weights_of_depthwise_layers_alone(yolo: Model, pictures: Feeds) -> None:
    small = {layer.name for layer in yolo.layers if layer.op == "DEPTHWISE_CONV_2D"}
    assert small and small <= {*types(quantized(yolo, QuantizePlan("dynamic"), {}))["float32"]}
    held = sum(layer.weights for layer in yolo.layers if layer.name in small)
    assert held < 0.05 * sum(layer.weights for layer in yolo.layers)


def test_a_tensor_that_no_scale_serves_stays_float(
    yolo: Model, measured: dict[str, tuple[float, float]], pictures: Feeds
) -> None:
    """A mask of -1e30, or NaN in the calibration data: the layers at it are left out, the others have sound scales."""
    layer = layers(yolo)[20]
    masked = {**measured, layer.name: (-1e30, 1.0)}
    unknown = {name: one for name, one in measured.items() if name != layer.name}
    for odd in (masked, unknown):
        assert layer.name in exact(yolo, odd) and layers(yolo)[5].name not in exact(yolo, odd)
        data = quantized(yolo, QuantizePlan("static", ops="all"), odd)
        assert layer.name in types(data)["float32"]
        assert alike(data, yolo, pictures) > 0.9
    for detail in Interpreter(model_content=data).get_tensor_details():
        scales = detail["quantization_parameters"]["scales"]
        assert np.isfinite(scales).all() and (scales > 0).all()


def test_a_range_that_is_a_point_has_a_scale(yolo: Model, measured: dict[str, tuple[float, float]]) -> None:
    flat = dict.fromkeys(measured, (0.0, 0.0))
    for detail in Interpreter(model_content=quantized(yolo, QuantizePlan("static"), flat)).get_tensor_details():
        scales = detail["quantization_parameters"]["scales"]
        assert np.isfinite(scales).all() and (scales > 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_its_ranges(yolo: Model, pictures: Feeds, method: str) -> None:
    """What is seen is what the methods ask for; the range of one layer by each of them, of the others in full."""
    steps: list[int] = []
    found = watch(yolo, lambda: pictures[:2], steps.append)
    assert steps == [1, 2, 3, 4] and set(found) == set(yolo.floats)
    one = layers(yolo)[3].name
    whole = ranges(found, "full")
    data = quantized(yolo, QuantizePlan("static", method=method), {**whole, **ranges({one: found[one]}, method)})
    assert alike(data, yolo, pictures) > 0.9


def test_a_quantized_file_is_refused(tmp_path: Path, yolo: Model, measured: dict[str, tuple[float, float]]) -> None:
    for number, plan in enumerate((QuantizePlan("static"), QuantizePlan("dynamic"), QuantizePlan("weights"))):
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(quantized(yolo, plan, measured))
        with pytest.raises(RefusedError, match="it is quantized already"):
            read(path)


def test_what_cannot_be_quantized_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no layer with float weights; there is nothing to quantize"):
        read(absolute_tflite(tmp_path / "abs.tflite", [1, 4]))
    (tmp_path / "text.tflite").write_text("hello there")
    with pytest.raises(RefusedError, match="is no TFLite model"):
        read(tmp_path / "text.tflite")
    with pytest.raises(RefusedError, match="cannot be read"):
        read(tmp_path / "absent.tflite")
    (tmp_path / "cut.tflite").write_bytes(b"\x10\x00\x00\x00TFL3" + bytes(range(1, 60)))
    with pytest.raises(RefusedError, match="is no readable TFLite model"):
        read(tmp_path / "cut.tflite")


def test_calibration_data_that_does_not_fit(yolo: Model) -> None:
    with pytest.raises(ModelError, match="cannot be run on the calibration data"):
        watch(yolo, lambda: [{"images": np.zeros((1, 7, 7, 3), np.float32)}], lambda _: None)


def test_without_the_quantizer_the_message_says_what_to_install(yolo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("litert_quantizer"):
            raise ImportError("No module named 'litert_quantizer'")
        return real(name, *rest, **more)

    for name in [name for name in sys.modules if name.startswith("litert_quantizer")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ModelError, match=r'pip install "edge-agent-runtime\[workshop\]"'):
        quantized(yolo, QuantizePlan("dynamic"), {})


def test_what_a_file_holds_is_read_off_it(yolo: Model, measured: dict[str, tuple[float, float]]) -> None:
    for plan, precision in (
        (QuantizePlan("static", ops="all"), "int8"),
        (QuantizePlan("dynamic"), "dynamic-int8"),
        (QuantizePlan("weights"), "int8-weights"),
        (QuantizePlan("float16"), "fp16"),
    ):
        held = of_tflite(quantized(yolo, plan, measured))
        assert held.precision == precision, held.text()
    assert of_tflite(yolo.data).quantized == 0


# ── the published files ──────────────────────────────────────────────────────────────────────────────────


def test_the_autoencoder_s_errors_are_those_of_the_published_int8_file(data: Path) -> None:
    """ad01 is of 2020: its operator codes stand in the old field only, and it has no signature."""
    model = read(data / "models" / "ad01_fp32.tflite")
    assert {layer.op for layer in model.layers} == {"FULLY_CONNECTED"}
    raw = np.fromfile(data / "models" / "normal_id_01_00000000_hist_librosa.bin", np.float32)
    rows = raw.reshape(-1, 128)
    feeds: Feeds = [{"input_1": rows[i : i + 5].reshape(1, 640)} for i in range(0, len(rows) - 5, 4)]
    found = ranges(watch(model, lambda: feeds, lambda _: None), "full")

    def errors(data: bytes) -> npt.NDArray[np.float64]:
        return np.array([((a[0] - f["input_1"]) ** 2).mean() for a, f in zip(answers(data, feeds), feeds, strict=True)])

    own = errors(quantized(model, QuantizePlan("static"), found))
    assert abs(own.mean() - errors(model.data).mean()) < 1.0
    assert np.corrcoef(own, errors(model.data))[0, 1] > 0.9


def test_visual_wake_words_decides_as_before(data: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    model = read(data / "models" / "vww_96_float.tflite")
    paths = sorted((data / "coco_calib96").glob("*.jpg"))[:24]
    feeds: Feeds = [
        {"input_1": cv2.resize(cv2.imread(str(path))[..., ::-1], (96, 96))[None].astype(np.float32) / 255}
        for path in paths
    ]
    found = ranges(watch(model, lambda: feeds[:12], lambda _: None), "full")
    wanted = [int(one[0].argmax()) for one in answers(model.data, feeds)]
    for plan in (QuantizePlan("static", ops="all"), QuantizePlan("dynamic"), QuantizePlan("weights")):
        got = [int(one[0].argmax()) for one in answers(quantized(model, plan, found), feeds)]
        assert sum(a == b for a, b in zip(wanted, got, strict=True)) >= 23, plan.text()
