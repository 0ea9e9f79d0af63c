"""Pictures with boxes that people drew: a COCO JSON file and the picture files that it names, or a bare folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.errors import UsageError
from edge_agent.figures.coco_map import Truth
from edge_agent.files import read_regular
from edge_agent.sources.files import PICTURES

LABEL_FILES = ("instances.json", "_annotations.coco.json")
"""names under which a folder's labels are looked for, in it and above it"""

ALIASES = {
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
    "hair dryer": "hair drier",
}
"""names of Pascal VOC and darknet -> COCO's of the same thing"""

NAMELESS = re.compile(r"(class[ _-]?)?\d+")
"""a label that is only the number of a class"""

SHOWN = 5
"""names in a note"""


class _Picture(msgspec.Struct, frozen=True):
    id: int | str
    file_name: str
    width: int = 0
    height: int = 0


class _Box(msgspec.Struct, frozen=True):
    image_id: int | str
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: bool | int = 0
    area: float | None = None


class _Category(msgspec.Struct, frozen=True):
    id: int
    name: str


class _Coco(msgspec.Struct, frozen=True):
    """What of the format is read (cocodataset.org/#format-data); all else is passed over."""

    images: list[_Picture]
    annotations: list[_Box]
    categories: list[_Category]


@dataclass(frozen=True, slots=True)
class Pictures:
    """Picture files, in the order in which they are numbered, and the boxes in them."""

    paths: list[Path]
    truth: Truth | None
    """with category ids as labels; None when there are no labels"""
    names: Mapping[int, str] = field(default_factory=dict)
    """category id -> name"""
    sizes: Sequence[tuple[int, int]] = ()
    """(width, height) of each picture as the labels state it; (0, 0) where they do not"""
    missing: Sequence[str] = ()
    """named in the labels, but not there"""
    notes: Sequence[str] = ()


MOST_BYTES = 1_000_000_000
"""of a file of boxes; COCO's own have up to 500 MB"""


def read_pictures(data: Path, limit: int = 0) -> Pictures:
    """A COCO JSON file, a folder with one beside or above its pictures, or a folder of pictures alone.

    `limit`: so many pictures at most, spread evenly. UsageError, one line, for a file that is no COCO JSON, for labels
    of which no picture is there, for labels without a picture, and for a folder without either.
    """
    if data.is_dir():
        inside = [data / name for name in LABEL_FILES]
        above = [data.absolute().parent / name for name in LABEL_FILES]
        file = next((path for path in inside + above if path.is_file()), None)
        if file is None:
            return _bare(data, limit)
        return _labelled(file, [data, *_places(file)], limit, data if file in above else None)
    if not data.is_file():
        raise UsageError(f"{data}: no such file or folder; give a COCO JSON file or a folder of pictures")
    if data.suffix.lower() in PICTURES:
        raise UsageError(f"{data}: one picture; give a COCO JSON file or a folder of pictures")
    return _labelled(data, _places(data), limit, None)


def _bare(folder: Path, limit: int) -> Pictures:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES and path.is_file())
    if not paths:
        raise UsageError(f"{folder}: neither {LABEL_FILES[0]} nor a picture in it; give a COCO JSON file")
    return Pictures([paths[i] for i in spread(len(paths), limit)], None)


def _places(file: Path) -> list[Path]:
    """Where the pictures of a labels file may lie: beside it, in a folder beside it, or beside its own folder."""
    folder = file.absolute().parent
    above = [folder.parent] if folder.name == "annotations" else []
    return [place for base in (folder, *above) for place in (base, *sorted(p for p in base.iterdir() if p.is_dir()))]


