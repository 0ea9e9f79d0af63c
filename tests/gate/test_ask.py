"""Files that must not serve, one by one, and those that may: each is tried by the real child process."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from edge_agent import paths
from edge_agent.errors import FetchError, ModelError, RefusedError
from edge_agent.gate import ask, read, trial, verdicts
from edge_agent.gate.admit import prove
from edge_agent.gate.trial import Agree, Limits
from edge_agent.gate.verdicts import key, refusals, remembered
from edge_agent.inspect.names import coco80
from edge_agent.manifest import File, Input, Manifest, TextInput
from edge_agent.registry import files
from edge_agent.serving.models import Models
from tests.nets import absolute_tflite, blob_finder_onnx, write_onnx, write_tflite
from tests.tasks.text_models import WORDS
from tests.tiny import tiny_detector

POINTS = 84
"""cells of a picture of 64x64"""


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "home"


def manifest(path: Path, family: str = "yolox", labels: tuple[str, ...] = ("a", "b", "c"), **more: Any) -> Manifest:
    body = path.read_bytes()
    format = path.suffix[1:]
    row = File(path.name, format, hashlib.sha256(body).hexdigest(), len(body))  # type: ignore[arg-type]
    more.setdefault("input", Input(64, 64, channels="BGR"))
    return Manifest("toy", "1", "detect", family, "CC0-1.0", "nobody", [row], labels=list(labels), **more)


def refusal(path: Path, *, limits: Limits = trial.LIMITS, **more: Any) -> str:
    """Why a detector is refused; its message is one line."""
    made = manifest(path, **more)
    with pytest.raises(RefusedError) as error:
        prove(made, made.file[0], path, {}, 1, limits=limits)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"toy: {path.name} is refused: ")
    return str(error.value)


def head(path: Path, nodes: list[Any], constants: dict[str, Any], size: int = 64, columns: int = 8) -> Path:
    """A network with the shapes of a YOLOX head of three classes."""
    columns = constants["head"].shape[-1] if "head" in constants else columns
    ends = {"images": (TensorProto.FLOAT, [1, 3, size, size])}, {"output": (TensorProto.FLOAT, [1, POINTS, columns])}
    return write_onnx(path, nodes, *ends, constants)


def scaled(path: Path, gain: float = 1.0, offset: float = 0.0, head_of: np.ndarray[Any, Any] | None = None) -> Path:
    """output = head * (mean of the picture / 255 * gain + offset)."""
    values = np.full((1, POINTS, 8), 0.5, np.float32) if head_of is None else head_of
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "gain"], ["bright"]),
        helper.make_node("Add", ["bright", "offset"], ["factor"]),
        helper.make_node("Mul", ["factor", "head"], ["output"]),
    ]
    constants = {"gain": np.float32(gain / 255), "offset": np.float32(offset), "head": values.astype(np.float32)}
    return head(path, nodes, constants)


def test_a_sound_detector_passes_and_the_verdict_is_remembered(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = blob_finder_onnx(tmp_path / "m.onnx")
    made = manifest(path, labels=("blue", "green", "red"))
    first = prove(made, made.file[0], path, {}, 1)
    assert first.result.passed and "astronaut.png: " in first.result.notes[0]
    (kept,) = (own_home / "proofs").iterdir()
    assert json.loads(kept.read_text())["result"]["passed"] is True
    with monkeypatch.context() as patch:
        patch.setattr(ask, "CHILD", ["/nonexistent"])
        assert prove(made, made.file[0], path, {}, 1) == first
    assert prove(made, made.file[0], path, {}, 1, again=True).at > first.at
    # another processor, runtime or manifest: another trial
    monkeypatch.setattr(verdicts, "cpu", lambda: "another")
    prove(made, made.file[0], path, {}, 1)
    assert len(list((own_home / "proofs").iterdir())) == 2
    kept.write_text("{")
    monkeypatch.undo()
    monkeypatch.setenv("EDGE_AGENT_HOME", str(own_home))
    assert prove(made, made.file[0], path, {}, 1).at > first.at


def test_a_refusal_is_remembered_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = scaled(tmp_path / "m.onnx", gain=0.0, offset=1.0)
    why = refusal(path)
    assert "the same output for three different pictures and for noise" in why
    monkeypatch.setattr(ask, "CHILD", ["/nonexistent"])
    assert refusal(path) == why


def test_a_wrong_hash_is_found_before_anything_is_tried(tmp_path: Path, own_home: Path) -> None:
    folder = tiny_detector(tmp_path / "model")
    (folder / "model.onnx").write_bytes(b"x" + (folder / "model.onnx").read_bytes()[1:])
    with pytest.raises(ModelError, match=r"model\.onnx is damaged: sha256"):
        Models(threads=1).serve(str(folder))
    assert not (own_home / "proofs").exists()
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelError, match="missing"):
        Models(threads=1).serve(str(folder))


def test_truncated_files(tmp_path: Path) -> None:
    whole = absolute_tflite(tmp_path / "whole.tflite", [1, 64, 64, 3]).read_bytes()
    (tmp_path / "cut.tflite").write_bytes(whole[: len(whole) // 2])
    assert "not a readable TFLite model" in refusal(tmp_path / "cut.tflite")
    onnx = blob_finder_onnx(tmp_path / "whole.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(onnx[: len(onnx) // 2])
    assert "not a readable ONNX model" in refusal(tmp_path / "cut.onnx")


def varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def test_protobuf_bombs(tmp_path: Path) -> None:
    nested = b""
    for _ in range(5000):  # graph -> node -> attribute -> graph -> ...
        for field in (6, 5, 1):
            nested = bytes([field << 3 | 2]) + varint(len(nested)) + nested
    (tmp_path / "deep.onnx").write_bytes(b"\x08\x08\x3a" + varint(len(nested)) + nested)
    assert "not a readable ONNX model" in refusal(tmp_path / "deep.onnx")
    (tmp_path / "long.onnx").write_bytes(b"\x08\x08\x3a" + varint(1 << 60) + b"location")
    assert "not a readable ONNX model" in refusal(tmp_path / "long.onnx")


def test_weights_in_another_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 4)
    (tmp_path / "model").mkdir()
    tensor = TensorProto(dims=[1], data_type=TensorProto.FLOAT, name="w", data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [tensor])
    path = tmp_path / "model" / "m.onnx"
    path.write_bytes(helper.make_model(graph, ir_version=8).SerializeToString())
    assert "its weights lie in another file" in refusal(path)


def test_custom_operators(tmp_path: Path) -> None:
    ends = {"images": (TensorProto.FLOAT, [1, 3, 64, 64])}, {"output": (TensorProto.FLOAT, [1, POINTS, 8])}
    path = write_onnx(tmp_path / "m.onnx", [helper.make_node("Dance", ["images"], ["output"])], *ends)
    assert "Dance" in refusal(path)
    with pytest.raises(RefusedError, match="Dance"):
        read.ends(path, "onnx")
    both = {"shape": [1, 64, 64, 3], "type": "FLOAT32"}
    lite = write_tflite(tmp_path / "m.tflite", "CUSTOM", [{"name": "x", **both}], [{"name": "y", **both}])
    assert "not a readable TFLite model" in refusal(lite)


def test_an_input_of_a_million_millions(tmp_path: Path) -> None:
    size = 10**6
    node = helper.make_node("ReduceMean", ["images"], ["output"], axes=[0, 1, 2, 3])
    one = {"output": (TensorProto.FLOAT, [1, 1, 1, 1])}
    path = write_onnx(tmp_path / "m.onnx", [node], {"images": (TensorProto.FLOAT, [1, 1, size, size])}, one)
    assert 'its input "images" is 1x1x1000000x1000000, 1e+12 numbers' in refusal(path)
    with pytest.raises(RefusedError, match=r"1e\+12 numbers"):
        read.ends(path, "onnx")


def test_nan(tmp_path: Path) -> None:
    poisoned = np.full((1, POINTS, 8), np.nan, np.float32)
    assert "not finite" in refusal(scaled(tmp_path / "m.onnx", head_of=poisoned))


def test_a_memory_hog(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["much"], ["zeros"]),
        helper.make_node("ReduceMean", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Add", ["mean", "zero"], ["sum"]),
        helper.make_node("Mul", ["sum", "head"], ["output"]),
    ]
    constants = {"much": np.array([10**10], np.int64), "head": np.ones((1, POINTS, 8), np.float32)}
    why = refusal(head(tmp_path / "m.onnx", nodes, constants))
    assert "alloc" in why or "memory" in why


@pytest.mark.parametrize("load", [0.0, 1000.0], ids=["idle", "busy"])
def test_an_endless_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: float) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["v", "v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [1, POINTS, 8]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [1, POINTS, 8]),
        ],
    )
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "head"], ["start"]),
        helper.make_node("Loop", ["times", "yes", "start"], ["output"], body=body),
    ]
    constants = {
        "times": np.array(2**62, np.int64),
        "yes": np.array(True),
        "head": np.ones((1, POINTS, 8), np.float32),
    }
    path = head(tmp_path / "m.onnx", nodes, constants)
    # on a busy machine it has longer, but no more processor time
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    assert re.search(r"its trial run did not end within [\d.]+ s", refusal(path, limits=Limits(seconds=2)))


@pytest.mark.parametrize(("number", "name"), [("SIGSEGV", "died of SIGSEGV"), ("SIGILL", "this processor lacks")])
def test_a_crash_takes_only_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str, name: str) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "crash.py").write_text(
        "import ctypes, os, signal\n"
        "def load(*given):\n"
        f"    if '{number}' == 'SIGSEGV': ctypes.string_at(8)\n"
        "    os.kill(os.getpid(), signal.SIGILL)\n"
    )
    code = (
        f"import sys; sys.path.append({str(modules)!r})\n"
        "from edge_agent import backends; from edge_agent.gate import child\n"
        "backends.FORMATS['onnx'] = 'crash:load'; child.main()"
    )
    monkeypatch.setattr(ask, "CHILD", [sys.executable, "-c", code])
    assert name in refusal(blob_finder_onnx(tmp_path / "m.onnx"))


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGKILL", "SIGALRM", "no start"])
def test_what_happened_to_a_trial_from_outside_says_nothing_about_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_home: Path, number: str
) -> None:
    path, child = blob_finder_onnx(tmp_path / "m.onnx"), ask.CHILD
    killed = f"import os, signal; signal.signal(signal.SIGINT, signal.SIG_DFL); os.kill(os.getpid(), signal.{number})"
    monkeypatch.setattr(ask, "CHILD", [sys.executable, "-c", killed])
    if number == "no start":
        monkeypatch.setattr(ask, "CHILD", ["/nonexistent"])
    assert "its trial" in refusal(path)
    assert not (own_home / "proofs").exists()
    monkeypatch.setattr(ask, "CHILD", child)
    made = manifest(path)
    assert prove(made, made.file[0], path, {}, 1).result.passed


def test_boxes_off_the_picture_and_scores_without_their_sigmoid(tmp_path: Path) -> None:
    away = np.full((1, POINTS, 8), 0.9, np.float32)
    away[..., :2] = 1e4
    assert "lie outside" in refusal(scaled(tmp_path / "away.onnx", offset=0.5, head_of=away))
    logits = np.full((1, POINTS, 8), 9.0, np.float32)
    assert "without its sigmoid" in refusal(scaled(tmp_path / "logits.onnx", offset=0.5, head_of=logits))


def test_one_scale_for_boxes_and_scores(tmp_path: Path) -> None:
    path = blob_finder_onnx(tmp_path / "finder.onnx")
    import onnx

    model = onnx.load(str(path))
    (last,) = (node for node in model.graph.node if node.output[0] == "output")
    last.output[0] = "float"
    for name, value in (("step", np.float32(1 / 256)), ("zero", np.array(0, np.uint8)), ("shift", np.float32(-0.6))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    boxes = np.zeros((1, 1, 8), np.float32)
    boxes[..., :4] = -0.6
    model.graph.initializer.append(onnx.numpy_helper.from_array(boxes, "moved"))
    model.graph.node.extend(
        [
            helper.make_node("Add", ["float", "moved"], ["real"]),
            helper.make_node("QuantizeLinear", ["real", "step", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["output"]),
        ]
    )
    onnx.save(model, str(tmp_path / "m.onnx"))
    why = refusal(tmp_path / "m.onnx", labels=("blue", "green", "red"))
    assert "one int8 scale (0.00391) for boxes and scores, so boxes clip: 100% of the coordinates are at 0" in why


def test_labels_that_the_pictures_contradict(tmp_path: Path) -> None:
    path = scaled(tmp_path / "m.onnx", gain=0.01)
    why = refusal(path, labels=("cat", "person", "cup"))
    assert "it names person, cat, cup, but sees none of it where it is in the proof pictures" in why
    made = manifest(path, labels=("cat", "horse", "cow"))
    notes = prove(made, made.file[0], path, {}, 1).result.notes
    assert notes[-1].startswith("doubtful: it names cat, but sees none")


def test_a_class_that_is_everywhere(tmp_path: Path) -> None:
    labels = ("couch", "b", "c", "d", "e", "f")
    rows = np.full((1, POINTS, 11), 0.5, np.float32)
    rows[..., 4:6] = 1.0
    path = scaled(tmp_path / "m.onnx", gain=0.3, offset=0.85, head_of=rows)
    why = refusal(path, labels=labels)
    assert "it sees couch in pictures that have nothing in common (astronaut.png 0." in why
    # of few classes one may be in all pictures, but not in noise as well
    few = scaled(tmp_path / "few.onnx", gain=0.3, offset=0.6, head_of=rows[..., :8])
    made = manifest(few, labels=("a", "b", "c"))
    assert prove(made, made.file[0], few, {}, 1).result.passed


@pytest.mark.parametrize(
    ("layer", "index", "says"),
    [
        ("head.cls_preds.1.bias", 57, "it sees couch in pictures that have nothing in common"),
        ("head.cls_preds.2.bias", 57, "it sees couch in pictures that have nothing in common"),
        ("head.obj_preds.1.bias", 0, "it sees person in pictures that have nothing in common"),
        ("head.reg_preds.1.bias", 3, "it sees person, cat, cup 5 times where none is"),
    ],
)
def test_two_changed_bytes_are_seen_in_what_it_says(
    data: Path, tmp_path: Path, layer: str, index: int, says: str
) -> None:
    import onnx

    model = onnx.load(str(data / "models" / "yolox_nano.onnx"))
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == layer)
    values = onnx.numpy_helper.to_array(bias).copy()
    values[index] = 30
    bias.CopyFrom(onnx.numpy_helper.from_array(values, layer))
    onnx.save(model, str(tmp_path / "m.onnx"))
    picture = Input(416, 416, channels="BGR", letterbox="top-left")
    assert says in refusal(tmp_path / "m.onnx", labels=tuple(coco80()), input=picture)


def test_an_encoder_that_says_the_same_of_everything(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    ends: list[Any] = [{"input_ids": (TensorProto.INT64, ["B", "L"])}, {"hidden": (TensorProto.FLOAT, ["B", "L", 4])}]
    nodes = [
        helper.make_node("Mul", ["input_ids", "zero"], ["zeros"]),
        helper.make_node("Gather", ["table", "zeros"], ["hidden"]),
    ]
    constants: dict[str, Any] = {"zero": np.array(0, np.int64), "table": np.ones((1, 4), np.float32)}
    path = write_onnx(tmp_path / "m.onnx", nodes, ends[0], ends[1], constants)
    made = manifest(path, labels=(), input=None)
    made = Manifest("toy", "1", "encode", "bert", "", "", made.file, text=TextInput(vocab="vocab.txt", max_length=32))
    with pytest.raises(RefusedError, match="the same vector for six different sentences"):
        prove(made, made.file[0], path, {"vocab": tmp_path / "vocab.txt"}, 1)


def test_the_published_int8_that_is_worthless_and_its_good_siblings(data: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "EDGE_AGENT_MODEL_MIRROR": str(data / "models")}
    add = [sys.executable, "-m", "edge_agent", "models", "add"]
    broken = [*add, str(data / "models" / "yolox_nano_int8_broken.tflite"), "--name", "broken"]
    done = subprocess.run(broken, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and "one scale for boxes and scores" in done.stderr and "boxes clip" in done.stderr
    assert not (paths.home() / "models" / "broken").exists()
    path = data / "models" / "yolox_nano_int8_broken.tflite"
    picture = Input(416, 416, channels="BGR", letterbox="top-left")
    why = refusal(path, labels=tuple(f"class {i}" for i in range(80)), input=picture)
    assert "one int8 scale (0.00391) for boxes and scores, so boxes clip: 68% of the coordinates are at 0" in why
    for name in ("yolox_nano_dynamic_int8.tflite", "yolox_nano.onnx"):
        served = Models(threads=1).serve(str(data / "models" / name))
        (verdict,) = [v for v in remembered(served.ref.sha256) if v.result.notes]
        assert "cup 0." in verdict.result.notes[2], verdict


def test_a_trial_that_takes_long_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "edge_agent")
    monkeypatch.setattr(ask, "CHILD", ["/bin/sh", "-c", "sleep 60"])
    monkeypatch.setattr(ask, "SAID_S", 0.1)
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0 * len(os.sched_getaffinity(0)), 0.0, 0.0))
    why = refusal(blob_finder_onnx(tmp_path / "m.onnx"), limits=Limits(seconds=0.5))
    assert "did not end within 1.5 s" in why, "three processes want each processor"
    doing = "toy: m.onnx is tried on carried samples"
    assert caplog.messages[0] == f"{doing}, once"
    assert re.fullmatch(rf"{doing}: \d s so far", caplog.messages[1])


def test_what_a_home_learnt_on_another_processor_is_not_told_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scaled(tmp_path / "bad.onnx", gain=0.0, offset=1.0)
    assert refusal(path)
    (said,) = refusals(manifest(path))
    assert said.startswith("refused: bad.onnx: ")
    monkeypatch.setattr(verdicts, "cpu", lambda: "another one")
    assert not refusals(manifest(path))


def test_a_variant_that_is_refused_gives_way_to_the_next(tmp_path: Path) -> None:
    folder = tiny_detector(tmp_path / "model")
    bad = scaled(folder / "bad.onnx", gain=0.0, offset=1.0).read_bytes()
    text = (folder / "manifest.toml").read_text()
    before, row = text.split("[[file]]")
    sha = hashlib.sha256(bad).hexdigest()
    first = f'[[file]]\nname = "bad.onnx"\nformat = "onnx"\nsha256 = "{sha}"\nbytes = {len(bad)}\n'
    (folder / "manifest.toml").write_text(f"{before}{first}[[file]]{row}")
    served = Models(threads=1).serve(str(folder))
    assert "model.onnx" in served.why and "tiny: bad.onnx is refused: " in served.why


def test_without_a_place_to_remember_it_is_tried_each_time(tmp_path: Path, own_home: Path) -> None:
    own_home.mkdir()
    (own_home / "proofs").write_text("in the way")
    path = blob_finder_onnx(tmp_path / "m.onnx")
    made = manifest(path)
    assert prove(made, made.file[0], path, {}, 1).result.passed
    with pytest.raises(FetchError):
        files.file_path(files.Located(made, tmp_path / "none", ""), made.file[0])


def test_a_verdict_depends_on_the_parents_vocabulary_and_on_what_is_in_the_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path))
    vocabulary, sample = tmp_path / "vocab.txt", tmp_path / "samples" / "said.txt"
    sample.parent.mkdir()
    network = blob_finder_onnx(tmp_path / "m.onnx")
    keys = []
    for words, said, at in (("a b", "on", 1), ("a c", "on", 1), ("a c", "no", 2), ("a c", "no", 2)):
        for path, text in ((vocabulary, words), (sample, said)):
            path.write_text(text)
            os.utime(path, (at, at))
        keys.append(key(Agree(manifest=manifest(network), variants=[], parent_parts={"vocab": str(vocabulary)})))
    first, other_words, other_sample, same = keys
    assert len({first, other_words, other_sample}) == 3 and same == other_sample
