"""Pictures with boxes that people drew: a COCO JSON file and the picture files that it names, or a bare folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.errors import InputError, UsageError
from edge_agent.figures.coco_map import Truth
from edge_agent.samples import coco
from edge_agent.sources.listing import PICTURES
from edge_agent.workshop.data import formats
from edge_agent.workshop.data.texts import spread

GIVE = "give a COCO JSON, a YOLO folder with data.yaml, Pascal VOC's .xml, a .csv of boxes, or a folder of pictures"

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


def read_pictures(
    data: Path, limit: int = 0, first: Sequence[str] = ("val", "test", "train"), within: Path | None = None
) -> Pictures:
    """Pictures with their labels, in any of the forms of data/formats.py, or a folder of pictures alone.

    `limit`: so many pictures at most, spread evenly; `first`: which part of the data is wanted the most; `within`:
    where the pictures are, if not beside the labels. UsageError, one line, for a file of no such form, for labels
    of which no picture is there, for labels without a picture, and for a folder without either.
    """
    if not data.exists():
        raise UsageError(f"{data}: no such file or folder; {GIVE}")
    try:
        known = formats.find(data)
        if known is not None:
            return _labelled(*known, limit, within or data, first)
    except InputError as error:
        raise UsageError(f"{known[1] if known else data}: {error}") from None
    if data.is_dir():
        return _bare(data, limit)
    what = "one picture" if data.suffix.lower() in PICTURES else "no labels of a form that is known"
    raise UsageError(f"{data}: {what}; {GIVE}")


def _bare(folder: Path, limit: int) -> Pictures:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES and path.is_file())
    if not paths:
        raise UsageError(f"{folder}: neither labels nor a picture in it; {GIVE}")
    return Pictures([paths[i] for i in spread(len(paths), limit)], None)


def places(file: Path) -> list[Path]:
    """Where the pictures of a labels file may lie: beside it, in a folder beside it, or beside its own folder."""
    folder = file.absolute().parent
    above = [folder.parent] if folder.name == "annotations" else []
    return [place for base in (folder, *above) for place in (base, *sorted(p for p in base.iterdir() if p.is_dir()))]


def _labelled(form: formats.Format, file: Path, limit: int, data: Path, first: Sequence[str]) -> Pictures:
    """Of labels that stand above the folder `data`, which may be of more, the pictures in it."""
    labels, mended = form.read(file, first)
    images = _chosen(labels.images, limit, data if file.parent == data.absolute().parent else None)
    if not images:
        raise UsageError(f"{file}: no picture in it (images is empty); there is nothing to measure")
    kept, missing = located(images, [data, *places(file)])
    if not kept:
        raise UsageError(f"{file}: none of its {len(images)} pictures is there, e.g. {missing[0]}; put them beside it")
    lost = f"{len(missing)} of {len(images)} pictures are missing and left out: {few(missing)}"
    number = {image.id: place for place, (image, _) in enumerate(kept)}
    boxes = labels.boxes(number)
    notes = [*([lost] if missing else []), *mended, *_doubts(labels, boxes, {image.id: image for image, _ in kept})]
    sizes = [(image.width, image.height) for image, _ in kept]
    return Pictures([path for _, path in kept], coco.truth(boxes, number), labels.names(), sizes, missing, notes)


def located(images: list[coco.CocoImage], within: list[Path]) -> tuple[list[tuple[coco.CocoImage, Path]], list[str]]:
    """The pictures that are there, with their files, and the names of the others."""
    found = [(image, _find(image.file_name, within)) for image in images]
    kept = [(image, path) for image, path in found if path is not None]
    return kept, [image.file_name for image, path in found if path is None]


def _chosen(images: list[coco.CocoImage], limit: int, only: Path | None) -> list[coco.CocoImage]:
    """The pictures to look at, in the order of their ids; those of the folder `only`, if any of it are named."""
    ordered = sorted(images, key=lambda image: (isinstance(image.id, str), image.id))
    if only is not None and only.is_dir():
        ordered = [image for image in ordered if _find(image.file_name, [only])] or ordered
    return [ordered[i] for i in spread(len(ordered), limit)]


def _doubts(labels: coco.Coco, boxes: list[coco.CocoBox], images: Mapping[coco.Id, coco.CocoImage]) -> list[str]:
    """Notes on boxes of a picture or class that the file does not list, and on those that cannot be what they say."""
    known, names, notes = {image.id for image in labels.images}, labels.names(), []
    lost = [box for box in labels.annotations if box.image_id not in known or box.category_id not in names]
    if lost:
        first = f"image {lost[0].image_id}, category {lost[0].category_id}"
        what = "boxes are left out, their image_id or category_id stands in no list"
        notes.append(f"{len(lost)} {what} (first: {first})")
    odd = [images[box.image_id].file_name for box in boxes if _is_odd(box.bbox, images[box.image_id])]
    if odd:
        what = "boxes have no area or reach outside their picture"
        notes.append(f"{len(odd)} {what} (first: in {odd[0]}); measuring counts them as given")
    return notes


def _find(name: str, places: list[Path]) -> Path | None:
    tries = [place / part for part in dict.fromkeys((name, Path(name).name)) for place in places]
    return next((path for path in tries if path.is_file()), None)


def _is_odd(box: tuple[float, float, float, float], image: coco.CocoImage) -> bool:
    """Whether a box has no area, or reaches more than a pixel outside its picture (labels are rounded)."""
    x, y, w, h = box
    sized = image.width and image.height
    outside = sized and (min(x, y) < -1 or x + w > image.width + 1 or y + h > image.height + 1)
    return bool(min(w, h) <= 0 or outside)


def few(names: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def match_classes(theirs: Mapping[int, str], ours: Mapping[int, str]) -> dict[int, int]:
    """Class id of a model -> id of the truth, by name ("motorbike" is COCO's "motorcycle").

    By id when the model's labels are only numbers and its ids are all among the truth's. UsageError when they share
    none.
    """
    same = _same_names(theirs, ours)
    if not same and all(NAMELESS.fullmatch(name) for name in ours.values()) and set(ours) <= set(theirs):
        same = {key: key for key in ours}
    if not same:
        raise UsageError(
            f"no class in common: the truth has {few(list(theirs.values())) or 'none'}, "
            f"the model {few(list(ours.values()))}; give data of the model's classes"
        )
    return same


def _same_names(theirs: Mapping[int, str], ours: Mapping[int, str]) -> dict[int, int]:
    """Id of ours -> id of theirs, of the same name; of theirs with one name the first."""
    wanted = {_plain(name): key for key, name in reversed(list(theirs.items()))}
    return {key: wanted[_plain(name)] for key, name in ours.items() if _plain(name) in wanted}


def _plain(name: str) -> str:
    folded = " ".join(name.casefold().replace("_", " ").split())
    return ALIASES.get(folded, folded)
