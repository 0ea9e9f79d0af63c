"""A bare file is read in a child process: what it does there cannot hurt the program that asks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from edge_agent import prove, reading
from edge_agent.errors import RefusedError
from edge_agent.serving import Models
from tests.nets import blob_finder_onnx, write_onnx
from tests.registry.heads import picture, squares


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_what_it_is_and_what_it_declares(tmp_path: Path) -> None:
    found = reading.read(blob_finder_onnx(tmp_path / "m.onnx"))
    assert (found.seen.task, found.seen.family, found.seen.refusal) == ("detect", "yolox", "")
    assert found.seen.input is not None and found.seen.input.width == 64
    assert found.ends.inputs[0].shape == (1, 3, 64, 64) and found.ends.engine.startswith("onnxruntime")


def test_it_is_remembered_until_something_beside_it_or_a_picture_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = squares(tmp_path / "m.onnx", "yolov8", meta={"names": ""})
    proof = picture(tmp_path / "proof.png")
    first = reading.read(path, [proof])
    assert first.seen.labels == ["class_0", "class_1", "class_2"]
    with monkeypatch.context() as patch:
        patch.setattr(prove, "CHILD", ["/nonexistent"])
        assert reading.read(path, [proof]) == first
    (tmp_path / "labels.txt").write_text("blue\ngreen\nred\n")
    assert reading.read(path, [proof]).seen.labels == ["blue", "green", "red"]


def test_a_refusal_names_the_file_as_it_is_asked_for(tmp_path: Path) -> None:
    ends = {"x": (TensorProto.FLOAT, [1, 3, 64, 64])}, {"y": (TensorProto.FLOAT, [1, 7, 9, 11, 13])}
    node = helper.make_node("Dance", ["x"], ["y"])
    for name in ("a.onnx", "b.onnx"):
        with pytest.raises(RefusedError, match=rf"{name}: .*Dance"):
            reading.read(write_onnx(tmp_path / name, [node], *ends))
    with pytest.raises(RefusedError, match=r"c\.onnx: no file that can be read"):
        reading.read(tmp_path / "c.onnx")


def test_a_child_that_dies_is_a_refusal_and_nothing_is_opened_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr(prove, "CHILD", [sys.executable, "-c", dying])
    with pytest.raises(RefusedError, match=r"m\.onnx: its trial process died of SIGSEGV"):
        reading.read(blob_finder_onnx(tmp_path / "m.onnx"))
    with pytest.raises(RefusedError, match="SIGSEGV"):
        Models(threads=1).serve(str(tmp_path / "m.onnx"))
