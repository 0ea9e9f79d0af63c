"""The verb `quantize` from its command line to the folder that the gate takes."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path

import onnx
import pytest

from edge_agent import cli, manifest
from edge_agent.registry import catalogue
from edge_agent.workshop import making
from edge_agent.workshop.quantize import auto, search
from edge_agent.workshop.quantize.build import QuantizePlan
from edge_agent.workshop.quantize.search import Memory, _ladder
from tests.nets import blob_finder_onnx
from tests.registry.here import visual_wake_words
from tests.tasks.test_texthead import PLACES, TAGS, folder_of, scores, tagger
from tests.workshop.quantizable import detector, pictures


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(making, "SECONDS", 0.2)
    monkeypatch.setattr(auto, "SECONDS", 0.1)


def quantize(*words: object) -> int:
    return cli.main(["quantize", *map(str, words), "--threads", "1"])


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    # a slow machine says more
    said = "\n".join(line for line in capsys.readouterr().err.splitlines() if not line.endswith("s so far)"))
    assert "\n" not in said and "Traceback" not in said, said
    return said


def kinds(folder: Path) -> list[str]:
    (row,) = manifest.load(folder / "manifest.toml").networks()
    return [node.op_type for node in onnx.load(str(folder / row.name)).graph.node]


def test_a_plain_plan_becomes_a_folder_that_the_gate_took(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parent, data, out = detector(tmp_path / "blobs", uneven=False), pictures(tmp_path / "data"), tmp_path / "small"
    before = sorted(path.read_bytes() for path in parent.iterdir())
    assert quantize(parent, "--data", data, "--out", out, "--method", "full", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["chosen"] for row in report["rows"]] == [False, True]
    assert report["rows"][1]["accuracy"] >= 0.99 and report["parent_sha256"] and report["data_sha256"]
    assert any("gate" in note and "model.int8.onnx: mAP50" in note for note in report["notes"])
    made = manifest.load(out / "manifest.toml")
    assert made.made is not None and made.made.verb == "quantize" and "full" in made.made.method
    assert made.made.parent_sha256 == manifest.load(parent / "manifest.toml").file[0].sha256
    assert made.made.figures["accuracy"] == pytest.approx(report["rows"][1]["accuracy"], abs=1e-5)
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(kinds(out))
    assert sorted(path.name for path in out.iterdir()) == [
        "manifest.toml", "model.int8.onnx", "report.html", "report.json"
    ]  # fmt: skip
    assert sorted(path.read_bytes() for path in parent.iterdir()) == before
    onnx.checker.check_model(str(out / "model.int8.onnx"), full_check=True)
    assert catalogue.locate(str(out)).manifest.name == "small"


def test_plain_int8_that_loses_a_class_is_refused_and_its_report_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parent, data, out = detector(tmp_path / "blobs", blocked=True), pictures(tmp_path / "data"), tmp_path / "out"
    assert quantize(parent, "--data", data, "--out", out, "--method", "full") == 1
    said = complaint(capsys)
    assert "the gate refuses it" in said and "--auto finds what has to stay in float" in said
    assert (out / "report.html").is_file()
    rows = json.loads((out / "report.json").read_bytes())["rows"]
    assert rows[1]["accuracy"] < 0.8


def test_a_search_that_found_too_little_is_not_told_to_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(job: object, tool: search.Tool, *rest: object) -> search.SearchResult:
        costs = {part.name: 0.0 for part in tool.parts}
        return search.SearchResult(QuantizePlan(method="full"), 1.0, True, costs, [], [])

    monkeypatch.setattr(auto, "best", found)
    parent, data, out = detector(tmp_path / "blobs", blocked=True), pictures(tmp_path / "data"), tmp_path / "out"
    assert quantize(parent, "--data", data, "--out", out, "--auto") == 1
    said = complaint(capsys)
    assert "more than the budget of 0.01" in said and "--auto" not in said and "--form weights" in said


def test_auto_keeps_what_hurts_and_quantizes_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parent, data, out = detector(tmp_path / "blobs", blocked=True), pictures(tmp_path / "data", 12), tmp_path / "out"
    assert quantize(parent, "--data", data, "--out", out, "--auto", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    kept = {layer["name"] for layer in report["layers"] if layer["kept"]}
    assert kept == {"stem", "undo"} and len(report["layers"]) == 3
    errors = {layer["name"]: layer["error"] for layer in report["layers"]}
    assert errors["mix"] < min(errors["stem"], errors["undo"]) / 10
    assert report["rows"][-1]["accuracy"] >= 0.99 > report["rows"][1]["accuracy"] + 0.1
    assert any("within the budget of 0.01" in note for note in report["notes"])
    assert kinds(out).count("QuantizeLinear") >= 2
    assert not (out / ".work").exists()


def test_what_could_not_be_made_is_remembered_too(tmp_path: Path) -> None:
    def never() -> float:
        raise AssertionError("it was measured twice")

    work = tmp_path / "work"
    work.mkdir()
    assert Memory(work, ["a"])("distance", 1, lambda: math.inf) == math.inf
    assert Memory(work, ["a"])("distance", 1, never) == math.inf
    (file,) = work.iterdir()
    for damaged in ("", "[]", '{"a": []}', "\0"):
        file.write_text(damaged)
        assert Memory(work, ["a"])("distance", 1, lambda: 2.0) == 2.0


def test_an_interrupted_search_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, data, out = detector(tmp_path / "blobs", blocked=True), pictures(tmp_path / "data"), tmp_path / "out"
    tried: list[str] = []
    real = search.tried

    def stopping(tool: search.Tool, plan: QuantizePlan, far: object) -> float:
        if not plan.keep:
            return real(tool, plan, far)  # type: ignore[arg-type]
        tried.append(",".join(plan.keep))
        if len(tried) == 3:
            raise KeyboardInterrupt
        return real(tool, plan, far)  # type: ignore[arg-type]

    monkeypatch.setattr(search, "tried", stopping)
    assert quantize(parent, "--data", data, "--out", out, "--auto") == 130
    assert "run the same command again" in capsys.readouterr().err
    assert not (out / "manifest.toml").exists() and list((out / ".work").glob("measured-*.json"))
    assert not list((out / ".work").glob("candidate*"))
    assert quantize(parent, "--data", data, "--out", out, "--auto", "--json") == 0
    assert tried[3] == tried[2] and not set(tried[:2]) & set(tried[3:]), "two layers were measured before"
    assert json.loads(capsys.readouterr().out)["rows"][-1]["accuracy"] >= 0.99


def test_a_layer_that_is_kept_takes_what_works_on_its_output_along(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parent, data, out = detector(tmp_path / "blobs", uneven=False), pictures(tmp_path / "data"), tmp_path / "out"
    assert quantize(parent, "--data", data, "--out", out, "--method", "full", "--keep", "stem", "--json") == 0
    assert json.loads(capsys.readouterr().out)["settings"]["keep"] == ["stem", "stem.relu"]
    (row,) = manifest.load(out / "manifest.toml").networks()
    made = onnx.load(str(out / row.name)).graph
    (relu,) = [node for node in made.node if node.name == "stem.relu"]
    stem = next(node for node in made.node if node.name == "stem")
    assert relu.input[0] == stem.output[0], "nothing is rounded between a layer in float and what follows it"


def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, data, out = detector(tmp_path / "blobs", uneven=False), pictures(tmp_path / "data"), tmp_path / "out"

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert quantize(parent, "--data", data, "--out", out) == 1
    assert "No space left on device" in complaint(capsys)
    assert not out.exists()


def test_what_cannot_be_quantized_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = pictures(tmp_path / "data")
    blob_finder_onnx(tmp_path / "plain.onnx")
    folder = detector(tmp_path / "blobs", uneven=False)
    assert quantize(folder, "--data", data, "--out", tmp_path / "once", "--method", "full") == 0
    capsys.readouterr()
    for words, says in (
        ((tmp_path / "plain.onnx", "--out", tmp_path / "a"), "there is nothing to quantize"),
        ((tmp_path / "once", "--out", tmp_path / "b"), "no float .onnx file to start from"),
        ((tmp_path / "once" / "model.int8.onnx", "--out", tmp_path / "c"), "it is quantized already"),
        ((folder, "--out", tmp_path / "d", "--target", "tflite"), "no float .tflite file to start from"),
        ((folder, "--out", tmp_path / "e", "--form", "dynamic"), "use --form static"),
        ((folder, "--out", tmp_path / "g", "--keep", "stern"), "--keep stern: no node of that name"),
        ((folder, "--out", tmp_path / "h", "--keep", "stem", "undo", "mix"), "is left to quantize"),
        ((folder, "--out", data), "which the workshop did not make"),
        ((folder, "--out", tmp_path / "i", "--form", "weights", "--bits", "7w"), "not for --form weights"),
        ((folder, "--out", tmp_path / "j", "--auto", "--form", "float16"), "leave them alone"),
    ):
        assert quantize(*words, "--data", data) in (1, 2)
        assert says in complaint(capsys), words
        made = words[2] if words[1] == "--out" else None
        assert made == data or not Path(str(made)).joinpath("manifest.toml").exists()


def test_calibration_data_in_the_evaluation_data_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, data = detector(tmp_path / "blobs", uneven=False), pictures(tmp_path / "data")
    test = pictures(tmp_path / "test", 4, first=7)
    assert quantize(folder, "--data", data, "--evaluate", test, "--out", tmp_path / "out") == 1
    assert "1 of its samples are calibration data too" in complaint(capsys)


def test_the_ladder_finds_the_fewest() -> None:
    asked: list[int] = []

    def score(count: int) -> float:
        asked.append(count)
        return 1.0 if count >= 11 else 0.5

    found = _ladder(100, score, 0.99)
    assert min(count for count, value in found.items() if value == 1.0) == 11
    assert len(asked) == len(set(asked)) < 12
    assert _ladder(3, lambda count: 0.0, 0.99) == {0: 0.0, 1: 0.0, 2: 0.0}


def test_a_tflite_file_goes_the_same_way(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("litert_quantizer", reason="pip install edge-agent-runtime[workshop]")
    model, out = visual_wake_words(data), tmp_path / "small"
    assert quantize(model, "--data", data / "coco_calib96", "--most", 16, "--out", out, "--json") == 0
    parent, small = json.loads(capsys.readouterr().out)["rows"]
    assert small["bytes"] < parent["bytes"] * 0.4 and small["accuracy"] >= 0.8
    (row,) = manifest.load(out / "manifest.toml").networks()
    assert (row.format, row.precision) == ("tflite", "int8")


@pytest.mark.slow
def test_text_is_searched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{verb} the {thing}" for verb in ("open", "sell", "paint") for thing in ("door", "car", "house", "boat")]
    (tmp_path / "said.txt").write_text("\n".join(lines))
    out = tmp_path / "small"
    assert quantize("edge-bert", "--data", tmp_path / "said.txt", "--out", out, "--auto", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rows"][-1]["accuracy"] >= 0.99 and len(report["layers"]) > 20
    (row,) = manifest.load(out / "manifest.toml").networks()
    assert row.role == "encoder" and row.precision == "dynamic-int8"


WORDS = ("lamp", "song", "rain", "snow", "wind", "door", "tree", "road")


def test_a_tagger_is_measured_by_what_its_parent_marks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tagger(tmp_path / "m", scores(PLACES, 4))
    tagger(tmp_path / "m", scores(PLACES, 4), "int8.onnx")
    parent, said, out = folder_of(tmp_path / "m", "tag", TAGS), tmp_path / "said.txt", tmp_path / "out"
    said.write_text("\n".join(f"the river and the book, {word} {word} to un" for word in (*WORDS, "e")))
    assert quantize(parent, "--data", said, "--out", out, "--method", "full", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert "F1 of the spans" in report["measure"] and report["rows"][-1]["accuracy"] > 0.95
    said.write_text("\n".join(f"the {word}" for word in WORDS))
    assert quantize(parent, "--data", said, "--out", tmp_path / "b", "--method", "full") == 1
    assert "m marks nothing in " in complaint(capsys)