def _labelled(file: Path, places: list[Path], limit: int, only: Path | None) -> Pictures:
    """`only`: the folder whose pictures are meant, when the labels above it may be of more."""
    coco = _read(file)
    pictures = sorted(coco.images, key=lambda picture: (isinstance(picture.id, str), picture.id))
    if only is not None:
        here = [p for p in pictures if (only / p.file_name).is_file() or (only / Path(p.file_name).name).is_file()]
        pictures = here or pictures
    pictures = [pictures[i] for i in spread(len(pictures), limit)]
    if not pictures:
        raise UsageError(f"{file}: no picture in it (images is empty); there is nothing to measure")
    known = {picture.id for picture in coco.images}
    found = [(picture, _find(picture.file_name, places)) for picture in pictures]
    missing = [picture.file_name for picture, path in found if path is None]
    if len(missing) == len(found):
        raise UsageError(f"{file}: none of its {len(found)} pictures is there, e.g. {missing[0]}; put them beside it")
    paths = [path for _, path in found if path is not None]
    kept = [picture for picture, path in found if path is not None]
    names = {category.id: category.name for category in coco.categories}
    lost = [b for b in coco.annotations if b.image_id not in known or b.category_id not in names]
    notes = []
    if missing:
        notes.append(f"{len(missing)} of {len(found)} pictures are missing and left out: {_few(missing)}")
    if lost:
        notes.append(
            f"{len(lost)} boxes are left out, their image_id or category_id stands in no list (first: "
            f"image {lost[0].image_id}, category {lost[0].category_id})"
        )
    number = {picture.id: i for i, picture in enumerate(kept)}
    boxes = [box for box in coco.annotations if box.image_id in number and box.category_id in names]
    sizes = [(picture.width, picture.height) for picture in kept]
    outside = [box for box in boxes if _odd(box.bbox, sizes[number[box.image_id]])]
    if outside:
        first = kept[number[outside[0].image_id]].file_name
        notes.append(
            f"{len(outside)} boxes have no area or reach outside their picture (first: in {first}); they count as given"
        )
    truth = Truth(
        np.array([number[box.image_id] for box in boxes], np.int64),
        np.array([box.category_id for box in boxes], np.int64),
        np.array([box.bbox for box in boxes], np.float64).reshape(-1, 4),
        np.array([box.bbox[2] * box.bbox[3] if box.area is None else box.area for box in boxes], np.float64),
        np.array([bool(box.iscrowd) for box in boxes], bool),
    )
    return Pictures(paths, truth, names, sizes, missing, notes)


def _read(file: Path) -> _Coco:
    """UsageError names the place in the file."""
    try:
        return msgspec.json.decode(read_regular(file, MOST_BYTES), type=_Coco)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from None
    except msgspec.ValidationError as error:
        raise UsageError(f"{file}: no COCO JSON of boxes: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: broken JSON: {error}") from None


def _find(name: str, places: list[Path]) -> Path | None:
    tries = [place / part for part in dict.fromkeys((name, Path(name).name)) for place in places]
    return next((path for path in tries if path.is_file()), None)


def _odd(box: tuple[float, float, float, float], size: tuple[int, int]) -> bool:
    """Whether a box has no area, or reaches more than a pixel outside its picture (labels are rounded)."""
    x, y, w, h = box
    outside = size[0] and size[1] and (x < -1 or y < -1 or x + w > size[0] + 1 or y + h > size[1] + 1)
    return bool(w <= 0 or h <= 0 or outside)


def spread(count: int, limit: int) -> list[int]:
    """Indices of at most `limit` (0: all) of `count`, spread evenly, the first and the last among them."""
    if not limit or limit >= count:
        return list(range(count))
    return sorted({int(i) for i in np.linspace(0, count - 1, limit).round()})


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def match_classes(theirs: Mapping[int, str], ours: Mapping[int, str]) -> dict[int, int]:
    """Class id of a model -> id of the truth, by name ("motorbike" is COCO's "motorcycle").

    By id when the model's labels are only numbers and its ids are all among the truth's. UsageError when they share
    none.
    """
    wanted = {_plain(name): key for key, name in reversed(list(theirs.items()))}
    same = {key: wanted[_plain(name)] for key, name in ours.items() if _plain(name) in wanted}
    if not same and all(NAMELESS.fullmatch(name) for name in ours.values()) and set(ours) <= set(theirs):
        same = {key: key for key in ours}
    if not same:
        raise UsageError(
            f"no class in common: the truth has {_few(list(theirs.values())) or 'none'}, "
            f"the model {_few(list(ours.values()))}; give data of the model's classes"
        )
    return same


def _plain(name: str) -> str:
    folded = " ".join(name.casefold().replace("_", " ").split())
    return ALIASES.get(folded, folded)
