"""``tune``: other input sizes, and the choice of a size, a variant and a threshold."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from edge_agent import cli
from edge_agent.errors import ModelError
from edge_agent.manifest import Input, load
from edge_agent.registry import catalogue
from edge_agent.registry.add import add, rollback
from edge_agent.workshop import arguments as verb_options
from edge_agent.workshop.tune import search, verb
from edge_agent.workshop.tune.search import Candidate
from tests.conftest import lines_of
from tests.nets import write_onnx
from tests.workshop.quantizable import detector, pictures


def quiet(what: str, done: int, total: int) -> None:
    """Progress for nobody."""


def arguments(*given: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    verb_options.tune(parser)
    parser.add_argument("--pull", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args([str(one) for one in given])


@pytest.fixture(autouse=True)
def fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(verb, "SECONDS", 0.1)


# ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────


def answers(model: bytes, picture: np.ndarray) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: picture}), strict=True))


def test_a_detector_answers_alike_at_its_own_size_and_follows_another() -> None:
    path = Path("models/edge-yolo/model.onnx")
    picture = np.random.default_rng(0).uniform(0, 255, (1, 3, 224, 288)).astype(np.float32)
    before, after = answers(path.read_bytes(), picture), answers(search.resized(path, 288, 224), picture)
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name])
    wide = answers(search.resized(path, 96, 64), picture[:, :, :64, :96])
    cells = sum((96 // s) * (64 // s) for s in (8, 16, 32))
    assert wide["boxes"].shape == (1, cells, 4) and wide["logits"].shape == (1, cells, 20)


def test_a_grid_that_is_written_into_the_graph_has_one_size(tmp_path: Path) -> None:
    path = detector(tmp_path / "blobs") / "model.onnx"
    with pytest.raises(ModelError, match="made for one size of picture, 96x96 does not fit"):
        search.resized(path, 96, 96)
    spec = {"x": (TensorProto.FLOAT, [1, 4])}
    text = write_onnx(
        tmp_path / "t.onnx", [helper.make_node("Relu", ["x"], ["y"])], spec, {"y": (TensorProto.FLOAT, [1, 4])}
    )
    with pytest.raises(ModelError, match="no size to change"):
        search.resized(text, 96, 96)
    (tmp_path / "g.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="not a readable ONNX model"):
        search.resized(tmp_path / "g.onnx", 96, 96)


# ── choosing ─────────────────────────────────────────────────────────────────────────────────────────────


def candidate(name: str, accuracy: float, median_ms: float) -> Candidate:
    return Candidate(name, None, Path(name), None, None, accuracy, median_ms)  # type: ignore[arg-type]


def test_the_most_accurate_in_time_is_chosen() -> None:
    now = candidate("now", 0.30, 40.0)
    found = [now, candidate("small", 0.25, 15.0), candidate("int8", 0.30, 22.0), candidate("large", 0.35, 80.0)]
    assert search.best(found, now, None, "m").name == "int8"
    assert search.best(found, now, 20.0, "m").name == "small"
    assert search.best(found, now, 100.0, "m").name == "large"
    with pytest.raises(ModelError, match=r"m: nothing runs in 5 ms here; the fastest is small with 15.0 ms"):
        search.best(found, now, 5.0, "m")


def test_sizes_keep_the_shape_of_the_input() -> None:
    own = Input(640, 384)
    assert search.tried_sizes((320, 640, 1280), own) == [(320, 192), (1280, 768)]
    assert all(w % 32 == 0 and h % 32 == 0 for w, h in search.tried_sizes(None, own))


# ── the verb ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_tuned_model_is_a_folder_and_what_cannot_be_tried_is_said(tmp_path: Path) -> None:
    model, shown, out = detector(tmp_path / "blobs"), pictures(tmp_path / "pictures"), tmp_path / "tuned"
    report = verb.run(arguments(model, "--data", shown, "--out", out), quiet)
    manifest = load(out / "manifest.toml")
    assert manifest.made is not None and manifest.made.verb == "tune" and manifest.parent
    assert manifest.iou == load(model / "manifest.toml").iou
    told = json.loads((out / "report.json").read_text())
    assert [row["chosen"] for row in told["rows"]] == [True]
    assert any("made for one size" in note for note in report.notes)
    assert any(x[2].startswith("chosen: ") for x in told["plots"][0]["named"])
    with pytest.raises(ModelError, match="nothing runs in 1e-06 ms"):
        verb.run(arguments(model, "--data", shown, "--out", tmp_path / "none", "--max-ms", "0.000001"), quiet)
    assert not (tmp_path / "none" / "manifest.toml").exists()


def test_a_tuned_model_takes_the_place_of_its_parent_and_gives_it_back(tmp_path: Path) -> None:
    from edge_agent.gate.read import seen

    model, shown, out = detector(tmp_path / "blobs"), pictures(tmp_path / "pictures"), tmp_path / "tuned"
    before = add(model, None, seen).manifest
    verb.run(arguments("blobs", "--data", shown, "--out", out), quiet)
    assert cli.main(["models", "add", str(out), "--name", "blobs"]) == 0
    after = catalogue.locate("blobs").manifest
    assert after.made is not None and after.made.verb == "tune"
    assert after.original().sha256 == before.original().sha256
    assert cli.main(["models", "verify", "blobs"]) == 0
    assert rollback("blobs").manifest.made is None


def test_data_that_hold_nothing_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nothing").mkdir()
    given = ["tune", "edge-yolo", "--data", str(tmp_path / "nothing"), "--out", str(tmp_path / "out")]
    assert cli.main(given) in (1, 2)
    (told,) = lines_of(capsys.readouterr().err)
    assert "samples: " in told and not (tmp_path / "out").exists()
