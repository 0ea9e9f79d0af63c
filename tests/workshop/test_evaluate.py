"""`evaluate` on pictures, and as a user types it: a network that finds coloured cells, and a real one."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from edge_agent.backends import open_net
from edge_agent.errors import ManifestError, UsageError
from edge_agent.figures.coco_map import average_precision
from edge_agent.manifest import Input, Served
from edge_agent.tasks.detect.compare import as_columns
from edge_agent.types import Net
from edge_agent.workshop import arguments as verb_options
from edge_agent.workshop.data.labelled import LabelledSample
from edge_agent.workshop.data.pictures import match_classes, read_pictures
from edge_agent.workshop.evaluate import verb
from edge_agent.workshop.evaluate.pictures import ask_detector
from tests.coco import real, serve_net
from tests.conftest import lines_of
from tests.nets import blob_finder_onnx
from tests.tasks.text_models import bert
from tests.tiny import tiny_detector

COLOURS = {"blue": (255, 0, 0), "green": (0, 255, 0), "red": (0, 0, 255)}
CATEGORIES = [{"id": 7, "name": "Blue"}, {"id": 8, "name": "green"}, {"id": 9, "name": "red"}]
SPEC = Input(64, 64, channels="BGR", letterbox="top-left")


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Net:
    return open_net(blob_finder_onnx(tmp_path_factory.mktemp("finder") / "m.onnx"), "onnx", 1)


def detector(net: Net, name: str = "finder", **more: Any) -> Served:
    served = serve_net(net, more.pop("spec", SPEC), "yolox", list(COLOURS), **{"score": 0.9, "iou": 0.5, **more})
    ref = msgspec.structs.replace(served.ref, name=name)
    return msgspec.structs.replace(served, ref=ref, manifest=msgspec.structs.replace(served.manifest, name=name))


def no_say(what: str, done: int, total: int) -> None:
    assert 0 <= done <= total


def run(serve: dict[str, Served], *argv: str, say: Callable[[str, int, int], None] = no_say) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    verb_options.evaluate(parser)
    result = verb.run(parser.parse_args(argv), serve.__getitem__, say)
    assert verb.lines(result) and json.loads(msgspec.json.encode(result))
    return result


def dataset(folder: Path, pictures: int = 4) -> dict[str, Any]:
    """Pictures of 128x64 pixels, each with a cell of every colour, and a COCO file that knows them all."""
    (folder / "images").mkdir(parents=True)
    images, boxes = [], []
    for i in range(pictures):
        image = np.zeros((64, 128, 3), np.uint8)
        for place, (category, paint) in enumerate(zip(CATEGORIES, COLOURS.values(), strict=True)):
            x, y = 16 * ((i + 2 * place) % 8), 16 * place
            image[y : y + 16, x : x + 16] = paint
            box = [x, y, 16, 16]
            boxes.append({"image_id": i + 1, "category_id": category["id"], "bbox": box, "area": 256, "iscrowd": 0})
        cv2.imwrite(str(folder / "images" / f"{i}.png"), image)
        images.append({"id": i + 1, "file_name": f"{i}.png", "width": 128, "height": 64})
    coco = {"images": images, "annotations": boxes, "categories": list(CATEGORIES)}
    write(folder, coco)
    return coco


def write(folder: Path, coco: dict[str, Any]) -> Path:
    path = folder / "instances.json"
    path.write_text(json.dumps(coco))
    return path


# ── detectors ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_perfect_detector_scores_one(finder: Net, tmp_path: Path) -> None:
    dataset(tmp_path)
    for data in (tmp_path, tmp_path / "images", tmp_path / "instances.json"):
        result = run({"m": detector(finder)}, "m", str(data))
        assert [result[key] for key in ("map", "map50", "map75")] == [1, 1, 1]
        assert result["images"] == 4 and result["boxes"] == 12 and result["truth"] == "labels"
        assert result["classes"] == {name: {"map": 1, "map50": 1, "boxes": 4} for name in ("Blue", "green", "red")}
        assert result["model"] == "finder" and result["ms_per_image"] > 0
        assert np.isnan(result["map_large"]) and result["notes"] == [] and result["missing"] == []


def test_what_a_fault_costs_is_what_is_measured(finder: Net, tmp_path: Path) -> None:
    coco = dataset(tmp_path)
    coco["annotations"][0]["bbox"][0] += 6  # IoU 10/22
    coco["annotations"][4]["bbox"][3] = 12  # IoU 3/4
    write(tmp_path, coco)
    result = run({"m": detector(finder)}, "m", str(tmp_path))
    # of 4 boxes of a class, one is missed and one stands astray with the score of the others: p = 3/4 up to r = 3/4
    assert result["classes"]["Blue"]["map50"] == pytest.approx(result["classes"]["Blue"]["map"])
    assert 0.5 < result["classes"]["Blue"]["map"] < 1
    assert result["classes"]["green"]["map50"] == 1 and 0.5 < result["classes"]["green"]["map"] < 1
    assert result["classes"]["red"]["map"] == 1
    assert result["map"] == pytest.approx(np.mean([row["map"] for row in result["classes"].values()]), abs=1e-5)


def test_against_a_parent_without_labels(finder: Net, tmp_path: Path) -> None:
    dataset(tmp_path)
    (tmp_path / "instances.json").unlink()
    # a child that takes red for blue
    child = detector(finder, "child", spec=msgspec.structs.replace(SPEC, channels="RGB"))
    models = {"child": child, "parent": detector(finder, "parent")}
    result = run(models, "child", str(tmp_path / "images"), "--against", "parent")
    assert result["truth"] == "parent" and result["against"]["model"] == "parent"
    assert {name: row["map"] for name, row in result["classes"].items()} == {"blue": 0, "green": 1, "red": 0}
    assert result["map"] == result["against"]["map"] == pytest.approx(1 / 3, abs=1e-6)
    assert result["against"]["score"] == 0.9 and result["against"]["boxes"] == 12
    with pytest.raises(UsageError, match="images without labels; give --against PARENT, or a COCO JSON file"):
        run(models, "child", str(tmp_path / "images"))
    same = run(models, "parent", str(tmp_path / "images"), "--against", "parent", "--limit", "2")
    assert same["map"] == 1 and same["images"] == 2


def test_labels_and_a_parent_give_both(finder: Net, tmp_path: Path) -> None:
    coco = dataset(tmp_path)
    for box in coco["annotations"]:
        if box["category_id"] == 9:
            box["bbox"] = [100, 50, 16, 14]
    write(tmp_path, coco)
    models = {"m": detector(finder), "parent": detector(finder, "parent")}
    result = run(models, "m", str(tmp_path), "--against", "parent")
    assert result["map"] == result["against"]["on_labels"]["map"] == pytest.approx(2 / 3, abs=1e-6)
    assert result["against"]["map"] == 1
    told = verb.lines(result)
    assert any(
        line.startswith("mAP50-95        0.6667 (") and "   parent 0.6667, difference 0.0000 (" in line for line in told
    )
    assert any(line.startswith("mAP50-95        1.0000 (") for line in told[told.index("against parent: 12 boxes") :])


def test_only_common_classes_are_scored_and_that_is_said(finder: Net, tmp_path: Path) -> None:
    coco = dataset(tmp_path)
    coco["categories"][1] = {"id": 8, "name": "sofa"}
    coco["categories"].append({"id": 10, "name": "cup"})
    write(tmp_path, coco)
    result = run({"m": detector(finder)}, "m", str(tmp_path))
    assert result["map"] == 1 and set(result["classes"]) == {"Blue", "red"}
    assert result["notes"] == [
        "scored over 2 of the data's 4 classes: the model knows these",
        "1 of the model's classes are not in the data and not scored: green",
    ]
    coco["categories"] = [{"id": row["id"], "name": f"thing {row['id']}"} for row in coco["categories"]]
    write(tmp_path, coco)
    with pytest.raises(UsageError, match=r"no class in common: .*thing 7.* the model blue, green, red"):
        run({"m": detector(finder)}, "m", str(tmp_path))


def test_classes_are_matched_by_name_or_by_number_alone() -> None:
    coco = {1: "person", 4: "motorcycle", 63: "couch"}
    assert match_classes(coco, {0: "Person", 3: "motorbike", 57: "sofa", 58: "potted plant"}) == {0: 1, 3: 4, 57: 63}
    assert match_classes(coco, {1: "class_1", 4: "class_4"}) == {1: 1, 4: 4}
    for numbers in ({1: "class_1", 5: "class_5"}, {1: "cat", 4: "dog"}):
        with pytest.raises(UsageError, match="no class in common"):
            match_classes(coco, numbers)


def test_pictures_that_cannot_be_used_are_counted_and_named(finder: Net, tmp_path: Path) -> None:
    coco = dataset(tmp_path, 6)
    (tmp_path / "images" / "0.png").unlink()
    (tmp_path / "images" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    coco["images"][3] |= {"width": 64, "height": 32}
    coco["annotations"][4]["bbox"] = [120, 16, 16, 16]
    coco["annotations"].append({"image_id": 99, "category_id": 7, "bbox": [0, 0, 1, 1]})
    coco["annotations"].append({"image_id": 2, "category_id": 70, "bbox": [0, 0, 1, 1]})
    write(tmp_path, coco)
    result = run({"m": detector(finder)}, "m", str(tmp_path), "--save", str(tmp_path / "worst"))
    assert result["images"] == 4 and result["boxes"] == 12
    assert result["missing"] == ["0.png", "2.png"]
    told = "\n".join(result["notes"])
    assert "1 of 6 pictures are missing and left out: 0.png" in told
    assert "1 samples cannot be taken and are left out: 2.png: " in told
    assert "2 boxes are left out, their image_id or category_id stands in no list" in told
    assert "boxes have no area or reach outside their picture (first: in 1.png)" in told
    assert "3.png is 128x64, labelled as 64x32" in told
    # the boxes of the pictures that are left are still those of the right pictures
    assert result["classes"]["Blue"]["map"] == result["classes"]["red"]["map"] == 1
    assert result["classes"]["green"]["map"] < 1
    assert [path.name for path in (tmp_path / "worst").iterdir()] == ["01_f1-0.67_1.jpg"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "broken JSON"),
        ("\xff\xfe", "broken JSON"),
        ("[]", "a list, not labels"),
        ('{"images": []}', "missing required field `annotations`"),
        ('{"images": [], "annotations": [], "categories": []}', "images is empty"),
        (
            '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "category_id": 1, '
            '"bbox": [1, 2, 3]}], "categories": []}',
            "none of its 1 pictures is there",
        ),
        (
            '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []}',
            "none of its 1 pictures is there, e.g. a.jpg",
        ),
        (
            '{"images": [{"id": 1, "file_name": "0.png"}], "annotations": [], '
            '"categories": [{"id": 1, "name": "red"}]}',
            "no box in it",
        ),
    ],
)
def test_a_file_that_is_no_coco_json_is_one_line(finder: Net, tmp_path: Path, content: str, said: str) -> None:
    dataset(tmp_path, 1)
    (tmp_path / "instances.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match=said) as caught:
        run({"m": detector(finder)}, "m", str(tmp_path))
    assert "instances.json" in str(caught.value) or said == "no box in it"
    assert "\n" not in str(caught.value)


def test_data_that_is_none_is_one_line(finder: Net, tmp_path: Path) -> None:
    served = {"m": detector(finder), "t": bert(tmp_path)}
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for argv, said in (
        (["m", str(tmp_path / "none.json")], "no such file or folder"),
        (["m", str(tmp_path / "a.png")], "one picture"),
        (["m", str(tmp_path / "empty")], "neither labels nor a picture"),
        (["m", str(tmp_path), "--against", "m"], "none of 1 samples can be taken; the first, a.png: is empty"),
        (["m", str(tmp_path), "--against", "t"], "its task is encode, that of m is detect"),
        (["m", str(tmp_path), "--labels", "x"], "--labels: not for m, whose task is detect"),
        (["m", str(tmp_path), "--against", "m", "--save", str(tmp_path / "a.png")], "the folder cannot be made"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            run(served, *argv)
        assert "\n" not in str(caught.value)
    (tmp_path / "dark").mkdir()
    cv2.imwrite(str(tmp_path / "dark" / "a.png"), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(UsageError, match=r"--against m: it found nothing at score 0\.9 in 1 pictures"):
        run(served, "m", str(tmp_path / "dark"), "--against", "m")


def test_the_worst_pictures_are_drawn_truth_left_found_right(finder: Net, tmp_path: Path) -> None:
    coco = dataset(tmp_path)
    (tmp_path / "images" / "big.png").write_bytes(b"")
    big = np.zeros((1000, 3000, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "images" / "big.png"), big)
    coco["images"].append({"id": 50, "file_name": "big.png"})
    coco["annotations"].append({"image_id": 50, "category_id": 9, "bbox": [1000, 500, 300, 300]})
    coco["annotations"][0]["bbox"] = [60, 40, 20, 20]
    write(tmp_path, coco)
    steps: list[tuple[str, int, int]] = []
    out = tmp_path / "new" / "worst"
    result = run({"m": detector(finder)}, "m", str(tmp_path), "--save", str(out), say=lambda *step: steps.append(step))
    assert steps[0] == ("finder", 0, 5) and steps[-1] == ("finder", 5, 5) and len(steps) == 6
    names = sorted(path.name for path in out.iterdir())
    assert names == ["01_f1-0.00_big.jpg", "02_f1-0.67_0.jpg"]
    drawn = cv2.imread(str(out / names[0]))
    assert drawn is not None and drawn.shape == (334, 1000 * 2 + 8, 3), "every third pixel of 3000"
    left, right = drawn[:, :1000], drawn[:, 1008:]
    # 1000, 500, 300, 300 at a third: the truth's box stands left only
    assert left[170:265, 330:336].max() > 100 and right[170:265, 330:336].max() < 40
    assert "2 worst pictures in" in result["notes"][-1]


def test_yolox_on_coco_is_pycocotools_own_figure(data: Path) -> None:
    served = real(data, "yolox_nano.onnx", score=0.3, iou=0.45)
    pictures = read_pictures(data / "coco_val94")
    assert pictures.truth is not None and len(pictures.paths) == 94
    ids = match_classes(pictures.names, served.manifest.names())
    samples = [LabelledSample(path.name, path, None) for path in pictures.paths]
    boxes = as_columns(ask_detector(served, (samples, 0.001, 0.65), no_say).said, ids)
    labels = sorted(ids.values())
    ours = average_precision(pictures.truth, boxes, labels)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(data / "coco_val94" / "instances.json"))
        # the numbers of our pictures are places in the order of the ids
        image_ids = sorted(truth.getImgIds())
        columns = zip(boxes.image, boxes.label, boxes.xywh.tolist(), boxes.score, strict=True)
        rows = [
            {"image_id": image_ids[i], "category_id": int(k), "bbox": box, "score": float(s)}
            for i, k, box, s in columns
        ]
        theirs = COCOeval(truth, truth.loadRes(rows), "bbox")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    figures = ours.figures()
    for name, place in {"map": 0, "map50": 1, "map75": 2, "map_small": 3, "map_medium": 4, "map_large": 5}.items():
        assert figures[name] == pytest.approx(theirs.stats[place], abs=1e-9), name
    assert figures["recall"] == pytest.approx(theirs.stats[8], abs=1e-9)
    each = theirs.eval["precision"][:, :, :, 0, 2].mean((0, 1))
    np.testing.assert_allclose(np.nan_to_num(ours.ap[:, 0].mean(1), nan=-1), each, atol=1e-9)
    assert figures["map"] == pytest.approx(0.291, abs=0.002)


# ── the command line ─────────────────────────────────────────────────────────────────────────────────────


def registered_finder(folder: Path) -> Path:
    """The finder of coloured cells as a folder with a manifest."""
    folder.mkdir()
    raw = blob_finder_onnx(folder / "m.onnx").read_bytes()
    (folder / "manifest.toml").write_text(
        'name = "finder"\nversion = "1"\ntask = "detect"\nfamily = "yolox"\nlicence = "none"\ntrained_by = "a test"\n'
        'labels = ["blue", "green", "red"]\nscore = 0.9\n[input]\nwidth = 64\nheight = 64\nchannels = "BGR"\n'
        f'letterbox = "top-left"\n[[file]]\nname = "m.onnx"\nformat = "onnx"\nbytes = {len(raw)}\n'
        f'sha256 = "{hashlib.sha256(raw).hexdigest()}"\n'
    )
    return folder


def command(tmp_path: Path, *args: str) -> tuple[list[str], dict[str, str]]:
    return [sys.executable, "-m", "edge_agent", "evaluate", *args], {
        **os.environ,
        "EDGE_AGENT_HOME": str(tmp_path / "home"),
    }


def test_the_verb_prints_json_or_a_table(tmp_path: Path) -> None:
    model = str(registered_finder(tmp_path / "model"))
    dataset(tmp_path / "data")
    (tmp_path / "data" / "images" / "3.png").unlink()
    argv, env = command(tmp_path, model, str(tmp_path / "data"), "--json")
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=True)
    figures = json.loads(done.stdout)
    assert (figures["map"], figures["map50"], figures["map75"]) == (1, 1, 1) and figures["images"] == 3
    assert figures["classes"]["red"] == {"map": 1, "map50": 1, "boxes": 3} and figures["map_large"] is None
    assert done.stderr == "1 of 4 pictures are missing and left out: 3.png\n"
    done = subprocess.run(argv[:-1], capture_output=True, text=True, env=env, check=True)
    assert ["mAP50-95", "1.0000", "(0.3333", "to", "1.0000)"] in [line.split() for line in done.stdout.splitlines()]
    assert figures["intervals"]["map"] == [pytest.approx(1 / 3, abs=1e-6), 1]
    for wrong in (["--score", "2"], ["--limit", "0"], ["--limit", "x"]):
        done = subprocess.run([*argv, *wrong], capture_output=True, text=True, env=env)
        assert done.returncode == 2 and len(lines_of(done.stderr)) == 1, done.stderr


def test_a_model_that_is_not_there_is_one_line(finder: Net, tmp_path: Path) -> None:
    argv, env = command(tmp_path, "nosuch", str(tmp_path))
    done = subprocess.run(argv, capture_output=True, text=True, env=env)
    assert done.returncode == 1 and 'no model "nosuch"' in done.stderr and len(lines_of(done.stderr)) == 1
    bare = detector(finder)
    unlabelled = msgspec.structs.replace(bare, manifest=msgspec.structs.replace(bare.manifest, labels=[]))
    dataset(tmp_path / "data")
    with pytest.raises((ManifestError, UsageError)) as caught:
        run({"m": unlabelled}, "m", str(tmp_path / "data"))
    assert "\n" not in str(caught.value)


def test_ctrl_c_on_a_terminal_leaves_a_bar_and_no_traceback(tmp_path: Path) -> None:
    model = str(tiny_detector(tmp_path / "model"))
    (tmp_path / "pictures").mkdir()
    picture = cv2.imencode(".png", np.full((2000, 2000, 3), 90, np.uint8))[1].tobytes()
    for i in range(2000):
        (tmp_path / "pictures" / f"{i:04d}.png").write_bytes(picture)
    argv, env = command(tmp_path, model, str(tmp_path / "pictures"), "--against", model)
    terminal, side = pty.openpty()
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=side, env=env)
    os.close(side)
    seen = b""
    deadline = time.monotonic() + 60
    while b"s left" not in seen and time.monotonic() < deadline:
        seen += os.read(terminal, 4096)
    child.send_signal(signal.SIGINT)
    assert child.wait(60) == 130
    with contextlib.suppress(OSError):
        while more := os.read(terminal, 4096):
            seen += more
    os.close(terminal)
    assert b"tiny [" in seen and b"s left" in seen and b"Traceback" not in seen
    assert child.stdout is not None and child.stdout.read() == b""
    child.stdout.close()
