"""Labels of boxes in every form that is read, and what is said of those that are not as they should be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_agent.errors import UsageError
from edge_agent.workshop.data.pictures import Pictures, read_pictures

BOX = [20.0, 10.0, 40.0, 30.0]
"""left, top, width, height in pictures of 100 x 80"""


def pictures(folder: Path, count: int = 3) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((80, 100, 3), 40 * number, np.uint8))
    return [f"{number}.png" for number in range(count)]


def coco(folder: Path, **changes: Any) -> Path:
    """Three pictures with a box each."""
    names = pictures(folder / "images")
    images = [{"id": i, "file_name": name, "width": 100, "height": 80} for i, name in enumerate(names)]
    boxes = [{"id": i, "image_id": i, "category_id": 7, "bbox": BOX} for i in range(3)]
    table = {"images": images, "annotations": boxes, "categories": [{"id": 7, "name": "cup"}]} | changes
    (folder / "instances.json").write_text(json.dumps(table))
    return folder


def yolo(folder: Path, yaml: str = "path: .\nval: images/val\nnames:\n  0: cup  # a comment\n") -> Path:
    for name in pictures(folder / "images" / "val"):
        label = folder / "labels" / "val" / name.replace(".png", ".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 0.4 0.3125 0.4 0.375\n")
    (folder / "data.yaml").write_text(yaml)
    return folder


def voc(folder: Path) -> Path:
    for name in pictures(folder / "JPEGImages"):
        (folder / "Annotations").mkdir(exist_ok=True)
        # VOC counts from 1, the last pixel is inside
        corners = "<xmin>21</xmin><ymin>11</ymin><xmax>60</xmax><ymax>40</ymax>"
        text = f"<annotation><object><name>cup</name><bndbox>{corners}</bndbox></object></annotation>"
        (folder / "Annotations" / name.replace(".png", ".xml")).write_text(text)
    return folder


def table(folder: Path) -> Path:
    rows = [f"{name},cup,20,10,60,40" for name in pictures(folder)]
    (folder / "boxes.csv").write_text("\n".join(["filename,class,xmin,ymin,xmax,ymax", *rows]))
    return folder


def names_in_a_row(folder: Path) -> Path:
    return yolo(folder, "train: ../nowhere\nval: images/val\nnames: [cup, 'a saucer']\n")


def names_by_dashes(folder: Path) -> Path:
    return yolo(folder, 'val: images/val\nnames:\n- "cup"\n- saucer\n')


FORMS: list[Callable[[Path], Path]] = [coco, yolo, names_in_a_row, names_by_dashes, voc, table]


@pytest.mark.parametrize("make", FORMS)
def test_each_form_gives_the_same_boxes(make: Callable[[Path], Path], tmp_path: Path) -> None:
    found = read_pictures(make(tmp_path / "data"))
    truth = found.truth
    assert truth is not None and len(found.paths) == 3
    np.testing.assert_allclose(truth.xywh, [BOX] * 3, atol=1e-6)
    assert {found.names[int(label)] for label in truth.label} == {"cup"}


@pytest.mark.parametrize("inner", ["data.yaml", "images", "images/val"])
def test_a_yolo_folder_is_found_from_its_parts(inner: str, tmp_path: Path) -> None:
    assert boxes(read_pictures(yolo(tmp_path / "data") / inner)) == 3


def boxes(found: Pictures) -> int:
    assert found.truth is not None
    return len(found.truth.label)


def test_a_polygon_of_yolo_is_the_box_around_it(tmp_path: Path) -> None:
    folder = yolo(tmp_path)
    (folder / "labels" / "val" / "0.txt").write_text("0 0.2 0.125 0.6 0.125 0.6 0.5\n")
    truth = read_pictures(folder).truth
    assert truth is not None
    np.testing.assert_allclose(truth.xywh[0], BOX, atol=1e-6)


IMAGES = [{"id": i, "file_name": f"{i % 3}.png", "width": 100, "height": 80} for i in range(5)]
SHARES = [{"image_id": i, "category_id": 7, "bbox": [0.2, 0.125, 0.4, 0.375]} for i in range(3)]
OUTLINE = {"image_id": 0, "category_id": 7, "segmentation": [[20, 10, 60, 10, 60, 40]]}
CROWD = {"image_id": 0, "category_id": 7, "bbox": BOX, "iscrowd": 1}
PLAIN = {"image_id": 0, "category_id": 7, "bbox": BOX}
VARIANTS: list[tuple[dict[str, Any], int, str]] = [
    ({"images": IMAGES}, 3, "2 pictures are listed twice and count once"),
    ({"annotations": SHARES}, 3, "its boxes are shares from 0 to 1, and are taken times width and height"),
    ({"annotations": [OUTLINE, {**OUTLINE, "bbox": None}]}, 2, "2 boxes are taken from outlines"),
    ({"annotations": [PLAIN, {**PLAIN, "bbox": []}]}, 1, "1 boxes have no four numbers and are left out"),
    ({"annotations": [PLAIN, {**PLAIN, "bbox": [float("nan")] * 4}]}, 1, "1 boxes have no four numbers"),
    ({"annotations": [PLAIN, CROWD]}, 2, "1 boxes are crowds: they count neither for nor against"),
    ({"categories": [{"id": "7", "name": "cup"}], "annotations": [{**PLAIN, "category_id": "7"}]}, 1, ""),
    ({"categories": [{"id": 7, "name": "cup"}, {"id": 7, "name": "mug"}]}, 3, "1 categories have the id of another"),
]


@pytest.mark.parametrize(("changes", "count", "note"), VARIANTS)
def test_variants_of_coco_are_read_and_said(changes: dict[str, Any], count: int, note: str, tmp_path: Path) -> None:
    found = read_pictures(coco(tmp_path, **changes))
    truth = found.truth
    assert truth is not None and found.names == {7: "cup"} and len(found.paths) == 3
    np.testing.assert_allclose(truth.xywh, [BOX] * count, atol=1e-6)
    assert any(one.startswith(note) for one in [*found.notes, ""])


CORNERS = [{"image_id": i, "category_id": 7, "bbox": [70, 50, 95, 75]} for i in range(3)]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"annotations": [CROWD]}, r"all of its 1 boxes are crowds"),
    ({"annotations": CORNERS}, r"3 of 3 boxes look like corners .*: write x2 - x1 and y2 - y1"),
    ({"images": [{"id": 0, "file_name": "0.png"}], "annotations": SHARES[:1]}, r"have no width and height; add these"),
]


@pytest.mark.parametrize(("changes", "problem"), REFUSED)
def test_what_cannot_be_mended_says_how_to_convert_it(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=problem) as error:
        read_pictures(coco(tmp_path, **changes))
    assert "\n" not in str(error.value)


def test_files_that_are_no_labels_are_one_line(tmp_path: Path) -> None:
    pictures(tmp_path / "data")
    wrong = {
        "results.json": '[{"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "score": 0.5}]',
        "broken.json": '{"images": [',
        "other.csv": "a,b\n1,2\n",
    }
    told = {"results.json": "results of a detector", "broken.json": "broken JSON", "other.csv": "no labels of a form"}
    for name, text in wrong.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match=told[name]):
            read_pictures(tmp_path / name)
    folder = yolo(tmp_path / "yolo")
    for row, problem in (("0 40 25 40 30", "four shares from 0 to 1"), ("5 0.4 0.3 0.1 0.1", "has class 5")):
        (folder / "labels" / "val" / "0.txt").write_text(row)
        with pytest.raises(UsageError, match=rf"0\.txt: line 1 .*{problem}|{problem}"):
            read_pictures(folder)
    folder = voc(tmp_path / "voc")
    (folder / "Annotations" / "0.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>')
    with pytest.raises(UsageError, match="entities are not read"):
        read_pictures(folder)
