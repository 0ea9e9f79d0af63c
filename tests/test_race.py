"""The fastest variant serves, whichever it is, and which one it was is remembered."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edge_agent import backends, prove
from edge_agent.cli import main
from edge_agent.serving import Models
from tests.nets import absolute_tflite, doubling_onnx
from tests.test_agree import row, with_variant
from tests.tiny import tiny_detector


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def slow_first(tmp_path: Path) -> Path:
    """The tiny detector, and before it an int8 variant that says the same after a hundred times the work."""
    folder = tiny_detector(tmp_path / "model")
    model = onnx.load(str(folder / "model.onnx"))
    (last,) = (node for node in model.graph.node if node.output[0] == "output0")
    last.output[0] = "answer"
    for name, array in (
        ("rows", np.array([192, 64], np.int64)),
        ("wide", np.full((64, 8192), 1e-3, np.float32)),
        ("back", np.full((8192, 64), 1e-3, np.float32)),
        ("nothing", np.float32(0)),
    ):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    model.graph.node.extend(
        [
            helper.make_node("Reshape", ["images", "rows"], ["a"]),
            helper.make_node("MatMul", ["a", "wide"], ["b"]),
            helper.make_node("MatMul", ["b", "back"], ["c"]),
            helper.make_node("ReduceMean", ["c"], ["d"], keepdims=0),
            helper.make_node("Mul", ["d", "nothing"], ["e"]),
            helper.make_node("Add", ["answer", "e"], ["output0"]),
        ]
    )
    onnx.save(model, str(folder / "model.int8.onnx"))
    head, _, _ = (folder / "manifest.toml").read_text().partition("[[file]]")
    rows = row(folder / "model.int8.onnx", "int8") + row(folder / "model.onnx", "fp32")
    (folder / "manifest.toml").write_text(head + rows)
    return folder


def test_int8_is_not_assumed_to_be_faster_and_the_winner_is_remembered(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(slow_first(tmp_path))
    why = Models(threads=1).serve(folder).why
    assert "; model.int8.onnx (int8) on " in why and "raced" not in why, "nobody asked for a race"
    why = Models(threads=1, race=True).serve(folder).why
    assert "; model.onnx (fp32) on " in why and "; raced: model.onnx " in why
    monkeypatch.setattr(prove, "CHILD", ["/nonexistent"])
    assert Models(threads=1).serve(folder).why == why
    assert Models(threads=1, race=True).serve(folder).why == why
    (kept,) = (own_home / "races").iterdir()
    rows = json.loads(kept.read_text())["result"]["figures"]["rows"]
    assert [r["file"] for r in rows] == ["model.onnx", "model.int8.onnx"]
    assert all(0 < r["median_ms"] <= r["p95_ms"] and r["runs"] >= 3 for r in rows)


def test_one_variant_needs_no_race(tmp_path: Path, own_home: Path) -> None:
    assert "raced" not in Models(threads=1, race=True).serve(str(tiny_detector(tmp_path / "model"))).why
    assert not (own_home / "races").exists()


def test_bench_shows_what_each_costs_and_whom_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(with_variant(tmp_path, (0, 0, 20, 20)))
    assert main(["bench", folder, "--json", "--seconds", "1", "--threads", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    (variant,) = found["variants"]
    assert variant["file"] == "model.onnx" and variant["peak_rss"] > 10**7 and variant["cpu_ms"] > 0
    assert "mAP50 0.000" in found["refused"][0]
    assert found["path_over_bare"] == pytest.approx(variant["cpu_ms"] / found["bare"]["cpu_ms"])
    assert "built without it" in found["providers"]["HailoExecutionProvider"]
    assert main(["bench", str(slow_first(tmp_path / "two")), "--seconds", "1", "--threads", "1"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out[:4]] == ["variant", "model.onnx", "model.int8.onnx", "bare"]
    assert " 1.000 " in out[2] and out[4].startswith("the whole path of model.onnx takes ")
    assert main(["models", "inspect", folder]) == 0
    assert "because  model.int8.onnx: it does not agree with its parent: mAP50 0.000 against" in capsys.readouterr().out
    assert main(["bench", "nosuch"]) == 1


def test_a_bare_run_gives_what_the_file_says(tmp_path: Path) -> None:
    x = np.array([[1, -2, 3], [4, 5, -6]], np.float32)
    onnx_run = backends.bare(doubling_onnx(tmp_path / "m.onnx"), "onnx")
    lite_run = backends.bare(absolute_tflite(tmp_path / "m.tflite", [2, 3]), "tflite")
    np.testing.assert_array_equal(onnx_run({"x": x})[0], 2 * x)  # type: ignore[index]
    np.testing.assert_array_equal(lite_run({"x": x})[0], abs(x))  # type: ignore[index]
    assert "Coral" in backends.providers(tmp_path / "m.tflite", "tflite")
