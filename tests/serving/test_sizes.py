"""A model may hold variants of other input sizes, which are read, proved, gated, raced and served as any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_agent import paths
from edge_agent.cli import main
from edge_agent.errors import ManifestError
from edge_agent.gate.opened import input_of
from edge_agent.manifest import Served, load
from edge_agent.registry import catalogue
from edge_agent.serving.models import Models, try_all
from edge_agent.tasks import make_task
from edge_agent.types import Detections, Finding, Floats, Frame
from edge_agent.uri import Uri
from tests.gate.test_agree import row
from tests.tiny import tiny_detector

LARGE, SMALL = 512, 32
MIDDLE = {size: (size // 4, size // 4, 3 * size // 4, 3 * size // 4) for size in (LARGE, SMALL)}


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def sized(path: Path, width: int | None = SMALL, height: int | None = SMALL) -> str:
    """The row of a file with a size of its own."""
    sides = (("width", width), ("height", height))
    return row(path, "fp32") + "".join(f"{side} = {value}\n" for side, value in sides if value is not None)


def rewrite(folder: Path, rows: str) -> Path:
    head, _, _ = (folder / "manifest.toml").read_text().partition("[[file]]")
    (folder / "manifest.toml").write_text(head + rows)
    return folder


def two_files(tmp_path: Path, box: tuple[int, int, int, int] = MIDDLE[SMALL]) -> Path:
    """A detector of 512 pixels that sees someone in the middle, and one of 32 that sees them in `box` of its canvas."""
    folder = tiny_detector(tmp_path / "model", box=MIDDLE[LARGE], size=LARGE)
    shutil.copy(tiny_detector(tmp_path / "other", box=box, size=SMALL) / "model.onnx", folder / "small.onnx")
    return rewrite(folder, row(folder / "model.onnx", "fp32") + sized(folder / "small.onnx"))


def one_file(tmp_path: Path, *, follows: bool) -> Path:
    """One file with dynamic axes at two sizes; its box `follows` the size, or stands where it does at 512 pixels."""
    folder = tiny_detector(tmp_path / "model", box=MIDDLE[LARGE], size=LARGE)
    model = onnx.load(str(folder / "model.onnx"))
    for axis, name in ((2, "high"), (3, "wide")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    if follows:
        (last,) = (node for node in model.graph.node if node.output[0] == "output0")
        last.input[1] = "place"
        for name, array in (
            ("axes", np.array([3, 2, 3, 2, 0, 0], np.int64)),
            ("share", np.array([0.25, 0.25, 0.75, 0.75, 0, 0], np.float32)),
        ):
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        for number, node in enumerate(
            (
                helper.make_node("Shape", ["images"], ["sides"]),
                helper.make_node("Gather", ["sides", "axes"], ["six"]),
                helper.make_node("Cast", ["six"], ["reals"], to=TensorProto.FLOAT),
                helper.make_node("Mul", ["reals", "share"], ["place"]),
            )
        ):
            model.graph.node.insert(number, node)
    onnx.save(model, str(folder / "model.onnx"))
    return rewrite(folder, row(folder / "model.onnx", "fp32") + sized(folder / "model.onnx"))


def boxes(model: Served) -> Floats:
    """What it finds in a bright picture of 480 x 300."""
    task = make_task(Uri("detect", "it"), lambda _: model, paths.home())
    (found,) = task(Frame(np.full((300, 480, 3), 200, np.uint8), 0.0, 0.0))
    assert isinstance(found, Finding) and isinstance(found.what, Detections)
    return found.what.xyxy


@pytest.mark.parametrize("made", ["two files", "one file"])
def test_the_faster_size_serves_where_it_agrees(tmp_path: Path, made: str) -> None:
    folder = two_files(tmp_path) if made == "two files" else one_file(tmp_path, follows=True)
    named = "small" if made == "two files" else "model"
    first = Models(threads=1).serve(str(folder))
    assert first.input is not None and (first.input.width, first.input.height) == (LARGE, LARGE)
    assert "; model.onnx (fp32) on " in first.why, "nobody has raced yet"
    served = Models(threads=1, race=True).serve(str(folder))
    assert served.input is not None and (served.input.width, served.input.height) == (SMALL, SMALL)
    winner = served.why.partition("; raced: ")[2].split(" ")[0]
    assert winner in (f"{named}.onnx", f"{named}.optimised")
    assert f"; {winner} 32x32 (fp32) on " in served.why
    assert f"; {winner} 32x32: mAP50 1.000 against model.onnx on 12 samples" in served.why
    assert boxes(first).shape == (1, 4)
    assert boxes(served) == pytest.approx(boxes(first), abs=480 / SMALL), "both in the pixels of the frame"


@pytest.mark.parametrize("made", ["two files", "one file"])
def test_a_size_that_ruins_it_is_refused_with_the_figures(tmp_path: Path, made: str) -> None:
    if made == "two files":
        folder, named = two_files(tmp_path, (8, 8, 14, 14)), "small.onnx"
        why = "it does not agree with its parent: mAP50 0.000 against model.onnx on 12 samples, at least 0.970 is asked"
    else:
        # its box lies beside the smaller canvas
        folder, named, why = one_file(tmp_path, follows=False), "model.onnx", "100% of the 4 boxes"
    rows = {one.name: one.refused for one in try_all(catalogue.locate(str(folder)))}
    assert rows.pop(f"{named} 32x32").startswith(f"tiny: {named} 32x32 is refused: {why}")
    assert rows == {"model.onnx": "", "model.optimised": ""}, "of what is refused no faster form is made"
    served = Models(threads=1, race=made == "one file").serve(str(folder))
    assert served.input is not None and served.input.width == LARGE
    assert " 32x32 " not in served.why.partition("; raced: ")[2].partition(";")[0]


def test_bench_shows_the_size_and_what_each_agrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(one_file(tmp_path, follows=True))
    assert main(["bench", folder, "--json", "--seconds", "0.5", "--threads", "1"]) == 0
    found = {one["file"]: one for one in json.loads(capsys.readouterr().out)["variants"]}
    assert set(found) == {"model.onnx", "model.optimised", "model.onnx 32x32", "model.optimised 32x32"}
    assert found["model.onnx 32x32"]["sha256"] == found["model.onnx"]["sha256"]
    assert found["model.onnx 32x32"]["agreement"] == 1.0
    assert "agreement" not in found["model.onnx"], "it is what the others are held against"
    assert main(["models", "inspect", folder, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["input"]["width"] == LARGE
    assert any(why.startswith("model.onnx 32x32: mAP50 1.000 against model.onnx") for why in told["reasons"])


def test_one_place_says_how_a_file_takes_its_picture(tmp_path: Path) -> None:
    manifest = load(two_files(tmp_path) / "manifest.toml")
    sizes = [(given.width, given.height, given.pad) for one in manifest.file if (given := input_of(manifest, one))]
    assert sizes == [(LARGE, LARGE, 114), (SMALL, SMALL, 114)]
    turned = msgspec.structs.replace(manifest, file=manifest.file[::-1])
    assert [one.title() for one in turned.networks()] == ["small.onnx 32x32", "model.onnx"]
    assert turned.original().title() == "model.onnx", "preferred or not, the one of the model's own size is the parent"


@pytest.mark.parametrize(
    ("width", "height", "says"),
    [
        (32, None, "small.onnx has a width or a height of its own; give both, or neither"),
        (None, 32, "small.onnx has a width or a height of its own; give both, or neither"),
        (0, 32, "width"),
        (32, 8193, "height"),
    ],
)
def test_a_size_that_is_none_is_one_line(tmp_path: Path, width: int | None, height: int | None, says: str) -> None:
    folder = two_files(tmp_path)
    rewrite(folder, row(folder / "model.onnx", "fp32") + sized(folder / "small.onnx", width, height))
    with pytest.raises(ManifestError, match=says) as caught:
        load(folder / "manifest.toml")
    assert "\n" not in str(caught.value) and str(folder / "manifest.toml") in str(caught.value)


def test_what_takes_no_pictures_has_no_size(tmp_path: Path) -> None:
    folder = two_files(tmp_path)
    (folder / "names.txt").write_text("person\n")
    part = row(folder / "names.txt", "fp32", "vocab") + "width = 32\nheight = 32\n"
    rewrite(folder, row(folder / "model.onnx", "fp32") + part)
    with pytest.raises(ManifestError, match=r"names\.txt takes no pictures"):
        load(folder / "manifest.toml")


def test_a_file_of_another_size_than_it_says_is_refused(tmp_path: Path) -> None:
    folder = two_files(tmp_path)
    rewrite(folder, row(folder / "model.onnx", "fp32") + sized(folder / "small.onnx", 48, 48))
    refused = {one.name: one.refused for one in try_all(catalogue.locate(str(folder)))}
    assert "is [1, 3, 32, 32], not [1, 3, 48, 48]; correct width" in refused["small.onnx 48x48"]
    assert "\n" not in refused["small.onnx 48x48"] and refused["model.onnx"] == ""
