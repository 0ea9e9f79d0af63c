"""Frames that the agent kept for a person to look through: HOME/samples/collected, beside each what was found in it.

Nothing of them counts as true until a person has corrected it: then it stands in HOME/samples, and its boxes in
instances.json there (recorded.py), by which models are gated and evaluated.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from edge_agent import files, paths
from edge_agent.errors import InputError, UsageError
from edge_agent.events import UNREADABLE
from edge_agent.samples import checks, coco, recorded

NAME = re.compile(r"[0-9a-f]{8}-[0-9]{1,12}\.(jpg|txt)")
"""of a picture, or a text, here"""
MOST_ABOUT = 1_000_000
"""bytes of what is known of one"""

Why = Literal["uncertain", "rare", "disagreed"]


class Box(msgspec.Struct, frozen=True):
    """What the detector found."""

    label: str
    class_id: int
    score: float
    box: tuple[float, float, float, float]
    """left, top, right, bottom in pixels of the picture"""


class About(msgspec.Struct, frozen=True):
    """What is known of a picture, or of a text."""

    at: str
    """RFC 3339"""
    pipeline: str
    why: Why
    note: str
    """why, in words"""
    model: str
    width: int
    height: int
    boxes: list[Box]
    label: str = ""
    """of a text: what it was told to be"""
    scores: dict[str, float] = {}
    """of a text: label -> probability"""
    consent: str = ""
    """by whose leave it was kept, as the config said then"""


class Collected(NamedTuple):
    """A picture or a text, and what is known of it."""

    path: Path
    about: About


def folder() -> Path:
    """Where they are."""
    return paths.home() / "samples" / "collected"


def collected() -> list[Collected]:
    """All of them, the oldest first; what cannot be read is passed over."""
    found: list[tuple[float, Collected]] = []
    here = folder()
    for path in here.iterdir() if here.is_dir() else ():
        if NAME.fullmatch(path.name):
            with contextlib.suppress(OSError, *UNREADABLE):
                raw = files.read_regular(path.with_suffix(".json"), MOST_ABOUT)
                found.append((path.stat().st_mtime, Collected(path, msgspec.json.decode(raw, type=About))))
    return [one for _, one in sorted(found, key=lambda row: (row[0], row[1].path.name))]


def keep(name: str, picture: bytes, about: About, most: int, days: float) -> None:
    """Keep a picture or a text under a new name; of more than `most`, and older than `days`, the oldest go. OSError."""
    here = files.folder(folder(), files.PRIVATE)
    delete_old(most - 1, days)
    try:
        files.write_private(here / name, picture)
        files.write_private((here / name).with_suffix(".json"), msgspec.json.encode(about))
    except OSError:
        delete([name])
        raise


def delete_old(most: int, days: float) -> None:
    """Leave the newest `most` that are no older than `days`. A time to come is as good as now. OSError."""
    now, here = time.time(), folder()
    found = files.stats(path for path in here.glob("*-*.*") if NAME.fullmatch(path.name))
    old = [path.name for stat, path in found if now - stat.st_mtime > days * 86400]
    delete({*old, *(path.name for _, path in found[: max(0, len(found) - most)])})


def delete(names: Iterable[str]) -> int:
    """Delete those of these names; how many there were."""
    gone = 0
    for name in names:
        path = folder() / name
        if NAME.fullmatch(name):
            with contextlib.suppress(OSError):
                path.with_suffix(".json").unlink(missing_ok=True)
                path.unlink()
                gone += 1
    return gone


def export(to: Path) -> tuple[int, int]:
    """Write all of them into a new folder, to be corrected: images/, and what was found in them as instances.json
    (COCO); texts with their labels as texts.jsonl. How many pictures and texts. UsageError where it cannot be written.
    """
    found = [one for one in collected() if one.path.suffix == ".jpg"]
    texts = [one for one in collected() if one.path.suffix == ".txt"]
    try:
        to.mkdir(mode=files.PRIVATE, parents=True)
        (to / "images").mkdir(mode=files.PRIVATE)
        for one in found:
            shutil.copyfile(one.path, to / "images" / one.path.name)
        files.write_private(to / "instances.json", msgspec.json.format(msgspec.json.encode(_coco(found)), indent=1))
        if texts:
            files.write_private(to / "texts.jsonl", b"".join(map(_text_line, texts)))
    except FileExistsError:
        raise UsageError(f"{to}: is there already; name a new folder") from None
    except OSError as error:
        raise UsageError(f"{to}: cannot be written ({error.strerror}); name another folder") from None
    return len(found), len(texts)


def _text_line(one: Collected) -> bytes:
    """A text as a line of JSON."""
    about, text = one.about, files.read_regular(one.path, MOST_ABOUT).decode("utf-8", "replace")
    said = {"text": text, "label": about.label, "scores": about.scores, "why": about.note, "model": about.model}
    return msgspec.json.encode({**said, "pipeline": about.pipeline, "at": about.at, "consent": about.consent}) + b"\n"


def _coco(found: Sequence[Collected]) -> dict[str, object]:
    """Pictures and boxes as COCO has them. A class keeps its id where no other has it."""
    ids: dict[str, int] = {}
    for one in found:
        for box in one.about.boxes:
            if box.label not in ids:
                ids[box.label] = _free(box.class_id, ids)
    images, annotations = [], list[dict[str, object]]()
    for number, one in enumerate(found, 1):
        about = one.about
        row = {"id": number, "file_name": one.path.name, "width": about.width, "height": about.height}
        images.append({**row, "pipeline": about.pipeline, "date_captured": about.at, "why": about.note})
        for box in about.boxes:
            left, top, right, bottom = box.box
            sides = [round(value, 2) for value in (left, top, right - left, bottom - top)]
            of = {"id": len(annotations) + 1, "image_id": number, "category_id": ids[box.label], "iscrowd": 0}
            annotations.append({**of, "bbox": sides, "area": round(sides[2] * sides[3], 2), "score": box.score})
    categories = [{"id": key, "name": label} for label, key in sorted(ids.items(), key=lambda row: row[1])]
    info = {"consent": sorted({one.about.consent for one in found} - {""})}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}


def take(file: Path) -> tuple[int, int]:
    """Take boxes that a person has corrected, a COCO JSON file of collected pictures: these go to HOME/samples, their
    boxes into its instances.json; how many pictures and boxes. UsageError, one line, and nothing has changed.
    """
    here = {one.path.name: one.path for one in collected() if one.path.suffix == ".jpg"}
    try:
        theirs = coco.read(file)
        ours = coco.read(recorded.place(), recorded.MOST_LABELS) if recorded.labels() else coco.Coco([], [], [])
    except InputError as error:
        raise UsageError(f"{file}: {error}; give a COCO file, as `samples export` writes it") from None
    rows = [row for row in theirs.images if Path(row.file_name).name in here]
    if not rows:
        raise UsageError(f"{file}: names none of the collected pictures; `samples list` shows them")
    kept = _merged(ours, theirs, rows)
    _check(theirs, rows)
    try:
        files.folder(recorded.place().parent, files.PRIVATE)
        files.write(recorded.place(), msgspec.json.encode(kept).decode())
        for row in rows:
            path = here[Path(row.file_name).name]
            path.rename(recorded.place().with_name(path.name))
            path.with_suffix(".json").unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{recorded.place()}: cannot be written ({error.strerror})") from None
    return len(rows), len(kept.annotations) - len(ours.annotations)


def _check(theirs: coco.Coco, rows: Sequence[coco.CocoImage]) -> None:
    """Note how far what was found in these pictures is what a person made of it."""
    about, names = {one.path.name: one.about for one in collected()}, theirs.names()
    for row in rows:
        one = about[Path(row.file_name).name]
        boxes = [box for box in theirs.annotations if box.image_id == row.id]
        right = [(names[box.category_id], (x, y, x + w, y + h)) for box in boxes for x, y, w, h in [box.bbox]]
        checks.note(one.model.partition(" ")[0], time.time(), [(box.label, box.box) for box in one.boxes], right)


def _merged(ours: coco.Coco, theirs: coco.Coco, rows: Sequence[coco.CocoImage]) -> coco.Coco:
    """Ours, and of theirs the pictures `rows` with their boxes: under ids that are free, classes by their names."""
    ids = {category.name: category.id for category in ours.categories}
    for category in theirs.categories:
        if category.name not in ids:
            ids[category.name] = _free(category.id, ids)
    used = [row.id for row in ours.images if isinstance(row.id, int)]
    number = {row.id: at for at, row in enumerate(rows, max(used, default=0) + 1)}
    images = [coco.CocoImage(number[row.id], Path(row.file_name).name, row.width, row.height) for row in rows]
    boxes = [
        msgspec.structs.replace(
            box, image_id=number[box.image_id], category_id=ids[theirs.names()[box.category_id]], area=None
        )
        for box in theirs.boxes(number)
    ]
    categories = [coco.CocoCategory(key, name) for name, key in ids.items()]
    return coco.Coco([*ours.images, *images], [*ours.annotations, *boxes], categories)


def _free(wanted: int, ids: dict[str, int]) -> int:
    """The id that a class gets: the one that is wanted, else the next that is free."""
    return wanted if wanted not in ids.values() else max(ids.values()) + 1
