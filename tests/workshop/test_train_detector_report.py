"""The figures of the card: a model against its own findings is perfect, and against others it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_agent import paths
from edge_agent.errors import InputError
from edge_agent.pictures.read import read_picture
from edge_agent.tasks.detect.detect import detect
from edge_agent.types import Detections, Finding
from edge_agent.uri import Uri
from edge_agent.workshop.train.detector import report
from edge_agent.workshop.train.detector.export import tensors_of
from edge_agent.workshop.train.detector.report import agreement, figures, main, table, times, variants
from tests.conftest import ROOT

pycocotools = pytest.importorskip("pycocotools.coco", reason='needs pycocotools: pip install "edge-agent-runtime[dev]"')
FOLDER = str(ROOT / "models" / "edge-yolo")


@pytest.fixture(scope="module")
def own_truth(tmp_path_factory: pytest.TempPathFactory, demo_pictures: Path) -> Path:
    """A COCO JSON whose labels are what the carried model finds in the carried pictures."""
    model = variants(FOLDER)["model.onnx"]
    task = detect(Uri("detect", "edge-yolo", {"score": "0.3"}), model, paths.home())
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for number, path in enumerate(sorted(demo_pictures.glob("*.png"))):
        images.append({"id": number, "file_name": path.name})
        (finding,) = task(read_picture(path))
        assert isinstance(finding, Finding) and isinstance(finding.what, Detections)
        for (x1, y1, x2, y2), label in zip(finding.what.xyxy.tolist(), finding.what.label.tolist(), strict=True):
            area = (x2 - x1) * (y2 - y1)
            row = {"id": len(boxes) + 1, "image_id": number, "category_id": label, "iscrowd": 0, "area": area}
            boxes.append(row | {"bbox": [x1, y1, x2 - x1, y2 - y1]})
    folder = tmp_path_factory.mktemp("truth")
    (folder / "images").symlink_to(demo_pictures)
    categories = [{"id": key, "name": name} for key, name in model.manifest.names().items()]
    (folder / "t.json").write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return folder / "t.json"


def test_a_model_is_perfect_against_itself(own_truth: Path) -> None:
    truth = pycocotools.COCO(str(own_truth))
    classes = ["person", "cat"]
    exact, small = (variants(FOLDER)[name] for name in ("model.onnx", "model.int8.onnx"))
    perfect = figures(exact, truth, own_truth.parent / "images", classes)
    assert perfect["person"] > 0.99 and perfect["map"] > 0.99
    assert 0 < figures(small, truth, own_truth.parent / "images", classes)["map"] <= perfect["map"]
    assert all(ms > 0 for ms in times([exact, small], 2))
    told = table({"a": perfect | {"ms": 1.0, "ratio": 0.5}})
    assert told.count("\n") == 2 and "| a | 1.000 |" in told and "nan" in told


def test_operations_are_those_of_the_convolutions() -> None:
    told = report.operations(FOLDER)
    assert told is not None and 100 < told < 1000
    torch = pytest.importorskip("torch", reason='PyTorch\'s network is counted too: see extra "train"')
    from edge_agent.workshop.train.detector import net

    tensors = tensors_of(ROOT / "models" / "edge-yolo" / "model.onnx")
    with torch.no_grad():
        assert net.megaflops(net.from_folded(tensors, 20), (288, 224)) == pytest.approx(told)


def test_agreement_on_a_video(tmp_path: Path, demo_pictures: Path) -> None:
    picture = read_picture(demo_pictures / "astronaut.png").image
    for name, fill in (("seen", None), ("empty", 90)):
        video = cv2.VideoWriter(str(tmp_path / f"{name}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (448, 448))
        for at in range(8):
            frame = np.full((448, 448, 3), fill, np.uint8) if fill else picture[at * 4 : at * 4 + 448, 32:480]
            video.write(np.ascontiguousarray(frame))
        video.release()
    model = variants(FOLDER)["model.onnx"]
    whole = agreement(model, model, tmp_path / "seen.avi", (0.5, 1.0), 80)
    assert whole["frames"] == 4 and whole["boxes"] >= 4 and whole["map50"] > 0.9
    with pytest.raises(InputError, match="finds nothing"):
        agreement(model, model, tmp_path / "empty.avi", (0.0, 1.0), 80)


def test_the_command(own_truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--pictures", str(tmp_path / "gone.json")]) == 2
    assert capsys.readouterr().err.endswith("gone.json: no such file\n")
