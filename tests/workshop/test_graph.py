"""`edge-agent graph`: what comes out answers as before, as TFLite too; and what cannot be done."""

from __future__ import annotations

import argparse
import builtins
import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_agent import cli
from edge_agent.errors import ModelError, RefusedError, UsageError
from edge_agent.manifest import load
from edge_agent.workshop import arguments as verb_options
from edge_agent.workshop import making
from edge_agent.workshop.evaluate import score
from edge_agent.workshop.graph import net, verb
from tests.conftest import ROOT
from tests.nets import doubling_onnx
from tests.tiny import tiny_detector

pytest.importorskip("onnxslim", reason="pip install edge-agent-runtime[workshop]")

YOLO = ROOT / "models" / "edge-yolo"


def no_say(what: str, done: int, total: int) -> None:
    assert 0 <= done <= total


def arguments(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    verb_options.graph(parser)
    args = parser.parse_args(argv)
    args.threads, args.pull, args.json = 1, False, False
    return args


def convolution(path: Path) -> onnx.ModelProto:
    """A padded convolution of a picture 8 wide and 6 high."""
    weight = np.random.default_rng(0).normal(size=(6, 3, 3, 3)).astype(np.float32)
    made = helper.make_model(
        helper.make_graph(
            [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6, 6, 8])],
            [numpy_helper.from_array(weight, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(made, str(path))
    return made


def answer(model: onnx.ModelProto, value: Any) -> Any:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: value})[0]


def test_simplified_is_smaller_and_the_same(tmp_path: Path) -> None:
    """Two nodes that do nothing and a constant sum go."""
    model = convolution(tmp_path / "m.onnx")
    model.graph.node.insert(0, helper.make_node("Identity", ["x"], ["same"], name="id"))
    model.graph.node[1].input[0] = "same"
    model.graph.node.insert(0, helper.make_node("Add", ["w", "w"], ["twice"], name="sum"))
    model.graph.node[2].input[1] = "twice"
    made = verb.simplified(model)
    assert [node.op_type for node in made.graph.node] == ["Conv"]
    x = np.random.default_rng(0).normal(size=(1, 3, 6, 8)).astype(np.float32)
    np.testing.assert_allclose(answer(made, x), answer(model, x), rtol=1e-5)
    assert len(model.graph.node) == 3


def test_weights_kept_as_half_floats_are_not_widened() -> None:
    """edge-bert's lie as float16 with a Cast behind each: folding that would double the file."""
    model = net.load(ROOT / "models" / "edge-bert" / "encoder.onnx")
    assert verb.simplified(model).ByteSize() < model.ByteSize() * 1.1


def test_no_onnx_file(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("hello there")
    with pytest.raises(RefusedError, match="not a readable ONNX model"):
        net.load(tmp_path / "m.onnx")


def test_without_onnxslim_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] == "onnxslim":
            raise ImportError("No module named 'onnxslim'")
        return real(name, *rest, **more)

    for name in [name for name in sys.modules if name.split(".")[0] == "onnxslim"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ModelError, match=r'pip install "edge-agent-runtime\[workshop\]"'):
        verb.simplified(convolution(tmp_path / "m.onnx"))


# ── the verb ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(making, "SECONDS", 0.2)


def test_the_verb_writes_a_model_that_the_gate_takes(tmp_path: Path) -> None:
    tiny = tiny_detector(tmp_path / "tiny")
    before = (tiny / "model.onnx").read_bytes()
    report = verb.run(arguments(str(tiny), "--out", str(tmp_path / "out")), no_say)
    assert (tiny / "model.onnx").read_bytes() == before
    manifest = load(tmp_path / "out" / "manifest.toml")
    assert [row.name for row in manifest.file] == ["model.simple.onnx"]
    assert manifest.input == load(tiny / "manifest.toml").input and manifest.made is not None
    assert manifest.made.verb == "graph" and manifest.made.method == "simplified"
    assert [row.accuracy for row in report.rows] == [1.0, 1.0], "the boxes are the parent's"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "manifest.toml", "model.simple.onnx", "report.html", "report.json"
    }  # fmt: skip
    with pytest.raises(UsageError, match="which the workshop did not make"):
        verb.run(arguments(str(YOLO), "--out", str(ROOT / "docs")), no_say)


