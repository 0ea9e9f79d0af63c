"""Labels of boxes as others write them: COCO in its variants, YOLO, Pascal VOC, CSV; one row each in FORMATS.

What comes out is COCO's, with notes on what was mended. Sources: cocodataset.org/#format-data; Ultralytics' "Object
Detection Datasets Overview"; the development kit of Pascal VOC 2012, section 4; TensorFlow's and RetinaNet's tables.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from edge_agent.errors import InputError
from edge_agent.files import read_regular
from edge_agent.samples import coco
from edge_agent.workshop.data import yolo
from edge_agent.workshop.data.mend import mended
from edge_agent.workshop.data.texts import LABEL_NAMES, column, rows_of, text_of
from edge_agent.workshop.data.yolo import Labels, pictures_in, size_of

COCO_FILES = ("instances.json", "_annotations.coco.json")
"""names under which a folder's labels are looked for, in it and above it"""
SMALL = 4_000_000
"""bytes of one picture's labels, or of a data.yaml"""
CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"))
GIVE = "give a table of UTF-8"
FILE_NAMES = ("filename", "file_name", "file", "image", "image_path", "path", "img")


class Format(NamedTuple):
    """A way to write labels."""

    name: str
    where: Callable[[Path], Path | None]
    """the file or folder of labels, where a file or folder is of this form"""
    read: Callable[[Path, Sequence[str]], Labels]
    """from there, and which part of the data is wanted first; InputError"""


def find(data: Path) -> tuple[Format, Path] | None:
    """How the boxes of `data` are written, and where; None where there are none."""
    for row in FORMATS:
        where = row.where(data)
        if where is not None:
            return row, where
    return None


# ── COCO ─────────────────────────────────────────────────────────────────────────────────────────────────


def _coco_file(data: Path) -> Path | None:
    if not data.is_dir():
        return data if data.suffix.lower() == ".json" else None
    inside = [data / name for name in COCO_FILES]
    above = [data.absolute().parent / name for name in COCO_FILES]
    return next((path for path in inside + above if path.is_file()), None)


def read_coco(path: Path, _parts: Sequence[str] = ()) -> Labels:
    """A COCO JSON file. InputError, without the path, says what is wrong with it, and how to convert it."""
    try:
        raw = json.loads(read_regular(path, coco.MOST_BYTES))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"broken JSON: {error}") from None
    raw, notes = mended(raw)
    try:
        return Labels(msgspec.convert(raw, coco.Coco), notes)
    except msgspec.ValidationError as error:
        raise InputError(f"no COCO JSON of boxes: {error}") from None


# ── Pascal VOC ───────────────────────────────────────────────────────────────────────────────────────────


def _voc_folder(data: Path) -> Path | None:
    """A folder of .xml, beside the pictures or in Annotations/."""
    folders = (data, data / "Annotations") if data.is_dir() else ()
    return next((folder for folder in folders if any(folder.glob("*.xml"))), None)


def _read_voc(where: Path, _parts: Sequence[str]) -> Labels:
    images: list[coco.CocoImage] = []
    boxes: list[coco.CocoBox] = []
    names: dict[str, int] = {}
    beside = {path.stem: path for folder in (where, where.parent / "JPEGImages") for path in pictures_in(folder)}
    notes = []
    for path in sorted(where.glob("*.xml")):
        root = _xml(path)
        picture = beside.get(path.stem)
        if picture is None:
            notes.append(path.name)
            continue
        number = len(images)
        images.append(coco.CocoImage(number, str(picture.absolute()), *size_of(picture)))
        boxes += [
            _voc_box(thing, number, names, f"{path}: object {at}") for at, thing in enumerate(root.iter("object"), 1)
        ]
    told = [f"{len(notes)} of VOC's files have no picture of their name and are left out: {notes[0]}"] if notes else []
    hard = sum(bool(box.iscrowd) for box in boxes)
    told += [f"{hard} boxes are marked difficult, and count neither for nor against"] if hard else []
    return _labels(images, boxes, names, told)


