"""Models of other kinds, their versions and refusals, from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.cli.test_cli import run
from tests.conftest import lines_of
from tests.gate.test_agree import compressor, with_variant
from tests.nets import Ends, write_onnx
from tests.tasks.test_recognise import LABELS, colours
from tests.tiny import tiny_detector


def test_a_classifier_of_pictures_is_added_and_labels_them(tmp_path: Path, demo_pictures: Path) -> None:
    (tmp_path / "labels.txt").write_text("\n".join(reversed(LABELS)) + "\n")
    path = colours(tmp_path / "colours.onnx", gain=20.0)
    out = run(tmp_path, "models", "add", str(path), "--name", "mine")
    # it sees as much of a picture in whatever range that comes
    assert out.returncode == 1 and "it is open how its pictures go in: RGB 0..1 and RGB -1..1" in out.stderr
    out = run(tmp_path, "models", "inspect", str(path))
    assert out.returncode == 1 and "refused  " in out.stdout and "--scale" in out.stdout
    for wrong in (["--scale", "0..2"], ["--mean", "1,2"], ["--std", "0", "--scale", "1"], ["--scale", "1..2"]):
        out = run(tmp_path, "models", "add", str(path), "--name", "mine", *wrong)
        assert out.returncode == 2 and wrong[0] in out.stderr and len(lines_of(out.stderr)) == 1
    out = run(tmp_path, "models", "add", str(path), "--name", "mine", "--scale", "0..1", "--channels", "RGB")
    assert out.returncode == 0 and "mine: added (recognise, image-classifier)" in out.stdout, out.stderr + out.stdout
    assert "labels: 3 names in labels.txt beside the file" in out.stdout and "scale 0..1: --scale 0..1" in out.stdout
    picture = str(demo_pictures / "coffee.png")
    out = run(tmp_path, "detect", "mine", picture, "--json")
    row = json.loads(out.stdout)
    assert (row["label"], row["width"]) == ("red", 600) and set(row["scores"]) == set(LABELS)
    assert run(tmp_path, "detect", "mine", picture).stdout.startswith(f"{picture} 600x400: red ")
    out = run(tmp_path, "detect", "mine", picture, "--save", str(tmp_path / "x.jpg"))
    assert out.returncode == 2 and "labels whole pictures" in out.stderr
    out = run(tmp_path, "detect", "mine", picture, "--iou", "0.5")
    assert out.returncode == 2 and 'unknown option "iou"' in out.stderr


def test_an_autoencoder_is_added_and_gives_errors(tmp_path: Path) -> None:
    path = compressor(tmp_path / "pump.onnx", 1, 0.0)
    out = run(tmp_path, "models", "add", str(path), "--name", "pump")
    assert out.returncode == 0 and "  error " in out.stdout, out.stderr
    line = " ".join(map(str, np.random.default_rng(0).standard_normal(32)))
    out = run(tmp_path, "understand", "pump", line, "--json")
    assert 0.3 < json.loads(out.stdout)["error"] < 1.5
    out = run(tmp_path, "understand", "pump", "1 2 3")
    assert out.returncode == 1 and "the line has 3 numbers, the network takes 32" in out.stderr


def test_one_that_says_the_same_to_everything_is_refused(tmp_path: Path) -> None:
    ends: tuple[Ends, Ends] = {"x": (TensorProto.FLOAT, ["n", 4])}, {"y": (TensorProto.FLOAT, ["n", 4])}
    copy = write_onnx(tmp_path / "copy.onnx", [helper.make_node("Identity", ["x"], ["y"])], *ends)
    out = run(tmp_path, "models", "add", str(copy))
    assert out.returncode == 1 and "gives back exactly what goes in" in out.stderr
    node = helper.make_node("Mul", ["x", "zero"], ["y"])
    flat = write_onnx(tmp_path / "flat.onnx", [node], *ends, {"zero": np.float32(0)})
    out = run(tmp_path, "models", "add", str(flat))
    assert out.returncode == 1 and "the same output whatever goes in" in out.stderr
    out = run(tmp_path, "models", "add", str(colours(tmp_path / "grey.onnx", gain=0.0)))
    assert out.returncode == 1 and "nothing makes sense on the proof pictures" in out.stderr


def test_the_list_shows_the_version_before_and_what_was_refused(tmp_path: Path) -> None:
    folder = with_variant(tmp_path, (0, 0, 20, 20))
    assert run(tmp_path, "models", "add", str(folder), "--name", "mine").returncode == 0
    out = run(tmp_path, "models", "list").stdout
    assert "  refused: model.int8.onnx: it does not agree with its parent: mAP50 0.000 against model.onnx" in out
    assert "before:" not in out
    text = (folder / "manifest.toml").read_text()
    (folder / "manifest.toml").write_text(text.replace('version = "1"', 'version = "2"'))
    assert run(tmp_path, "models", "add", str(folder), "--name", "mine").returncode == 0
    out = run(tmp_path, "models", "list").stdout
    assert "  before: 1 (model.int8.onnx); `edge-agent models rollback mine` brings it back" in out
    keys = {"name", "task", "family", "format", "version", "sha256", "licence", "trained_by", "bytes", "state"}
    rows = json.loads(run(tmp_path, "models", "list", "--json").stdout)
    assert all(set(row) == keys for row in rows) and next(r for r in rows if r["name"] == "mine")["version"] == "2"
    shown = run(tmp_path, "models", "inspect", "mine").stdout
    assert "because  model.int8.onnx: it does not agree with its parent" in shown
    shutil.rmtree(folder)


def test_what_was_made_of_a_model_goes_with_it(tmp_path: Path) -> None:
    folder = tiny_detector(tmp_path / "tiny")
    assert run(tmp_path, "models", "add", str(folder), "--name", "mine").returncode == 0
    home = tmp_path / "home"
    assert len(list((home / "derived").glob("*.json"))) == 1 and len(list((home / "blobs/sha256").glob("??/*"))) == 2
    (home / "derived" / "odd.json").write_text('{"sha256": []}')
    assert run(tmp_path, "models", "add", str(folder), "--name", "other").returncode == 0
    for name, left in (("mine", 2), ("other", 0)):
        assert run(tmp_path, "models", "remove", name).returncode == 0
        assert len(list((home / "blobs" / "sha256").glob("??/*"))) == left


def test_a_proof_that_is_no_picture(tmp_path: Path) -> None:
    path = colours(tmp_path / "m.onnx")
    (tmp_path / "text.png").write_text("no picture")
    out = run(tmp_path, "models", "inspect", str(path), "--proof", str(tmp_path / "text.png"))
    assert out.returncode in (1, 2) and "text.png" in out.stderr and len(lines_of(out.stderr)) == 1


def test_what_would_have_no_effect_is_said(tmp_path: Path) -> None:
    folder = str(tiny_detector(tmp_path / "tiny"))
    for verb in ("add", "inspect"):
        out = run(tmp_path, "models", verb, folder, "--proof", "nosuch.png")
        assert out.returncode == 2
        assert f"--proof nosuch.png: {folder} has a manifest, which leaves nothing to be tried" in out.stderr
        out = run(tmp_path, "models", verb, folder, "--scale", "0..1")
        assert out.returncode == 2 and f"--scale: {folder} has a manifest, which says how" in out.stderr
    out = run(tmp_path, "models", "add", folder, "--name", "")
    assert out.returncode == 2 and '"" is no model name; use 1 to 64 letters' in out.stderr
    out = run(tmp_path, "understand", "edge-bert", "hello", "--embed", "--labels", "x.toml")
    assert out.returncode == 2 and "--labels: for --task classify, not for embed" in out.stderr


@pytest.mark.parametrize("name", ["vww_96_float", "vww_96_int8", "ad01_fp32", "ad01_int8"])
def test_the_published_ones_serve(tmp_path: Path, data: Path, demo_pictures: Path, name: str) -> None:
    path = str(data / "models" / f"{name}.tflite")
    said = ("--scale", "0..1", "--channels", "RGB") if name == "vww_96_float" else ()
    out = run(tmp_path, "models", "add", path, "--name", "mine", *said)
    # on a busy machine it may say that it is at work
    assert out.returncode == 0 and all("at work" in line for line in out.stderr.splitlines()), out.stderr
    if name.startswith("vww"):
        out = run(tmp_path, "detect", "mine", str(demo_pictures / "chelsea.png"))
        assert "class_0 0.9" in out.stdout and out.stderr == ""
    else:
        raw = np.fromfile(data / "models" / "normal_id_01_00000000_hist_librosa.bin", np.float32)[:640]
        out = run(tmp_path, "understand", "mine", " ".join(f"{x:.4g}" for x in raw))
        assert out.stdout.startswith("error 1") and out.stderr == ""