# ── onnx2tf ──────────────────────────────────────────────────────────────────────────────────────────────


def program(path: Path, body: str) -> Path:
    """A program in the place of onnx2tf, which is called as it is and does what the real one does to files."""
    path.write_text(f"#!{sys.executable}\nimport sys, pathlib\nargv = sys.argv[1:]\n{body}")
    path.chmod(0o755)
    return path


CONVERTS = """
given, out = pathlib.Path(argv[argv.index("-i") + 1]), pathlib.Path(argv[argv.index("-o") + 1])
assert pathlib.Path("calibration_image_sample_data_20x128x128x3_float32.npy").stat().st_size > 20 * 128 * 128 * 3 * 4
out.mkdir(exist_ok=True)
for kind in ("float32", "float16"):
    (out / f"{given.stem}_{kind}.tflite").write_bytes(b"TFL3")
given.write_bytes(b"simplified in place")
"""


def test_it_is_called_on_a_copy(tmp_path: Path) -> None:
    """The real one writes over its input, and fetches a picture from the net where none lies beside it."""
    source = doubling_onnx(tmp_path / "m.onnx")
    before = source.read_bytes()
    made = verb.to_tflite(program(tmp_path / "onnx2tf", CONVERTS), source, tmp_path / "work", no_say)
    assert [(path.name, precision) for path, precision in made] == [
        ("m_float32.tflite", "fp32"),
        ("m_float16.tflite", "fp16"),
    ]
    assert source.read_bytes() == before


def test_its_last_words_are_said(tmp_path: Path) -> None:
    source = doubling_onnx(tmp_path / "m.onnx")
    bad = program(tmp_path / "bad", "print('much')\nprint('ERROR: no such operator', file=sys.stderr)\nsys.exit(1)")
    with pytest.raises(RefusedError, match=r"onnx2tf cannot convert m.onnx: ERROR: no such operator"):
        verb.to_tflite(bad, source, tmp_path / "work", no_say)
    with pytest.raises(RefusedError, match="it ended with 0 and said nothing"):
        verb.to_tflite(program(tmp_path / "mute", ""), source, tmp_path / "work", no_say)


def test_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"python3 -m venv tf && tf/bin/pip install onnx2tf"):
        verb.onnx2tf(None)
    with pytest.raises(UsageError, match="--onnx2tf nowhere: no program there"):
        verb.onnx2tf("nowhere")
    tool, other = program(tmp_path / "onnx2tf", ""), program(tmp_path / "other", "")
    assert verb.onnx2tf(None) == tool and verb.onnx2tf(str(other)) == other


@pytest.mark.parametrize("verb", ["graph", "quantize", "prune", "tune"])
def test_a_strangers_model_is_opened_here_only_once_it_has_proved_itself(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    folder = tiny_detector(tmp_path / "tiny")
    before = (folder / "model.onnx").read_bytes()
    model = onnx.load_from_string(before)
    kept = next(one for one in model.graph.initializer if one.name == "box")
    kept.CopyFrom(numpy_helper.from_array(np.full((1, 1, 6), np.nan, np.float32), "box"))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    manifest = (folder / "manifest.toml").read_text()
    was, now = (hashlib.sha256(raw).hexdigest() for raw in (before, model.SerializeToString()))
    (folder / "manifest.toml").write_text(manifest.replace(was, now))

    def opened(*_: object) -> None:
        raise AssertionError("it was opened")

    monkeypatch.setattr(score, "open_served", opened)
    data = ["--data", str(ROOT / "deploy" / "demo")] if verb != "graph" else []
    assert cli.main([verb, str(folder), "--out", str(tmp_path / "out"), *data]) == 1
    assert f"edge-agent {verb}: tiny: model.onnx is refused: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