def _voc_box(thing: ElementTree.Element, number: int, names: dict[str, int], where: str) -> coco.CocoBox:
    """One object of picture `number`; a class that is new goes into `names`."""
    label = names.setdefault((thing.findtext("name") or "").strip(), len(names) + 1)
    corners = [thing.findtext(f"bndbox/{side}") or "" for side in CORNERS[0]]
    # VOC counts pixels from 1, and the last one is inside
    return coco.CocoBox(number, label, _box(corners, 1.0, where), thing.findtext("difficult") == "1")


def _xml(path: Path) -> ElementTree.Element:
    try:
        data = read_regular(path, SMALL)
        # entities could name files, or grow without end
        if b"<!ENTITY" in data:
            raise InputError(f"{path}: entities are not read; give Pascal VOC's plain form")
        return ElementTree.fromstring(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: broken XML: {error}") from None


# ── CSV ──────────────────────────────────────────────────────────────────────────────────────────────────


def _csv_file(data: Path) -> Path | None:
    """A table, or the one in a folder, whose header names a file, a class and corners."""
    tables = sorted(data.glob("*.csv")) if data.is_dir() else [data] if data.suffix.lower() == ".csv" else []
    return next((path for path in tables if path.is_file() and _csv_columns(_head(path))), None)


def _head(path: Path) -> list[str]:
    return [cell.strip('" \r') for cell in text_of(path, GIVE).lstrip().partition("\n")[0].split(",")]


def _read_csv(where: Path, _parts: Sequence[str]) -> Labels:
    rows = rows_of(where, GIVE, False)
    file, label, *corners = _csv_columns(rows[0])
    images: dict[str, coco.CocoImage] = {}
    names: dict[str, int] = {}
    boxes = []
    for at, row in enumerate(rows[1:], 2):
        name = row[file].strip()
        image = images.setdefault(name, coco.CocoImage(len(images), name))
        # a row without a box: a picture in which there is nothing
        if any(row[corner].strip() for corner in corners):
            key = names.setdefault(row[label].strip(), len(names) + 1)
            boxes.append(coco.CocoBox(image.id, key, _box([row[corner] for corner in corners], 0.0, f"line {at}")))
    return _labels([*images.values()], boxes, names, [])


def _csv_columns(head: Sequence[str]) -> list[int]:
    """Numbers of the columns of file, class and four corners; [] where not all are named."""
    labels = (*LABEL_NAMES, "class_name", "name")
    for four in CORNERS:
        found = [column(head, names) for names in (FILE_NAMES, labels, *((name,) for name in four))]
        if None not in found:
            return [at for at in found if at is not None]
    return []


def _labels(
    images: list[coco.CocoImage], boxes: list[coco.CocoBox], names: Mapping[str, int], notes: list[str]
) -> Labels:
    """Of classes that are numbered as they come."""
    return Labels(coco.Coco(images, boxes, [coco.CocoCategory(key, name) for name, key in names.items()]), notes)


def _box(corners: Iterable[str], first: float, where: str) -> tuple[float, float, float, float]:
    """Left, top, width and height of corners; `first`: the number of the first pixel."""
    try:
        x1, y1, x2, y2 = (float(cell) for cell in corners)
    except ValueError:
        raise InputError(f"{where} has no box of four numbers (xmin, ymin, xmax, ymax)") from None
    return x1 - first, y1 - first, x2 - x1 + first, y2 - y1 + first


FORMATS = (
    Format("YOLO", yolo.where, yolo.read),
    Format("COCO", _coco_file, read_coco),
    Format("Pascal VOC", _voc_folder, _read_voc),
    Format("CSV", _csv_file, _read_csv),
)
"""in the order in which they are looked for: data.yaml names YOLO's form whatever lies beside it"""
