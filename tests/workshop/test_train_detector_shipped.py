"""The edge-yolo that the project carries: what it finds, and that its files agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_agent.backends import open_net
from edge_agent.manifest import Served, load
from edge_agent.pictures.read import read_picture
from edge_agent.registry import catalogue, files
from edge_agent.tasks.detect.detect import detect
from edge_agent.types import Detections, Finding, Frame, ModelRef
from edge_agent.uri import Uri
from tests.conftest import ROOT

FOLDER = ROOT / "models" / "edge-yolo"


def served(file: str) -> Served:
    """One file of the carried model."""
    located = catalogue.locate(str(FOLDER))
    row = next(row for row in located.manifest.file if row.name == file)
    net = open_net(files.file_path(located, row), row.format, 1)
    given = located.manifest.input
    assert given is not None
    if row.layout == "NHWC":
        import msgspec

        given = msgspec.structs.replace(given, layout="NHWC")
    return Served(located.manifest, ModelRef("edge-yolo", "1", row.sha256), net, {}, given, "")


def found(file: str, frame: Frame, score: float = 0.3) -> Detections:
    (finding,) = detect(Uri("detect", "edge-yolo", {"score": str(score)}), served(file), ROOT)(frame)
    assert isinstance(finding, Finding) and isinstance(finding.what, Detections)
    return finding.what


FILES = [row.name for row in load(FOLDER / "manifest.toml").file]


@pytest.mark.parametrize("file", FILES)
def test_it_finds_what_the_carried_pictures_show(file: str, demo_pictures: Path) -> None:
    for name, label, least in (("astronaut", "person", 0.3), ("coffee", "cup", 0.2)):
        frame = read_picture(next(demo_pictures.glob(f"{name}.*")))
        seen = found(file, frame)
        assert len(seen), name
        assert seen.names[int(seen.label[0])] == label
        x1, y1, x2, y2 = seen.xyxy[0]
        assert (x2 - x1) * (y2 - y1) > least * frame.width * frame.height


def test_it_finds_nothing_where_nothing_is() -> None:
    for file in FILES:
        assert not len(found(file, Frame(np.full((240, 320, 3), 120, np.uint8), 0.0, 0.0)))


@pytest.mark.parametrize("file", [name for name in FILES if "int8" in name])
def test_int8_scores_are_close_to_the_float_ones(file: str, demo_pictures: Path) -> None:
    for path in sorted(demo_pictures.glob("*.png")) + sorted(demo_pictures.glob("*.jpg")):
        frame = read_picture(path)
        exact, small = found("model.onnx", frame, 0.5), found(file, frame, 0.2)
        for box, score, label in zip(exact.xyxy, exact.score, exact.label, strict=True):
            same = small.label == label
            low, high = np.maximum(small.xyxy[:, :2], box[:2]), np.minimum(small.xyxy[:, 2:], box[2:])
            shared = np.prod(np.clip(high - low, 0, None), axis=1)
            areas = np.prod(small.xyxy[:, 2:] - small.xyxy[:, :2], axis=1)
            iou = shared / (areas + np.prod(box[2:] - box[:2]) - shared)
            near = same & (iou > 0.6)
            assert near.any() and np.abs(small.score[near] - score).min() < 0.15, path.name


def test_the_manifest_tells_its_files_and_classes() -> None:
    manifest = load(FOLDER / "manifest.toml")
    assert manifest.family == "edge-yolo" and manifest.licence == "Apache-2.0" and manifest.trained_by == "edge-agent"
    names = manifest.names()
    assert names[0] == "person" and names[15] == "cat" and names[73] == "book" and len(names) == 20
    for row in manifest.file:
        assert files.file_path(catalogue.locate(str(FOLDER)), row) == FOLDER / row.name
    assert (FOLDER / (manifest.card or "")).is_file()
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 9e6
