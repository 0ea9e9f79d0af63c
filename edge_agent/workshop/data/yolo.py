"""YOLO's labels: a .txt a picture, and a data.yaml that names the classes and where the pictures are."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edge_agent.errors import InputError
from edge_agent.files import read_regular
from edge_agent.pictures.formats import claimed_size
from edge_agent.pictures.read import BIGGEST
from edge_agent.samples import coco
from edge_agent.sources.listing import PICTURES
from edge_agent.workshop.data.texts import text_of


class Labels(NamedTuple):
    """Pictures and the boxes in them."""

    found: coco.Coco
    """file names count from the folder of the labels, or are whole paths"""
    notes: list[str]
    """what was mended or left out, for people"""


def where(data: Path) -> Path | None:
    """data.yaml in a folder or above its pictures; itself; or a folder images/ with labels/ beside it."""
    if data.suffix.lower() in (".yaml", ".yml") and data.is_file():
        return data
    if not data.is_dir():
        return None
    folders = [data, *(folder for folder in data.absolute().parents[:2] if (folder / "labels").is_dir())]
    table = next(filter(None, map(_table, folders)), None)
    if table is not None:
        return table
    return data if any((folder / "classes.txt").is_file() for folder in (data, data / "labels")) else None


def _table(folder: Path) -> Path | None:
    """The data.yaml in a folder, whatever its name."""
    tables = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    return next((path for path in tables if "names" in _yaml(path)), None)


def read(file: Path, parts: Sequence[str]) -> Labels:
    """Each picture's own .txt of rows: class, middle, width and height as shares, or a polygon."""
    table, root = (_yaml(file), file.parent) if file.is_file() else ({}, file)
    names = _names(table, root)
    part = next((one for one in parts if table.get(one)), None)
    base = root / str(table.get("path") or ".")
    images, boxes = [], []
    # its `path` may be of another machine
    for number, path in enumerate(_all_in(base if base.is_dir() else root, _listed(table.get(part or "", "images")))):
        wide, high = size_of(path)
        images.append(coco.CocoImage(number, str(path.absolute()), wide, high))
        for label, (x, y, w, h) in _boxes_of(path, names, file.name):
            boxes.append(coco.CocoBox(number, label, (x * wide, y * high, w * wide, h * high)))
    note = f"YOLO labels of {part or 'all'}: {len(boxes)} boxes in {len(images)} pictures"
    return Labels(coco.Coco(images, boxes, [*map(coco.CocoCategory, names, names.values())]), [note])


def _all_in(base: Path, places: list[str]) -> list[Path]:
    """The pictures of some folders or lists of a folder; where there are none, all that are in it."""
    return [path for one in places for path in pictures_in(base / one)] or pictures_in(base)


def _boxes_of(picture: Path, names: Mapping[int, str], table: str) -> Iterator[tuple[int, list[float]]]:
    """Class and box, as shares, of each row of a picture's .txt."""
    path = _label_of(picture)
    lines = text_of(path, "a row a box").splitlines() if path.is_file() else []
    for at, line in enumerate(filter(str.strip, lines), 1):
        label, box = _row(line.split(), f"{path}: line {at}")
        if label not in names:
            raise InputError(f"{path}: line {at} has class {label}; {table} names {len(names)}")
        yield label, box


def _names(table: dict[str, Any], root: Path) -> dict[int, str]:
    names = table.get("names")
    if isinstance(names, dict):
        return {int(key): str(name) for key, name in names.items() if str(key).isdigit()}
    if names is None:
        file = next((path for path in (root / "classes.txt", root / "labels" / "classes.txt") if path.is_file()), None)
        names = text_of(file, "one class a line").split("\n") if file else []
    return {key: name.strip() for key, name in enumerate(_listed(names)) if name.strip()}


def _label_of(picture: Path) -> Path:
    """The .txt of a picture: in labels/ instead of the last images/ of its path, else beside it."""
    parts = list(picture.parts)
    if "images" in parts[:-1]:
        at = len(parts) - 2 - parts[-2::-1].index("images")
        parts[at] = "labels"
    return Path(*parts).with_suffix(".txt")


def _row(row: list[str], where: str) -> tuple[int, list[float]]:
    """Class; left, top, width and height as shares."""
    try:
        label, values = int(row[0]), [float(cell) for cell in row[1:]]
    except ValueError:
        label, values = -1, []
    if len(values) >= 6 and not len(values) % 2:
        xs, ys = values[::2], values[1::2]
        return label, [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    if len(values) != 4 or max(values) > 1.01 or min(values) < -0.01:
        raise InputError(f"{where} is no class and four shares from 0 to 1 (middle x, middle y, width, height)")
    x, y, w, h = values
    return label, [x - w / 2, y - h / 2, w, h]


def _yaml(path: Path) -> dict[str, Any]:
    """Of a data.yaml: strings, lists and numbered names; all else is passed over."""
    found: dict[str, Any] = {}
    key = ""
    for line in text_of(path, "give a data.yaml of UTF-8").splitlines():
        text = line.split(" #")[0].rstrip()
        if not text or text.lstrip().startswith("#"):
            continue
        name, _, rest = text.strip().partition(":")
        if not line[0].isspace() and not text.startswith("-"):
            key = name.strip()
            found[key] = _value(rest.strip())
        elif text.strip().startswith("- "):
            found[key] = [*_listed(found.get(key) or []), str(_value(text.strip()[2:].strip()))]
        elif key:
            inner = found.get(key)
            found[key] = {**(inner if isinstance(inner, dict) else {}), name.strip(): str(_value(rest.strip()))}
    return found


def _value(text: str) -> Any:
    if text[:1] == "[" and text[-1:] == "]":
        return [one.strip().strip("'\"") for one in next(csv.reader([text[1:-1]], skipinitialspace=True), [])]
    if text[:1] == "{" and text[-1:] == "}":
        pairs = [one.partition(":") for one in text[1:-1].split(",")]
        return {name.strip(): rest.strip().strip("'\"") for name, _, rest in pairs}
    return text.strip("'\"") or None


def _listed(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def pictures_in(place: Path) -> list[Path]:
    """Those in a folder, or that a list of files (YOLO's train.txt) names."""
    if place.is_dir():
        return sorted(path for path in place.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())
    if place.suffix.lower() != ".txt" or not place.is_file():
        return []
    lines = text_of(place, "one file a line").splitlines()
    return [path for line in lines if line.strip() and (path := place.parent / line.strip()).is_file()]


def size_of(path: Path) -> tuple[int, int]:
    """Width and height as the file states them; (0, 0) where it does not."""
    try:
        return claimed_size(read_regular(path, BIGGEST)) or (0, 0)
    except OSError:
        return 0, 0
