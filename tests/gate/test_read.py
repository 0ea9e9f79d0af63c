"""A bare file is read in a child process: what it does there cannot hurt the program that asks."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from edge_agent.errors import RefusedError
from edge_agent.gate import ask as gate_ask
from edge_agent.gate import read
from edge_agent.serving.models import Models
from edge_agent.types import Net, TensorSpec
from tests.inspect.test_kinds import WIDTH, bert
from tests.nets import blob_finder_onnx, write_onnx
from tests.registry.heads import picture, squares


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_what_it_is_and_what_it_declares(tmp_path: Path) -> None:
    found = read.read(blob_finder_onnx(tmp_path / "m.onnx"))
    assert (found.seen.task, found.seen.family, found.seen.refusal) == ("detect", "yolox", "")
    assert found.seen.input is not None and found.seen.input.width == 64
    assert found.ends.inputs[0].shape == (1, 3, 64, 64) and found.ends.engine.startswith("onnxruntime")


def test_it_is_remembered_until_something_beside_it_or_a_picture_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = squares(tmp_path / "m.onnx", "yolov8", meta={"names": ""})
    proof = picture(tmp_path / "proof.png")
    first = read.read(path, [proof])
    assert first.seen.labels == ["class_0", "class_1", "class_2"]
    with monkeypatch.context() as patch:
        patch.setattr(gate_ask, "CHILD", ["/nonexistent"])
        assert read.read(path, [proof]) == first
    (tmp_path / "labels.txt").write_text("blue\ngreen\nred\n")
    assert read.read(path, [proof]).seen.labels == ["blue", "green", "red"]


def test_a_refusal_names_the_file_as_it_is_asked_for(tmp_path: Path) -> None:
    ends = {"x": (TensorProto.FLOAT, [1, 3, 64, 64])}, {"y": (TensorProto.FLOAT, [1, 7, 9, 11, 13])}
    node = helper.make_node("Dance", ["x"], ["y"])
    for name in ("a.onnx", "b.onnx"):
        with pytest.raises(RefusedError, match=rf"{name}: .*Dance"):
            read.read(write_onnx(tmp_path / name, [node], *ends))
    with pytest.raises(RefusedError, match=r"c\.onnx: no file that can be read"):
        read.read(tmp_path / "c.onnx")


def test_a_child_that_dies_is_a_refusal_and_nothing_is_opened_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr(gate_ask, "CHILD", [sys.executable, "-c", dying])
    with pytest.raises(RefusedError, match=r"m\.onnx: its trial process died of SIGSEGV"):
        read.read(blob_finder_onnx(tmp_path / "m.onnx"))
    with pytest.raises(RefusedError, match="SIGSEGV"):
        Models(threads=1).serve(str(tmp_path / "m.onnx"))


@pytest.mark.parametrize(
    ("tokens", "name", "says"),
    [
        (2, "y", "its input takes 2 tokens; 3 to 8192 are served"),
        (16384, "y", "its input takes 16384 tokens; 3 to 8192 are served"),
        (16, "emb\nedding_vector", r"its output is called 'emb\nedding_vector'; export it under a plain name"),
    ],
)
def test_a_text_network_that_no_manifest_can_describe_is_refused(
    tmp_path: Path, tokens: int, name: str, says: str
) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n")
    path = bert(tmp_path / "m.onnx", (-1, WIDTH) if name == "y" else (WIDTH,), name=name, fixed=tokens)
    seen = read.read(path).seen
    assert seen.text is None and seen.refusal.endswith(says)


def test_a_picture_or_a_scale_beyond_all_bounds_is_refused(tmp_path: Path) -> None:
    ends = {"x": (TensorProto.FLOAT, [1, 3, 32, 10000])}, {"y": (TensorProto.FLOAT, [1, 3])}
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)
    with pytest.raises(RefusedError, match="a picture of 10000x32 goes in; sides up to 8192 pixels are served"):
        read.read(write_onnx(tmp_path / "wide.onnx", [node], *ends))
    spec = TensorSpec("y", (1, 4), "int8", scale=np.nan)
    with pytest.raises(RefusedError, match='the scale of its "y" is nan; quantize it anew'):
        read.declared(Net(dict, (), (spec,), "none"))


def test_a_child_that_says_what_cannot_be_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = blob_finder_onnx(tmp_path / "m.onnx")
    found = '{"seen": {"task": "detect", "family": "yolox", "reasons": [], "input": {"width": 9999, "height": 8}}}'
    said = f'{{"passed": true, "figures": {found}}}'
    monkeypatch.setattr(gate_ask, "CHILD", [sys.executable, "-c", f"print({said!r})"])
    for ask in (lambda: read.read(path), lambda: read.ends(path, "onnx")):
        with pytest.raises(RefusedError, match=r"m\.onnx: what it declares cannot be used \(.*\); export it anew$"):
            ask()
