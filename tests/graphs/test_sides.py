"""A detector for pictures of another size: its cells follow the input, and only what states no size is changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edge_agent.errors import RefusedError
from edge_agent.graphs.sides import with_sides
from edge_agent.serving.models import Models
from edge_agent.serving.smaller import smaller
from tests.conftest import ROOT


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_a_real_detector_gets_another_size(tmp_path: Path, name: str) -> None:
    source = ROOT / "models" / "edge-yolo" / name
    with_sides(source, tmp_path / "same.onnx", 288, 224)
    with_sides(source, tmp_path / "small.onnx", 224, 160)
    picture = np.random.default_rng(0).random((1, 3, 224, 288), np.float32) * 255
    before, same, small = (
        onnxruntime.InferenceSession(str(p)) for p in (source, tmp_path / "same.onnx", tmp_path / "small.onnx")
    )
    for one, other in zip(before.run(None, {"images": picture}), same.run(None, {"images": picture}), strict=True):
        assert np.array_equal(one, other)
    cells = sum((224 // stride) * (160 // stride) for stride in (8, 16, 32))
    found = small.run(None, {"images": picture[:, :, :160, :224]})
    assert [one.shape[1] for one in found] == [cells, cells]


def test_what_takes_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="picture"):
        with_sides(ROOT / "models" / "edge-bert" / "encoder.onnx", tmp_path / "o.onnx", 32, 32)
    with pytest.raises(RefusedError, match="not a readable"):
        (tmp_path / "x.onnx").write_bytes(b"\x0a\xff")
        with_sides(tmp_path / "x.onnx", tmp_path / "o.onnx", 32, 32)


@pytest.mark.slow
def test_a_smaller_detector_is_tried_and_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    served = smaller(Models(threads=1), "edge-yolo", 0.77)
    assert served.input is not None and (served.input.width, served.input.height) == (224, 160)
    assert served.ref.name == "edge-yolo-224x160" and "person" in (served.manifest.labels or "")
    (folder,) = (tmp_path / "home" / "smaller").iterdir()
    assert smaller(Models(threads=1), "edge-yolo", 0.77).ref == served.ref and folder.is_dir()


def test_no_smaller_one_of_what_cannot_be_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    with pytest.raises(RefusedError, match="no detector"):
        smaller(Models(threads=1), "edge-bert", 0.77)
