"""The hand-written TFLite files against ONNX Runtime, on the weights that the project carries, at a small size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from edge_agent.workshop.train.detector.export import difference, run_onnx, run_tflite
from edge_agent.workshop.train.detector.graph import layers, tensors_of, to_onnx
from edge_agent.workshop.train.detector.int8 import ranges, to_int8
from edge_agent.workshop.train.detector.tflite import to_tflite
from tests.conftest import ROOT

SIZE = (96, 64)
Tensors = dict[str, npt.NDArray[np.float32]]


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return tensors_of(onnx.load(str(ROOT / "models" / "edge-yolo" / "model.onnx")))


@pytest.fixture(scope="module")
def pictures() -> list[npt.NDArray[np.float32]]:
    """Smooth random pictures (1, 3, 64, 96): noise of 6 × 4, enlarged."""
    random = np.random.default_rng(0)
    coarse = random.uniform(0, 255, (6, 1, 3, 4, 6)).astype(np.float32)
    return list(coarse.repeat(16, 3).repeat(16, 4))


@pytest.mark.parametrize(("precision", "apart"), [("fp32", 1e-3), ("fp16", 0.3)])
def test_float_files_answer_as_onnx_does(
    tensors: Tensors, pictures: list[npt.NDArray[np.float32]], precision: str, apart: float
) -> None:
    model = to_onnx(tensors, SIZE).SerializeToString()
    file = to_tflite(tensors, SIZE, precision)  # type: ignore[arg-type]
    for picture in pictures[:2]:
        wanted, got = run_onnx(model, picture), run_tflite(file, picture)
        assert set(got) == {"boxes", "logits"} and got["boxes"].shape == wanted["boxes"].shape
        assert (got["boxes"] >= 0).all()
        assert difference(wanted, got) < apart
    if precision == "fp16":
        assert len(file) < 0.6 * len(model)


def test_int8_files_follow_the_float_ones(tensors: Tensors, pictures: list[npt.NDArray[np.float32]]) -> None:
    model = to_onnx(tensors, SIZE)
    data = model.SerializeToString()
    files = {
        "tflite": to_tflite(tensors, SIZE, "int8", ranges(model, pictures)),
        "onnx": to_int8(model, pictures).SerializeToString(),
    }
    for kind, file in files.items():
        run = run_tflite if kind == "tflite" else run_onnx
        assert len(file) < 0.45 * len(data)
        for picture in pictures[:2]:
            wanted, got = run_onnx(data, picture), run(file, picture)
            for name in ("boxes", "logits"):
                alike = float(np.corrcoef(wanted[name].ravel(), got[name].ravel())[0, 1])
                assert alike > 0.94, (kind, name)


def test_int8_keeps_the_heads_in_float(tensors: Tensors, pictures: list[npt.NDArray[np.float32]]) -> None:
    model = to_onnx(tensors, SIZE)
    small = to_int8(model, pictures[:2])
    weights = {tensor.name: tensor.data_type for tensor in small.graph.initializer}
    for output in ("boxes", "logits"):
        assert weights[f"heads.0.{output}.weight"] == onnx.TensorProto.FLOAT
    assert not any(name.endswith("join.conv.weight") for name in weights), "all others are int8 by another name"
    assert {"boxes", "logits"} == {output.name for output in small.graph.output}


def test_the_layers_end_in_a_row_a_cell(tensors: Tensors) -> None:
    made = layers(tensors, SIZE)
    cells = sum((96 // stride) * (64 // stride) for stride in (8, 16, 32))
    assert [(layer.output, layer.shape) for layer in made[-2:]] == [("boxes", (cells, 4)), ("logits", (cells, 20))]
    written = {
        name for layer in made if layer.weight for name in (layer.weight, layer.weight.replace(".weight", ".bias"))
    }
    assert written == set(tensors)
